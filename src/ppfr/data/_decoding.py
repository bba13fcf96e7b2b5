"""Decoding of image files to uint8 RGB."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ppfr.core import ImageReadError

MAX_PIXELS = 64_000_000
"""Largest number of pixels that is decoded by default: 192 MB of RGB, more than a 50-megapixel photo."""

MAX_FILE_BYTES = 256_000_000
"""Largest file read by default."""

# Formats of phones and data sets, without those that start another program (EPS). Pillow opens the multi-picture JPEG
# of a phone as JPEG and then reports its format as MPO.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_EIGHT_BIT_MODES = frozenset({"1", "L", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_SIXTEEN_BIT_MAX = 65_535
HEIC_REMEDY = "convert it to JPEG first, for example with `heif-convert` or `magick IN.heic OUT.jpg`"
_XMP_FIELDS = frozenset({"xmp", "XML:com.adobe.xmp"})
_RAW_PROFILES = frozenset({"raw profile type xmp", "raw profile type app1", "raw profile type exif"})
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_image(
    source: str | Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> np.ndarray:
    """Decode one still image.

    Supported formats are JPEG (also CMYK, and the first picture of a multi-picture JPEG), PNG, WebP, BMP, TIFF, GIF and
    PNM. All are converted to RGB: grey is repeated, palettes are resolved, transparent pixels become white, CMYK is
    converted without a colour profile, and 16 bits are scaled to 8. The orientation is applied, so the image is
    upright: from EXIF, from XMP, or from the profiles that ImageMagick writes into PNG. The size in the header is
    checked before pixels are decoded.

    Args:
        source: path of a file, or its bytes.
        max_pixels: maximum of width x height.
        max_file_bytes: maximum size of the file.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous, writable.

    Raises:
        ImageReadError: the file is missing, empty, not an image, damaged, truncated, too large or animated, or has
            values that cannot be scaled to 8 bits.
    """
    data, label = _bytes_and_label(source, max_file_bytes)
    if not data:
        raise ImageReadError(f"{label} is empty (0 bytes); copy or export it again")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(label, f"{width} x {height} pixels", max_pixels)
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1 and image.format != "MPO":
                raise ImageReadError(
                    f"{label} is animated or has pages ({num_frames} frames); save one frame as PNG or JPEG"
                )
            return _to_rgb(image, label)
    except ImageReadError:
        raise
    except _BOMB as error:
        raise _too_large(label, "too many pixels", max_pixels) from error
    except UnidentifiedImageError as error:
        if (remedy := _other_kind(data)) is not None:
            raise ImageReadError(f"{label} {remedy}") from error
        raise ImageReadError(
            f"{label} is not a supported image (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM), or its header is"
            " damaged; convert it to PNG or JPEG"
        ) from error
    except MemoryError as error:
        raise ImageReadError(f"{label} does not fit in memory; make it smaller") from error
    except (
        Exception
    ) as error:  # decoders raise almost any exception on malicious bytes; all mean that the file is damaged
        reason = str(error) or type(error).__name__
        raise ImageReadError(
            f"{label} is damaged or truncated ({reason}); download it again from its source, or export it again as PNG"
        ) from error


def _other_kind(data: bytes) -> str | None:
    """What a file that is not a supported image is, and what to do, for kinds that people often have."""
    if data.startswith(b"PK\x03\x04"):
        return "is a zip archive; unpack it first and give the folder"
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "is a compressed archive; unpack it first and give the folder"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif"):
        return f"is a {'AVIF' if data[8:12] == b'avif' else 'HEIC'} photo, which is not supported; {HEIC_REMEDY}"
    return None


def _too_large(label: str, given: str, max_pixels: int) -> ImageReadError:
    return ImageReadError(
        f"{label} has {given}; at most {max_pixels} pixels are decoded, as protection against decompression bombs."
        " Scale it down first"
    )


def _bytes_and_label(source: str | Path | bytes, max_file_bytes: int) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > max_file_bytes:
            raise ImageReadError(
                f"the image has {len(source)} bytes; at most {max_file_bytes} are read. Scale it down first"
            )
        return bytes(source), "the image"
    path = Path(source)
    try:
        with path.open("rb") as file:
            data = file.read(max_file_bytes + 1)
    except FileNotFoundError as error:
        raise ImageReadError(f"{path} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise ImageReadError(f"{path} is a directory; pass one image, or use a command for folders") from error
    except OSError as error:
        raise ImageReadError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if len(data) > max_file_bytes:
        raise ImageReadError(f"{path} has more than {max_file_bytes} bytes, the maximum. Scale it down first")
    return data, str(path)


def _to_rgb(image: Image.Image, label: str) -> np.ndarray:
    """Decode all pixels and convert them to upright 8-bit RGB."""
    image.load()  # first: a PNG may have its metadata after the pixels
    method = _TRANSPOSITIONS.get(_orientation(image))
    upright = image if method is None else image.transpose(method)
    return np.array(_eight_bit_rgb(upright, label), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1..8, of a decoded image: from EXIF, else from XMP, else from ImageMagick's text chunks."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)  # EXIF, and XMP as most programs write it
    if isinstance(orientation, int):
        return orientation
    for name, content in image.info.items():
        if name in _XMP_FIELDS:
            packet = content.encode() if isinstance(content, str) else content
        elif str(name).lower() in _RAW_PROFILES:
            packet = bytes.fromhex("".join(content.split("\n")[3:]))  # empty line, kind, length, hexadecimal lines
        else:
            continue
        if packet.startswith(b"Exif\0\0"):
            exif = Image.Exif()
            exif.load(packet)
            orientation = exif.get(ExifTags.Base.Orientation)
            if isinstance(orientation, int):
                return orientation
        elif (match := _XMP_ORIENTATION.search(packet)) is not None:
            return int(match[1])
    return 1


def _eight_bit_rgb(image: Image.Image, label: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        values_HW = np.asarray(image).astype(np.int64)
        if values_HW.min() < 0 or values_HW.max() > _SIXTEEN_BIT_MAX:
            raise ImageReadError(
                f"{label} has 32-bit values outside 0..{_SIXTEEN_BIT_MAX}; export it with 8 or 16 bits per channel"
            )
        return Image.fromarray(((values_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode != "RGB" and image.mode not in _EIGHT_BIT_MODES:
        raise ImageReadError(f"{label} has the pixel format {image.mode!r}; export it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
