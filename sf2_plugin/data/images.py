"""Encoded images to arrays and back. Pillow is asked for here and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..reading import reading

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
# Pillow opens dozens of formats, some of them by starting another program (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


def pillow(submodule: str = "Image") -> ModuleType:
    """`PIL.Image`, or another part of Pillow; an ImportError that names the extra without it."""
    from importlib import import_module

    try:
        return import_module(f"PIL.{submodule}")
    except ImportError:
        raise ImportError('images need Pillow: pip install "sf2-plugin[data]"') from None


def decode_image(image: bytes | str | Path, name: str | None = None) -> NDArray[np.uint8]:
    """The pixels of a JPEG, PNG, BMP or WebP image, given as its bytes or its path.

    Returns uint8 (H, W, 3), RGB. `name` is what an error calls the image.

    Raises:
        ValueError: the bytes, or the file's content, are no such image, or are cut short.
        FileNotFoundError: there is no such file.
    """
    Image = pillow()
    if name is None:
        name = f"image of {len(image)} bytes" if isinstance(image, bytes) else str(image)
    with reading(name, "an image"):
        encoded = image if isinstance(image, bytes) else Path(image).read_bytes()
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as opened:
            return np.asarray(opened.convert("RGB"))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 92) -> bytes:
    """The JPEG bytes of uint8 (H, W, 3) RGB pixels."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels are {pixels.dtype} {pixels.shape}; an image is uint8 (height, width, 3)"
        )
    buffer = io.BytesIO()
    pillow().fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
