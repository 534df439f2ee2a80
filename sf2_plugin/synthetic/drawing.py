"""Faces drawn from numbers: no photograph of anyone.

An image depends on (seed, identity, image) alone, so images may be drawn in any order and by any
number of processes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .capture import Capture, background, develop
from .identity import Identity, identity_of, mix
from .sketch import (
    CIRCLE,
    FLAT,
    FLIP,
    Points,
    Sketch,
    between,
    closed_curve,
    ellipse,
    mirrored,
    mirrored_line,
    open_curve,
)


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
    capture = Capture(rng)
    sketch = Sketch(capture)
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
    return develop(sketch.paint(background(rng)), capture, rng)


def _outline(person: Identity) -> Points:
    width, height = person.face_width, person.face_height
    return mirrored(
        (0.0, -1.28 * height),
        (0.60 * width * person.forehead, -1.12 * height),
        (0.93 * width * person.forehead, -0.60 * height),
        (width * person.cheek, -0.02),
        (0.95 * width * person.cheek, 0.38),
        (width * person.jaw, 0.84 * height),
        (width * person.chin, 1.20 * height),
        (0.0, 1.30 * height),
    )


def _shoulders(sketch: Sketch, person: Identity, rng: np.random.Generator) -> None:
    neck = 0.62 * person.jaw
    throat = [(-neck, 0.8), (neck, 0.8), (neck * 1.1, 2.4), (-neck * 1.1, 2.4)]
    sketch.fill(throat, person.skin * 0.72, depth=FLAT)
    colour = rng.uniform(60, 180) + rng.uniform(-50, 50, 3)
    shirt = mirrored((0, 1.8), (neck * 1.05, 1.5), (1.7, 1.85), (2.4, 2.8), (0, 2.8))
    sketch.fill(shirt, colour, depth=FLAT)


def _back_hair(sketch: Sketch, person: Identity) -> None:
    reach, wave, end = person.face_width + person.hair_volume, person.hair_wave, person.hair_length
    mane = mirrored(
        (0.0, -1.28 * person.face_height - person.hair_volume),
        (0.75 * reach, -1.05),
        (reach + wave, -0.35),
        (reach - wave, 0.1 + 0.2 * end),
        (reach + wave, 0.2 + 0.55 * end),
        (0.92 * reach, 0.35 + 0.85 * end),
        (0.5 * reach, 0.45 + end),
        (0.0, 0.4 + end),
    )
    sketch.fill(closed_curve(mane), person.hair * 0.80, depth=FLAT)


def _head(sketch: Sketch, person: Identity) -> None:
    skin, shadow = person.skin, person.skin * 0.62
    for side in (-1, 1):
        x = side * person.face_width * 0.99
        ear, hollow = 0.55 * person.ear, 0.28 * person.ear
        sketch.fill(ellipse((x, 0.12), ear, person.ear), skin * 0.88, depth=FLAT)
        sketch.fill(ellipse((x, 0.13), hollow, 0.6 * person.ear), shadow, 0.5, depth=FLAT)
    outline = closed_curve(_outline(person))
    for size, brightness in ((1.0, 0.86), (0.94, 0.93), (0.86, 1.0)):
        sketch.fill(outline * size, skin * brightness, depth=FLAT)
    blush = mix(skin, (226, 92, 84), 0.5)
    for side in (-1, 1):
        for size in (1.0, 0.7):  # in two steps, for a softer edge
            socket = (side * person.eye_x, person.eye_y - 0.06)
            sketch.fill(ellipse(socket, 0.3 * size, 0.2 * size), shadow, 0.13)
            sketch.fill(ellipse((side * 0.56, 0.34), 0.24 * size, 0.17 * size), blush, 0.12)
    if person.freckles:
        for spot in _FRECKLES:
            sketch.fill(ellipse(spot, 0.018, 0.018)[::4], shadow, person.freckles)
    if person.beard:
        _beard(sketch, person)
    if person.mole:
        sketch.fill(ellipse(person.mole, 0.035, 0.035)[::3], skin * 0.35)


_FRECKLES = np.random.default_rng(7).normal((0, 0.26), (0.42, 0.1), (26, 2)).clip(-0.75, 0.75)


def _beard(sketch: Sketch, person: Identity) -> None:
    half = _outline(person)[3:8]  # from the cheek bone down to the chin
    jaw = open_curve(np.concatenate([half, half[-2::-1] * FLIP])) * 0.99
    lip = person.mouth_y + person.lower_lip
    cheeks = open_curve(mirrored_line((0, lip), (0.45, lip - 0.15), (0.78, 0.42)))
    depth = np.repeat([FLAT, 0.0], [len(jaw), len(cheeks)])
    colour = mix(person.hair * 0.72, person.skin, 0.2)
    sketch.fill(np.concatenate([jaw, cheeks]), colour, person.beard, depth)


def _nose(sketch: Sketch, person: Identity) -> None:
    shadow, light = person.skin * 0.60, mix(person.skin, (255, 250, 240), 0.5)
    top, base, width = person.eye_y, person.nose_y, person.nose_width
    bridge, tip = person.nose_bridge, person.nose_tip
    for side in (-1, 1):
        flank = [
            (side * bridge, top),
            (side * bridge * 1.05, 0.5 * (top + base)),
            (side * width, base - 0.04),
            (side * width * 0.9, base + 0.03),
            (side * 0.04, base),
        ]
        sketch.fill(open_curve(flank), shadow, 0.32 if side > 0 else 0.20, depth=0.12)
        nostril = ellipse((side * 0.5 * width, base + 0.015), 0.33 * width, 0.032)
        sketch.fill(nostril, person.skin * 0.30, 0.75, depth=0.16)
        wing = [
            (side * width * 0.75, base - 0.12),
            (side * width * 1.02, base - 0.03),
            (side * width * 0.85, base + 0.035),
        ]
        sketch.stroke(open_curve(wing), shadow, 0.03, 0.6, depth=0.12)
    sketch.fill(ellipse((0, base - 0.09), 0.8 * tip, 0.6 * tip), light, 0.45, depth=0.22)
    ridge = [(-0.03, top), (0.03, top), (0.04, base - 0.12), (-0.04, base - 0.12)]
    sketch.fill(ridge, light, 0.35, depth=0.16)


def _mouth(sketch: Sketch, person: Identity, capture: Capture) -> None:
    y, half = person.mouth_y, person.mouth_width * (1 + 0.18 * capture.smile)
    corner = (half, y - 0.09 * capture.smile)
    gap = 0.12 * capture.mouth_open
    up, low, bow = person.upper_lip, person.lower_lip, person.lip_bow
    if person.moustache:
        hairs = mirrored(
            (0, y - 0.17), (half * 0.55, y - 0.16), (half, y - 0.02), (0, y - 0.6 * up)
        )
        sketch.fill(closed_curve(hairs), person.hair * 0.85, person.moustache, depth=0.08)

    def across(middle: float, side: float, peak: float = 0.0) -> Points:
        """A line from corner to corner, `middle` and `side` below the mouth's height."""
        inner = (half * 0.16, y + middle - peak)
        return mirrored_line((0, y + middle), inner, (half * 0.5, y + side), corner)

    parting = across(0.01 - 0.4 * gap, -0.3 * gap)
    bottom = across(0.01 + 0.9 * gap, 0.7 * gap)
    if gap > 0.01:
        inside = between(open_curve(parting), open_curve(bottom))
        sketch.fill(inside, (58, 18, 20), depth=0.05)
        teeth = between(parting[1:-1], across(0.5 * gap, 0.2 * gap)[1:-1])
        sketch.fill(teeth, (238, 232, 222), depth=0.05)
    upper, lower = across(-up, -0.85 * up, bow), across(0.9 * gap + low, 0.7 * gap + 0.8 * low)
    for edge, line, shade in ((upper, parting, 0.88), (lower, bottom, 1.0)):
        lip = between(open_curve(edge), open_curve(line))
        sketch.fill(lip, person.lip * shade, 0.9, depth=0.05)
    sketch.stroke(open_curve(parting), person.lip * 0.45, 0.028, 0.8, depth=0.05)
    chin = y + low + 0.13
    sketch.stroke([(-0.3 * half, chin), (0.3 * half, chin)], person.skin * 0.7, 0.04, 0.4)
    for side in (-1, 1):
        fold = [
            (side * (person.nose_width + 0.05), person.nose_y - 0.02),
            (side * (half + 0.02), y - 0.14),
            (side * (half + 0.07), y + 0.02),
        ]
        strength = person.folds * (0.25 + 0.4 * max(capture.smile, 0))
        sketch.stroke(open_curve(fold), person.skin * 0.6, 0.03, strength)


_LID_X = np.linspace(-1, 1, 11)
_LID_Y = np.sqrt(np.maximum(1 - np.abs(_LID_X) ** 2.2, 0))


def _eye(sketch: Sketch, person: Identity, capture: Capture, side: int) -> None:
    half, tall = person.eye_width, person.eye_height * capture.eyes_open
    tilt = [(1.0, -side * person.eye_tilt), (side * person.eye_tilt, 1.0)]
    center = np.array([side * person.eye_x, person.eye_y])
    upper = np.stack([_LID_X * half, -1.15 * tall * _LID_Y], axis=1)
    lower = np.stack([_LID_X * half, 0.75 * tall * _LID_Y], axis=1)
    sketch.fill(between(upper, lower) @ tilt + center, (240, 236, 230))
    for size, colour in ((1.0, person.iris), (0.5, (12, 10, 10))):
        disc = ellipse(capture.gaze, person.iris_size * size, person.iris_size * size)
        x, y = disc.T
        lids = np.interp(x, upper[:, 0], upper[:, 1]), np.interp(x, lower[:, 0], lower[:, 1])
        sketch.fill(np.stack([x, y.clip(*lids)], axis=1) @ tilt + center, colour)
    if tall > 0.05:
        glint = ellipse(capture.gaze + np.array([0.03, -0.035]), 0.024, 0.024)[::2]
        sketch.fill(glint + center, (255, 255, 255), 0.9)
    lash = 0.45 * mix(person.hair, person.skin, 0.15)
    sketch.stroke(upper @ tilt + center, lash, 0.035 + 0.02 * person.lid)
    sketch.stroke(lower @ tilt + center, lash, 0.015, 0.5)
    crease = upper[1:-1] * (1.05, 1.0) - (0, 0.045 + 0.04 * person.lid)
    sketch.stroke(crease @ tilt + center, person.skin * 0.55, 0.02, 0.3 + 0.5 * person.lid)


def _brow(sketch: Sketch, person: Identity, capture: Capture, side: int) -> None:
    length, thick, arch = person.brow_length * side, person.brow_thickness, person.brow_arch
    x = np.array([-1.0, -0.3, 0.35, 1.0])  # from the nose outwards
    ridge = arch * np.array([0.0, -0.7, -1.0, 0.6]) + person.brow_tilt * person.brow_length * x
    body = 0.5 * thick * np.array([1.0, 1.1, 0.8, 0.2])
    upper, lower = (np.stack([x * length, ridge + edge], axis=1) for edge in (-body, body))
    height = person.eye_y - person.brow_gap - capture.brow_raise
    center = np.array([side * (person.eye_x + 0.01), height])
    brow = between(open_curve(upper), open_curve(lower))
    sketch.fill(brow + center, mix(person.hair * 0.7, person.skin, 0.12), 0.92, depth=0.04)


def _hair(sketch: Sketch, person: Identity) -> None:
    volume, wave = person.hair_volume, person.hair_wave
    if volume < 0.04:  # shaved to a shadow on the scalp
        volume, wave = 0.01, 0.0
    width, top = person.face_width, -1.28 * person.face_height
    reach = width + 0.7 * volume
    sideburn = min(max(person.hair_length, -0.35), 0.35)
    crown = [
        (-reach, sideburn),
        (-reach - wave, -0.5),
        (-0.78 * reach, -1.0 - 0.5 * volume),
        (-0.35 * reach, top - volume),
        (0.25 * reach, top - volume - wave),
        (0.78 * reach, -1.0 - 0.5 * volume),
        (reach + wave, -0.5),
        (reach, sideburn),
    ]
    line, fall, part = person.hairline, person.fringe, person.hair_parting * width
    front = line + 0.06 + 1.2 * fall
    hairline = [
        (0.90 * width, sideburn - 0.02),
        (0.86 * width, -0.45),
        (0.70 * width, line + 0.22 + fall),
        (0.5 * (part + 0.7 * width), front + wave),
        (part, line - 0.04 + 0.4 * fall),
        (0.5 * (part - 0.7 * width), front - wave),
        (-0.70 * width, line + 0.22 + fall),
        (-0.86 * width, -0.45),
        (-0.90 * width, sideburn - 0.02),
    ]
    sketch.fill(np.concatenate([open_curve(crown), open_curve(hairline)]), person.hair, depth=FLAT)
    shine = mix(person.hair, (255, 240, 220), 0.35)
    for strand, colour in ((0.35, person.hair * 0.7), (0.6, shine)):
        toward_part = np.array([(1 - strand) * part, 0.0])
        lock = open_curve(np.array(crown[1:-1]) * (strand, 0.5 + 0.5 * strand) + toward_part)
        lock = lock[lock[:, 1] < line + 0.5 * fall - 0.02]
        if len(lock) > 1:
            sketch.stroke(lock, colour, 0.05, 0.35, depth=FLAT)


def _glasses(sketch: Sketch, person: Identity, rng: np.random.Generator) -> None:
    frame = rng.uniform(10, 110, 3)
    glass, alpha = ((30, 34, 40), 0.85) if rng.uniform() < 0.25 else ((220, 230, 240), 0.08)
    width, height, y = rng.uniform(0.30, 0.37), rng.uniform(0.2, 0.28), person.eye_y
    roundness = rng.uniform(0.5, 1.0)
    rim = np.sign(CIRCLE) * np.abs(CIRCLE) ** roundness * (width, height)
    rim = np.concatenate([rim, rim[:1]])
    for side in (-1, 1):
        lens = rim + np.array([side * person.eye_x, y + 0.02])
        sketch.fill(lens, glass, alpha, depth=0.1)
        sketch.stroke(lens, frame, 0.04, depth=0.1)
        sketch.stroke([(side * (person.eye_x + width), y), (side * 0.98, y - 0.02)], frame, 0.04)
    inner = person.eye_x - width
    sketch.stroke([(-inner, y), (inner, y)], frame, 0.04, depth=0.15)


def _obstacle(sketch: Sketch, rng: np.random.Generator) -> None:
    """Something between camera and face that reaches in from an edge: a hand, a scarf, a cup."""
    angle = rng.uniform(0, 2 * np.pi)
    reach, width = rng.uniform(0.55, 1.1), rng.uniform(0.25, 0.7)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * width
    near, far = along * reach, along * 3.0
    blob = closed_curve(np.stack([near + across, near - across, far - across, far + across]))
    colour = rng.uniform(50, 200) + rng.uniform(-45, 45, 3)
    sketch.fill(blob, colour, depth=FLAT)
    sketch.fill(blob * 0.9 + 0.12 * along, 1.1 * colour, depth=FLAT)
