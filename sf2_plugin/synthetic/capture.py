"""What one image adds to a person, and what verification has to see through: pose to noise."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import pillow

SIZE = 112
OVERSAMPLING = 2
UNIT = 33.0  # pixels of the finished image in half the width of an average face


class Capture:
    """Pose, expression, light and camera of one image, drawn at random; angles in radians."""

    def __init__(self, rng: np.random.Generator) -> None:
        normal = rng.standard_normal(16).clip(-2.2, 2.2)
        direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.55)
        self.roll, self.yaw, self.pitch = normal[:3] * (0.14, 0.36, 0.16)
        self.scale = 1 + 0.07 * normal[3]
        self.shift = 3.2 * normal[4:6]
        self.smile = min(max(0.25 + 0.5 * normal[6], -0.5), 1.0)
        self.mouth_open = max(0.0, 0.8 * normal[7] - 0.4)
        self.eyes_open = min(max(0.95 + 0.25 * normal[8], 0.12), 1.25)
        self.brow_raise = 0.045 * normal[9]
        self.gaze = normal[10:12] * (0.035, 0.015)
        self.light = strength * np.cos(direction), strength * np.sin(direction)
        self.fall_off = rng.uniform(0.1, 0.5)
        self.gain = np.exp(0.18 * normal[12])
        self.contrast = 1 + 0.12 * normal[13]
        self.warmth = 0.09 * normal[14]
        self.blur = max(0.0, rng.uniform(-0.7, 1.9))
        self.noise = rng.uniform(0.0, 11.0)


def background(rng: np.random.Generator) -> Any:
    """A room out of focus: a few soft patches between two muted colours."""
    Image = pillow()
    gray = rng.uniform(40, 215, (2, 1, 1, 1))
    low, high = gray + rng.uniform(-35, 35, (2, 1, 1, 3))
    patches = low + (high - low) * rng.uniform(0, 1, (5, 5, 1))
    size = (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING)
    return Image.fromarray(patches.clip(0, 255).astype(np.uint8)).resize(size, Image.BICUBIC)


def develop(image: Any, capture: Capture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The finished picture: at its final size, blurred, lit and noisy."""
    image = image.reduce(OVERSAMPLING)
    if capture.blur:
        image = image.filter(pillow("ImageFilter").GaussianBlur(capture.blur))
    x, y, center = _lighting()
    shade = 1 + capture.light[0] * x + capture.light[1] * y + capture.fall_off * (center - 0.6)
    tint = np.array([1 + capture.warmth, 1, 1 - capture.warmth], np.float32)
    pixels = np.asarray(image) * (np.float32(capture.gain * capture.contrast) * shade[..., None])
    pixels *= tint
    down, right = rng.integers(SIZE, size=2)
    grain = _grain()[down : down + SIZE, right : right + SIZE]
    pixels += np.float32(capture.noise) * grain + np.float32(110 * (1 - capture.contrast))
    return pixels.clip(0, 255, out=pixels).astype(np.uint8)


@lru_cache(maxsize=1)
def _lighting() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """How far each pixel faces right, down and forward, about as on a ball."""
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5 - SIZE / 2) / UNIT
    x, y = np.meshgrid(axis, axis)
    return np.tanh(x), np.tanh(y), np.exp(-(x**2 + y**2) / 2)


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    """Noise that images take a window of, which is faster than drawing it anew."""
    return np.random.default_rng(0).standard_normal((2 * SIZE, 2 * SIZE, 3), dtype=np.float32)
