"""A record with made-up figures, for tests of the schema and the report; nothing in it was measured."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # toy_experiment

Json = dict[str, Any]


def estimate(value: float, spread: float = 0.01, *, n: int = 6000, caveat: str = "") -> Json:
    return {
        "value": value,
        "low": value - spread,
        "high": value + spread,
        "n": n,
        "level": 0.95,
        "method": "bootstrap over 4281 subjects",
        "caveat": caveat,
    }


def verification(accuracy: float, *, gap: float | None = None, name: str = "made-lfw") -> Json:
    fars = [0.0, *(10 ** (-3.5 + 3.5 * i / 40) for i in range(41))]
    strength = (1 - accuracy) * 2
    return {
        "name": name,
        "num_images": 7701,
        "num_subjects": 4281,
        "num_genuine": 3000,
        "num_impostor": 3000,
        "num_folds": 10,
        "accuracy": estimate(accuracy, 0.003),
        "accuracy_std_over_folds": 0.0045,
        "accuracy_standard_error": 0.0015,
        "eer": estimate(1 - accuracy, 0.002),
        "auc": estimate(0.997, 0.001),
        "tar_at_far": {
            "0.01": estimate(accuracy - 0.01, 0.005, n=3000),
            "0.001": estimate(accuracy - 0.02, 0.008, n=3000),
            "0.0001": estimate(
                accuracy - 0.05, 0.02, n=3000, caveat="3,000 impostor comparisons cannot show FAR 0.0001"
            ),
        },
        "roc": {"far": fars, "tar": [1 - strength * (1 - f) * math.exp(-4 * f**0.35) for f in fars]},
        "gap_to_baseline": None if gap is None else estimate(gap, 0.0025),
        "num_resamples": 1000,
        "seed": 7,
    }


def masker(name: str, shape: list[int], *, is_keyed: bool = False) -> Json:
    return {
        "name": name,
        "config": {"in_shape": [3, 112, 112]},
        "in_shape": [3, 112, 112],
        "out_shape": shape,
        "value_range": [None, None] if is_keyed else [0.0, 1.0],
        "is_stochastic": False,
        "is_keyed": is_keyed,
        "is_trainable": False,
        "is_differentiable": True,
        "bytes_per_face": 2 * math.prod(shape),
    }


def knowledge(name: str, used_as: str) -> Json:
    return {
        "name": name,
        "used_as": used_as,
        "training_data": "MS1M",
        "may_have_seen": ["LFW: MS1M holds many of its celebrities"],
        "licence": "non-commercial research",
        "source": "a public model zoo",
        "sha256": "",
        "notes": "",
    }


def fit_facts(start: float, end: float) -> Json:
    curve = [[s, end + (start - end) * math.exp(-s / 90) * (1 + 0.06 * math.sin(s))] for s in range(0, 600, 6)]
    return {
        "steps": 600,
        "images_seen": 38400,
        "wall_s": 700.0,
        "plan": {"batch_size": 64, "passes": 3},
        "curve": curve,
    }


def arm(name: str, label: str, role: str, shape: list[int], accuracy: float | None, gap: float | None = None) -> Json:
    is_control = role == "control"
    return {
        "name": name,
        "label": label,
        "role": role,
        "baseline": "unprotected" if role == "protected" else None,
        "masker": masker(name, shape, is_keyed=role == "protected"),
        "knowledge": [] if is_control else [knowledge("mobilefacenet-y1", "start of the body")],
        "training": None if is_control else {"config": {"way": "adaptation"}, "fits": [fit_facts(1.9, 0.21)]},
        "protocols": [] if accuracy is None else [verification(accuracy, gap=gap)],
        "cost": {
            "batch_size": 64,
            "mask_images_per_s": 1834.0 if role == "protected" else 21000.0,
            "embed_images_per_s": None if is_control else 212.5,
            "bytes_per_face": 2 * math.prod(shape),
            "bytes_relative_to_image": 2 * math.prod(shape) / 37632,
        },
    }


def likeness(ssim: float, accepted: float) -> Json:
    acceptance = {
        "same_image": estimate(accepted, 0.0, n=400),
        "other_image": estimate(accepted * 0.9, 0.0 if accepted == 0 else 0.03, n=400),
        "other_subject": estimate(0.001, 0.0005, n=400),
        "accuracy": estimate(0.5 + accepted * 0.45, 0.02, n=400),
    }
    return {
        "ssim": estimate(ssim, 0.01, n=400),
        "psnr": estimate(10 + 20 * ssim, 0.4, n=400),
        "lpips": estimate(0.6 - 0.5 * ssim, 0.02, n=400),
        "identity_cosine": estimate(accepted * 0.7, 0.02, n=400),
        "at_far": acceptance,
        "at_folds": copy.deepcopy(acceptance),
    }


def attack(
    name: str, label: str, arm_name: str, *, top1: float, secret: str, role: str = "attack", ssim: float | None = None
) -> Json:
    control = None
    if role != "attack":
        wins = role == "positive control"
        rule = "names at least 50 % of the victims" if wins else "its interval holds what a guess gets"
        control = {"expects": "win" if wins else "chance", "rule": rule, "is_met": True}
    original = {
        "same_image": None,
        "other_image": estimate(0.96, 0.02, n=400),
        "other_subject": estimate(0.001, 0.0005, n=400),
        "accuracy": estimate(0.98, 0.01, n=400),
    }
    recovery = None
    if ssim is not None:
        recovery = {
            "far": 0.001,
            "recovered": likeness(ssim, top1 * 0.95),
            "guess": likeness(0.31, 0.0),
            "original": {"at_far": original, "at_folds": copy.deepcopy(original)},
        }
    spread = min(0.03, top1, 1 - top1)
    return {
        "name": name,
        "label": label,
        "method": label.lower().replace(" ", "-"),
        "arm": arm_name,
        "role": role,
        "secret": secret,
        "threat_model": {
            "name": "curious server",
            "sees": "masked_images",
            "knows_method": True,
            "knows_secret": secret == "known",
            "knows_recogniser": False,
            "has_public_faces": True,
            "in_words": "The adversary (curious server) sees each victim's masked images, knows how the protection "
            "works, and trains on faces of other people.",
        },
        "config": {},
        "judge": "casia",
        "control": control,
        "fit": fit_facts(0.4, 0.05),
        "notes": {"images/s": 411.25},
        "outcome": {
            "num_victims": 400,
            "num_images": 400,
            "judge": "casia",
            "recovery": recovery,
            "linkage": {
                "gallery_size": 400,
                "top1": estimate(top1, spread, n=400),
                "top5": estimate(min(1.0, top1 * 1.1), 0.0, n=400),
                "chance_top1": 1 / 400,
                "chance_top5": 5 / 400,
                "plain_top1": estimate(0.93, 0.02, n=400),
                "plain_top5": estimate(0.96, 0.02, n=400),
            },
            "pairs": [verification(0.5 + 0.48 * top1)],
        },
    }


def stage(name: str, title: str, *, wall_s: float = 61.0) -> Json:
    return {"name": name, "title": title, "status": "done", "wall_s": wall_s, "error": None}


@pytest.fixture
def made_record() -> Json:
    """A complete record: baseline, one protection, a constant control, two attacks in both variants."""
    link, unet = "Identity linkage", "U-Net recovery"
    return {
        "schema_version": 1,
        "experiment": {
            "name": "made:test",
            "title": "Masked recognition on made-up figures",
            "summary": "A record for the tests of the report. Its figures were made up; nothing was measured.",
            "preset": "test",
            "command": "ppfr run made:test --preset test --data DIR",
            "seed": 7,
            "people": "synthetic",
            "config_sha256": "ab" * 32,
            "config": {"arms": [{"name": "unprotected"}, {"name": "ppfr-fd"}]},
        },
        "status": "complete",
        "provenance": {
            "ppfr": "0.1.0",
            "commit": "c" * 40,
            "is_modified": False,
            "python": "3.12.1",
            "packages": {"torch": "2.13.0", "numpy": "2.4.0"},
        },
        "machine": {
            "system": "Linux",
            "architecture": "x86_64",
            "num_cores": 2,
            "num_threads": 2,
            "device": "cpu",
            "device_name": "cpu",
            "memory_bytes": 24 << 30,
            "peak_memory_bytes": 3 << 30,
        },
        "wall_s": 4211.0,
        "data": [
            {
                "role": "training",
                "name": "made-train",
                "num_images": 6141,
                "num_subjects": 1540,
                "fingerprint": "0" * 64,
            },
            {"role": "protocol", "name": "made-lfw", "num_images": 7701, "num_subjects": 4281, "fingerprint": "1" * 64},
        ],
        "disjointness": [{"sets": ["made-train", "made-lfw"], "num_shared_subjects": 0}],
        "judges": [
            {
                "name": "casia",
                "label": "MobileFaceNet (CASIA)",
                "knowledge": [knowledge("mobilefacenet-casia", "judge")],
                "protocols": [verification(0.9827)],
            }
        ],
        "arms": [
            arm("unprotected", "Unprotected", "baseline", [3, 112, 112], 0.9937),
            arm("ppfr-fd", "PPFR-FD", "protected", [36, 28, 28], 0.9889, gap=-0.0048),
            arm("constant", "Constant output", "control", [3, 112, 112], None),
        ],
        "attacks": [
            attack("link-plain", link, "unprotected", top1=0.91, secret="none", role="positive control"),
            attack("link-fd-known", link, "ppfr-fd", top1=0.87, secret="known"),
            attack("link-fd-unknown", link, "ppfr-fd", top1=0.62, secret="unknown"),
            attack("link-constant", link, "constant", top1=0.0025, secret="none", role="negative control"),
            attack("unet-plain", unet, "unprotected", top1=0.9, secret="none", role="positive control", ssim=0.97),
            attack("unet-fd-known", unet, "ppfr-fd", top1=0.55, secret="known", ssim=0.72),
            attack("unet-fd-unknown", unet, "ppfr-fd", top1=0.12, secret="unknown", ssim=0.48),
        ],
        "stages": [stage("arm/unprotected/train", "Train Unprotected"), stage("arm/ppfr-fd/train", "Train PPFR-FD")],
    }


def reported(measures: dict[str, float]) -> list[Json]:
    return [{"measure": name, "value": value, "source": "made paper, table 2"} for name, value in measures.items()]


def chosen(candidates: list[int], num_windows: int = 50) -> Json:
    """An outcome of adaptive mixing that drifts towards the largest candidate."""
    weights = [[1 + i * w / num_windows for i, _ in enumerate(candidates)] for w in range(num_windows)]
    over_time = [[weight / sum(row) for weight in row] for row in weights]
    return {
        "candidates": [f"mixup-{k}" for k in candidates],
        "num_images": candidates,
        "shares": [sum(row[i] for row in over_time) / num_windows for i in range(len(candidates))],
        "shares_over_time": over_time,
    }


MIXING_ROWS = {  # name -> label, accuracy here, top-1, SSIM of masked and recovered, theirs: accuracy and total
    "adaptive-2-6": ("Masking + adaptive 2-6", 0.9712, 0.31, (0.20, 0.42), (0.9615, 0.968)),
    "adaptive-2-5": ("Masking + adaptive 2-5", 0.9805, 0.36, (0.21, 0.45), (0.9810, 0.981)),
    "adaptive-2-4": ("Masking + adaptive 2-4", 0.9817, 0.41, (0.22, 0.47), (0.9843, 0.959)),
    "mixup-2": ("Masking + MixUp 2", 0.9878, 0.52, (0.24, 0.55), (0.9892, 0.912)),
    "mixup-3": ("Masking + MixUp 3", 0.9822, 0.44, (0.23, 0.48), (0.9820, 0.940)),
    "mixup-4": ("Masking + MixUp 4", 0.9848, 0.38, (0.21, 0.43), (0.8462, 0.877)),
    "mixup-5": ("Masking + MixUp 5", 0.9430, 0.25, (0.20, 0.40), (0.7331, 0.796)),
    "mixup-6": ("Masking + MixUp 6", 0.9127, 0.22, (0.19, 0.38), (0.6653, 0.750)),
    "plain-mixup": ("Plain channels, MixUp 2", 0.9853, 0.71, (0.40, 0.71), (0.9876, 0.749)),
    "masking": ("Masking", 0.9880, 0.82, (0.33, 0.80), (0.9893, 0.806)),
    "noise": ("Noise", 0.7240, 0.05, (0.15, 0.33), (0.7236, 0.753)),
    "signs": ("Plain channels, signs flipped 2", 0.8750, 0.12, (0.22, 0.40), (0.8293, 0.733)),
}


@pytest.fixture
def mixing_record(made_record: Json) -> Json:
    """Fourteen arms: a baseline, twelve protections, most of which mix, beside published figures; a control."""
    gan, link = "Conditional GAN", "Identity linkage"
    arms = [arm("unprotected", "Unprotected", "baseline", [3, 112, 112], 0.9882)]
    arms[0]["reported"] = reported({"accuracy on made-lfw": 0.9923, "accuracy on made-cfp": 0.9626})
    attacks = [
        attack("gan-plain", gan, "unprotected", top1=0.9, secret="none", role="positive control", ssim=0.97),
        attack("link-plain", link, "unprotected", top1=0.91, secret="none", role="positive control"),
    ]
    for name, (label, accuracy, top1, (seen, found), (theirs, total)) in MIXING_ROWS.items():
        one = arm(name, label, "protected", [36, 28, 28], accuracy, gap=accuracy - 0.9882)
        one["masker"] = masker("masking" if label.startswith("Masking") else name, [36, 28, 28], is_keyed=True)
        one["reported"] = reported({"accuracy on made-lfw": theirs, "accuracy on made-cfp": theirs - 0.03})
        one["reported"] += reported({"total score": total})
        if name.startswith("adaptive"):
            candidates = list(range(2, int(name[-1]) + 1))
            one["training"]["fits"][0]["outcome"] = chosen(candidates)
            one["reported"] += reported({f"share of mixup-{k}": 1 / len(candidates) for k in candidates})
        of_arm = [
            attack(f"gan-{name}", gan, name, top1=top1 * 0.9, secret="known", ssim=found),
            attack(f"link-{name}", link, name, top1=top1, secret="known"),
            attack(f"unet-{name}", "U-Net recovery", name, top1=top1 * 0.95, secret="known", ssim=found),
        ]
        of_arm[0]["outcome"]["recovery"]["masked"] = likeness(seen, 0.0)
        if name not in ("masking", "noise"):
            for one_attack in of_arm:
                one_attack["threat_model"]["sees"] = "mixed_images"
        arms.append(one)
        attacks += of_arm
    made_record["arms"] = [*arms, made_record["arms"][-1]]
    made_record["attacks"] = attacks
    return made_record
