"""Synthetic faces: drawn people for demos and tests, no photograph of anyone.

An identity is a few dozen numbers: the shape and colour of face, eyes, brows, nose, mouth and hair.
An image of it adds what verification has to see through: pose, light, expression, blur, noise,
glasses and occlusion. Each image depends on (seed, identity, image) alone, so images may be drawn
in any order and by any number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import atomic_folder
from .bins import write_pair_bin
from .images import encode_jpeg, pillow

SIZE = 112
_OVERSAMPLING = 2
_UNIT = 33.0  # pixels of the final image in half the width of an average face

Colour = tuple[float, float, float]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Identity:
    """What stays the same in every image of a person.

    Lengths are in half face widths, angles in radians, colours RGB in 0..255. The origin is the
    middle of the face, x to the right, y down.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    lip: Colour
    face_width: float
    face_height: float
    forehead: float
    cheek: float
    jaw: float
    chin: float
    ear: float
    eye_y: float
    eye_x: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris_size: float
    lid: float
    brow_gap: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_y: float
    nose_width: float
    nose_bridge: float
    nose_tip: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip_bow: float
    hairline: float
    hair_volume: float
    hair_length: float
    hair_parting: float
    hair_wave: float
    fringe: float
    beard: float
    moustache: float
    folds: float
    freckles: float
    mole: tuple[float, float] | None


_SKINS = np.array(
    [(255, 224, 200), (243, 203, 172), (226, 178, 140), (200, 146, 108), (158, 106, 74), (106, 69, 48)]
)  # fmt: skip
_HAIRS = np.array(
    [(28, 24, 24), (58, 40, 30), (96, 64, 42), (142, 98, 58), (196, 154, 92), (226, 196, 142),
     (150, 66, 36), (168, 164, 160)]
)  # fmt: skip
_IRISES = np.array([(66, 42, 28), (98, 66, 40), (92, 106, 60), (70, 112, 146), (112, 128, 136)])


def identity_of(identity: int, seed: int = 0) -> Identity:
    """The identity with this number under this seed."""
    rng = np.random.default_rng([seed, 0, identity])

    def around(mean: float, spread: float) -> float:
        """Normal, cut at two standard deviations."""
        return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))

    def colour(palette: NDArray, jitter: float) -> Colour:
        """A point between two neighbours of the palette."""
        position = rng.uniform(0, len(palette) - 1)
        low = int(position)
        mixed = palette[low] + (position - low) * (palette[low + 1] - palette[low])
        red, green, blue = np.clip(mixed + rng.normal(0, jitter, 3), 8, 255)
        return float(red), float(green), float(blue)

    skin = colour(_SKINS, 5)
    hair = colour(_HAIRS, 6)
    iris = colour(_IRISES, 8)
    redness = rng.uniform(0.0, 1.0)
    lip = _mix(_scale(skin, 0.82), (190, 62, 72), 0.25 + 0.45 * redness)
    bearded = rng.uniform() < 0.3
    eye_y = around(-0.10, 0.06)
    nose_y = around(0.42, 0.07)
    return Identity(
        skin=skin,
        hair=hair,
        iris=iris,
        lip=lip,
        face_width=around(0.97, 0.06),
        face_height=around(1.0, 0.05),
        forehead=around(0.96, 0.06),
        cheek=around(1.0, 0.05),
        jaw=around(0.80, 0.09),
        chin=around(0.40, 0.09),
        ear=around(0.24, 0.05),
        eye_y=eye_y,
        eye_x=around(0.43, 0.045),
        eye_width=around(0.235, 0.03),
        eye_height=around(0.105, 0.024),
        eye_tilt=around(0.04, 0.10),
        iris_size=around(0.105, 0.012),
        lid=rng.uniform(0.0, 1.0),
        brow_gap=around(0.30, 0.055),
        brow_length=around(0.30, 0.035),
        brow_thickness=around(0.055, 0.022),
        brow_arch=around(0.06, 0.045),
        brow_tilt=around(0.0, 0.12),
        nose_y=nose_y,
        nose_width=around(0.20, 0.045),
        nose_bridge=around(0.085, 0.022),
        nose_tip=around(0.10, 0.022),
        mouth_y=nose_y + around(0.36, 0.05),
        mouth_width=around(0.36, 0.055),
        upper_lip=around(0.075, 0.025),
        lower_lip=around(0.105, 0.03),
        lip_bow=rng.uniform(0.0, 0.05),
        hairline=around(-0.80, 0.12),
        hair_volume=around(0.17, 0.075),
        hair_length=float(rng.choice([-0.35, 0.1, 0.7, 1.5])) + around(0.0, 0.12),
        hair_parting=rng.uniform(-0.7, 0.7),
        hair_wave=rng.uniform(0.0, 0.07),
        fringe=around(0.0, 0.16),
        beard=rng.uniform(0.25, 0.9) if bearded else 0.0,
        moustache=rng.uniform(0.3, 0.95) if bearded and rng.uniform() < 0.7 else 0.0,
        folds=rng.uniform(0.0, 1.0),
        freckles=rng.uniform(0.3, 1.0) if rng.uniform() < 0.2 else 0.0,
        mole=(rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.95)) if rng.uniform() < 0.3 else None,
    )


@dataclass(frozen=True)
class _Capture:
    """What differs between the images of a person."""

    roll: float
    yaw: float
    pitch: float
    scale: float
    shift: tuple[float, float]
    smile: float
    mouth_open: float
    eyes_open: float
    brow_raise: float
    gaze: tuple[float, float]
    light: tuple[float, float]
    light_depth: float
    gain: float
    contrast: float
    tint: Colour
    blur: float
    noise: float


def _capture(rng: np.random.Generator) -> _Capture:
    normal = rng.standard_normal(16).clip(-2.2, 2.2)
    direction = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.0, 0.5)
    return _Capture(
        roll=0.12 * normal[0],
        yaw=0.30 * normal[1],
        pitch=0.14 * normal[2],
        scale=float(np.exp(0.06 * normal[3])),
        shift=(2.8 * normal[4], 2.8 * normal[5]),
        smile=float(np.clip(0.25 + 0.5 * normal[6], -0.5, 1.0)),
        mouth_open=max(0.0, 0.8 * normal[7] - 0.4),
        eyes_open=float(np.clip(0.95 + 0.25 * normal[8], 0.12, 1.25)),
        brow_raise=0.045 * normal[9],
        gaze=(0.045 * normal[10], 0.018 * normal[11]),
        light=(strength * float(np.cos(direction)), strength * float(np.sin(direction))),
        light_depth=rng.uniform(0.15, 0.55),
        gain=float(np.exp(0.20 * normal[12])),
        contrast=float(np.exp(0.12 * normal[13])),
        tint=(1 + 0.09 * normal[14], 1 + 0.03 * normal[15], 1 - 0.09 * normal[14]),
        blur=float(rng.choice([0.0, rng.uniform(0.3, 1.0), rng.uniform(1.0, 2.0)], p=[0.4, 0.4, 0.2])),
        noise=rng.uniform(0.0, 9.0),
    )  # fmt: skip


def draw_face(identity: int, image: int, seed: int = 0) -> NDArray[np.uint8]:
    """Image number `image` of an identity: uint8 (112, 112, 3), RGB.

    The pixels depend on the three numbers alone (and on Pillow's version, which draws them).
    """
    person = identity_of(identity, seed)
    rng = np.random.default_rng([seed, 1, identity, image])
    capture = _capture(rng)
    canvas = _Canvas(capture, rng)
    _draw_shoulders(canvas, person, rng)
    _draw_head(canvas, person)
    _draw_nose(canvas, person)
    _draw_mouth(canvas, person, capture)
    for side in (-1, 1):
        _draw_eye(canvas, person, capture, side)
    _draw_hair(canvas, person)
    if rng.uniform() < 0.15:
        _draw_glasses(canvas, person, rng)
    if rng.uniform() < 0.25:
        _draw_occluder(canvas, rng)
    return canvas.develop(capture, rng)


class _Canvas:
    """A picture at twice the size, painted in the coordinates of a turned head."""

    def __init__(self, capture: _Capture, rng: np.random.Generator) -> None:
        Image = pillow()
        # A few blurred patches of two muted colours look like a room out of focus.
        low, high = np.sort(rng.uniform(40, 225, (2, 3)), axis=0)
        patches = low + (high - low) * rng.uniform(0, 1, (5, 5, 1))
        size = SIZE * _OVERSAMPLING
        self.image = Image.fromarray(patches.astype(np.uint8)).resize((size, size), Image.BICUBIC)
        self.draw: Any = pillow("ImageDraw").Draw(self.image, "RGBA")
        unit = _UNIT * _OVERSAMPLING * capture.scale
        cosine, sine = np.cos(capture.roll) * unit, np.sin(capture.roll) * unit
        self.roll = np.array([[cosine, sine], [-sine, cosine]])
        self.center = _OVERSAMPLING * (np.array([SIZE / 2, SIZE / 2 + 3]) + capture.shift)
        self.yaw, self.pitch = capture.yaw, capture.pitch
        self.unit = unit

    def project(self, points: Points, depth: float | None) -> list[float]:
        """Pixels of points on the head, `depth` above its surface; None: of its silhouette."""
        x, y = points[:, 0], points[:, 1]
        if depth is None:  # a ball's silhouette stays where it is; the head shifts a little
            turned = points + (0.12 * np.sin(self.yaw), -0.08 * np.sin(self.pitch))
        else:
            z = np.sqrt(np.maximum(1 - (x / 1.1) ** 2 - (y / 1.45) ** 2, 0.0)) + depth
            across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
            z = z * np.cos(self.yaw) - x * np.sin(self.yaw)
            turned = np.stack([across, y * np.cos(self.pitch) - z * np.sin(self.pitch)], axis=1)
        return (turned @ self.roll + self.center).ravel().tolist()

    def fill(
        self, points: Points, colour: Colour, alpha: float = 1.0, depth: float | None = 0.0
    ) -> None:
        self.draw.polygon(self.project(points, depth), fill=_rgba(colour, alpha))

    def stroke(
        self, points: Points, colour: Colour, width: float, alpha: float = 1.0, depth: float = 0.0
    ) -> None:
        pixels = max(1, round(width * self.unit))
        self.draw.line(self.project(points, depth), _rgba(colour, alpha), pixels, joint="curve")

    def develop(self, capture: _Capture, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The finished picture: blurred, lit, noisy, at its final size."""
        image = self.image.reduce(_OVERSAMPLING)
        if capture.blur:
            image = image.filter(pillow("ImageFilter").GaussianBlur(capture.blur))
        pixels = np.asarray(image, dtype=np.float32)
        x, y, z = _BALL
        shade = capture.gain * (
            1 + capture.light[0] * x + capture.light[1] * y + capture.light_depth * (z - 0.75)
        )
        pixels = (pixels * shade[..., None] * np.float32(capture.tint) - 110) * capture.contrast
        pixels += np.float32(110)
        pixels += capture.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
        return pixels.clip(0, 255).astype(np.uint8)


def _ball_normals() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel's surface faces, were the head a ball."""
    axis = (np.arange(SIZE) + 0.5 - SIZE / 2) / (1.5 * _UNIT)
    x, y = np.meshgrid(axis.clip(-1, 1), axis.clip(-1, 1))
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0.0))
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


_BALL = _ball_normals()


def _rgba(colour: Colour, alpha: float) -> tuple[int, int, int, int]:
    red, green, blue = (int(min(max(value, 0), 255)) for value in colour)
    return red, green, blue, int(255 * min(alpha, 1.0))


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def _scale(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 28)), np.sin(np.linspace(0, 2 * np.pi, 28))], axis=1
)
_STEPS = np.linspace(0, 1, 6, endpoint=False)[:, None]
# Catmull-Rom: a curve through its control points, the weights of four neighbours at each step.
_CURVE = 0.5 * np.concatenate(
    [
        -_STEPS + 2 * _STEPS**2 - _STEPS**3,
        2 - 5 * _STEPS**2 + 3 * _STEPS**3,
        _STEPS + 4 * _STEPS**2 - 3 * _STEPS**3,
        -(_STEPS**2) + _STEPS**3,
    ],
    axis=1,
)


def _ellipse(x: float, y: float, width: float, height: float) -> Points:
    return _CIRCLE * (width, height) + (x, y)


def _closed(points: Points) -> Points:
    """A smooth closed curve through the points."""
    neighbours = np.stack([np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2)], axis=1)
    return np.einsum("sn,pnc->psc", _CURVE, neighbours).reshape(-1, 2)


def _open(points: Points) -> Points:
    """A smooth curve from the first point to the last."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    neighbours = np.stack([padded[i : i + len(points) - 1] for i in range(4)], axis=1)
    curve = np.einsum("sn,pnc->psc", _CURVE, neighbours).reshape(-1, 2)
    return np.concatenate([curve, points[-1:]])


def _mirrored(half: list[tuple[float, float]]) -> Points:
    """A closed outline from its right half, top to bottom, ends on the axis."""
    right = np.array(half)
    return np.concatenate([right, right[-2:0:-1] * (-1, 1)])


def _outline(person: Identity) -> Points:
    width, height = person.face_width, person.face_height
    return _mirrored(
        [
            (0.0, -1.28 * height),
            (0.60 * width * person.forehead, -1.12 * height),
            (0.93 * width * person.forehead, -0.60 * height),
            (width * person.cheek, -0.02),
            (0.95 * width * person.cheek, 0.38),
            (width * person.jaw, 0.84 * height),
            (width * person.chin, 1.20 * height),
            (0.0, 1.30 * height),
        ]
    )


def _draw_shoulders(canvas: _Canvas, person: Identity, rng: np.random.Generator) -> None:
    if person.hair_length > -0.2:
        _draw_back_hair(canvas, person)
    red, green, blue = rng.uniform(30, 220, 3)
    neck = 0.62 * person.jaw
    canvas.fill(
        np.array([(-neck, 0.8), (neck, 0.8), (neck * 1.1, 2.4), (-neck * 1.1, 2.4)]),
        _scale(person.skin, 0.72),
        depth=None,
    )
    canvas.fill(
        np.array(
            [(-2.2, 2.6), (-1.7, 1.85), (-neck * 1.05, 1.5), (0, 1.8), (neck * 1.05, 1.5),
             (1.7, 1.85), (2.2, 2.6)]
        ),
        (red, green, blue),
        depth=None,
    )  # fmt: skip


def _draw_back_hair(canvas: _Canvas, person: Identity) -> None:
    reach = person.face_width + person.hair_volume
    wave = person.hair_wave
    end = person.hair_length
    half = [
        (0.0, -1.28 * person.face_height - person.hair_volume),
        (0.75 * reach, -1.05),
        (reach + wave, -0.35),
        (reach - wave, 0.1 + 0.2 * end),
        (reach + wave, 0.2 + 0.55 * end),
        (0.92 * reach, 0.35 + 0.85 * end),
        (0.5 * reach, 0.45 + end),
        (0.0, 0.4 + end),
    ]
    canvas.fill(_closed(_mirrored(half)), _scale(person.hair, 0.72), depth=None)


def _draw_head(canvas: _Canvas, person: Identity) -> None:
    shadow = _scale(person.skin, 0.62)
    for side in (-1, 1):
        x = side * person.face_width * 0.99
        canvas.fill(
            _ellipse(x, 0.12, 0.55 * person.ear, person.ear), _scale(person.skin, 0.88), 1, None
        )
        canvas.fill(_ellipse(x, 0.13, 0.28 * person.ear, 0.6 * person.ear), shadow, 0.5, None)
    outline = _closed(_outline(person))
    canvas.fill(outline, _scale(person.skin, 0.86), depth=None)
    canvas.fill(outline * 0.93, _scale(person.skin, 0.95), depth=None)
    canvas.fill(outline * 0.83, person.skin, depth=None)
    for side in (-1, 1):  # the hollow of the eye and the cheek
        canvas.fill(_ellipse(side * person.eye_x, person.eye_y - 0.06, 0.3, 0.2), shadow, 0.22)
        blush = _mix(person.skin, (226, 92, 84), 0.5)
        canvas.fill(_ellipse(side * 0.56, 0.34, 0.22, 0.16), blush, 0.22)
    if person.freckles:
        for x, y in _FRECKLES:
            canvas.fill(_ellipse(x, y, 0.018, 0.018), _scale(person.skin, 0.62), person.freckles)
    if person.beard:
        _draw_beard(canvas, person)
    if person.mole:
        canvas.fill(_ellipse(*person.mole, 0.035, 0.035), _scale(person.skin, 0.35))


_FRECKLES = np.random.default_rng(7).normal((0, 0.26), (0.42, 0.1), (26, 2)).clip(-0.75, 0.75)


def _draw_beard(canvas: _Canvas, person: Identity) -> None:
    half = _outline(person)[3:8]  # from the cheek bone down to the chin
    outer = np.concatenate([half, half[-2::-1] * (-1, 1)])
    inner = np.array([(-0.72, 0.45), (-0.5, person.mouth_y - 0.05), (0, person.mouth_y + 0.16),
                      (0.5, person.mouth_y - 0.05), (0.72, 0.45)])  # fmt: skip
    jaw = np.concatenate([_open(outer), _open(inner)])
    canvas.fill(jaw * (0.99, 0.99), _scale(person.hair, 0.85), 0.85 * person.beard, None)


def _draw_nose(canvas: _Canvas, person: Identity) -> None:
    shadow, light = _scale(person.skin, 0.60), _mix(person.skin, (255, 250, 240), 0.5)
    top, base, width = person.eye_y, person.nose_y, person.nose_width
    bridge = person.nose_bridge
    for side in (-1, 1):
        flank = np.array([(side * bridge, top), (side * bridge * 1.05, 0.5 * (top + base)),
                          (side * width, base - 0.04), (side * width * 0.9, base + 0.03),
                          (side * 0.04, base)])  # fmt: skip
        canvas.fill(_open(flank), shadow, 0.20 + 0.12 * (side > 0), depth=0.12)
        canvas.fill(_ellipse(side * 0.5 * width, base + 0.015, 0.33 * width, 0.032),
                    _scale(person.skin, 0.30), 0.75, depth=0.16)  # fmt: skip
        wing = np.array([(side * width * 0.75, base - 0.12), (side * width * 1.02, base - 0.03),
                         (side * width * 0.85, base + 0.035)])  # fmt: skip
        canvas.stroke(_open(wing), shadow, 0.03, 0.6, depth=0.12)
    canvas.fill(
        _ellipse(0, base - 0.09, person.nose_tip * 0.8, person.nose_tip * 0.6), light, 0.45, 0.22
    )
    ridge = np.array([(-0.03, top), (0.03, top), (0.04, base - 0.12), (-0.04, base - 0.12)])
    canvas.fill(ridge, light, 0.35, depth=0.16)


def _draw_mouth(canvas: _Canvas, person: Identity, capture: _Capture) -> None:
    y, half = person.mouth_y, person.mouth_width * (1 + 0.18 * capture.smile)
    corner = y - 0.09 * capture.smile
    gap = 0.12 * capture.mouth_open
    bow, up, low = person.lip_bow, person.upper_lip, person.lower_lip
    if person.moustache:
        tache = np.array([(-half * 1.05, y - 0.02), (-half * 0.55, y - 0.16), (0, y - 0.17),
                          (half * 0.55, y - 0.16), (half * 1.05, y - 0.02), (0, y - up * 0.6)])  # fmt: skip
        canvas.fill(_closed(tache), _scale(person.hair, 0.85), person.moustache, depth=0.08)
    line_top = np.array([(-half, corner), (-half / 2, y - 0.3 * gap), (0, y + 0.01 - 0.4 * gap),
                         (half / 2, y - 0.3 * gap), (half, corner)])  # fmt: skip
    line_low = line_top + np.array([(0, 0), (0, gap), (0, 1.3 * gap), (0, gap), (0, 0)])
    upper = np.array([(half, corner), (half * 0.5, y - 0.85 * up), (half * 0.16, y - up - bow),
                      (0, y - up), (-half * 0.16, y - up - bow), (-half * 0.5, y - 0.85 * up),
                      (-half, corner)])  # fmt: skip
    lower = line_low[::-1] + np.array([(0, 0), (0, 0.8 * low), (0, low), (0, 0.8 * low), (0, 0)])
    if gap > 0.01:
        mouth = np.concatenate([_open(line_top), _open(line_low[::-1])])
        canvas.fill(mouth, (58, 18, 20), depth=0.05)
        teeth = np.concatenate([line_top[1:4] + (0, 0.005), line_top[3:0:-1] + (0, 0.5 * gap)])
        canvas.fill(teeth, (238, 232, 222), depth=0.05)
    canvas.fill(
        np.concatenate([_open(line_top), _open(upper)]), _scale(person.lip, 0.88), 0.9, 0.05
    )
    canvas.fill(np.concatenate([_open(line_low), _open(lower)]), person.lip, 0.9, depth=0.05)
    canvas.stroke(_open(line_top), _scale(person.lip, 0.45), 0.028, 0.8, depth=0.05)
    chin = np.array([(-0.3 * half, y + low + 0.13), (0.3 * half, y + low + 0.13)])
    canvas.stroke(chin, _scale(person.skin, 0.7), 0.04, 0.4)
    for side in (-1, 1):
        fold = np.array([(side * (person.nose_width + 0.05), person.nose_y - 0.02),
                         (side * (half + 0.02), y - 0.14), (side * (half + 0.07), y + 0.02)])  # fmt: skip
        strength = person.folds * (0.25 + 0.4 * max(capture.smile, 0))
        canvas.stroke(_open(fold), _scale(person.skin, 0.6), 0.03, strength)


def _draw_eye(canvas: _Canvas, person: Identity, capture: _Capture, side: int) -> None:
    half, tall = person.eye_width, person.eye_height * capture.eyes_open
    tilt = np.array([(1.0, -side * person.eye_tilt), (side * person.eye_tilt, 1.0)])
    center = np.array([side * person.eye_x, person.eye_y])
    x = np.linspace(-1, 1, 11)
    arch = np.sqrt(np.maximum(1 - np.abs(x) ** 2.2, 0))
    upper = np.stack([x * half, -1.15 * tall * arch], axis=1)
    lower = np.stack([x * half, 0.75 * tall * arch], axis=1)
    lens = np.concatenate([upper, lower[::-1]])
    dark = _scale(_mix(person.hair, person.skin, 0.15), 0.45)

    canvas.fill(lens @ tilt + center, (240, 236, 230))
    for radius, colour in ((1.0, person.iris), (0.5, (12, 10, 10))):
        disc = _CIRCLE * (person.iris_size * radius) + capture.gaze
        top = np.interp(disc[:, 0], upper[:, 0], upper[:, 1])
        bottom = np.interp(disc[:, 0], lower[:, 0], lower[:, 1])
        disc[:, 1] = disc[:, 1].clip(top, bottom)
        canvas.fill(disc @ tilt + center, colour)
    if tall > 0.05:
        glint = _ellipse(capture.gaze[0] + 0.03, capture.gaze[1] - 0.035, 0.024, 0.024)
        canvas.fill(glint + center, (255, 255, 255), 0.9)
    canvas.stroke(upper @ tilt + center, dark, 0.035 + 0.02 * person.lid)
    canvas.stroke(lower @ tilt + center, dark, 0.015, 0.5)
    crease = upper * (1.05, 1.0) - (0, 0.045 + 0.04 * person.lid)
    canvas.stroke(
        crease[1:-1] @ tilt + center, _scale(person.skin, 0.55), 0.02, 0.3 + 0.5 * person.lid
    )

    gap = person.brow_gap + capture.brow_raise
    length, thick, arch_height = person.brow_length, person.brow_thickness, person.brow_arch
    ridge = np.array([(-1.0, 0.25 * arch_height), (-0.3, -0.6 * arch_height),
                      (0.35, -arch_height), (1.0, 0.6 * arch_height)])  # fmt: skip
    ridge[:, 0] *= length * side  # from the nose outwards
    body = np.array([(0, thick), (0, thick * 1.1), (0, thick * 0.8), (0, 0.2 * thick)])
    brow = np.concatenate([_open(ridge - body / 2), _open((ridge + body / 2)[::-1])])
    slope = np.array([(1.0, side * person.brow_tilt), (0.0, 1.0)])
    brow = brow @ slope + (side * (person.eye_x + 0.01), person.eye_y - gap)
    canvas.fill(brow, _mix(_scale(person.hair, 0.7), person.skin, 0.12), 0.92, depth=0.04)


def _draw_hair(canvas: _Canvas, person: Identity) -> None:
    volume, wave = person.hair_volume, person.hair_wave
    if volume < 0.04:  # shaved: a shadow on the scalp
        volume, wave = 0.01, 0.0
    width, top = person.face_width, -1.28 * person.face_height
    reach = width + 0.7 * volume
    sideburn = float(np.clip(person.hair_length, -0.35, 0.35))
    crown = np.array(
        [(-reach, sideburn), (-reach - wave, -0.5), (-0.78 * reach, -1.0 - 0.5 * volume),
         (-0.35 * reach, top - volume), (0.25 * reach, top - volume - wave),
         (0.78 * reach, -1.0 - 0.5 * volume), (reach + wave, -0.5), (reach, sideburn)]
    )  # fmt: skip
    line, fall = person.hairline, person.fringe
    part = person.hair_parting * 0.5 * width
    hairline = np.array(
        [(0.90 * width, sideburn - 0.02), (0.86 * width, -0.45), (0.70 * width, line + 0.22 + fall),
         (0.5 * (part + 0.7 * width), line + 0.06 + 1.2 * fall + wave), (part, line - 0.04 + 0.4 * fall),
         (0.5 * (part - 0.7 * width), line + 0.06 + 1.2 * fall - wave),
         (-0.70 * width, line + 0.22 + fall), (-0.86 * width, -0.45), (-0.90 * width, sideburn - 0.02)]
    )  # fmt: skip
    shape = np.concatenate([_open(crown), _open(hairline)])
    canvas.fill(shape, person.hair, depth=None)
    for strand in (0.35, 0.6, 0.85):  # strands that follow the crown, light over dark
        follow = crown[1:-1] * (strand, 0.5 + 0.5 * strand) + ((1 - strand) * part, 0.0)
        lit = (
            _mix(person.hair, (255, 240, 220), 0.35) if strand == 0.6 else _scale(person.hair, 0.7)
        )
        above = _open(follow)
        above = above[above[:, 1] < line - 0.02 + fall * 0.5]
        if len(above) > 1:
            shifted = above + (0.12 * np.sin(canvas.yaw), -0.08 * np.sin(canvas.pitch))
            pixels = (shifted @ canvas.roll + canvas.center).ravel().tolist()
            canvas.draw.line(pixels, _rgba(lit, 0.35), max(1, round(0.05 * canvas.unit)))


def _draw_glasses(canvas: _Canvas, person: Identity, rng: np.random.Generator) -> None:
    red, green, blue = rng.uniform(10, 110, 3)
    shade = rng.choice([0.08, 0.85], p=[0.75, 0.25])
    square, width, height = rng.uniform(0, 1), rng.uniform(0.30, 0.37), rng.uniform(0.2, 0.28)
    rim = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (1 - 0.5 * square) * (width, height)
    frame: Colour = (red, green, blue)
    for side in (-1, 1):
        lens = rim + (side * person.eye_x, person.eye_y + 0.02)
        canvas.fill(lens, (30, 34, 40) if shade > 0.5 else (220, 230, 240), shade, depth=0.1)
        canvas.stroke(lens, frame, 0.04, depth=0.1)
        temple = np.array(
            [(side * (person.eye_x + width), person.eye_y), (side * 0.98, person.eye_y - 0.02)]
        )
        canvas.stroke(temple, frame, 0.04)
    inner = person.eye_x - width
    canvas.stroke(
        np.array([(-inner, person.eye_y), (inner, person.eye_y)]), frame, 0.04, depth=0.15
    )


def _draw_occluder(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Something in front of the face, reaching in from an edge: a hand, a scarf, a phone."""
    angle = rng.uniform(0, 2 * np.pi)
    reach, width = rng.uniform(0.55, 1.1), rng.uniform(0.25, 0.7)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    near, far = along * reach, along * 3.0
    corners = np.array([near + across * width, near - across * width,
                        far - across * width * 1.2, far + across * width * 1.2])  # fmt: skip
    red, green, blue = rng.uniform(20, 230, 3)
    canvas.fill(_closed(corners), (red, green, blue), depth=None)
    canvas.fill(_closed(corners * 0.9 + 0.12 * along), _scale((red, green, blue), 1.12), depth=None)


def contact_sheet(
    identities: int = 8, images: int = 8, seed: int = 0, first: int = 0
) -> NDArray[np.uint8]:
    """A table of faces, a row an identity: uint8 (112 identities, 112 images, 3), RGB."""
    return np.concatenate(
        [
            np.concatenate([draw_face(identity, image, seed) for image in range(images)], axis=1)
            for identity in range(first, first + identities)
        ]
    )


def write_synthetic_faces(
    out: str | Path,
    *,
    train_identities: int = 400,
    images_per_identity: int = 20,
    val_identities: int = 150,
    val_images_per_identity: int = 8,
    pairs_per_fold: int = 400,
    folds: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a data set: `train/PERSON/*.jpg`, `val/PERSON/*.jpg`, `val_pairs.txt` and `val.bin`.

    Nobody is in both train and val. The folds of the pairs follow each other, each with its genuine
    pairs first and as many impostor pairs after them; no pair occurs twice.

    Args:
        out: a folder that is new or empty; it appears whole or not at all.
        progress: called as progress(images drawn, images in all) after each image.

    Raises:
        ValueError: a count that is not positive, an odd `pairs_per_fold`, more pairs than the val
            images make, or an `out` with something in it.
    """
    counts = {
        "train_identities": train_identities,
        "images_per_identity": images_per_identity,
        "val_identities": val_identities,
        "val_images_per_identity": val_images_per_identity,
        "pairs_per_fold": pairs_per_fold,
        "folds": folds,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; a positive number is wanted")
    pairs, issame = _verification_pairs(
        val_identities, val_images_per_identity, pairs_per_fold, folds, seed
    )
    total = train_identities * images_per_identity + val_identities * val_images_per_identity
    drawn = itertools.count(1)
    with atomic_folder(out) as folder:
        encoded: dict[str, bytes] = {}
        for identity in range(train_identities + val_identities):
            training = identity < train_identities
            person = folder / ("train" if training else "val") / f"person_{identity:05d}"
            person.mkdir(parents=True)
            for image in range(images_per_identity if training else val_images_per_identity):
                jpeg = encode_jpeg(draw_face(identity, image, seed))
                path = person / f"{image:03d}.jpg"
                path.write_bytes(jpeg)
                if not training:
                    encoded[f"{person.name}/{path.name}"] = jpeg
                if progress:
                    progress(next(drawn), total)
        names = [
            f"person_{train_identities + identity:05d}/{image:03d}.jpg"
            for identity, image in pairs.reshape(-1, 2)
        ]
        lines = [
            f"{first} {second} {int(same)}\n"
            for first, second, same in zip(names[::2], names[1::2], issame, strict=True)
        ]
        (folder / "val_pairs.txt").write_text("".join(lines))
        write_pair_bin(folder / "val.bin", [encoded[name] for name in names], issame)
    return Path(out)


def _verification_pairs(
    identities: int, images: int, pairs_per_fold: int, folds: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs (N, 2, 2) of (identity, image), fold after fold, and issame (N,)."""
    half, odd = divmod(pairs_per_fold, 2)
    if odd:
        raise ValueError(f"pairs_per_fold is {pairs_per_fold}; half of them are genuine, so even")
    wanted = half * folds
    possible = identities * images * (images - 1) // 2
    if wanted > possible or 4 * wanted > identities * (identities - 1) * images**2:
        raise ValueError(
            f"{identities} val identities of {images} images make {possible} genuine pairs; "
            f"{wanted} of each kind are wanted"
        )
    rng = np.random.default_rng([seed, 2])
    within = np.array(list(itertools.combinations(range(images), 2)))
    chosen = rng.choice(possible, wanted, replace=False)
    person, pair = np.divmod(chosen, len(within))
    genuine = np.stack([np.stack([person, within[pair, side]], axis=1) for side in (0, 1)], axis=1)

    impostors: dict[tuple[int, int, int, int], None] = {}
    while len(impostors) < wanted:
        first, second = sorted(rng.choice(identities, 2, replace=False).tolist())
        one, other = rng.integers(images, size=2).tolist()
        impostors[first, one, second, other] = None
    impostor = np.array(list(impostors)).reshape(-1, 2, 2)

    halves = (genuine.reshape(folds, half, 2, 2), impostor.reshape(folds, half, 2, 2))
    pairs = np.concatenate(halves, axis=1).reshape(-1, 2, 2)
    issame = np.tile(np.repeat([True, False], half), folds)
    return pairs, issame
