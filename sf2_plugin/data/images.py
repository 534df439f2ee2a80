"""Encoded images to arrays and back. Pillow is asked for here and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reading import reading
from ..requirements import require

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
# Pillow opens dozens of formats, some of them by starting another program (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
#: Of more pixels a JPEG is decoded at a half, a quarter or an eighth of its size.
WHOLE_PIXELS = 16_000_000
#: Of more pixels no image is decoded.
MAX_PIXELS = 64_000_000
#: EXIF's orientation -> how Pillow turns the image upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION = 0x0112
#: How files begin that are given for images and are none, or none that is read.
_OTHERS = {
    b"GIF8": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"%!PS": "PostScript",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched",
    b"<": "a page or a drawing in HTML or XML",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive",
}


def pillow(submodule: str = "Image") -> Any:
    """`PIL.Image`, or another part of Pillow; an ImportError that names the extra without it."""
    return require(f"PIL.{submodule}", "data", purpose="images need Pillow")


def decode_image(
    image: bytes | str | Path, name: str | None = None, *, whole: bool = False
) -> NDArray[np.uint8]:
    """The pixels of a JPEG, PNG, BMP or WebP image, given as its bytes or its path.

    They are those that OpenCV, which MMCV and mxnet read by, gives to training: upright by EXIF's
    orientation, colours as they are stored where there is an alpha channel, the upper eight of
    sixteen bits, the first frame of several.

    Args:
        name: what an error calls the image.
        whole: decode a JPEG of more than `WHOLE_PIXELS` at its full size, for coordinates in it;
            else at the largest of a half, a quarter and an eighth that has no more.

    Returns uint8 (H, W, 3), RGB.

    Raises:
        ValueError: the bytes, or the file's content, are no such image, are cut short, or have more
            than `MAX_PIXELS`.
        FileNotFoundError: there is no such file.
    """
    Image = pillow()
    if name is None:
        name = f"image of {len(image)} bytes" if isinstance(image, bytes) else str(image)
    with reading(name, "an image"):
        encoded = image if isinstance(image, bytes) else Path(image).read_bytes()
        with _opened(encoded) as opened:
            if not whole:
                _reduce(opened)
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million"
                )
            upright = _UPRIGHT.get(_orientation(opened))
            pixels = _rgb(opened)
            return np.asarray(pixels.transpose(Image.Transpose[upright]) if upright else pixels)


def _opened(encoded: bytes) -> Any:
    Image = pillow()
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        found = next((kind for start, kind in _OTHERS.items() if encoded.startswith(start)), None)
        found = found or ("no image, or its beginning is damaged" if encoded else "empty")
        raise ValueError(f"it is {found}; JPEG, PNG, BMP or WebP is wanted") from None


def _reduce(opened: Any) -> None:
    """Let a large JPEG be decoded at a part of its size; other formats cannot be."""
    width, height = opened.size
    divisor = 1
    while divisor < 8 and width * height > WHOLE_PIXELS * divisor**2:
        divisor *= 2
    if divisor > 1 and opened.format in ("JPEG", "MPO"):
        opened.draft(None, (width // divisor, height // divisor))


def _orientation(opened: Any) -> int:
    try:
        return opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF is another format, with damage of its own, and no part of the pixels.
        return 1


def _rgb(opened: Any) -> Any:
    """8-bit RGB of a Pillow image of any mode."""
    if opened.mode.startswith("I"):  # 16 bits of grey; older versions of Pillow give them in 32.
        grey = np.asarray(opened)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ValueError(f"its greys run from {grey.min()} to {grey.max()}, not 0 to 65535")
        return pillow().fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if opened.mode == "F":
        raise ValueError("its pixels are real numbers, of no stated range")
    opened.info.pop("transparency", None)  # Not to be asked for, nor warned of.
    return opened.convert("RGB")


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 92) -> bytes:
    """The JPEG bytes of uint8 (H, W, 3) RGB pixels."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels are {pixels.dtype} {pixels.shape}; an image is uint8 (height, width, 3)"
        )
    return _encoded(pixels, format="JPEG", quality=quality)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG bytes of uint8 (H, W, 3) RGB pixels."""
    return _encoded(pixels, format="PNG")


def _encoded(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow().fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) of another size, bilinear; itself where it has that size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    Image = pillow()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.BILINEAR))
