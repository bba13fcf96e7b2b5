"""`ppfr train`, `ppfr evaluate` and `ppfr attack`: the parts of an experiment, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Data, Device, Json, Out, Resume, Seed, Weights, app, emit
from ppfr.cli._completion import (
    PRECISIONS,
    attacks,
    heads,
    image_sets,
    methods,
    networks,
    offering,
    protocols,
    public_networks,
    ways,
)
from ppfr.cli._runs import finish

Method = Annotated[
    str,
    typer.Option(
        help="A protection, such as ppfr-fd, or a control: unprotected, constant.", autocompletion=offering(methods)
    ),
]
Images = Annotated[
    str,
    typer.Option(
        help="lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, a folder with a folder a person, .rec or .tar.",
        autocompletion=offering(image_sets),
    ),
]
DrawnSecret = Annotated[
    Path | None,
    typer.Option(help="The deployment's secret. Default: OUT/secret.key, drawn if absent.", show_default=False),
]


@app.command()
def train(
    out: Out,
    images: Images,
    method: Method = "ppfr-fd",
    way: Annotated[
        str,
        typer.Option(
            help="scratch (margin head), distil (from a frozen teacher) or adapt (pretrained body, new stem: what to "
            "take with little data).",
            autocompletion=offering(ways),
        ),
    ] = "adapt",
    teacher: Annotated[
        str,
        typer.Option(help="Public network, for distil and adapt.", autocompletion=offering(public_networks)),
    ] = "mobilefacenet-y1",
    network: Annotated[
        str,
        typer.Option(
            help="For scratch and distil: mobilefacenet-small, mobilefacenet, ir18, ir50, ir_se50.",
            autocompletion=offering(networks),
        ),
    ] = "mobilefacenet",
    head: Annotated[
        str, typer.Option(help="For scratch: arcface, cosface or adaface.", autocompletion=offering(heads))
    ] = "arcface",
    mix: Annotated[
        str | None,
        typer.Option(
            help="Mix training images with each other: mixup:K, instahide:K, adamixup:LOW-HIGH (as in adamixup:2-5).",
            show_default=False,
        ),
    ] = None,
    passes: Annotated[int, typer.Option(help="Times every image is seen.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all devices together.")] = 64,
    precision: Annotated[
        str,
        typer.Option(help="32-true, bf16-mixed or 16-mixed (GPU).", autocompletion=offering(lambda: PRECISIONS)),
    ] = "32-true",
    num_devices: Annotated[int, typer.Option(help="Processes side by side (DDP).")] = 1,
    secret: DrawnSecret = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars under OUT/training/tensorboard.")
    ] = False,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a recogniser that sees only masked faces.

    ppfr train --images lfw-train --method ppfr-fd --way adapt --out runs/fd --data DIR --weights DIR

    ppfr train --images synthetic:200x10 --way scratch --network mobilefacenet-small --out runs/fd

    Writes OUT/network.safetensors (with its model card) and OUT/masker.json; the secret is a file of its own. A killed
    run goes on with --resume and ends bit-identical (on a CPU).
    """
    from ppfr.workflows import TrainingRequest, train_system

    request = TrainingRequest(
        images=images,
        method=method,
        way=way,
        teacher=teacher,
        network=network,
        head=head,
        mix=mix,
        passes=passes,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
    )
    result = train_system(
        request,
        out_dir=out,
        secret_path=secret,
        data=data,
        weights=weights,
        device=device,
        num_devices=num_devices,
        resumes=resume,
        with_tensorboard=tensorboard,
    )
    emit(result, as_json=json, title="trained")


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Option(
            help="A public network's name, or the directory of a trained system.",
            autocompletion=offering(public_networks),
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM (pairs), or an InsightFace .bin set.",
            autocompletion=offering(protocols),
        ),
    ] = "lfw",
    secret: Annotated[
        Path | None, typer.Option(help="The system's secret. Default: MODEL/secret.key.", show_default=False)
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the embedding of the mirrored face.")] = False,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Verify the pairs of a protocol: 10-fold accuracy, EER, TAR at FAR, each with n and an interval.

    ppfr evaluate --model mobilefacenet-y1 --protocol lfw --data DIR --weights DIR --json
    """
    from ppfr.workflows import evaluate_model

    result = evaluate_model(
        model, protocol, secret_path=secret, flips=flip, data=data, weights=weights, seed=seed, device=device
    )
    emit(result, as_json=json, title=f"{model} on {protocol}")


@app.command()
def attack(
    out: Out,
    kind: Annotated[str, typer.Option("--attack", help="unet, cgan or linkage.", autocompletion=offering(attacks))],
    public: Annotated[
        str,
        typer.Option(
            help="The adversary's own faces; the same names as `ppfr train --images`.",
            autocompletion=offering(image_sets),
        ),
    ],
    targets: Annotated[
        str,
        typer.Option(
            help="Protocol whose people are attacked; the same names as `ppfr evaluate --protocol`.",
            autocompletion=offering(protocols),
        ),
    ],
    method: Method = "ppfr-fd",
    secret: DrawnSecret = None,
    knows_secret: Annotated[bool, typer.Option(help="Whether the adversary knows (or can use) the secret.")] = True,
    teacher: Annotated[
        str,
        typer.Option(
            help="The adversary's recogniser of plain faces, for linkage and for judging: a public network's name, or "
            "the directory of a system trained with --method unprotected.",
            autocompletion=offering(public_networks),
        ),
    ] = "mobilefacenet-casia",
    passes: Annotated[int, typer.Option(help="Times the adversary sees each of its images.")] = 3,
    batch_size: Annotated[int, typer.Option(help="The adversary's images a step.")] = 64,
    num_targets: Annotated[int, typer.Option(help="People attacked, two images each.")] = 200,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Attack masked faces: train the adversary on other people and measure what it gets of the target subjects.

    ppfr attack --attack linkage --public lfw-train --targets lfw --out runs/linkage --data DIR --weights DIR

    Writes OUT/record.json and OUT/report.html. With --no-knows-secret the adversary simulates the protection under
    secrets of its own and matches them to what it sees.
    """
    from ppfr.workflows import AttackRequest, attack_method

    request = AttackRequest(
        kind=kind,
        method=method,
        public=public,
        targets=targets,
        knows_secret=knows_secret,
        teacher=teacher,
        passes=passes,
        batch_size=batch_size,
        num_targets=num_targets,
        seed=seed,
    )
    result = attack_method(
        request, out_dir=out, secret_path=secret, data=data, weights=weights, device=device, resumes=resume
    )
    finish(result, as_json=json, title=f"{kind} on {method}")
