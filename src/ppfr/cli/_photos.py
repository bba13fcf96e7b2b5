"""`ppfr align` and `ppfr mask`: from photos to what leaves the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Json, Weights, app, emit, note
from ppfr.cli._completion import methods, offering

Largest = Annotated[
    bool, typer.Option("--largest", help="Take the largest face where a photo shows several; else that is an error.")
]


@app.command()
def align(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos (sub-folders are kept).")],
    out: Annotated[Path, typer.Option(help="Directory for the crops.")],
    largest: Largest = False,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Find the face in photos and cut the 112x112 crops that everything else takes.

    ppfr align photos/ --out crops/ --weights DIR

    Detection is YuNet (five points; `ppfr models fetch` gets it); alignment is a least-squares similarity to the usual
    template. Photos without a face, with several, or that cannot be read are listed together at the end; the others
    are written, and after mending those the same command goes on.
    """
    from ppfr.workflows import align_photos

    emit(align_photos(source, out, takes_largest=largest, weights=weights), as_json=json, title="aligned")


@app.command()
def mask(
    photo: Annotated[Path, typer.Argument(help="A photo; a 112x112 image is taken as a crop that is aligned already.")],
    out: Annotated[Path, typer.Option(help="Directory for what is written.")],
    method: Annotated[
        str,
        typer.Option(
            help="A protection, such as ppfr-fd, or a control: unprotected, constant.", autocompletion=offering(methods)
        ),
    ] = "ppfr-fd",
    secret: Annotated[
        Path | None,
        typer.Option(
            help="File with the deployment's 32-byte secret. Default: OUT/secret.key, drawn if absent.",
            show_default=False,
        ),
    ] = None,
    largest: Largest = False,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Mask one face: writes what leaves the device, and a picture of it.

    ppfr mask --method ppfr-fd photo.jpg --out masked/ --weights DIR

    Writes NAME.masked.safetensors (float16, with the method's public parameters) and NAME.masked.png. The secret is
    kept apart, readable by you alone; all devices of one deployment share it.
    """
    from ppfr.workflows import mask_photo

    result = mask_photo(photo, out, method=method, secret_path=secret, takes_largest=largest, weights=weights)
    if result["secret_was_drawn"]:
        note(f"drew a new secret into {result['secret']}; keep it apart from the masked images")
    emit(result, as_json=json, title="what leaves the device")
