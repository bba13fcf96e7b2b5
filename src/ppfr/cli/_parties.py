"""`ppfr party`: the three servers of secure matching, and the files that they need."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Json, app, emit, help_if_alone, note
from ppfr.cli._completion import offering

party_app = typer.Typer(help="Secure matching's servers: three parties, each a process on a host of its own.")
party_app.callback(invoke_without_command=True)(help_if_alone)
app.add_typer(party_app, name="party")

Config = Annotated[Path, typer.Option(help="The party's configuration, as `ppfr party trial` writes one.")]
Directory = Annotated[Path, typer.Option(help="Directory for the files.")]


@party_app.command()
def trial(
    out: Directory,
    dim: Annotated[int, typer.Option(help="Length of the embeddings, such as 512, or 128 for mobilefacenet-y1.")],
    values: Annotated[
        str,
        typer.Option(
            help="int16 (decisions as in float), or int8 (half the memory and traffic, coarser scores).",
            autocompletion=offering(lambda: ("int16", "int8")),
        ),
    ] = "int16",
    address: Annotated[
        list[str] | None,
        typer.Option(
            help='"HOST:PORT" of parties 0, 1 and 2, in this order. Default: ports 7300 to 7302 of this machine.',
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[str, typer.Option(help="A name that all three parties have for the gallery.")] = "trial",
    client: Annotated[str, typer.Option(help="Name of the client, which may enrol and ask.")] = "client",
    timeout: Annotated[float, typer.Option(help="Seconds that a party waits for another.")] = 30.0,
    json: Json = False,
) -> None:
    """Write all files of three parties and a client: certificates, configurations, empty stores.

    ppfr party trial --out trial/ --dim 128

    Then `ppfr party serve --config trial/party-0.toml` and so on, one process each. For three machines give their
    addresses and take to each its own files: party-N.toml, party-N.crt, party-N.key, party-N.shares, ca.crt.
    """
    from ppfr.service import write_trial

    addresses = address or [f"127.0.0.1:{port}" for port in (7300, 7301, 7302)]
    chosen = "int8" if values == "int8" else values
    written = write_trial(
        out,
        dim=dim,
        values=chosen,  # type: ignore[arg-type]  # checked there
        addresses=addresses,
        gallery=gallery,
        client=client,
        timeout_s=timeout,
    )
    note("ca.key makes certificates of any name: keep it away from the parties' hosts")
    emit({"directory": str(out), "files": [str(path) for path in written]}, as_json=json, title="three parties")


@party_app.command()
def certify(
    out: Directory,
    client: Annotated[
        list[str] | None,
        typer.Option(help="Name of a client; again for each.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(help="How long certificates are good for.")] = 825,
    json: Json = False,
) -> None:
    """Make an authority, and keys and certificates of the three parties and of clients; what is there is kept.

    ppfr party certify --out certificates/ --client front-desk --client registry

    The authority's key (ca.key) makes certificates of any name: keep it apart from the parties' hosts.
    """
    from ppfr.service import make_certificates

    told = make_certificates(out, clients=client or [], days=days)
    emit({name: [str(path) for path in paths] for name, paths in told.items()}, as_json=json, title="certificates")


@party_app.command()
def init(config: Config, json: Json = False) -> None:
    """Create the empty share store that a party's configuration names.

    ppfr party init --config party-0.toml
    """
    from ppfr.service import PartySettings, create_store

    settings = PartySettings.read(config)
    create_store(settings).close()
    emit({"party": settings.party, "store": str(settings.store)}, as_json=json, title="an empty store")


@party_app.command()
def serve(
    config: Config,
    json: Json = False,
) -> None:
    """Run one party until it is told to end (SIGTERM, or Ctrl-C): one share store, one listener.

    ppfr party serve --config party-0.toml

    Logs go to stderr: peers by name, numbers, kinds and times of queries, errors; never a share, subject or answer.
    """
    from ppfr.service import PartyServer, PartySettings

    settings = PartySettings.read(config)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("ppfr.party")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    with PartyServer(settings) as server:
        server.start()
        is_over.wait()
    emit({"party": settings.party, "ended": "as it was told"}, as_json=json)
