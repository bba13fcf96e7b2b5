"""Whether the default limits of `QualityLimits` refuse the photos that would not be recognised after enrolment.

Three photos each of people of LFW (not aligned), and crops of people of CFP. The first photo of a person is the
reference, the other two are the probes. For some people the reference is also degraded: blurred (sigma in pixels of the
photo, in which the eyes are about 42 pixels apart), moved, made smaller, covered in part, or darkened with photon
noise. A comparison fails if its cosine is below the threshold at which 0.1 % of the comparisons between different
people, without degradation, are accepted. "unusable" means that both probes fail. CFP gives frontal and profile views;
its crops are detected again, so sharpness and pose are measured, and the size is that in the crop.

Nothing but the noise is random, and it is seeded. The first people in order of their names are taken. About 2 minutes
on one core.

Run: python benchmarks/enrolment_quality.py --data DATA --weights WEIGHTS --json benchmarks/enrolment_quality.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ppfr.core import AlignmentError
from ppfr.data import Aligner, FaceQuality, QualityLimits, float_images, read_image
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems import read_recogniser

MODEL = "mobilefacenet-y1"
FMR = 1e-3
LIMITS = QualityLimits()
Change = Callable[[np.ndarray], np.ndarray]


def blurred(sigma: float) -> Change:
    return lambda photo_HWC: cv2.GaussianBlur(photo_HWC, (0, 0), sigma)


def moved(length_px: int, *, down: bool = False) -> Change:
    kernel = np.full((length_px, 1) if down else (1, length_px), 1 / length_px)
    return lambda photo_HWC: cv2.filter2D(photo_HWC, -1, kernel)


def reduced(factor: int) -> Change:
    return lambda photo_HWC: cv2.resize(photo_HWC, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)


def covered(aligner: Aligner, part: str, share: float) -> Change:
    """Covers a share of the box of the face with a plain colour: its upper or lower part, or its left side."""

    def change(photo_HWC: np.ndarray) -> np.ndarray:
        x, y, width, height = max(aligner.detect(photo_HWC), key=lambda face: face.area_px).box
        top = y + (1 - share) * height if part == "lower" else y
        size = (share * width if part == "left" else width, height if part == "left" else share * height)
        corner = (round(x + size[0]), round(top + size[1]))
        return cv2.rectangle(photo_HWC.copy(), (round(x), round(top)), corner, (90, 110, 140), cv2.FILLED)

    return change


def darkened(gain: float) -> Change:
    """One photon for each grey value that remains."""
    return lambda photo_HWC: np.minimum(np.random.default_rng(1).poisson(gain * photo_HWC), 255).astype(np.uint8)


def changes(aligner: Aligner) -> dict[str, Change]:
    return {
        **{f"blurred, sigma {sigma} px": blurred(sigma) for sigma in (1, 2, 3, 4, 6)},
        **{f"moved by {length} px": moved(length) for length in (9, 15, 21)},
        "moved down by 15 px": moved(15, down=True),
        **{f"reduced {factor} times": reduced(factor) for factor in (2, 3, 4, 5, 6, 8)},
        **{f"covered, {part} {share:.0%}": covered(aligner, part, share) for part, share in (
            ("lower", 0.3), ("lower", 0.5), ("lower", 0.65), ("upper", 0.5), ("left", 0.5))},
        **{f"darkened to {gain:.0%}": darkened(gain) for gain in (0.2, 0.05)},
    }  # fmt: skip


class Enrolment:
    """Aligns references, asks for the problems of each, and compares them with probes."""

    def __init__(self, weights: Path) -> None:
        system = read_recogniser(MODEL, weights=weights)
        self._embedder, self._masker = NetworkEmbedder(for_inference(system.network)), system.masker
        self.aligner = Aligner(weights / "yunet.onnx", largest=True)
        self.upright_aligner = Aligner(weights / "yunet.onnx", largest=True, any_orientation=False)

    def embed(self, crop_HWC: np.ndarray) -> np.ndarray:
        image_BCHW = float_images(crop_HWC[None]).contiguous()
        with torch.no_grad():
            row_D: np.ndarray = self._embedder.embed(self._masker.mask(image_BCHW))[0].double().numpy()
        return row_D / np.linalg.norm(row_D)

    def read(self, photo_HWC: np.ndarray, *, is_crop: bool = False) -> tuple[FaceQuality, np.ndarray] | None:
        """Quality and embedding; None if no usable face is found. A crop is embedded as it is."""
        try:
            face = (self.upright_aligner if is_crop else self.aligner).aligned_face(photo_HWC)
        except AlignmentError:
            return None
        return face.quality, self.embed(photo_HWC if is_crop else face.crop_HWC)


@dataclasses.dataclass
class Kind:
    """References of one kind with the scores of their probes."""

    references: list[tuple[FaceQuality, np.ndarray]] = dataclasses.field(default_factory=list)
    num_not_found: int = 0

    def add(self, read: tuple[FaceQuality, np.ndarray] | None, probes_PD: np.ndarray) -> None:
        if read is None:
            self.num_not_found += 1
        else:
            self.references.append((read[0], probes_PD @ read[1]))

    def summary(self, threshold: float) -> dict[str, Any]:
        """Counts of references that are refused, by limit, and shares of comparisons that fail."""
        reasons = [[problem.split(" is ")[0] for problem in LIMITS.problems(q)] for q, _ in self.references]
        fails = [scores < threshold for _, scores in self.references]
        passed = [fail for fail, reason in zip(fails, reasons, strict=True) if not reason]
        refused = [fail for fail, reason in zip(fails, reasons, strict=True) if reason]
        figures = [dataclasses.astuple(quality) for quality, _ in self.references]
        names = [field.name for field in dataclasses.fields(FaceQuality)]
        return {
            "references": len(fails) + self.num_not_found,
            "face_not_found": self.num_not_found,
            "refused": len(refused),
            "refused_by": dict(Counter(name for reason in reasons for name in reason)),
            "fnmr": share(fails),
            "fnmr_of_passed": share(passed),
            "unusable": int(sum(fail.all() for fail in fails)),
            "unusable_passed": int(sum(fail.all() for fail in passed)),
            "median": {
                name: round(float(np.median(np.abs(column))), 3)
                for name, column in zip(names, np.transpose(figures), strict=True)
            }
            if figures
            else {},
        }


def share(fails: list[np.ndarray]) -> float | None:
    return round(float(np.concatenate(fails).mean()), 3) if fails else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of lfw_photos/ (not aligned) and cfp112/")
    parser.add_argument("--weights", type=Path, required=True, help=f"directory of yunet.onnx and {MODEL}")
    parser.add_argument("--lfw", type=int, default=70, help="people of LFW, three photos each")
    parser.add_argument("--degraded", type=int, default=30, help="people of LFW whose first photo is also degraded")
    parser.add_argument("--cfp", type=int, default=20, help="people of CFP, three frontal crops and one profile each")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    start_s = time.process_time()
    enrolment = Enrolment(arguments.weights)
    kinds: dict[str, Kind] = {name: Kind() for name in ("LFW as it is", "CFP frontal", "CFP profile")}
    clean_ND: list[np.ndarray] = []
    subject_N: list[int] = []
    people = sorted(path for path in (arguments.data / "lfw_photos").iterdir() if path.is_dir())[: arguments.lfw]
    for number, person in enumerate(people):
        photos = [read_image(path) for path in sorted(person.glob("*.jpg"))[:3]]
        reads = [enrolment.read(photo_HWC) for photo_HWC in photos]
        rows_ND = np.stack([read[1] for read in reads if read is not None])
        assert len(rows_ND) == 3, "a face is found in every photo of LFW"
        clean_ND.append(rows_ND)
        subject_N += [number] * 3
        for this, read in enumerate(reads):
            kinds["LFW as it is"].add(read, np.delete(rows_ND, this, axis=0))
        for name, change in changes(enrolment.aligner).items() if number < arguments.degraded else ():
            kinds.setdefault(name, Kind()).add(enrolment.read(change(photos[0])), rows_ND[1:])
    for number in range(1, arguments.cfp + 1):
        folder = arguments.data / "cfp112" / f"{number:03d}"
        probes_PD = np.stack([enrolment.embed(read_image(folder / "frontal" / f"{k:02d}.jpg")) for k in (1, 2)])
        for name, path in (("frontal", "frontal/03.jpg"), ("profile", "profile/01.jpg")):
            kinds[f"CFP {name}"].add(enrolment.read(read_image(folder / path), is_crop=True), probes_PD)
    row_ND, subjects_N = np.concatenate(clean_ND), np.array(subject_N)
    non_mated = np.sort((row_ND @ row_ND.T)[subjects_N[:, None] < subjects_N])
    threshold = float(non_mated[int(np.ceil((1 - FMR) * len(non_mated)))])
    found = {name: kind.summary(threshold) for name, kind in kinds.items()}
    degraded = [kind for name, kind in found.items() if name not in ("LFW as it is", "CFP frontal")]
    result = {
        "command": "python benchmarks/enrolment_quality.py --data DATA --weights WEIGHTS",
        "model": MODEL,
        "limits": dataclasses.asdict(LIMITS),
        "num_photos": 3 * len(people) + 4 * arguments.cfp,
        "threshold": round(threshold, 3),
        "non_mated_comparisons": len(non_mated),
        "cpu_s": round(time.process_time() - start_s),
        "passed_of_lfw": round(1 - found["LFW as it is"]["refused"] / found["LFW as it is"]["references"], 3),
        "unusable": {
            "of_found": sum(kind["unusable"] for kind in degraded),
            "passed": sum(kind["unusable_passed"] for kind in degraded),
        },
        "kinds": found,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
