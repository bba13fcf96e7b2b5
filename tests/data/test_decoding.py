"""Every kind of file that a user may hand in: pixels, or an error that names the remedy."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from ppfr.core import ImageReadError
from ppfr.data import read_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def colours(crop: Callable[..., np.ndarray]) -> np.ndarray:
    return crop(3, (40, 60))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_kinds_give_the_pixels(kind: str, colours: np.ndarray) -> None:
    read = read_image(encoded(Image.fromarray(colours), kind))
    np.testing.assert_array_equal(read, colours)
    assert read.flags.writeable
    assert read.flags.c_contiguous


def test_jpeg_agrees_with_opencv_to_the_bit(colours: np.ndarray, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(colours), "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(data)
    oracle = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), oracle)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.jpg")), oracle)


def test_grey_and_black_and_white_are_repeated(colours: np.ndarray) -> None:
    grey = colours[..., 0]
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(grey), "PNG")), np.dstack([grey] * 3))
    bits = Image.fromarray(grey > 128)
    np.testing.assert_array_equal(read_image(encoded(bits, "PNG"))[..., 1], np.where(grey > 128, 255, 0))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    read = read_image(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(read, np.dstack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3))
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(values), "TIFF")), read)


def test_sixteen_bit_colour_keeps_its_high_byte(colours: np.ndarray) -> None:
    wide = colours.astype(np.uint16) * 257
    is_encoded, data = cv2.imencode(".png", wide[..., ::-1])
    assert is_encoded
    np.testing.assert_array_equal(read_image(data.tobytes()), colours)


def test_cmyk_becomes_rgb(colours: np.ndarray) -> None:
    data = encoded(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(read_image(data).astype(int) - colours).mean() < 3


def test_transparency_becomes_white(colours: np.ndarray) -> None:
    alpha = np.zeros(colours.shape[:2], np.uint8)
    alpha[:, :30] = 255
    read = read_image(encoded(Image.fromarray(np.dstack([colours, alpha])), "PNG"))
    np.testing.assert_array_equal(read[:, :30], colours[:, :30])
    assert (read[:, 30:] == 255).all()
    palette = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (4, 1)))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0])
    read = read_image(encoded(palette, "PNG", transparency=3))
    assert read[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90], [255, 255, 255]]
    read = read_image(encoded(Image.fromarray(colours), "PNG", transparency=tuple(int(v) for v in colours[0, 0])))
    assert read[0, 0].tolist() == [255, 255, 255]


def stored_at(orientation: int) -> tuple[np.ndarray, Image.Image]:
    """An upright picture, and the same as a camera stores it with this orientation."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = 255  # a white upper left corner, whatever way the camera was held
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud}
    undo |= {5: lambda a: a.transpose(1, 0, 2), 6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2)}
    undo |= {8: lambda a: np.rot90(a, -1)}
    return upright, Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))


def with_xmp(image: Image.Image, kind: str, xmp: str) -> bytes:
    if kind != "PNG":
        return encoded(image, kind, xmp=xmp.encode())
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    return encoded(image, kind, pnginfo=text)


def with_raw_profile(image: Image.Image, name: str, profile: bytes) -> bytes:
    """A PNG as ImageMagick writes it: the profile in hexadecimal lines, in a compressed text chunk."""
    text = PngImagePlugin.PngInfo()
    lines = "\n".join(profile.hex()[at : at + 72] for at in range(0, len(profile.hex()), 72))
    text.add_text(f"Raw profile type {name}", f"\n{name}\n{len(profile):8}\n{lines}\n", zip=True)
    return encoded(image, "PNG", pnginfo=text)


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
XMP_ELEMENT = "<x:xmpmeta><tiff:Orientation>\n {}\n</tiff:Orientation></x:xmpmeta>"


def write_orientation(image: Image.Image, kind: str, place: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    if place == "exif":
        return encoded(image, kind, exif=exif)
    if place in ("xmp", "xmp element"):
        return with_xmp(image, kind, (XMP if place == "xmp" else XMP_ELEMENT).format(orientation))
    name = place.removeprefix("raw ")
    profile = (
        XMP.format(orientation).encode() if name == "xmp" else b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    )
    return with_raw_profile(image, name, profile)


PLACES = [
    *((kind, place) for kind in ("JPEG", "PNG", "WEBP") for place in ("exif", "xmp", "xmp element")),
    *(("PNG", f"raw {name}") for name in ("exif", "xmp", "APP1")),
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "place"), PLACES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_orientation_is_applied_wherever_it_is_written(orientation: int, kind: str, place: str, mode: str) -> None:
    """RGB images without EXIF took a path that looked at no other place."""
    upright, stored = stored_at(orientation)
    read = read_image(write_orientation(stored.convert(mode), kind, place, orientation))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_read_image_rejects_animations(kind: str, colours: np.ndarray) -> None:
    frames = [Image.fromarray(colours), Image.fromarray(colours[::-1].copy())]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageReadError, match=r"2 frames.*save one frame"):
        read_image(data)


def test_a_phones_multi_picture_jpeg_gives_its_first_picture(colours: np.ndarray) -> None:
    frames = [Image.fromarray(colours), Image.fromarray(255 - colours)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(read_image(data).astype(int) - colours).mean() < 5


def test_read_image_rejects_other_files_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    for name, reason in [("empty.jpg", "0 bytes"), ("text.jpg", "convert it"), ("absent.jpg", "check the path")]:
        with pytest.raises(ImageReadError, match=reason) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ImageReadError, match="is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match="0 bytes"):
        read_image(b"")
    with pytest.raises(ImageReadError, match="Scale it down"):
        read_image(tmp_path / "text.jpg", max_file_bytes=5)
    with pytest.raises(ImageReadError, match="pixel format"):
        read_image(encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"))
    wide = np.full((8, 8), 70_000, np.int32)
    with pytest.raises(ImageReadError, match="32-bit"):
        read_image(encoded(Image.fromarray(wide), "TIFF"))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"PK\x03\x04", "zip archive; unpack it first"),
        (b"\x1f\x8b", "archive; unpack it first"),
        (b"\0\0\0\x18ftypheic", "HEIC photo.*convert it to JPEG"),
    ],
)
def test_read_image_names_common_other_kinds(start: bytes, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        read_image(start + bytes(100))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_read_image_rejects_truncated_files(kind: str, share: float, crop: Callable[..., np.ndarray]) -> None:
    data = encoded(Image.fromarray(crop(5)), kind)
    with pytest.raises(ImageReadError, match=r"damaged|truncated"):
        read_image(data[: int(len(data) * share)])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_decompression_bombs_are_rejected_without_decoding_pixels(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
        with pytest.raises(ImageReadError, match=r"at most 64000000 pixels.*Scale it down"):
            read_image(bomb)
    with pytest.raises(ImageReadError, match="at most 99 pixels"):
        read_image(encoded(Image.new("RGB", (10, 10)), "PNG"), max_pixels=99)


def test_read_image_rejects_text_chunk_bombs() -> None:
    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000)))
    image = encoded(Image.new("RGB", (4, 4)), "PNG")
    with pytest.raises(ImageReadError, match="damaged"):
        read_image(image[:33] + text + image[33:])


@settings(deadline=None, max_examples=150)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
def test_corrupted_bytes_give_pixels_or_an_image_read_error(data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20).convert("RGB"), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_image(bytes(content), max_pixels=10_000)
    except ImageReadError:
        return
    assert read.dtype == np.uint8
    assert read.ndim == 3
    assert read.shape[2] == 3
