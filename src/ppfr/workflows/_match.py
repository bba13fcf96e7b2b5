"""What `ppfr match` does: photos or embeddings in, decisions out, by three parties or by a matcher in this process.

Suffixes: N probes or references, M references, D embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    DatasetError,
    ImageReadError,
    InvalidInputError,
    ProblemsError,
    SecureMatcher,
    choose_device,
    fresh_generator,
)
from ppfr.data import CROP_SHAPE, IMAGE_SUFFIXES, Aligner, float_images, read_image
from ppfr.matching import ExactMatcher
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.secure import ThreePartyMatcher
from ppfr.service import SecureGalleryClient
from ppfr.systems._system import read_recogniser
from ppfr.workflows._photos import find_yunet

AnswerKind = Literal["best", "any", "set"]
Backend = Literal["exact", "three-party"]
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceReader:
    """How photos become embeddings.

    Attributes:
        model: a public network's name, or the directory of a trained system; None where only embeddings are read.
        secret_path: the system's secret; None for the file beside it.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        takes_largest: take the largest of several faces.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
    """

    model: str | None = None
    secret_path: Path | None = None
    weights: Path | None = None
    takes_largest: bool = False
    device: str = "auto"

    def read(self, source: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        """(N, D) unit rows of a .npy file, a photo, or a folder of photos, and a name of each.

        A photo is named after its sub-folder, or by its own name where it is in none; a row by its number.

        Raises:
            InvalidInputError: no such source, photos without a model, rows that are none.
            ProblemsError: photos that give no face; all are listed.
        """
        if source.suffix.lower() == ".npy":
            return _rows_of_file(source)
        photos = _photos_of(source)
        if self.model is None:
            raise InvalidInputError("photos need a recogniser; give --model, the same one for references and probes")
        names = tuple(_name_of(photo, source) for photo in photos)
        return self._embedded(self._crops(photos)), names

    def _crops(self, photos: Sequence[Path]) -> list[NDArray[np.uint8]]:
        aligner: Aligner | None = None
        crops, problems = [], []
        for photo in photos:
            try:
                image_HWC = read_image(photo)
                if image_HWC.shape != CROP_SHAPE:
                    if aligner is None:
                        aligner = Aligner(find_yunet(self.weights), largest=self.takes_largest)
                    image_HWC = aligner.align(image_HWC)
                crops.append(image_HWC)
            except ImageReadError as error:
                problems.append(str(error))
            except InvalidInputError as error:
                problems.append(f"{photo}: {error}")
        if problems:
            raise ProblemsError(f"{len(photos) - len(problems)} of {len(photos)} photos show a face", problems)
        return crops

    def _embedded(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        where = choose_device(self.device)
        system = read_recogniser(str(self.model), secret_path=self.secret_path, weights=self.weights)
        embedder = NetworkEmbedder(for_inference(system.network).to(where))
        rng = fresh_generator()
        rows = []
        for start in range(0, len(crops), _AT_ONCE):
            image_BCHW = float_images(np.stack(crops[start : start + _AT_ONCE])).contiguous()
            with torch.no_grad():
                rows.append(embedder.embed(system.masker.mask(image_BCHW.to(where), rng=rng)).cpu().double().numpy())
        row_ND = np.concatenate(rows)
        return np.asarray(row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True))


class ExactGallery:
    """Plain cosine in this process behind the methods of `SecureMatcher`; it protects nothing.

    Args:
        rows_MD: (M, D) of L2 norm 1.
        subjects: of the rows.
    """

    def __init__(self, rows_MD: NDArray[Any], subjects: Sequence[str]) -> None:
        self.subjects = tuple(subjects)
        self._subjects_M = np.array(subjects)
        self._matcher = ExactMatcher(rows_MD)

    @property
    def dim(self) -> int:
        """D."""
        return self._matcher.dim

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float) -> NDArray[np.bool_]:
        """(N,): whether any reference of the claimed subject is accepted."""
        if not set(subjects) <= set(self.subjects):
            raise InvalidInputError("a subject is not enrolled; compare the names with those of the gallery")
        accepted_NM = self._matcher.score_matrix(probes_ND) >= threshold
        return np.asarray((accepted_NM & (self._subjects_M[None] == np.array(subjects)[:, None])).any(axis=1))

    def match_any(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """(B,)."""
        return np.asarray((self._matcher.score_matrix(probes_BD) >= threshold).any(axis=1))

    def match_all(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[tuple[str, ...], ...]:
        """Subjects of each probe."""
        accepted_BM = self._matcher.score_matrix(probes_BD) >= threshold
        return tuple(tuple(sorted(set(self._subjects_M[row_M].tolist()))) for row_M in accepted_BM)

    def identify(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[str | None, ...]:
        """The best subject of each probe."""
        score_BM = self._matcher.score_matrix(probes_BD)
        best_B = np.where(score_BM.max(axis=1) >= threshold, score_BM.argmax(axis=1), -1)
        return tuple(None if index < 0 else self.subjects[index] for index in best_B.tolist())

    def close(self) -> None:
        """Do nothing: there are no threads or connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_gallery(parties: Path | None, gallery: Path | None, backend: str, faces: FaceReader) -> SecureMatcher:
    """Three parties by a client's configuration, or a gallery that is read from photos or embeddings now.

    Raises:
        InvalidInputError: both, or neither; an unknown backend.
    """
    if (parties is None) == (gallery is None):
        raise InvalidInputError("give --parties CLIENT.toml (three servers) or --gallery SOURCE (in this process)")
    if parties is not None:
        return SecureGalleryClient.open(parties)
    if backend not in get_args(Backend):
        raise InvalidInputError(f"backend {backend!r} is not one of {', '.join(get_args(Backend))}")
    rows_MD, names = faces.read(Path(str(gallery)))
    return ExactGallery(rows_MD, names) if backend == "exact" else ThreePartyMatcher(rows_MD, subjects=names)


def match_enrol(source: Path, *, parties: Path, subject: str | None, faces: FaceReader) -> dict[str, Any]:
    """Enrol photos or embeddings at three parties; errors as for `SecureGalleryClient.enrol` and `FaceReader.read`."""
    rows_ND, names = faces.read(source)
    subjects = names if subject is None else (subject,) * len(names)
    with SecureGalleryClient.open(parties) as client:
        client.enrol(rows_ND, subjects)
        return {"enrolled": len(rows_ND), "subjects": len(set(subjects)), "references_now": len(client.subjects)}


def match_remove(subjects: Sequence[str], *, parties: Path) -> dict[str, Any]:
    """Erase subjects at three parties; errors as for `SecureGalleryClient.remove`."""
    with SecureGalleryClient.open(parties) as client:
        return {"removed": client.remove(subjects), "references_now": len(client.subjects)}


def match_status(parties: Path) -> dict[str, Any]:
    """The status of each party, and whether all three have a session."""
    with SecureGalleryClient.open(parties) as client:
        statuses = client.status()
    return {"all_up": all(status.get("problem") == "" for status in statuses), "parties": statuses}


def match_verify(
    source: Path,
    subject: str,
    *,
    threshold: float,
    parties: Path | None,
    gallery: Path | None,
    backend: str,
    faces: FaceReader,
) -> dict[str, Any]:
    """Decide of each probe whether it is the subject; errors as for `SecureGalleryClient.verify`, `FaceReader.read`."""
    with open_gallery(parties, gallery, backend, faces) as matcher:
        rows_ND, _ = faces.read(source)
        accepted = matcher.verify(rows_ND, [subject] * len(rows_ND), threshold=threshold).tolist()
    return {"probes": len(accepted), "num_accepted": sum(accepted), "accepted": accepted}


def match_identify(
    source: Path,
    *,
    answer: str,
    threshold: float,
    parties: Path | None,
    gallery: Path | None,
    backend: str,
    faces: FaceReader,
) -> dict[str, Any]:
    """Look for each probe in the gallery; errors as for `match_verify`."""
    if answer not in get_args(AnswerKind):
        raise InvalidInputError(f"answer {answer!r} is not one of {', '.join(get_args(AnswerKind))}")
    with open_gallery(parties, gallery, backend, faces) as matcher:
        rows_ND, names = faces.read(source)
        found: Sequence[Any]
        if answer == "any":
            found = matcher.match_any(rows_ND, threshold=threshold).tolist()
        elif answer == "set":
            found = [list(subjects) for subjects in matcher.match_all(rows_ND, threshold=threshold)]
        else:
            found = matcher.identify(rows_ND, threshold=threshold)
    key = {"any": "is_enrolled", "set": "subjects", "best": "subject"}[answer]
    told = [{"name": name, key: one} for name, one in zip(names, found, strict=True)]
    return {"probes": len(told), "num_found": sum(bool(one) for one in found), "answers": told}


def _rows_of_file(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InvalidInputError(f"{path} is not there; give a .npy file, a photo or a folder of photos") from None
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read as .npy: {error}") from error
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise InvalidInputError(f"{path} holds {array.dtype} of shape {array.shape}; give floats, (N, D) of L2 norm 1")
    row_ND = np.atleast_2d(array).astype(np.float64)
    return row_ND, tuple(str(number) for number in range(len(row_ND)))


def _photos_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InvalidInputError(f"{source} is not there; give a .npy file, a photo or a folder of photos")
    photos = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not photos:
        raise DatasetError(f"{source} holds no photo; give a folder that does, a photo, or a .npy file")
    return photos


def _name_of(photo: Path, source: Path) -> str:
    parts = photo.relative_to(source).parts if source.is_dir() else ()
    return parts[0] if len(parts) > 1 else photo.stem
