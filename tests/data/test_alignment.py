"""Detection and alignment: the transform against its textbook form, folders with generated photos, real photos."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppfr.assets import Asset
from ppfr.core import (
    AlignmentError,
    DatasetError,
    InvalidInputError,
    MissingAssetError,
    MissingWeightsError,
    PpfrError,
    ProblemsError,
    ShapeError,
    StorageError,
)
from ppfr.data import (
    TEMPLATE_52,
    AlignedFace,
    Aligner,
    Face,
    FaceQuality,
    align_folder,
    fetch_lfw,
    read_folder,
    read_image,
    read_lfw,
    similarity_transform,
    warp_to_crop,
    write_crop,
)
from reference import umeyama

Crop = Callable[..., np.ndarray]


@settings(deadline=None, max_examples=100)
@given(
    scale=st.floats(0.05, 20),
    angle=st.floats(-3.1, 3.1),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    noise=st.integers(0, 2**32 - 1),
)
def test_similarity_is_umeyamas(scale: float, angle: float, shift: tuple[float, float], noise: int) -> None:
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    exact_N2 = TEMPLATE_52 @ matrix.T + shift
    found = similarity_transform(TEMPLATE_52, exact_N2)
    np.testing.assert_allclose(found, np.column_stack([matrix, shift]), atol=1e-8 * max(1, scale))
    noisy_N2 = exact_N2 + np.random.default_rng(noise).normal(0, 5, (5, 2))
    expected = umeyama.umeyama(noisy_N2, TEMPLATE_52)
    np.testing.assert_allclose(similarity_transform(noisy_N2, TEMPLATE_52), expected, atol=1e-7)


def test_similarity_transform_rejects_coinciding_points() -> None:
    with pytest.raises(AlignmentError, match="coincide"):
        similarity_transform(np.ones((5, 2)), TEMPLATE_52)
    with pytest.raises(ShapeError):
        similarity_transform(np.ones((4, 2)), TEMPLATE_52)


def test_a_warped_crop_comes_back(crop: Crop) -> None:
    """A crop turned, scaled by two and moved into a photo is cut out again by its landmarks."""
    inner = crop(7)
    matrix = np.array([[2 * np.cos(0.4), -2 * np.sin(0.4), 180.0], [2 * np.sin(0.4), 2 * np.cos(0.4), 40.0]])
    photo = cv2.warpAffine(inner, matrix, (420, 420), flags=cv2.INTER_CUBIC)
    landmarks = TEMPLATE_52 @ matrix[:, :2].T + matrix[:, 2]
    middle = (slice(8, -8), slice(8, -8))
    assert np.abs(warp_to_crop(photo, landmarks)[middle].astype(int) - inner[middle]).mean() < 1.0


class StandIn:
    """An aligner that finds as many faces as the photo's upper left pixel says, for folder tests without a detector."""

    def aligned_face(self, photo_HWC: np.ndarray) -> AlignedFace:
        if photo_HWC[0, 0, 0] == 0:
            raise AlignmentError("no face was found; use another photo")
        crop_HWC = cv2.resize(photo_HWC, (112, 112))
        return AlignedFace(crop_HWC=crop_HWC, quality=FaceQuality.measure(crop_HWC))


def write_photos(folder: Path, crop: Crop, *, faceless: int = 0) -> None:
    for number in range(5):
        photo = np.maximum(crop(number, (60, 80)), 1)
        if number < faceless:
            photo[0, 0] = 0
        write_crop(photo, folder / f"p{number % 2}" / f"{number}.png")


def test_folders_are_aligned_to_the_same_tree(tmp_path: Path, crop: Crop) -> None:
    write_photos(tmp_path / "in", crop)
    told: list[tuple[int, int]] = []
    crops = align_folder(tmp_path / "in", tmp_path / "out", StandIn(), on_progress=lambda *now: told.append(now))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in crops] == [
        "p0/0.png",
        "p0/2.png",
        "p0/4.png",
        "p1/1.png",
        "p1/3.png",
    ]
    assert told[-1] == (5, 5)
    assert len(read_folder(tmp_path / "out")) == 5
    kept = crops[0].stat().st_mtime_ns
    align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    assert crops[0].stat().st_mtime_ns == kept
    align_folder(tmp_path / "in", tmp_path / "out", StandIn(), keeps_existing=False)
    assert crops[0].stat().st_mtime_ns != kept


def test_align_folder_lists_all_bad_photos_and_writes_the_others(tmp_path: Path, crop: Crop) -> None:
    write_photos(tmp_path / "in", crop, faceless=2)
    (tmp_path / "in" / "p0" / "empty.jpg").write_bytes(b"")
    with pytest.raises(ProblemsError) as caught:
        align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    assert len(caught.value.problems) == 3
    assert "3 of 6 photos are aligned" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["2.png", "3.png", "4.png"]
    (tmp_path / "in" / "p0" / "empty.jpg").unlink()
    crops = align_folder(tmp_path / "in", tmp_path / "out", StandIn(), without_face=lambda p: np.zeros_like(crop(0)))
    assert len(crops) == 5
    assert read_image(crops[0]).max() == 0


def test_align_folder_rejects_unusable_folders(tmp_path: Path, crop: Crop) -> None:
    with pytest.raises(MissingAssetError, match="Give a folder"):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="contains no photo"):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    write_photos(tmp_path / "in", crop)
    with pytest.raises(InvalidInputError, match="outside the photos"):
        align_folder(tmp_path / "in", tmp_path / "in" / "crops", StandIn())
    write_crop(crop(0), tmp_path / "in" / "p0" / "0.jpg")
    with pytest.raises(DatasetError, match="rename them"):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    with pytest.raises(InvalidInputError, match=r"1\.\.100"):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn(), quality=0)


def test_a_full_disk_stops_with_whole_files_only(tmp_path: Path, crop: Crop, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "in", crop)
    written = Path.write_bytes
    count = iter(range(9))

    def fill_up(path: Path, content: bytes) -> int:
        if next(count) == 2:
            written(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(StorageError, match="Free space"):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn())
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(read_image(path).shape == (112, 112, 3) for path in files)


def test_aligner_rejects_missing_or_wrong_detectors(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="PPFR_WEIGHTS"):
        Aligner(tmp_path / "yunet.onnx")
    (tmp_path / "yunet.onnx").write_bytes(b"no network")
    with pytest.raises(InvalidInputError, match="not a YuNet"):
        Aligner(tmp_path / "yunet.onnx")
    with pytest.raises(InvalidInputError, match="confidence is"):
        Aligner(tmp_path / "yunet.onnx", confidence=1.0)


@pytest.fixture(scope="module")
def photos(data_root: Path) -> list[Path]:
    return sorted((data_root / "lfw_photos").glob("*/*.jpg"))


@pytest.fixture(scope="module")
def aligner(weights_root: Path) -> Aligner:
    return Aligner(weights_root / "yunet.onnx")


def landmark_error_px(one: np.ndarray, other: np.ndarray, between_eyes: float) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean() / between_eyes)


@pytest.mark.real_data
def test_a_face_is_found_in_every_photo_and_crops_agree_with_the_kept_ones(
    photos: list[Path], weights_root: Path, data_root: Path
) -> None:
    """The kept crops come from another run of YuNet, whose points differ from ours as ours do between sizes."""
    largest = Aligner(weights_root / "yunet.onnx", largest=True)
    differences, unrelated = [], []
    kept = [read_image(data_root / "lfw112" / photo.parent.name / photo.name).astype(int) for photo in photos]
    for number, photo in enumerate(photos):
        crop_HWC = largest.align(read_image(photo)).astype(int)
        differences.append(np.abs(crop_HWC - kept[number]).mean())
        unrelated.append(np.abs(crop_HWC - kept[number - 7]).mean())
    assert len(photos) == 400
    assert np.mean(differences) < 15.0
    assert np.mean(differences) < 0.35 * np.mean(unrelated)


@pytest.mark.real_data
def test_refinement_reduces_variation_of_landmarks_with_size_and_mirroring(
    photos: list[Path], weights_root: Path
) -> None:
    largest = Aligner(weights_root / "yunet.onnx", largest=True)
    plain, refined = [], []
    for photo in photos[::20]:
        small_HWC = read_image(photo)
        large_HWC = cv2.resize(small_HWC, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC)
        found = [
            (photo_HWC, max(largest.detect(photo_HWC), key=lambda face: face.area_px))
            for photo_HWC in (small_HWC, large_HWC)
        ]
        between = float(np.linalg.norm(found[0][1].landmarks_52[0] - found[0][1].landmarks_52[1]))
        plain.append(landmark_error_px(found[0][1].landmarks_52, found[1][1].landmarks_52 / 1.7, between))
        points = [largest.refined_landmarks(photo_HWC, face) for photo_HWC, face in found]
        refined.append(landmark_error_px(points[0], points[1] / 1.7, between))
    assert np.mean(refined) < 0.7 * np.mean(plain)
    assert np.mean(refined) < 0.04


@pytest.mark.real_data
def test_large_turned_and_odd_photos(photos: list[Path], aligner: Aligner, tmp_path: Path) -> None:
    photo_HWC = read_image(photos[0])
    (face,) = aligner.detect(photo_HWC)
    assert isinstance(face, Face)
    assert 0.7 <= face.confidence <= 1.0
    large_HWC = cv2.resize(photo_HWC, None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC)
    (large,) = aligner.detect(large_HWC)
    assert landmark_error_px(large.landmarks_52 / 12, face.landmarks_52, 46.0) < 0.15
    assert np.abs(aligner.align(large_HWC).astype(int) - aligner.align(photo_HWC)).mean() < 12
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(photo_HWC))).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(aligner.align(read_image(tmp_path / "turned.png")), aligner.align(photo_HWC))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(aligner)).align(photo_HWC), aligner.align(photo_HWC))
    for bad in (photo_HWC[..., 0], photo_HWC.astype(np.float32), photo_HWC[:8], np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(ShapeError, match="read_image"):
            aligner.detect(bad)


def turned(photo_HWC: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo turned counter-clockwise, and the (2, 3) matrix that does it."""
    height, width = photo_HWC.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    cosine, sine = np.abs(matrix[0, :2])
    size = (round(width * cosine + height * sine), round(width * sine + height * cosine))
    matrix[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
    return cv2.warpAffine(photo_HWC, matrix, size), matrix


@pytest.mark.real_data
@pytest.mark.parametrize("angle_deg", [30, 45, 90, 180, 270])
def test_turned_faces_are_turned_back(angle_deg: int, photos: list[Path], aligner: Aligner) -> None:
    """YuNet finds turned faces too, but with the landmarks of an upright one: the crop was that of nobody."""
    for photo in photos[:60:12]:
        photo_HWC = read_image(photo)
        face = aligner.upright(photo_HWC, aligner.detect(photo_HWC)[0])
        assert face.roll_deg == 0.0
        expected_52 = aligner.refined_landmarks(photo_HWC, face)
        turned_HWC, matrix = turned(photo_HWC, angle_deg)
        back = aligner.upright(turned_HWC, aligner.detect(turned_HWC)[0])
        found_52 = aligner.refined_landmarks(turned_HWC, back)
        expected_52 = expected_52 @ matrix[:, :2].T + matrix[:, 2]
        between = float(np.linalg.norm(expected_52[0] - expected_52[1]))
        assert landmark_error_px(found_52, expected_52, between) < 0.15
        assert abs((back.roll_deg + angle_deg + 180) % 360 - 180) < 12.5


@pytest.mark.real_data
@pytest.mark.parametrize("side", [320, 1280, 2560])
def test_faces_that_fill_the_frame_are_found(side: int, photos: list[Path], aligner: Aligner) -> None:
    for photo in photos[:60:12]:
        photo_HWC = read_image(photo)
        expected_52 = (aligner.refined_landmarks(photo_HWC, aligner.detect(photo_HWC)[0]) - 59) * side / 132
        near_HWC = cv2.resize(photo_HWC[59:191, 59:191], (side, side), interpolation=cv2.INTER_CUBIC)
        (face,) = aligner.detect(near_HWC)
        found_52 = aligner.refined_landmarks(near_HWC, aligner.upright(near_HWC, face))
        assert landmark_error_px(found_52, expected_52, float(np.linalg.norm(expected_52[0] - expected_52[1]))) < 0.15


@pytest.mark.real_data
def test_align_rejects_photos_without_exactly_one_face(
    photos: list[Path], aligner: Aligner, weights_root: Path, crop: Crop
) -> None:
    with pytest.raises(AlignmentError, match="no face was found"):
        aligner.align(crop(3, (240, 320)))
    one, other = (read_image(photos[number]) for number in (0, 4))
    both_HWC = np.hstack([one, cv2.resize(other, (125, 250))])
    with pytest.raises(AlignmentError, match=r"[23] faces.*--largest"):
        aligner.align(both_HWC)
    largest = Aligner(weights_root / "yunet.onnx", largest=True).align(both_HWC)
    assert np.abs(largest.astype(int) - aligner.align(one)).mean() < 12


PAIRS = "1\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBob_Ray\t1\n"


@pytest.fixture
def lfw_server(crop: Crop) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A loopback server with an archive of generated photos and a pair list."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number, name in enumerate(["Ann_Lee_0001", "Ann_Lee_0002", "Bob_Ray_0001"]):
            photo = io.BytesIO()
            Image.fromarray(crop(number, (250, 250))).save(photo, "JPEG")
            info = tarfile.TarInfo(f"lfw/{name[:-5]}/{name}.jpg")
            info.size = len(photo.getvalue())
            photo.seek(0)
            tar.addfile(info, photo)
    served = {"/lfw.tgz": buffer.getvalue(), "/pairs.txt": PAIRS.encode()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(served[self.path])))
            self.end_headers()
            self.wfile.write(served[self.path])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", served
        server.shutdown()
        thread.join(5)


@pytest.mark.real_data
def test_lfw_is_downloaded_aligned_and_read_back(
    lfw_server: tuple[str, dict[str, bytes]], weights_root: Path, tmp_path: Path, crop: Crop
) -> None:
    url, served = lfw_server
    photos, pairs = (
        Asset(name=name, sha256=hashlib.sha256(served[f"/{name}"]).hexdigest(), urls=(f"{url}/{name}",))
        for name in ("lfw.tgz", "pairs.txt")
    )
    root, yunet = tmp_path / "data", weights_root / "yunet.onnx"
    damaged = Asset(name="pairs.txt", sha256="0" * 64, urls=pairs.urls)
    with pytest.raises(PpfrError):
        fetch_lfw(root, yunet_path=yunet, photos=photos, pairs=damaged, progress=False)
    with pytest.raises(MissingAssetError):  # an unfinished set is not taken for a set
        read_lfw(root)
    images = fetch_lfw(root, yunet_path=yunet, photos=photos, pairs=pairs, progress=False)
    assert [path.name for path in images.paths] == ["Ann_Lee_0001.jpg", "Ann_Lee_0002.jpg", "Bob_Ray_0001.jpg"]
    assert len(read_lfw(root)) == 2
    assert [path.name for path in root.iterdir()] == ["lfw112"]
    # generated photos show no face, so the crops are their middles
    middle = cv2.resize(crop(0, (250, 250))[59:191, 59:191], (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(images.read([0])[0].astype(int) - middle).mean() < 4
    served.clear()
    assert len(fetch_lfw(root, yunet_path=yunet, photos=photos, pairs=pairs, progress=False)) == 3
