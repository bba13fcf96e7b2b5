"""`ppfr align` and `ppfr mask`: align and mask photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Json, Weights, app, emit, note
from ppfr.cli._completion import methods, offering
from ppfr.cli._quality import MaxPitch, MaxYaw, MinConfidence, MinInterEye, MinSharpness, given, in_words

Largest = Annotated[
    bool,
    typer.Option("--largest", help="Use the largest face of a photo with several; otherwise that is an error."),
]


@app.command()
def align(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos (sub-folders are kept).")],
    out: Annotated[Path, typer.Option(help="Directory for the crops.")],
    largest: Largest = False,
    min_confidence: MinConfidence = None,
    min_inter_eye_px: MinInterEye = None,
    max_yaw: MaxYaw = None,
    max_pitch: MaxPitch = None,
    min_sharpness: MinSharpness = None,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Detect and align the face in each photo, and write 112x112 crops, the input of all other commands.

    ppfr align photos/ --out crops/ --weights DIR

    Faces are detected with YuNet (download it with `ppfr models fetch`) and aligned by the least-squares similarity
    transform of five landmarks. Photos that cannot be read, or show no face or several, are listed together at the end;
    the crops of the others are written. Replace these photos and run the same command again to align the rest.

    The result contains quality figures of each photo. With a limit, photos that fail it are listed with the others, and
    crops of earlier runs are made again.
    """
    from ppfr.workflows import align_photos

    limits = given(
        min_confidence=min_confidence,
        min_inter_eye_px=min_inter_eye_px,
        max_yaw_deg=max_yaw,
        max_pitch_deg=max_pitch,
        min_sharpness=min_sharpness,
    )
    result = align_photos(source, out, takes_largest=largest, weights=weights, limits=limits)
    emit(result if json else in_words(result), as_json=json, title="aligned")


@app.command()
def mask(
    photo: Annotated[Path, typer.Argument(help="A photo. A 112x112 image is used as an aligned crop.")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    method: Annotated[
        str,
        typer.Option(
            help="A protection, such as ppfr-fd, or a control: unprotected, constant.", autocompletion=offering(methods)
        ),
    ] = "ppfr-fd",
    secret: Annotated[
        Path | None,
        typer.Option(
            help="File with the 32-byte secret of the deployment. Default: OUT/secret.key, created if absent.",
            show_default=False,
        ),
    ] = None,
    largest: Largest = False,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Mask one face, and write the masked image that leaves the device and a picture of it.

    ppfr mask --method ppfr-fd photo.jpg --out masked/ --weights DIR

    Writes NAME.masked.safetensors (float16, with the public parameters of the method) and NAME.masked.png. The secret
    is a separate file that only you can read. All devices of one deployment share it.
    """
    from ppfr.workflows import mask_photo

    result = mask_photo(photo, out, method=method, secret_path=secret, takes_largest=largest, weights=weights)
    if result["secret_was_drawn"]:
        note(f"Created a new secret in {result['secret']}. Store it separately from the masked images.")
    emit(result, as_json=json, title="masked")
