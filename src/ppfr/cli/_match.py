"""`ppfr match`: enrol, verify and identify, by three parties that cannot read what they compare, or in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppfr.cli._app import EXIT_FAILED, Device, Json, Weights, app, emit, help_if_alone
from ppfr.cli._completion import offering, public_networks
from ppfr.cli._photos import Largest

match_app = typer.Typer(help="Secure matching: enrol, verify and identify without showing anybody a face or a score.")
match_app.callback(invoke_without_command=True)(help_if_alone)
app.add_typer(match_app, name="match")

Source = Annotated[
    Path,
    typer.Argument(help="A photo, a folder of photos (sub-folders name subjects), or a .npy of embeddings (N, D)."),
]
Parties = Annotated[Path, typer.Option(help="The client's configuration, as `ppfr party trial` writes one.")]
MaybeParties = Annotated[
    Path | None,
    typer.Option(help="The client's configuration: ask three parties.", show_default=False),
]
LocalGallery = Annotated[
    Path | None,
    typer.Option("--gallery", help="References for --backend, as SOURCE; instead of --parties.", show_default=False),
]
Backend = Annotated[
    str,
    typer.Option(
        help="With --gallery: three-party (the secure engine, in this process) or exact (plain cosine).",
        autocompletion=offering(lambda: ("three-party", "exact")),
    ),
]
Threshold = Annotated[float, typer.Option(help="Cosine from which a comparison is accepted, -1..1.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="Recogniser of photos: a public network's name, or the directory of a trained system.",
        autocompletion=offering(public_networks),
        show_default=False,
    ),
]
Secret = Annotated[
    Path | None, typer.Option(help="The system's secret. Default: MODEL/secret.key.", show_default=False)
]


@match_app.command()
def enrol(
    source: Source,
    parties: Parties,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Whose they are, a pseudonym. Default: a photo's sub-folder or name, a row's number.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Split references among three parties; when it returns they are on disk at all three.

    ppfr match enrol photos/ --parties client.toml --model mobilefacenet-y1 --weights DIR
    """
    from ppfr.workflows import match_enrol

    faces = _faces(model, secret, largest, weights, device)
    emit(match_enrol(source, parties=parties, subject=subject, faces=faces), as_json=json, title="enrolled")


@match_app.command()
def verify(
    source: Source,
    subject: Annotated[str, typer.Option(help="Who it is said to be.")],
    threshold: Threshold,
    parties: MaybeParties = None,
    gallery: LocalGallery = None,
    backend: Backend = "three-party",
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Decide whether probes are of the subject that they claim to be (1:1).

    ppfr match verify photo.jpg --subject ana --threshold 0.4 --parties client.toml --model mobilefacenet-y1
    """
    from ppfr.workflows import match_verify

    result = match_verify(
        source,
        subject,
        threshold=threshold,
        parties=parties,
        gallery=gallery,
        backend=backend,
        faces=_faces(model, secret, largest, weights, device),
    )
    emit(result, as_json=json, title="verified")


@match_app.command()
def identify(
    source: Source,
    threshold: Threshold,
    answer: Annotated[
        str,
        typer.Option(
            help="best (whose reference scores highest), set (all that are accepted) or any (whether there is one).",
            autocompletion=offering(lambda: ("best", "set", "any")),
        ),
    ] = "best",
    parties: MaybeParties = None,
    gallery: LocalGallery = None,
    backend: Backend = "three-party",
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Look for probes among all references (1:N); nobody else learns who was found.

    ppfr match identify photo.jpg --threshold 0.4 --parties client.toml --model mobilefacenet-y1 --weights DIR
    """
    from ppfr.workflows import match_identify

    result = match_identify(
        source,
        answer=answer,
        threshold=threshold,
        parties=parties,
        gallery=gallery,
        backend=backend,
        faces=_faces(model, secret, largest, weights, device),
    )
    emit(result, as_json=json, title="identified")


@match_app.command()
def remove(
    subject: Annotated[list[str], typer.Option(help="Whose references are erased; again for each subject.")],
    parties: Parties,
    json: Json = False,
) -> None:
    """Erase all references of subjects at all three parties.

    ppfr match remove --subject ana --parties client.toml
    """
    from ppfr.workflows import match_remove

    emit(match_remove(subject, parties=parties), as_json=json, title="removed")


@match_app.command()
def status(parties: Parties, json: Json = False) -> None:
    """Show for each party whether it is ready, its references, and this client's permissions and query budget.

    ppfr match status --parties client.toml
    """
    from ppfr.workflows import match_status

    result = match_status(parties)
    shown = result if json else result | {"parties": [_in_words(status) for status in result["parties"]]}
    emit(shown, as_json=json, title="parties")
    if not result["all_up"]:
        raise typer.Exit(EXIT_FAILED)


def _in_words(status: dict[str, Any]) -> dict[str, Any]:
    """The status of a party with words in place of empty values."""
    words = status | {"problem": status.get("problem") or "none"}
    return words | ({"bits_left": "no limit"} if status.get("bits_left", 0) is None else {})


def _faces(model: str | None, secret: Path | None, largest: bool, weights: Path | None, device: str) -> Any:
    from ppfr.workflows import FaceReader

    return FaceReader(model=model, secret_path=secret, weights=weights, takes_largest=largest, device=device)
