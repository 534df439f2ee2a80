"""Outlines on a turned head, and the smooth curves they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.images import pillow
from .capture import OVERSAMPLING, SIZE, UNIT, Capture

Points = NDArray[np.float64]  # (n, 2)
FLAT = -9.0  # the depth of what belongs to the head's outline rather than to its surface
FLIP = np.array([-1, 1])

_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


class Sketch:
    """Shapes on a turned head, kept until all of them are projected at once."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.shapes: list[tuple[Points, Any, tuple[int, ...], float]] = []

    def fill(
        self, points: ArrayLike, colour: ArrayLike, alpha: float = 1.0, depth: ArrayLike = 0.0
    ) -> None:
        """A polygon, `depth` above the head's surface (a number, or one a point; see FLAT)."""
        self.stroke(points, colour, 0.0, alpha, depth)

    def stroke(
        self,
        points: ArrayLike,
        colour: ArrayLike,
        width: float,
        alpha: float = 1.0,
        depth: ArrayLike = 0.0,
    ) -> None:
        """A line along the points; one of no width is a polygon, filled."""
        rgba = np.clip([*np.asarray(colour), 255 * alpha], 0, 255).astype(int)
        self.shapes.append((np.asarray(points), depth, tuple(rgba.tolist()), width))

    def paint(self, image: Any) -> Any:
        """Draw all shapes onto a Pillow image, in the order they came."""
        blending, opaque = (pillow("ImageDraw").Draw(image, mode) for mode in ("RGBA", "RGB"))
        unit = UNIT * OVERSAMPLING * self.capture.scale
        points = np.concatenate([shape[0] for shape in self.shapes])
        depths = np.concatenate(
            [depth + np.zeros(len(shape)) for shape, depth, _, _ in self.shapes]
        )
        pixels = self._project(points, depths, unit).ravel().tolist()
        start = 0
        for shape, _, colour, width in self.shapes:
            end = start + 2 * len(shape)
            draw = opaque if colour[3] == 255 else blending  # opaque shapes are drawn faster
            if width:
                draw.line(pixels[start:end], colour, max(1, round(width * unit)), joint="curve")
            else:
                draw.polygon(pixels[start:end], colour)
            start = end
        return image

    def _project(self, points: Points, depths: NDArray[np.float64], unit: float) -> Points:
        x, y = points.T
        yaw, pitch, roll = self.capture.yaw, self.capture.pitch, self.capture.roll
        z = np.sqrt(np.maximum(1 - (x / 1.1) ** 2 - (y / 1.45) ** 2, 0.0)) + depths
        across = x * np.cos(yaw) + z * np.sin(yaw)
        z = z * np.cos(yaw) - x * np.sin(yaw)
        along = y * np.cos(pitch) - z * np.sin(pitch)
        flat = depths == FLAT  # the outline of a ball that turns stays; the neck moves it a little
        across = np.where(flat, x + 0.12 * np.sin(yaw), across) * unit
        along = np.where(flat, y - 0.08 * np.sin(pitch), along) * unit
        turned = np.stack(
            [
                across * np.cos(roll) - along * np.sin(roll),
                across * np.sin(roll) + along * np.cos(roll),
            ],
            axis=1,
        )
        return OVERSAMPLING * (np.array([SIZE / 2, SIZE / 2 + 3]) + self.capture.shift) + turned


def ellipse(center: ArrayLike, width: float, height: float) -> Points:
    return CIRCLE * (width, height) + np.asarray(center)


def between(line: Points, other: Points) -> Points:
    """The outline of what lies between two lines that run the same way."""
    return np.concatenate([line, other[::-1]])


def mirrored(*right: tuple[float, float]) -> Points:
    """A symmetrical outline from its right half, which begins and ends on the axis."""
    half = np.array(right)
    return np.concatenate([half, half[-2:0:-1] * FLIP])


def mirrored_line(*right: tuple[float, float]) -> Points:
    """A symmetrical line, from the left end to the right one, from its right half."""
    half = np.array(right)
    return np.concatenate([half[:0:-1] * FLIP, half])


_T = np.linspace(0, 1, 5, endpoint=False)[:, None]
#: (steps, 4) weights of a Catmull-Rom curve on its way from the second of four points to the third.
_WAY = 0.5 * np.hstack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]
)


def closed_curve(points: ArrayLike) -> Points:
    """A smooth closed curve through the points."""
    points = np.asarray(points)
    return _curve(np.concatenate([points[-1:], points, points[:2]]))


def open_curve(points: ArrayLike) -> Points:
    """A smooth curve from the first point to the last."""
    points = np.asarray(points)
    first, last = points[:1], points[-1:]
    return np.concatenate([_curve(np.concatenate([first, points, last])), last])


def _curve(points: Points) -> Points:
    """From the second point to the last but one, which it leaves out."""
    return np.concatenate([_WAY @ points[i : i + 4] for i in range(len(points) - 3)])
