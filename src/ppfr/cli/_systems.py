"""`ppfr train`, `ppfr evaluate` and `ppfr attack`: the stages of an experiment, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Data, Device, Json, Out, Resume, Seed, Weights, app, emit
from ppfr.cli._choices import Head, Network, Precision, Strategy
from ppfr.cli._completion import attacks, image_sets, methods, offering, protocols, public_networks
from ppfr.cli._runs import finish

Method = Annotated[
    str,
    typer.Option(
        help="A protection such as ppfr-fd, or a control: unprotected, constant.", autocompletion=offering(methods)
    ),
]
Images = Annotated[
    str,
    typer.Option(
        help="lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, a folder with one folder per subject, .rec or .tar.",
        autocompletion=offering(image_sets),
    ),
]
AllowTrainingOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-training-overlap",
        help="Also test on people that the recogniser was trained on. The result states how many.",
    ),
]
DrawnSecret = Annotated[
    Path | None,
    typer.Option(
        help="File of the secret of the deployment. Default: OUT/secret.key, created if absent.", show_default=False
    ),
]


@app.command()
def train(
    out: Out,
    images: Images,
    method: Method = "ppfr-fd",
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="scratch: train a new network with a margin head. distill: train a new network on the embeddings of a "
            "frozen teacher. finetune: give a pretrained network a new stem; suits small training sets."
        ),
    ] = "finetune",
    teacher: Annotated[
        str,
        typer.Option(help="Pretrained network, for distill and finetune.", autocompletion=offering(public_networks)),
    ] = "mobilefacenet-y1",
    network: Annotated[Network, typer.Option(help="Architecture, for scratch and distill.")] = "mobilefacenet",
    head: Annotated[Head, typer.Option(help="Margin head, for scratch.")] = "arcface",
    mix: Annotated[
        str | None,
        typer.Option(
            help="Mix training images with each other: mixup:K, instahide:K or adamixup:LOW-HIGH (adamixup:2-5).",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Number of times that every image is used.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images per step, over all devices together.")] = 64,
    precision: Annotated[Precision, typer.Option(help="Numeric precision; 16-mixed needs a GPU.")] = "32-true",
    num_devices: Annotated[int, typer.Option(help="Number of processes that train in parallel.")] = 1,
    secret: DrawnSecret = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars to OUT/training/tensorboard.")
    ] = False,
    list_subjects: Annotated[
        bool,
        typer.Option(
            help="List the people of the training set in OUT/trained-on.json, so that tests on them are refused. They "
            "are hashes of names, which show whether a person of a given name was in the training set."
        ),
    ] = True,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a recogniser that sees only masked faces.

    ppfr train --images lfw-train --method ppfr-fd --strategy finetune --out runs/fd --data DIR --weights DIR

    ppfr train --images synthetic:200x10 --strategy scratch --network mobilefacenet-small --out runs/fd

    Writes OUT/network.safetensors (with its model card), OUT/masker.json and OUT/trained-on.json. The secret is a
    separate file. An interrupted run continues with --resume; on a CPU the result is bit-identical.
    """
    from ppfr.core import RunOptions
    from ppfr.workflows import TrainingRequest, train_system

    request = TrainingRequest(
        images=images,
        method=method,
        strategy=strategy,
        teacher=teacher,
        network=network,
        head=head,
        mix=mix,
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        lists_subjects=list_subjects,
    )
    result = train_system(
        request,
        options=RunOptions(run_dir=out, device=device, num_devices=num_devices, resumes=resume),
        secret_path=secret,
        data=data,
        weights=weights,
        with_tensorboard=tensorboard,
    )
    emit(result, as_json=json, title="trained")


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Option(
            help="Name of a pretrained network, or directory of a trained system.",
            autocompletion=offering(public_networks),
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM (pairs), a .bin set or a list of pairs (.txt).",
            autocompletion=offering(protocols),
        ),
    ] = "lfw",
    secret: Annotated[
        Path | None,
        typer.Option(help="File of the secret of the system. Default: MODEL/secret.key.", show_default=False),
    ] = None,
    flip: Annotated[
        bool,
        typer.Option(
            "--flip", help="Add the embedding of the mirrored input. Not for systems whose masked images do not mirror."
        ),
    ] = False,
    allow_training_overlap: AllowTrainingOverlap = False,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Verify the pairs of a protocol: 10-fold accuracy, EER and TAR at FAR, each with n and a confidence interval.

    ppfr evaluate --model mobilefacenet-y1 --protocol lfw --data DIR --weights DIR --json

    A test on people that the system was trained on is refused. The result states what is known of such an overlap.
    """
    from ppfr.workflows import evaluate_model

    result = evaluate_model(
        model,
        protocol,
        secret_path=secret,
        flips=flip,
        data=data,
        weights=weights,
        seed=seed,
        device=device,
        allows_training_overlap=allow_training_overlap,
    )
    emit(result, as_json=json, title=f"{model} on {protocol}")


@app.command()
def attack(
    out: Out,
    kind: Annotated[str, typer.Option("--attack", help="unet, cgan or linkage.", autocompletion=offering(attacks))],
    public: Annotated[
        str,
        typer.Option(
            help="Training faces of the adversary; same names as for `ppfr train --images`.",
            autocompletion=offering(image_sets),
        ),
    ],
    targets: Annotated[
        str,
        typer.Option(
            help="Protocol with the target subjects; same names as for `ppfr evaluate --protocol`.",
            autocompletion=offering(protocols),
        ),
    ],
    method: Method = "ppfr-fd",
    secret: DrawnSecret = None,
    knows_secret: Annotated[bool, typer.Option(help="Whether the adversary knows, or can use, the secret.")] = True,
    teacher: Annotated[
        str,
        typer.Option(
            help="Recogniser of plain faces, as teacher for linkage and as evaluation recogniser: name of a pretrained "
            "network, or directory of a system trained with --method unprotected.",
            autocompletion=offering(public_networks),
        ),
    ] = "mobilefacenet-casia",
    epochs: Annotated[int, typer.Option(help="Number of times that the adversary uses every training image.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images per training step of the adversary.")] = 64,
    num_targets: Annotated[int, typer.Option(help="Number of target subjects, with two images each.")] = 200,
    controls: Annotated[
        bool,
        typer.Option(
            help="Also run the attack on unprotected faces, where it must win, and on a constant, where it must stay at"
            " the chance level. Without controls, the command takes a third of the time."
        ),
    ] = True,
    allow_training_overlap: AllowTrainingOverlap = False,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Attack masked faces: train the adversary on other subjects, run it on the target subjects, evaluate the result.

    ppfr attack --attack linkage --public lfw-train --targets lfw --out runs/linkage --data DIR --weights DIR

    Writes OUT/record.json and OUT/report.html. If a control failed, the exit code is 1, and a low rate is no evidence
    of protection. With --no-knows-secret the adversary simulates the protection under secrets of its own and aligns
    them with the masked images that it observes.
    """
    from ppfr.core import RunOptions
    from ppfr.workflows import AttackRequest, attack_method

    request = AttackRequest(
        kind=kind,
        method=method,
        public=public,
        targets=targets,
        knows_secret=knows_secret,
        teacher=teacher,
        epochs=epochs,
        batch_size=batch_size,
        num_targets=num_targets,
        seed=seed,
        runs_controls=controls,
        allows_training_overlap=allow_training_overlap,
    )
    options = RunOptions(run_dir=out, device=device, resumes=resume)
    result = attack_method(request, options=options, secret_path=secret, data=data, weights=weights)
    finish(result, as_json=json, title=f"{kind} on {method}")
