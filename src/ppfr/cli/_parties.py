"""`ppfr party`: the three servers of secure matching and their files."""

from __future__ import annotations

import logging
import queue
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Json, app, emit, help_if_alone, note
from ppfr.cli._completion import offering
from ppfr.core import InvalidInputError

party_app = typer.Typer(help="Servers of secure matching: three parties, each a process on its own host.")
party_app.callback(invoke_without_command=True)(help_if_alone)
app.add_typer(party_app, name="party")

Config = Annotated[Path, typer.Option(help="Configuration file of the party, as written by `ppfr party trial`.")]
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
    gallery: Annotated[str, typer.Option(help="Name of the gallery, equal at all three parties.")] = "trial",
    client: Annotated[str, typer.Option(help="Name of the client, which may enrol and query.")] = "client",
    timeout: Annotated[float, typer.Option(help="Time limit for another party, in seconds.")] = 30.0,
    json: Json = False,
) -> None:
    """Write all files of three parties and a client: certificates, configurations, empty stores.

    ppfr party trial --out trial/ --dim 128

    Then run `ppfr party serve --config trial/party-0.toml`, and the same for parties 1 and 2, in one process each. For
    three hosts, give their addresses and copy to each its own files: party-N.toml, party-N.crt, party-N.key,
    party-N.shares, ca.crt.
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
    note("ca.key can certify any name. Keep it away from the hosts of the parties.")
    emit({"directory": str(out), "files": [str(path) for path in written]}, as_json=json, title="three parties")


@party_app.command()
def certify(
    out: Directory,
    client: Annotated[
        list[str] | None,
        typer.Option(help="Name of a client; repeat for several.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(help="Validity of new certificates, in days.")] = 825,
    json: Json = False,
) -> None:
    """Create an authority, and keys and certificates of the parties and clients; existing files are kept.

    ppfr party certify --out certificates/ --client front-desk --client registry

    The key of the authority (ca.key) can certify any name. Keep it away from the hosts of the parties.
    """
    from ppfr.service import make_certificates

    files = make_certificates(out, clients=client or [], days=days)
    emit({name: [str(path) for path in paths] for name, paths in files.items()}, as_json=json, title="certificates")


@party_app.command()
def thresholds(
    out: Directory,
    name: Annotated[str, typer.Option(help="Name of the threshold, which queries give instead of a number.")],
    threshold: Annotated[float, typer.Option(help="Cosine similarity from which a comparison is accepted, in -1..1.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration of any of the parties, for --dim and --values.", show_default=False),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Length of the embeddings, without --config.", show_default=False)
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            help="int16 or int8, without --config. Default: int16.",
            autocompletion=offering(lambda: ("int16", "int8")),
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Share a hidden threshold among three parties: one file for each.

    ppfr party thresholds --out thresholds/ --name door --threshold 0.4 --dim 512

    Run it on a machine of a person whom all three operators trust, and hand each operator the file of their party over
    a secure channel. Whoever runs the command knows the threshold, and so do two operators together.
    """
    from ppfr.secure import FixedPoint
    from ppfr.service import PartySettings, write_threshold_files

    if (config is None) == (dim is None) or (config is not None and values is not None):
        raise InvalidInputError("Give either --config (of any of the parties), or --dim and, for int8, --values.")
    if config is not None:
        point = PartySettings.read(config).parameters.fixed_point
    else:
        point = FixedPoint(dim=dim or 0, values=values or "int16")  # type: ignore[arg-type]  # checked there
    written = write_threshold_files(out, name=name, threshold=threshold, fixed_point=point)
    note("Two of the files together reveal the threshold. Delete them here once the operators have theirs.")
    emit({"name": name, "files": [str(path) for path in written]}, as_json=json, title="hidden threshold")


@party_app.command()
def fingerprint(
    certificate: Annotated[Path, typer.Argument(help="Certificate in PEM, such as front-desk.crt.")],
    json: Json = False,
) -> None:
    """Print the SHA-256 fingerprint of a certificate, as `revoked` in a configuration and the logs of parties name it.

    ppfr party fingerprint certificates/front-desk.crt
    """
    from ppfr.service import fingerprint_of_file

    emit({"sha256": fingerprint_of_file(certificate)}, as_json=json, title=str(certificate))


@party_app.command()
def init(config: Config, json: Json = False) -> None:
    """Create the empty share store that the configuration of a party names.

    ppfr party init --config party-0.toml
    """
    from ppfr.service import PartySettings, create_store

    settings = PartySettings.read(config)
    create_store(settings).close()
    emit({"party": settings.party, "store": str(settings.store)}, as_json=json, title="created an empty store")


@party_app.command()
def serve(
    config: Config,
    json: Json = False,
) -> None:
    """Run the server of one party until SIGTERM or Ctrl-C. SIGHUP reads clients and revoked certificates again.

    ppfr party serve --config party-0.toml

    Logs go to stderr: names and addresses of peers; sequence numbers, kinds and durations of requests; errors. They
    contain no share, subject or answer.
    """
    from ppfr.service import PartyServer, PartySettings

    settings = PartySettings.read(config)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("ppfr.party")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    received: queue.SimpleQueue[int] = queue.SimpleQueue()  # its `put` may be called in a signal handler
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.put(number))
    with PartyServer(settings) as server:
        server.start()
        while received.get() == signal.SIGHUP:
            server.reload(config)
    emit({"party": settings.party, "ended": "stopped by a signal"}, as_json=json)


@party_app.command()
def export(
    config: Config,
    out: Annotated[Path, typer.Option(help="New file.")],
    recipient: Annotated[
        int | None,
        typer.Option(
            "--for",
            help="A party whose store is lost: export the component that it lacks. Default: an inventory, no shares.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write what another party needs to rebuild or repair its store. Stop the server first.

    ppfr party export --config party-1.toml --for 0 --out from-1-for-0

    An export for a party is half of this party's store: send it over an encrypted channel to that party only, and
    delete it afterwards. An inventory lists ids, subjects and changes.
    """
    from ppfr.service import PartySettings, open_store

    settings = PartySettings.read(config)
    with open_store(settings) as store:
        exported = store.exported(recipient=recipient)
        exported.write(out)
    if recipient is not None:
        note(f"{out} is half of this store. Send it encrypted, to party {recipient} only, then delete it.")
    content = {"party": settings.party, "references": len(exported.subjects), "epoch": exported.header.epoch}
    emit(content | {"file": str(out)}, as_json=json, title="exported")


@party_app.command()
def rebuild(
    config: Config,
    source: Annotated[
        list[Path], typer.Option("--from", help="File of `ppfr party export --for`; give those of both other parties.")
    ],
    json: Json = False,
) -> None:
    """Create the store of a party that lost it, from the exports of the two others.

    ppfr party rebuild --config party-0.toml --from from-1-for-0 --from from-2-for-0
    """
    from ppfr.secure import StoreExport, rebuild_store
    from ppfr.service import PartySettings

    settings = PartySettings.read(config)
    exports = [StoreExport.read(path) for path in source]
    with rebuild_store(
        settings.store,
        party=settings.party,
        fixed_point=settings.parameters.fixed_point,
        gallery_id=settings.parameters.gallery_id,
        exports=exports,
    ) as store:
        content = {"party": settings.party, "references": len(store), "epoch": store.epoch}
    note("Delete the exports here and at the other parties.")
    emit(content | {"store": str(settings.store)}, as_json=json, title="rebuilt")


@party_app.command()
def repair(
    config: Config,
    inventory: Annotated[
        list[Path], typer.Option(help="File of `ppfr party export` without --for; give those of both other parties.")
    ],
    lost: Annotated[
        int | None,
        typer.Option(
            help="A party whose store is lost and will be rebuilt; give the inventory of the remaining party only.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the numbers and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Keep only the references that all parties list alike, and erase the others. Stop the server first.

    ppfr party repair --config party-0.toml --inventory inventory-1 --inventory inventory-2 --dry-run

    Run it at each party, with inventories that all were written before the first repair or after the repair of their
    party.
    """
    from ppfr.secure import StoreExport, repair_store
    from ppfr.service import PartySettings, open_store

    settings = PartySettings.read(config)
    inventories = [StoreExport.read(path) for path in inventory]
    with open_store(settings) as store:
        found = repair_store(store, inventories, lost=lost, is_dry_run=dry_run)
    content = {
        "party": settings.party,
        "references_kept": found.num_kept,
        "references_erased": found.num_erased,
        "changes_committed": found.num_committed,
        "changes_aborted": found.num_aborted,
    }
    emit(content, as_json=json, title="would change" if dry_run else "repaired")
