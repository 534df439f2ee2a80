"""Faces drawn from numbers: no photograph of anyone.

An identity is a few dozen numbers: the shape and colour of face, eyes, brows, nose, mouth and hair.
A capture is what one image of it adds, and what verification has to see through: pose, light,
expression, blur, noise, glasses and things in front of the face. An image depends on
(seed, identity, image) alone, so images may be drawn in any order and by any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import pillow

SIZE = 112
_OVERSAMPLING = 2
_UNIT = 33.0  # pixels of the finished image in half the width of an average face

Colour = tuple[float, float, float]
Points = NDArray[np.float64]  # (n, 2)


def draw_face(identity: int, image: int, seed: int = 0) -> NDArray[np.uint8]:
    """Image number `image` of an identity: uint8 (112, 112, 3), RGB.

    The pixels depend on the three numbers alone (and on the version of Pillow, which draws them).
    All three are 0 or more.
    """
    for name, number in (("identity", identity), ("image", image), ("seed", seed)):
        if number < 0:
            raise ValueError(f"{name} is {number}; a number from 0 up is wanted")
    person = identity_of(identity, seed)
    rng = np.random.default_rng([seed, 1, identity, image])
    capture = _capture(rng)
    sketch = _Sketch(capture)
    if person.hair_length > -0.2:
        _back_hair(sketch, person)
    _shoulders(sketch, person, rng)
    _head(sketch, person)
    _nose(sketch, person)
    _mouth(sketch, person, capture)
    for side in (-1, 1):
        _eye(sketch, person, capture, side)
        _brow(sketch, person, capture, side)
    _hair(sketch, person)
    if rng.uniform() < 0.18:
        _glasses(sketch, person, rng)
    if rng.uniform() < 0.3:
        _obstacle(sketch, rng)
    return _develop(sketch.paint(_background(rng)), capture, rng)


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


_SKINS: list[Colour] = [
    (247, 214, 190),
    (243, 203, 172),
    (226, 178, 140),
    (200, 146, 108),
    (158, 106, 74),
    (106, 69, 48),
]
_HAIRS: list[Colour] = [
    (28, 24, 24),
    (58, 40, 30),
    (96, 64, 42),
    (142, 98, 58),
    (196, 154, 92),
    (226, 196, 142),
    (150, 66, 36),
    (168, 164, 160),
]
_IRISES: list[Colour] = [
    (66, 42, 28),
    (98, 66, 40),
    (92, 106, 60),
    (70, 112, 146),
    (112, 128, 136),
]


@lru_cache(maxsize=256)
def identity_of(identity: int, seed: int = 0) -> Identity:
    """The identity with this number under this seed."""
    rng = np.random.default_rng([seed, 0, identity])

    def around(mean: float, spread: float) -> float:
        """Normal, cut at two standard deviations."""
        return mean + spread * min(max(rng.standard_normal(), -2.0), 2.0)

    def one_of(palette: list[Colour]) -> Colour:
        """A colour between two neighbours of the palette."""
        position = rng.uniform(0, len(palette) - 1)
        red, green, blue = _mix(palette[int(position)], palette[int(position) + 1], position % 1)
        return red + rng.normal(0, 5), green + rng.normal(0, 5), blue + rng.normal(0, 5)

    skin = one_of(_SKINS)
    nose_y = around(0.42, 0.07)
    bearded = rng.uniform() < 0.3
    lengths = (-0.35, 0.1) if bearded else (-0.35, 0.1, 0.7, 1.5)
    return Identity(
        skin=skin,
        hair=one_of(_HAIRS),
        iris=one_of(_IRISES),
        lip=_mix(_scale(skin, 0.82), (190, 62, 72), rng.uniform(0.25, 0.7)),
        face_width=around(0.97, 0.06),
        face_height=around(1.0, 0.05),
        forehead=around(0.96, 0.06),
        cheek=around(1.0, 0.05),
        jaw=around(0.80, 0.09),
        chin=around(0.40, 0.09),
        ear=around(0.24, 0.05),
        eye_y=around(-0.10, 0.06),
        eye_x=around(0.43, 0.045),
        eye_width=around(0.235, 0.03),
        eye_height=around(0.105, 0.024),
        eye_tilt=around(0.04, 0.10),
        iris_size=around(0.105, 0.012),
        lid=rng.uniform(0.0, 1.0),
        brow_gap=around(0.31, 0.05),
        brow_length=around(0.30, 0.035),
        brow_thickness=around(0.055, 0.022),
        brow_arch=around(0.06, 0.045),
        brow_tilt=around(0.13, 0.12),
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
        hair_length=rng.choice(lengths) + around(0.0, 0.12),
        hair_parting=rng.uniform(-0.35, 0.35),
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
    fall_off: float
    gain: float
    contrast: float
    warmth: float
    blur: float
    noise: float


def _capture(rng: np.random.Generator) -> _Capture:
    normal = rng.standard_normal(16).clip(-2.2, 2.2).tolist()
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.55)
    return _Capture(
        roll=0.14 * normal[0],
        yaw=0.36 * normal[1],
        pitch=0.16 * normal[2],
        scale=1 + 0.07 * normal[3],
        shift=(3.2 * normal[4], 3.2 * normal[5]),
        smile=min(max(0.25 + 0.5 * normal[6], -0.5), 1.0),
        mouth_open=max(0.0, 0.8 * normal[7] - 0.4),
        eyes_open=min(max(0.95 + 0.25 * normal[8], 0.12), 1.25),
        brow_raise=0.045 * normal[9],
        gaze=(0.035 * normal[10], 0.015 * normal[11]),
        light=(strength * np.cos(direction), strength * np.sin(direction)),
        fall_off=rng.uniform(0.1, 0.5),
        gain=np.exp(0.18 * normal[12]),
        contrast=1 + 0.12 * normal[13],
        warmth=0.09 * normal[14],
        blur=max(0.0, rng.uniform(-0.7, 1.9)),
        noise=rng.uniform(0.0, 11.0),
    )


class _Sketch:
    """Shapes on a turned head, kept until all of them are projected at once."""

    def __init__(self, capture: _Capture) -> None:
        self.capture = capture
        self.shapes: list[tuple[Points, Any, tuple[int, int, int, int], float]] = []

    def fill(self, points: Points, colour: Colour, alpha: float = 1.0, depth: Any = 0.0) -> None:
        """A polygon, `depth` above the head's surface (a number, or one a point; see FLAT)."""
        self.shapes.append((points, depth, _rgba(colour, alpha), 0.0))

    def stroke(
        self, points: Points, colour: Colour, width: float, alpha: float = 1.0, depth: float = 0.0
    ) -> None:
        """A line along the points."""
        self.shapes.append((points, depth, _rgba(colour, alpha), width))

    def paint(self, image: Any) -> Any:
        """Draw all shapes onto a Pillow image, in the order they came."""
        blending, opaque = (pillow("ImageDraw").Draw(image, mode) for mode in ("RGBA", "RGB"))
        unit = _UNIT * _OVERSAMPLING * self.capture.scale
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
        shift_x, shift_y = self.capture.shift
        return _OVERSAMPLING * np.array([SIZE / 2 + shift_x, SIZE / 2 + 3 + shift_y]) + np.stack(
            [
                across * np.cos(roll) - along * np.sin(roll),
                across * np.sin(roll) + along * np.cos(roll),
            ],
            axis=1,
        )


FLAT = -9.0  # the depth of what belongs to the head's outline rather than to its surface


def _background(rng: np.random.Generator) -> Any:
    """A room out of focus: a few soft patches between two muted colours."""
    Image = pillow()
    gray = rng.uniform(40, 215, (2, 1, 1, 1))
    low, high = gray + rng.uniform(-35, 35, (2, 1, 1, 3))
    patches = low + (high - low) * rng.uniform(0, 1, (5, 5, 1))
    size = (SIZE * _OVERSAMPLING, SIZE * _OVERSAMPLING)
    return Image.fromarray(patches.clip(0, 255).astype(np.uint8)).resize(size, Image.BICUBIC)


def _develop(image: Any, capture: _Capture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The finished picture: at its final size, blurred, lit and noisy."""
    image = image.reduce(_OVERSAMPLING)
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
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5 - SIZE / 2) / _UNIT
    x, y = np.meshgrid(axis, axis)
    return np.tanh(x), np.tanh(y), np.exp(-(x**2 + y**2) / 2)


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    """Noise that images take a window of, which is faster than drawing it anew."""
    return np.random.default_rng(0).standard_normal((2 * SIZE, 2 * SIZE, 3), dtype=np.float32)


def _rgba(colour: Colour, alpha: float) -> tuple[int, int, int, int]:
    red, green, blue = colour
    return (
        int(min(max(red, 0), 255)),
        int(min(max(green, 0), 255)),
        int(min(max(blue, 0), 255)),
        int(255 * min(alpha, 1.0)),
    )


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def _scale(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _ellipse(x: float, y: float, width: float, height: float) -> Points:
    return _CIRCLE * np.array([width, height]) + np.array([x, y])


def _points(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _mirrored(*right: tuple[float, float], closed: bool = True) -> Points:
    """A symmetrical outline from its right half, which begins on the axis.

    `closed` outlines end on the axis as well; open lines run from the left end to the right one.
    """
    half = np.array(right)
    if closed:
        return np.concatenate([half, half[-2:0:-1] * np.array([-1, 1])])
    return np.concatenate([half[:0:-1] * np.array([-1, 1]), half])


@lru_cache(maxsize=64)
def _spline(count: int, closed: bool, steps: int = 5) -> NDArray[np.float64]:
    """Weights (points of the curve, count) of a Catmull-Rom curve through `count` points."""
    t = np.linspace(0, 1, steps, endpoint=False)
    blend = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    segments = count if closed else count - 1
    weights = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for neighbour in range(4):
            point = segment - 1 + neighbour
            point = point % count if closed else min(max(point, 0), count - 1)
            weights[segment * steps : (segment + 1) * steps, point] += blend[neighbour]
    if not closed:
        weights[-1, -1] = 1.0
    return weights


def _closed(points: Points) -> Points:
    """A smooth closed curve through the points."""
    return _spline(len(points), True) @ points


def _open(points: Points) -> Points:
    """A smooth curve from the first point to the last."""
    return _spline(len(points), False) @ points


def _outline(person: Identity) -> Points:
    width, height = person.face_width, person.face_height
    return _mirrored(
        (0.0, -1.28 * height),
        (0.60 * width * person.forehead, -1.12 * height),
        (0.93 * width * person.forehead, -0.60 * height),
        (width * person.cheek, -0.02),
        (0.95 * width * person.cheek, 0.38),
        (width * person.jaw, 0.84 * height),
        (width * person.chin, 1.20 * height),
        (0.0, 1.30 * height),
    )


def _shoulders(sketch: _Sketch, person: Identity, rng: np.random.Generator) -> None:
    neck = 0.62 * person.jaw
    throat = _points((-neck, 0.8), (neck, 0.8), (neck * 1.1, 2.4), (-neck * 1.1, 2.4))
    sketch.fill(throat, _scale(person.skin, 0.72), depth=FLAT)
    red, green, blue = rng.uniform(60, 180) + rng.uniform(-50, 50, 3)
    shirt = _mirrored((0, 1.8), (neck * 1.05, 1.5), (1.7, 1.85), (2.4, 2.8), (0, 2.8))
    sketch.fill(shirt, (red, green, blue), depth=FLAT)


def _back_hair(sketch: _Sketch, person: Identity) -> None:
    reach, wave, end = person.face_width + person.hair_volume, person.hair_wave, person.hair_length
    mane = _mirrored(
        (0.0, -1.28 * person.face_height - person.hair_volume),
        (0.75 * reach, -1.05),
        (reach + wave, -0.35),
        (reach - wave, 0.1 + 0.2 * end),
        (reach + wave, 0.2 + 0.55 * end),
        (0.92 * reach, 0.35 + 0.85 * end),
        (0.5 * reach, 0.45 + end),
        (0.0, 0.4 + end),
    )
    sketch.fill(_closed(mane), _scale(person.hair, 0.80), depth=FLAT)


def _head(sketch: _Sketch, person: Identity) -> None:
    skin, shadow = person.skin, _scale(person.skin, 0.62)
    for side in (-1, 1):
        x = side * person.face_width * 0.99
        ear, hollow = 0.55 * person.ear, 0.28 * person.ear
        sketch.fill(_ellipse(x, 0.12, ear, person.ear), _scale(skin, 0.88), depth=FLAT)
        sketch.fill(_ellipse(x, 0.13, hollow, 0.6 * person.ear), shadow, 0.5, depth=FLAT)
    outline = _closed(_outline(person))
    for size, brightness in ((1.0, 0.86), (0.94, 0.93), (0.86, 1.0)):
        sketch.fill(outline * size, _scale(skin, brightness), depth=FLAT)
    blush = _mix(skin, (226, 92, 84), 0.5)
    for side in (-1, 1):
        for size in (1.0, 0.7):  # in two steps, for a softer edge
            socket = _ellipse(side * person.eye_x, person.eye_y - 0.06, 0.3 * size, 0.2 * size)
            sketch.fill(socket, shadow, 0.13)
            sketch.fill(_ellipse(side * 0.56, 0.34, 0.24 * size, 0.17 * size), blush, 0.12)
    if person.freckles:
        for x, y in _FRECKLES:
            sketch.fill(_ellipse(x, y, 0.018, 0.018)[::4], shadow, person.freckles)
    if person.beard:
        _beard(sketch, person)
    if person.mole:
        sketch.fill(_ellipse(*person.mole, 0.035, 0.035)[::3], _scale(skin, 0.35))


_FRECKLES = np.random.default_rng(7).normal((0, 0.26), (0.42, 0.1), (26, 2)).clip(-0.75, 0.75)


def _beard(sketch: _Sketch, person: Identity) -> None:
    half = _outline(person)[3:8]  # from the cheek bone down to the chin
    jaw = _open(np.concatenate([half, half[-2::-1] * np.array([-1, 1])])) * 0.99
    lip = person.mouth_y + person.lower_lip
    cheeks = _open(_mirrored((0, lip), (0.45, lip - 0.15), (0.78, 0.42), closed=False))
    depth = np.repeat([FLAT, 0.0], [len(jaw), len(cheeks)])
    colour = _mix(_scale(person.hair, 0.72), person.skin, 0.2)
    sketch.fill(np.concatenate([jaw, cheeks]), colour, person.beard, depth)


def _nose(sketch: _Sketch, person: Identity) -> None:
    shadow, light = _scale(person.skin, 0.60), _mix(person.skin, (255, 250, 240), 0.5)
    top, base, width = person.eye_y, person.nose_y, person.nose_width
    bridge, tip = person.nose_bridge, person.nose_tip
    for side in (-1, 1):
        flank = _points(
            (side * bridge, top),
            (side * bridge * 1.05, 0.5 * (top + base)),
            (side * width, base - 0.04),
            (side * width * 0.9, base + 0.03),
            (side * 0.04, base),
        )
        sketch.fill(_open(flank), shadow, 0.32 if side > 0 else 0.20, depth=0.12)
        nostril = _ellipse(side * 0.5 * width, base + 0.015, 0.33 * width, 0.032)
        sketch.fill(nostril, _scale(person.skin, 0.30), 0.75, depth=0.16)
        wing = _points(
            (side * width * 0.75, base - 0.12),
            (side * width * 1.02, base - 0.03),
            (side * width * 0.85, base + 0.035),
        )
        sketch.stroke(_open(wing), shadow, 0.03, 0.6, depth=0.12)
    sketch.fill(_ellipse(0, base - 0.09, 0.8 * tip, 0.6 * tip), light, 0.45, depth=0.22)
    ridge = _points((-0.03, top), (0.03, top), (0.04, base - 0.12), (-0.04, base - 0.12))
    sketch.fill(ridge, light, 0.35, depth=0.16)


def _mouth(sketch: _Sketch, person: Identity, capture: _Capture) -> None:
    y, half = person.mouth_y, person.mouth_width * (1 + 0.18 * capture.smile)
    corner = (half, y - 0.09 * capture.smile)
    gap = 0.12 * capture.mouth_open
    up, low, bow = person.upper_lip, person.lower_lip, person.lip_bow
    if person.moustache:
        hairs = _mirrored(
            (0, y - 0.17), (half * 0.55, y - 0.16), (half, y - 0.02), (0, y - 0.6 * up)
        )
        sketch.fill(_closed(hairs), _scale(person.hair, 0.85), person.moustache, depth=0.08)

    def across(middle: float, side: float, peak: float = 0.0) -> Points:
        """A line from corner to corner, `middle` and `side` below the mouth's height."""
        inner = (half * 0.16, y + middle - peak)
        return _mirrored((0, y + middle), inner, (half * 0.5, y + side), corner, closed=False)

    parting = across(0.01 - 0.4 * gap, -0.3 * gap)
    bottom = across(0.01 + 0.9 * gap, 0.7 * gap)
    if gap > 0.01:
        sketch.fill(np.concatenate([_open(parting), _open(bottom)[::-1]]), (58, 18, 20), depth=0.05)
        teeth = across(0.5 * gap, 0.2 * gap)
        teeth = np.concatenate([parting[1:-1], teeth[-2:0:-1]])
        sketch.fill(teeth, (238, 232, 222), depth=0.05)
    upper, lower = across(-up, -0.85 * up, bow), across(0.9 * gap + low, 0.7 * gap + 0.8 * low)
    for edge, line, shade in ((upper, parting, 0.88), (lower, bottom, 1.0)):
        lip = np.concatenate([_open(edge), _open(line)[::-1]])
        sketch.fill(lip, _scale(person.lip, shade), 0.9, depth=0.05)
    sketch.stroke(_open(parting), _scale(person.lip, 0.45), 0.028, 0.8, depth=0.05)
    chin = y + low + 0.13
    sketch.stroke(
        _points((-0.3 * half, chin), (0.3 * half, chin)), _scale(person.skin, 0.7), 0.04, 0.4
    )
    for side in (-1, 1):
        fold = _points(
            (side * (person.nose_width + 0.05), person.nose_y - 0.02),
            (side * (half + 0.02), y - 0.14),
            (side * (half + 0.07), y + 0.02),
        )
        strength = person.folds * (0.25 + 0.4 * max(capture.smile, 0))
        sketch.stroke(_open(fold), _scale(person.skin, 0.6), 0.03, strength)


_LID_X = np.linspace(-1, 1, 11)
_LID_Y = np.sqrt(np.maximum(1 - np.abs(_LID_X) ** 2.2, 0))


def _eye(sketch: _Sketch, person: Identity, capture: _Capture, side: int) -> None:
    half, tall = person.eye_width, person.eye_height * capture.eyes_open
    tilt = _points((1.0, -side * person.eye_tilt), (side * person.eye_tilt, 1.0))
    center = np.array([side * person.eye_x, person.eye_y])
    upper = np.stack([_LID_X * half, -1.15 * tall * _LID_Y], axis=1)
    lower = np.stack([_LID_X * half, 0.75 * tall * _LID_Y], axis=1)
    sketch.fill(np.concatenate([upper, lower[::-1]]) @ tilt + center, (240, 236, 230))
    for size, colour in ((1.0, person.iris), (0.5, (12, 10, 10))):
        disc = _ellipse(*capture.gaze, person.iris_size * size, person.iris_size * size)
        x, y = disc.T
        lids = np.interp(x, upper[:, 0], upper[:, 1]), np.interp(x, lower[:, 0], lower[:, 1])
        sketch.fill(np.stack([x, y.clip(*lids)], axis=1) @ tilt + center, colour)
    if tall > 0.05:
        glint = _ellipse(capture.gaze[0] + 0.03, capture.gaze[1] - 0.035, 0.024, 0.024)
        sketch.fill(glint[::2] + center, (255, 255, 255), 0.9)
    lash = _scale(_mix(person.hair, person.skin, 0.15), 0.45)
    sketch.stroke(upper @ tilt + center, lash, 0.035 + 0.02 * person.lid)
    sketch.stroke(lower @ tilt + center, lash, 0.015, 0.5)
    crease = upper[1:-1] * np.array([1.05, 1.0]) - np.array([0, 0.045 + 0.04 * person.lid])
    shadow = _scale(person.skin, 0.55)
    sketch.stroke(crease @ tilt + center, shadow, 0.02, 0.3 + 0.5 * person.lid)


def _brow(sketch: _Sketch, person: Identity, capture: _Capture, side: int) -> None:
    length, thick, arch = person.brow_length * side, person.brow_thickness, person.brow_arch
    x = np.array([-1.0, -0.3, 0.35, 1.0])  # from the nose outwards
    ridge = arch * np.array([0.0, -0.7, -1.0, 0.6]) + person.brow_tilt * person.brow_length * x
    body = 0.5 * thick * np.array([1.0, 1.1, 0.8, 0.2])
    upper, lower = (np.stack([x * length, ridge + edge], axis=1) for edge in (-body, body))
    height = person.eye_y - person.brow_gap - capture.brow_raise
    center = np.array([side * (person.eye_x + 0.01), height])
    brow = np.concatenate([_open(upper), _open(lower)[::-1]]) + center
    sketch.fill(brow, _mix(_scale(person.hair, 0.7), person.skin, 0.12), 0.92, depth=0.04)


def _hair(sketch: _Sketch, person: Identity) -> None:
    volume, wave = person.hair_volume, person.hair_wave
    if volume < 0.04:  # shaved to a shadow on the scalp
        volume, wave = 0.01, 0.0
    width, top = person.face_width, -1.28 * person.face_height
    reach = width + 0.7 * volume
    sideburn = min(max(person.hair_length, -0.35), 0.35)
    crown = _points(
        (-reach, sideburn),
        (-reach - wave, -0.5),
        (-0.78 * reach, -1.0 - 0.5 * volume),
        (-0.35 * reach, top - volume),
        (0.25 * reach, top - volume - wave),
        (0.78 * reach, -1.0 - 0.5 * volume),
        (reach + wave, -0.5),
        (reach, sideburn),
    )
    line, fall, part = person.hairline, person.fringe, person.hair_parting * width
    front = line + 0.06 + 1.2 * fall
    hairline = _points(
        (0.90 * width, sideburn - 0.02),
        (0.86 * width, -0.45),
        (0.70 * width, line + 0.22 + fall),
        (0.5 * (part + 0.7 * width), front + wave),
        (part, line - 0.04 + 0.4 * fall),
        (0.5 * (part - 0.7 * width), front - wave),
        (-0.70 * width, line + 0.22 + fall),
        (-0.86 * width, -0.45),
        (-0.90 * width, sideburn - 0.02),
    )
    sketch.fill(np.concatenate([_open(crown), _open(hairline)]), person.hair, depth=FLAT)
    shine = _mix(person.hair, (255, 240, 220), 0.35)
    for strand, colour in ((0.35, _scale(person.hair, 0.7)), (0.6, shine)):
        toward_part = np.array([(1 - strand) * part, 0.0])
        lock = _open(crown[1:-1] * np.array([strand, 0.5 + 0.5 * strand]) + toward_part)
        lock = lock[lock[:, 1] < line + 0.5 * fall - 0.02]
        if len(lock) > 1:
            sketch.stroke(lock, colour, 0.05, 0.35, depth=FLAT)


def _glasses(sketch: _Sketch, person: Identity, rng: np.random.Generator) -> None:
    red, green, blue = rng.uniform(10, 110, 3).tolist()
    frame: Colour = (red, green, blue)
    glass, alpha = ((30, 34, 40), 0.85) if rng.uniform() < 0.25 else ((220, 230, 240), 0.08)
    width, height, y = rng.uniform(0.30, 0.37), rng.uniform(0.2, 0.28), person.eye_y
    roundness = rng.uniform(0.5, 1.0)
    rim = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** roundness * np.array([width, height])
    rim = np.concatenate([rim, rim[:1]])
    for side in (-1, 1):
        lens = rim + np.array([side * person.eye_x, y + 0.02])
        sketch.fill(lens, glass, alpha, depth=0.1)
        sketch.stroke(lens, frame, 0.04, depth=0.1)
        temple = _points((side * (person.eye_x + width), y), (side * 0.98, y - 0.02))
        sketch.stroke(temple, frame, 0.04)
    inner = person.eye_x - width
    sketch.stroke(_points((-inner, y), (inner, y)), frame, 0.04, depth=0.15)


def _obstacle(sketch: _Sketch, rng: np.random.Generator) -> None:
    """Something between camera and face that reaches in from an edge: a hand, a scarf, a cup."""
    angle = rng.uniform(0, 2 * np.pi)
    reach, width = rng.uniform(0.55, 1.1), rng.uniform(0.25, 0.7)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * width
    near, far = along * reach, along * 3.0
    blob = _closed(np.stack([near + across, near - across, far - across, far + across]))
    red, green, blue = rng.uniform(50, 200) + rng.uniform(-45, 45, 3)
    sketch.fill(blob, (red, green, blue), depth=FLAT)
    sketch.fill(blob * 0.9 + 0.12 * along, _scale((red, green, blue), 1.1), depth=FLAT)
