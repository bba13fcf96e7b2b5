"""Workflows of `ppfr match`: decisions on photos or embeddings, by three parties or by a matcher in this process.

Suffixes: N probes or references, M references, D embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    DatasetError,
    ImageReadError,
    InvalidInputError,
    ProblemsError,
    SecureMatcher,
    choose_device,
)
from ppfr.data import (
    CROP_SHAPE,
    AlignedFace,
    Aligner,
    FaceQuality,
    QualityLimits,
    float_images,
    list_photos,
    read_image,
)
from ppfr.matching import ExactMatcher
from ppfr.secure import SubjectIndex, ThreePartyMatcher, any_per_claim, pairs_of
from ppfr.service import SecureGalleryClient
from ppfr.workflows._photos import describe_quality, find_yunet

AnswerKind = Literal["best", "any", "set"]
Backend = Literal["exact", "three-party"]
_BATCH_SIZE = 64


class Rows(NamedTuple):
    """Embeddings of a source.

    Attributes:
        rows_ND: (N, D) of L2 norm 1.
        names: N names.
        skipped: for each photo that was left out, the reasons.
        quality: N photos with their figures; empty for embeddings.
    """

    rows_ND: NDArray[np.float64]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    quality: tuple[tuple[Path, FaceQuality], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceReader:
    """Reads photos as embeddings.

    Attributes:
        model: name of a public network, or directory of a trained system; None if only embeddings are read.
        secret_path: file of the system's secret; None for the default file in the directory of the system.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        takes_largest: use the largest face of a photo with several.
        skips_unreadable: leave out photos that cannot be used, and report them in `Rows.skipped`.
        limits: photos that fail one cannot be used. Of an image that is an aligned crop already, only the sharpness
            is checked.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
    """

    model: str | None = None
    secret_path: Path | None = None
    weights: Path | None = None
    takes_largest: bool = False
    skips_unreadable: bool = False
    limits: QualityLimits | None = None
    device: str = "auto"

    def read(self, source: Path) -> Rows:
        """Read a .npy file, a photo, or a folder of photos.

        Returns:
            Embeddings with a name each. The name of a photo is its sub-folder, or its file name if it is in none. The
            name of a row of a .npy file is its number.

        Raises:
            InvalidInputError: the source does not exist, photos without a model, or an array that is not (N, D) floats.
            ProblemsError: photos that cannot be read, show no single face or fail a limit; all are listed, with every
                limit that they fail. With `skips_unreadable`, only if no photo remains.
        """
        if source.suffix.lower() == ".npy":
            return Rows(*_rows_of_file(source))
        photos = _photos_of(source)
        if self.model is None:
            raise InvalidInputError("Photos need a recogniser. Give --model, the same for references and probes.")
        face_of, problems = self._faces(photos)
        if problems and not (self.skips_unreadable and face_of):
            raise ProblemsError(f"{len(problems)} of {len(photos)} photos cannot be used", problems)
        names = tuple(_name_of(photo, source) for photo in face_of)
        quality = tuple((photo, face.quality) for photo, face in face_of.items())
        return Rows(self._embedded([face.crop_HWC for face in face_of.values()]), names, tuple(problems), quality)

    def _faces(self, photos: Sequence[Path]) -> tuple[dict[Path, AlignedFace], list[str]]:
        aligner: Aligner | None = None
        face_of: dict[Path, AlignedFace] = {}
        problems = []
        for photo in photos:
            try:
                image_HWC = read_image(photo)
                if image_HWC.shape == CROP_SHAPE:
                    face = AlignedFace(crop_HWC=image_HWC, quality=FaceQuality.measure(image_HWC))
                else:
                    if aligner is None:
                        aligner = Aligner(find_yunet(self.weights), largest=self.takes_largest)
                    face = aligner.aligned_face(image_HWC)
                failed = () if self.limits is None else self.limits.problems(face.quality)
                if failed:
                    problems.append(f"{photo}: {'; '.join(failed)}")
                else:
                    face_of[photo] = face
            except ImageReadError as error:
                problems.append(str(error))
            except InvalidInputError as error:
                problems.append(f"{photo}: {error}")
        return face_of, problems

    def _embedded(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        import torch

        from ppfr.models import NetworkEmbedder, for_inference
        from ppfr.systems import read_recogniser

        where = choose_device(self.device)
        system = read_recogniser(str(self.model), secret_path=self.secret_path, weights=self.weights)
        embedder = NetworkEmbedder(for_inference(system.network).to(where))
        rows = []
        for start in range(0, len(crops), _BATCH_SIZE):
            image_BCHW = float_images(np.stack(crops[start : start + _BATCH_SIZE])).contiguous()
            with torch.no_grad():
                rows.append(embedder.embed(system.masker.mask(image_BCHW.to(where))).cpu().double().numpy())
        row_ND = np.concatenate(rows)
        return np.asarray(row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True))


class ExactGallery:
    """A `SecureMatcher` that compares embeddings by cosine in this process. It protects nothing.

    Args:
        rows_MD: (M, D) of L2 norm 1.
        subjects: of the rows.
    """

    def __init__(self, rows_MD: NDArray[Any], subjects: Sequence[str]) -> None:
        self._subjects = SubjectIndex(subjects, len(rows_MD))
        self._matcher = ExactMatcher(rows_MD)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of the M references."""
        return self._subjects.subjects

    @property
    def dim(self) -> int:
        """D."""
        return self._matcher.dim

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.verify`."""
        claim_P, reference_P = pairs_of(self._subjects.references_of(probes_ND, subjects))
        accepted_NM = self._matcher.score_matrix(probes_ND) >= threshold
        return any_per_claim(accepted_NM[claim_P, reference_P], claim_P, len(subjects))

    def match_any(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.match_any`."""
        return np.asarray((self._matcher.score_matrix(probes_BD) >= threshold).any(axis=1))

    def match_all(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[tuple[str, ...], ...]:
        """See `SecureMatcher.match_all`."""
        return self._subjects.all_of(self._matcher.score_matrix(probes_BD) >= threshold)

    def identify(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[str | None, ...]:
        """See `SecureMatcher.identify`."""
        score_BM = self._matcher.score_matrix(probes_BD)
        return self._subjects.best_of(np.where(score_BM.max(axis=1) >= threshold, score_BM.argmax(axis=1), -1))

    def close(self) -> None:
        """Do nothing; there are no threads or connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_gallery(parties: Path | None, gallery: Path | None, backend: str, faces: FaceReader) -> SecureMatcher:
    """Connect to three parties, or read a gallery from photos or embeddings.

    Args:
        parties: configuration of the client of three parties; excludes `gallery`.
        gallery: source of the references, as for `FaceReader.read`.
        backend: one of `Backend`; what matches a `gallery`.
        faces: reads the source.

    Raises:
        InvalidInputError: both or neither of `parties` and `gallery`, or an unknown backend.
    """
    if (parties is None) == (gallery is None):
        raise InvalidInputError(
            "Give either --parties CLIENT.toml (three servers) or --gallery SOURCE (in this process)."
        )
    if parties is not None:
        return SecureGalleryClient.open(parties)
    if backend not in get_args(Backend):
        raise InvalidInputError(f"--backend must be one of {', '.join(get_args(Backend))}, got {backend!r}.")
    found = dataclasses.replace(faces, skips_unreadable=False).read(Path(str(gallery)))
    if backend == "exact":
        return ExactGallery(found.rows_ND, found.names)
    return ThreePartyMatcher(found.rows_ND, subjects=found.names)


def match_enrol(
    source: Path,
    *,
    parties: Path,
    subject: str | None,
    faces: FaceReader,
    limits: Mapping[str, float],
    takes_any_quality: bool,
) -> dict[str, Any]:
    """Enrol photos of sufficient quality, or embeddings, at three parties.

    Args:
        source: as for `FaceReader.read`.
        parties: configuration of the client.
        subject: of all rows; None for their names.
        faces: reads the source.
        limits: fields of `QualityLimits` that replace its defaults.
        takes_any_quality: set no limits.

    Raises:
        InvalidInputError: limits together with `takes_any_quality` or with embeddings.
        RangeError: a limit is out of range.
        PpfrError: as `FaceReader.read` and `SecureGalleryClient.enrol`.
    """
    if limits and (takes_any_quality or source.suffix.lower() == ".npy"):
        other = "--any-quality" if takes_any_quality else "embeddings, which have no quality"
        raise InvalidInputError(f"Got limits of quality ({', '.join(limits)}) together with {other}. Give one of them.")
    checks = None if takes_any_quality else QualityLimits(**limits)
    rows_ND, names, skipped, quality = dataclasses.replace(faces, limits=checks).read(source)
    subjects = names if subject is None else (subject,) * len(names)
    with SecureGalleryClient.open(parties) as client:
        client.enrol(rows_ND, subjects)
        counts = {"enrolled": len(rows_ND), "subjects": len(set(subjects)), "references_now": len(client.subjects)}
    used = (
        {} if checks is None else {key: value for key, value in dataclasses.asdict(checks).items() if value is not None}
    )
    figures = {"limits": used} | describe_quality(quality) if quality else {}
    return counts | _skipped(skipped) | figures


def match_remove(subjects: Sequence[str], *, parties: Path) -> dict[str, Any]:
    """Erase all references of subjects at three parties; raises as `SecureGalleryClient.remove`."""
    with SecureGalleryClient.open(parties) as client:
        return {"removed": client.remove(subjects), "references_now": len(client.subjects)}


def match_refresh(parties: Path) -> dict[str, Any]:
    """Begin a new epoch of the shares at three parties; raises as `SecureGalleryClient.refresh`."""
    with SecureGalleryClient.open(parties) as client:
        client.refresh()
        return {"references": len(client.subjects)}


def match_status(parties: Path) -> dict[str, Any]:
    """The status of each party, and whether all three have a session."""
    with SecureGalleryClient.open(parties) as client:
        statuses = client.status()
    return {"all_up": all(status.get("problem") == "" for status in statuses), "parties": statuses}


def match_verify(
    source: Path,
    subject: str,
    *,
    threshold: float | str,
    parties: Path | None,
    gallery: Path | None,
    backend: str,
    faces: FaceReader,
) -> dict[str, Any]:
    """Compare each probe with a claimed subject; raises as `SecureGalleryClient.verify` and `FaceReader.read`.

    `threshold` is a number, or the name of a hidden threshold of three parties.
    """
    chosen = _threshold(threshold, parties)
    with open_gallery(parties, gallery, backend, faces) as matcher:
        rows_ND, names, skipped, _ = faces.read(source)
        accepted = matcher.verify(rows_ND, [subject] * len(rows_ND), threshold=chosen).tolist()
    found = {"probes": len(accepted), "num_accepted": sum(accepted), "accepted": accepted}
    return found | ({"names": list(names)} if skipped else {}) | _skipped(skipped)


def match_identify(
    source: Path,
    *,
    answer: str,
    threshold: float | str,
    parties: Path | None,
    gallery: Path | None,
    backend: str,
    faces: FaceReader,
) -> dict[str, Any]:
    """Search each probe in the gallery; raises as `match_verify`."""
    if answer not in get_args(AnswerKind):
        raise InvalidInputError(f"--answer must be one of {', '.join(get_args(AnswerKind))}, got {answer!r}.")
    chosen = _threshold(threshold, parties)
    with open_gallery(parties, gallery, backend, faces) as matcher:
        rows_ND, names, skipped, _ = faces.read(source)
        found: Sequence[Any]
        if answer == "any":
            found = matcher.match_any(rows_ND, threshold=chosen).tolist()
        elif answer == "set":
            found = [list(subjects) for subjects in matcher.match_all(rows_ND, threshold=chosen)]
        else:
            found = matcher.identify(rows_ND, threshold=chosen)
    key = {"any": "is_enrolled", "set": "subjects", "best": "subject"}[answer]
    answers = [{"name": name, key: one} for name, one in zip(names, found, strict=True)]
    counts = {"probes": len(answers), "num_found": sum(bool(one) for one in found), "answers": answers}
    return counts | _skipped(skipped)


def _threshold(given: float | str, parties: Path | None) -> Any:
    """A number, or a name for the client of three parties; other matchers take numbers only."""
    try:
        return float(given)
    except ValueError:
        if parties is not None:
            return given
        raise InvalidInputError(
            f"The threshold {given!r} is not a number. Give one in -1..1; names of hidden thresholds need --parties."
        ) from None


def _skipped(skipped: Sequence[str]) -> dict[str, Any]:
    return {"num_skipped": len(skipped), "skipped": list(skipped)} if skipped else {}


def _rows_of_file(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InvalidInputError(f"{path} does not exist. Give a .npy file, a photo or a folder of photos.") from None
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} is not a readable .npy file: {error}") from error
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise InvalidInputError(f"Expected floats of shape (N, D) in {path}, got {array.dtype} of shape {array.shape}.")
    row_ND = np.atleast_2d(array).astype(np.float64)
    return row_ND, tuple(str(number) for number in range(len(row_ND)))


def _photos_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InvalidInputError(f"{source} does not exist. Give a .npy file, a photo or a folder of photos.")
    listing = list_photos(source)
    if not listing.photos:
        raise DatasetError(
            f"{source} contains no photos. Give a folder of photos, a photo, or a .npy file. Files left out:"
            f" {listing.describe_left_out()}."
        )
    return list(listing.photos)


def _name_of(photo: Path, source: Path) -> str:
    parts = photo.relative_to(source).parts if source.is_dir() else ()
    return parts[0] if len(parts) > 1 else photo.stem
