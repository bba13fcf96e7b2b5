"""`ppfr match`: enrolment, verification and identification by three parties or in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppfr.cli._app import EXIT_FAILED, Device, Json, Weights, app, emit, help_if_alone
from ppfr.cli._completion import offering, public_networks
from ppfr.cli._photos import Largest
from ppfr.cli._quality import MaxPitch, MaxYaw, MinConfidence, MinInterEye, MinSharpness, given, in_words

match_app = typer.Typer(
    help="Secure matching: enrol, verify and identify at three parties that see no embeddings or scores."
)
match_app.callback(invoke_without_command=True)(help_if_alone)
app.add_typer(match_app, name="match")

Source = Annotated[
    Path,
    typer.Argument(
        help="A photo, a folder of photos (sub-folders name subjects), or a .npy file of embeddings (N, D)."
    ),
]
Parties = Annotated[Path, typer.Option(help="Configuration file of the client, as written by `ppfr party trial`.")]
MaybeParties = Annotated[
    Path | None,
    typer.Option(help="Configuration file of the client: match at three parties.", show_default=False),
]
LocalGallery = Annotated[
    Path | None,
    typer.Option(
        "--gallery", help="References for --backend, same values as SOURCE; instead of --parties.", show_default=False
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="With --gallery: three-party (the secure engine in this process) or exact (cosine, unprotected).",
        autocompletion=offering(lambda: ("three-party", "exact")),
    ),
]
Threshold = Annotated[
    str,
    typer.Option(
        help="Cosine similarity from which a comparison is accepted, in -1..1. With --parties also the name of a "
        "hidden threshold.",
        metavar="NUMBER|NAME",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Recogniser for photos: name of a public network, or directory of a trained system.",
        autocompletion=offering(public_networks),
        show_default=False,
    ),
]
Secret = Annotated[
    Path | None, typer.Option(help="File of the system's secret. Default: MODEL/secret.key.", show_default=False)
]


SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out photos of SOURCE that cannot be read, show no single face or fail a limit of quality, and list "
        "them in the result; otherwise they are an error.",
    ),
]
AnyQuality = Annotated[
    bool, typer.Option("--any-quality", help="Enrol photos of any quality. The figures are still measured.")
]


@match_app.command()
def enrol(
    source: Source,
    parties: Parties,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Pseudonym of the subject. Default: sub-folder or file name of each photo, number of each row.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    skip_unreadable: SkipUnreadable = False,
    min_confidence: MinConfidence = None,
    min_inter_eye_px: MinInterEye = None,
    max_yaw: MaxYaw = None,
    max_pitch: MaxPitch = None,
    min_sharpness: MinSharpness = None,
    any_quality: AnyQuality = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Share references among three parties; on return they are on disk at all three.

    ppfr match enrol photos/ --parties client.toml --model mobilefacenet-y1 --weights DIR

    Photos of low quality are refused, because a reference that cannot be recognised rejects its subject. Of images that
    are 112x112 crops already, only the sharpness can be checked; the result states it.
    """
    from ppfr.workflows import match_enrol

    result = match_enrol(
        source,
        parties=parties,
        subject=subject,
        faces=_faces(model, secret, largest, skip_unreadable, weights, device),
        limits=given(
            min_confidence=min_confidence,
            min_inter_eye_px=min_inter_eye_px,
            max_yaw_deg=max_yaw,
            max_pitch_deg=max_pitch,
            min_sharpness=min_sharpness,
        ),
        takes_any_quality=any_quality,
    )
    emit(result if json else in_words(result), as_json=json, title="enrolled")


@match_app.command()
def verify(
    source: Source,
    subject: Annotated[str, typer.Option(help="Claimed subject.")],
    threshold: Threshold,
    parties: MaybeParties = None,
    gallery: LocalGallery = None,
    backend: Backend = "three-party",
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    skip_unreadable: SkipUnreadable = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Verify that probes show the claimed subject (1:1).

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
        faces=_faces(model, secret, largest, skip_unreadable, weights, device),
    )
    emit(result, as_json=json, title="verified")


@match_app.command()
def identify(
    source: Source,
    threshold: Threshold,
    answer: Annotated[
        str,
        typer.Option(
            help="best (subject with the highest score), set (all accepted subjects) or any (whether there is one).",
            autocompletion=offering(lambda: ("best", "set", "any")),
        ),
    ] = "best",
    parties: MaybeParties = None,
    gallery: LocalGallery = None,
    backend: Backend = "three-party",
    model: Model = None,
    secret: Secret = None,
    largest: Largest = False,
    skip_unreadable: SkipUnreadable = False,
    weights: Weights = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Search probes among all references (1:N); only this client learns the result.

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
        faces=_faces(model, secret, largest, skip_unreadable, weights, device),
    )
    shown = result if json else result | {"answers": [_found_in_words(found) for found in result["answers"]]}
    emit(shown, as_json=json, title="identified")


@match_app.command()
def remove(
    subject: Annotated[list[str], typer.Option(help="Subject whose references are erased; repeat for several.")],
    parties: Parties,
    json: Json = False,
) -> None:
    """Erase all references of subjects at all three parties.

    ppfr match remove --subject ana --parties client.toml
    """
    from ppfr.workflows import match_remove

    emit(match_remove(subject, parties=parties), as_json=json, title="removed")


@match_app.command()
def refresh(parties: Parties, json: Json = False) -> None:
    """Have the parties draw new randomness for all shares, so that a share file stolen earlier becomes useless.

    ppfr match refresh --parties operator.toml
    """
    from ppfr.workflows import match_refresh

    emit(match_refresh(parties), as_json=json, title="refreshed")


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


def _found_in_words(found: dict[str, Any]) -> dict[str, Any]:
    """The answer to a probe with "not found" in place of an empty value."""
    return {key: "not found" if value is None or value == [] else value for key, value in found.items()}


def _in_words(status: dict[str, Any]) -> dict[str, Any]:
    """The status of a party with words in place of empty values."""
    words = status | {"problem": status.get("problem") or "none"}
    return words | ({"bits_left": "no limit"} if status.get("bits_left", 0) is None else {})


def _faces(
    model: str | None, secret: Path | None, largest: bool, skip_unreadable: bool, weights: Path | None, device: str
) -> Any:
    from ppfr.workflows import FaceReader

    return FaceReader(
        model=model,
        secret_path=secret,
        weights=weights,
        takes_largest=largest,
        skips_unreadable=skip_unreadable,
        device=device,
    )
