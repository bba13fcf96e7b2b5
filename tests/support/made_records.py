"""Records with made-up figures, for tests of the record and the report; nothing in them was measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from ppfr import evaluation
from ppfr.core import Record, check_record, kind_of, row_schema

Json = dict[str, Any]
ROW_TYPES = {kind_of(value): value for name, value in vars(evaluation).items() if name.endswith("Row")}


def estimate(value: float, spread: float = 0.01, *, n: int = 6000, caveat: str = "") -> Json:
    method = "bootstrap over 4281 subjects"
    ends = {"low": value - spread, "high": value + spread}
    return {"value": value, **ends, "n": n, "level": 0.95, "method": method, "caveat": caveat}


def verification(source: str, name: str, accuracy: float, *, protocol: str = "made-lfw", scenario: str = "") -> Json:
    fars = [0.0, *(10 ** (-3.5 + 3.5 * i / 40) for i in range(41))]
    strength = (1 - accuracy) * 2
    caveat = "3,000 impostor comparisons cannot show FAR 0.0001"
    return {
        "source": source,
        "name": name,
        "protocol": protocol,
        "scenario": scenario,
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
            "0.0001": estimate(accuracy - 0.05, 0.02, n=3000, caveat=caveat),
        },
        "roc": {"far": fars, "tar": [1 - strength * (1 - f) * math.exp(-4 * f**0.35) for f in fars]},
        "num_resamples": 1000,
        "seed": 7,
    }


def gap(system: str, value: float, *, against: str = "unprotected", comparison: str | None = None) -> Json:
    where = {"comparison": comparison, "protocol": "made-lfw", "scenario": ""}
    return {"system": system, "against": against, **where, "gap": estimate(value, 0.0025)}


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


def provenance(name: str, used_as: str) -> Json:
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
        "plan": {"batch_size": 64, "epochs": 3},
        "curve": curve,
    }


class Builder:
    """Collects systems, attacks and rows."""

    def __init__(self) -> None:
        self.systems: list[Json] = []
        self.attacks: list[Json] = []
        self.results: dict[str, list[Json]] = {}

    def row(self, kind: str, row: Json) -> Json:
        self.results.setdefault(kind, []).append(row)
        return row

    def system(self, name: str, label: str, role: str, shape: list[int], accuracy: float | None) -> Json:
        is_control, is_protected = role == "control", role == "protected"
        system = {
            "name": name,
            "label": label,
            "role": role,
            "baseline": "unprotected" if is_protected else None,
            "masker": masker(name, shape, is_keyed=is_protected),
            "templates": None,
            "recogniser": None,
            "training": None if is_control else {"strategy": "fine-tuning"},
            "provenance": [] if is_control else [provenance("mobilefacenet-y1", "start of the body")],
            "published": [],
        }
        self.systems.append(system)
        if not is_control:
            self.row("training", {"system": name, "fits": [fit_facts(1.9, 0.21)], "guarantee": None})
        if accuracy is not None:
            self.row("verification", verification("system", name, accuracy))
        size = 2 * math.prod(shape)
        rates = {
            "mask_images_per_s": 1834.0 if is_protected else 21000.0,
            "embed_images_per_s": None if is_control else 212.5,
        }
        sizes = {"bytes_per_face": size, "bytes_relative_to_image": size / 37632}
        self.row("cost", {"system": name, "batch_size": 64, **rates, **sizes})
        return system

    def attack(
        self,
        name: str,
        label: str,
        system: str,
        *,
        rank_1: float,
        secret: str,
        role: str = "attack",
        ssim: float | None = None,
        masked_ssim: float | None = None,
        sees: str = "masked_images",
    ) -> Json:
        control = None
        if role != "attack":
            wins = role == "positive control"
            rule = "re-identifies at least 50 %" if wins else "its interval holds the chance level"
            control = {"expects": "win" if wins else "chance", "rule": rule}
        attack = {
            "name": name,
            "label": label,
            "method": label.lower().replace(" ", "-"),
            "system": system,
            "role": role,
            "secret": secret,
            "threat_model": {
                "name": "curious server",
                "sees": sees,
                "knows_method": True,
                "knows_secret": secret == "known",
                "knows_recogniser": False,
                "has_public_faces": True,
                "in_words": "The adversary (curious server) sees each target subject's masked images.",
            },
            "config": {},
            "recogniser": "casia",
            "control": control,
        }
        self.attacks.append(attack)
        is_met = None if control is None else True
        run = {"num_targets": 400, "num_images": 400, "is_control_met": is_met, "notes": {"images/s": 411.25}}
        self.row("attack_run", {"attack": name, **run})
        self.row("attack_training", {"attack": name, "facts": fit_facts(0.4, 0.05)})
        found = {"rank_1": estimate(rank_1, min(0.03, rank_1, 1 - rank_1), n=400)}
        found |= {"rank_5": estimate(min(1.0, rank_1 * 1.1), 0.0, n=400)}
        bounds = {"plain_rank_1": estimate(0.93, 0.02, n=400), "plain_rank_5": estimate(0.96, 0.02, n=400)}
        chance = {"chance_rank_1": 1 / 400, "chance_rank_5": 5 / 400}
        self.row("re_identification", {"attack": name, "gallery_size": 400, **found, **chance, **bounds})
        if ssim is not None:
            masked = None if masked_ssim is None else likeness(masked_ssim, 0.0)
            pictures = {"recovered": likeness(ssim, rank_1 * 0.95), "average": likeness(0.31, 0.0), "masked": masked}
            self.row("image_recovery", {"attack": name, "far": 0.001, **pictures, "plain": plain()})
        self.row("verification", verification("attack", name, 0.5 + 0.48 * rank_1))
        return attack

    def mixtures(self, name: str, *, anybody: float, num_epochs: int = 1) -> Json:
        """Rates of the people in the mixed images that an attack saw."""
        rates = {
            word: {"rate": estimate(value, 0.0, n=400), "chance": chance, "plain": estimate(0.94, 0.0, n=400)}
            for word, value, chance in (
                ("anybody", anybody, 2 / 400),
                ("heaviest", anybody / 2, 1 / 400),
                ("found", anybody * 0.75, 2 / 400),
            )
        }
        row = {"attack": name, "gallery_size": 400, "num_epochs": num_epochs, "mean_people": 2 * num_epochs, **rates}
        return self.row("mixture_re_identification", row)

    def gallery_attack(
        self,
        name: str,
        label: str,
        system: str,
        *,
        rank_1: dict[int, float],
        photo: str = "another photo",
        source: str = "one image",
    ) -> None:
        """An attack without training, with a rate for each number of observations."""
        secret = "known" if system == "ppfr-fd" else "none"
        self.attack(name, label, system, rank_1=0.0, secret=secret)
        for kind in ("attack_training", "re_identification", "verification"):
            self.results[kind].pop()  # it trains nothing and has rows of its own
        bound = 1.0 if photo == "same photo" else 0.93
        for num, value in rank_1.items():
            found = estimate(value, min(0.03, value, 1 - value), n=400)
            rates = {"rank_1": found, "rank_5": found, "auc": found}
            bounds = {"plain_rank_1": estimate(bound, 0.0, n=400), "plain_rank_5": estimate(bound, 0.0, n=400)}
            chance = {"chance_rank_1": 1 / 400, "chance_rank_5": 5 / 400}
            seen = {"level": "trivial", "photo": photo, "source": source, "num_observations": num, "gallery_size": 400}
            self.row("gallery_attack", {"attack": name, **seen, **rates, **chance, **bounds})

    def record(self) -> Json:
        data = [("training", "made-train", 6141, 1540), ("protocol", "made-lfw", 7701, 4281)]
        self.row("verification", verification("recogniser", "casia", 0.9827))
        made = {
            "schema_version": 2,
            "experiment": {
                "name": "made:test",
                "title": "Masked recognition on made-up figures",
                "summary": "A record for the tests of the report. Its figures were made up; nothing was measured.",
                "preset": "test",
                "command": "ppfr run made:test --preset test --data DIR",
                "seed": 7,
                "people": "synthetic",
                "config_sha256": "ab" * 32,
                "config": {"systems": [{"name": "unprotected"}, {"name": "ppfr-fd"}]},
            },
            "status": "complete",
            "software": {
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
                {"role": role, "name": name, "num_images": images, "num_subjects": people, "fingerprint": "0" * 64}
                for role, name, images, people in data
            ],
            "disjointness": [{"sets": ["made-train", "made-lfw"], "num_shared_subjects": 0}],
            "recognisers": [
                {
                    "name": "casia",
                    "label": "MobileFaceNet (CASIA)",
                    "provenance": [provenance("mobilefacenet-casia", "evaluation recogniser")],
                }
            ],
            "systems": self.systems,
            "comparisons": [],
            "attacks": self.attacks,
            "results": self.results,
            "schemas": {kind: dict(row_schema(ROW_TYPES[kind])) for kind in self.results},
            "stages": [stage("train/unprotected", "Train Unprotected"), stage("train/ppfr-fd", "Train PPFR-FD")],
        }
        check_record(made)
        return made


def acceptance(accepted: float) -> Json:
    return {
        "same_image": estimate(accepted, 0.0, n=400),
        "other_image": estimate(accepted * 0.9, 0.0 if accepted == 0 else 0.03, n=400),
        "other_subject": estimate(0.001, 0.0005, n=400),
        "accuracy": estimate(0.5 + accepted * 0.45, 0.02, n=400),
    }


def likeness(ssim: float, accepted: float) -> Json:
    return {
        "ssim": estimate(ssim, 0.01, n=400),
        "psnr": estimate(10 + 20 * ssim, 0.4, n=400),
        "lpips": estimate(0.6 - 0.5 * ssim, 0.02, n=400),
        "identity_cosine": estimate(accepted * 0.7, 0.02, n=400),
        "at_far": acceptance(accepted),
        "at_folds": acceptance(accepted),
    }


def plain() -> Json:
    found = {"same_image": None, "other_image": estimate(0.96, 0.02, n=400)}
    found |= {"other_subject": estimate(0.001, 0.0005, n=400), "accuracy": estimate(0.98, 0.01, n=400)}
    return {"at_far": found, "at_folds": copy.deepcopy(found)}


def stage(name: str, title: str) -> Json:
    return {"name": name, "title": title, "status": "done", "wall_s": 61.0, "error": None}


def made_record() -> Record:
    """A complete record: baseline, one protection, a constant control, two attacks in both variants."""
    made = Builder()
    made.system("unprotected", "Unprotected", "baseline", [3, 112, 112], 0.9937)
    made.system("ppfr-fd", "PPFR-FD", "protected", [36, 28, 28], 0.9889)
    made.system("constant", "Constant output", "control", [3, 112, 112], None)
    made.row("accuracy_gap", gap("ppfr-fd", -0.0048))
    link, unet = "Identity linkage", "U-Net recovery"
    win, chance = "positive control", "negative control"
    made.attack("link-plain", link, "unprotected", rank_1=0.91, secret="none", role=win)
    made.attack("link-fd-known", link, "ppfr-fd", rank_1=0.87, secret="known")
    made.attack("link-fd-unknown", link, "ppfr-fd", rank_1=0.62, secret="unknown")
    made.attack("link-constant", link, "constant", rank_1=0.0025, secret="none", role=chance)
    made.attack("unet-plain", unet, "unprotected", rank_1=0.9, secret="none", role=win, ssim=0.97)
    made.attack("unet-fd-known", unet, "ppfr-fd", rank_1=0.55, secret="known", ssim=0.72)
    made.attack("unet-fd-unknown", unet, "ppfr-fd", rank_1=0.12, secret="unknown", ssim=0.48)
    return made.record()


def published(measures: Mapping[str, float]) -> list[Json]:
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


MIXING_ROWS = {  # name -> label, accuracy, rank-1, SSIM of masked and recovered, published accuracy and total
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


def mixing_record() -> Record:
    """Fourteen systems: a baseline, twelve protections, most of which mix, beside published figures; a control."""
    gan, link, made = "Conditional GAN", "Identity linkage", Builder()
    win = "positive control"
    baseline = made.system("unprotected", "Unprotected", "baseline", [3, 112, 112], 0.9882)
    baseline["published"] = published({"accuracy on made-lfw": 0.9923, "accuracy on made-cfp": 0.9626})
    made.attack("gan-plain", gan, "unprotected", rank_1=0.9, secret="none", role=win, ssim=0.97)
    made.attack("link-plain", link, "unprotected", rank_1=0.91, secret="none", role=win)
    for name, (label, accuracy, rank_1, (seen, found), (theirs, total)) in MIXING_ROWS.items():
        system = made.system(name, label, "protected", [36, 28, 28], accuracy)
        made.row("accuracy_gap", gap(name, accuracy - 0.9882))
        system["masker"] = masker("masking" if label.startswith("Masking") else name, [36, 28, 28], is_keyed=True)
        accuracies = {"accuracy on made-lfw": theirs, "accuracy on made-cfp": theirs - 0.03, "total score": total}
        system["published"] = published(accuracies)
        if name.startswith("adaptive"):
            candidates = list(range(2, int(name[-1]) + 1))
            made.results["training"][-1]["fits"][0]["outcome"] = chosen(candidates)
            system["published"] += published({f"share of mixup-{k}": 1 / len(candidates) for k in candidates})
        sees = "masked_images" if name in ("masking", "noise") else "mixed_images"
        known = {"secret": "known", "sees": sees}
        made.attack(f"gan-{name}", gan, name, rank_1=rank_1 * 0.9, ssim=found, masked_ssim=seen, **known)
        made.attack(f"link-{name}", link, name, rank_1=rank_1, **known)
        made.attack(f"unet-{name}", "U-Net recovery", name, rank_1=rank_1 * 0.95, ssim=found, **known)
    made.system("constant", "Constant output", "control", [3, 112, 112], None)
    return made.record()
