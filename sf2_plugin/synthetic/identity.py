"""Who a drawn person is: a few dozen numbers, the same in every image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = NDArray[np.float64]  # (3,) RGB in 0..255

_SKINS = (
    (247, 214, 190),
    (243, 203, 172),
    (226, 178, 140),
    (200, 146, 108),
    (158, 106, 74),
    (106, 69, 48),
)
_HAIRS = (
    (28, 24, 24),
    (58, 40, 30),
    (96, 64, 42),
    (142, 98, 58),
    (196, 154, 92),
    (226, 196, 142),
    (150, 66, 36),
    (168, 164, 160),
)
_IRISES = ((66, 42, 28), (98, 66, 40), (92, 106, 60), (70, 112, 146), (112, 128, 136))


def mix(first: ArrayLike, second: ArrayLike, share: float) -> Colour:
    """A colour a `share` of the way from the first to the second."""
    return (1 - share) * np.asarray(first) + share * np.asarray(second)


class Identity:
    """A person, drawn at random.

    Lengths are in half face widths, angles in radians. The origin is the middle of the face, x to
    the right, y down. What is drawn first is fixed by the order of the lines.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        def around(mean: float, spread: float) -> float:
            """Normal, cut at two standard deviations."""
            return mean + spread * min(max(rng.standard_normal(), -2.0), 2.0)

        def one_of(palette: tuple[tuple[int, int, int], ...]) -> Colour:
            """A colour between two neighbours of the palette."""
            place, share = divmod(rng.uniform(0, len(palette) - 1), 1)
            between = mix(palette[int(place)], palette[int(place) + 1], share)
            return between + rng.normal(0, 5, 3)

        self.skin = one_of(_SKINS)
        self.nose_y = around(0.42, 0.07)
        bearded = rng.uniform() < 0.3
        self.hair = one_of(_HAIRS)
        self.iris = one_of(_IRISES)
        self.lip = mix(self.skin * 0.82, (190, 62, 72), rng.uniform(0.25, 0.7))
        self.face_width = around(0.97, 0.06)
        self.face_height = around(1.0, 0.05)
        self.forehead = around(0.96, 0.06)
        self.cheek = around(1.0, 0.05)
        self.jaw = around(0.80, 0.09)
        self.chin = around(0.40, 0.09)
        self.ear = around(0.24, 0.05)
        self.eye_y = around(-0.10, 0.06)
        self.eye_x = around(0.43, 0.045)
        self.eye_width = around(0.235, 0.03)
        self.eye_height = around(0.105, 0.024)
        self.eye_tilt = around(0.04, 0.10)
        self.iris_size = around(0.105, 0.012)
        self.lid = rng.uniform(0.0, 1.0)
        self.brow_gap = around(0.31, 0.05)
        self.brow_length = around(0.30, 0.035)
        self.brow_thickness = around(0.055, 0.022)
        self.brow_arch = around(0.06, 0.045)
        self.brow_tilt = around(0.13, 0.12)
        self.nose_width = around(0.20, 0.045)
        self.nose_bridge = around(0.085, 0.022)
        self.nose_tip = around(0.10, 0.022)
        self.mouth_y = self.nose_y + around(0.36, 0.05)
        self.mouth_width = around(0.36, 0.055)
        self.upper_lip = around(0.075, 0.025)
        self.lower_lip = around(0.105, 0.03)
        self.lip_bow = rng.uniform(0.0, 0.05)
        self.hairline = around(-0.80, 0.12)
        self.hair_volume = around(0.17, 0.075)
        lengths = (-0.35, 0.1) if bearded else (-0.35, 0.1, 0.7, 1.5)
        self.hair_length = rng.choice(lengths) + around(0.0, 0.12)
        self.hair_parting = rng.uniform(-0.35, 0.35)
        self.hair_wave = rng.uniform(0.0, 0.07)
        self.fringe = around(0.0, 0.16)
        self.beard = rng.uniform(0.25, 0.9) if bearded else 0.0
        self.moustache = rng.uniform(0.3, 0.95) if bearded and rng.uniform() < 0.7 else 0.0
        self.folds = rng.uniform(0.0, 1.0)
        self.freckles = rng.uniform(0.3, 1.0) if rng.uniform() < 0.2 else 0.0
        has_mole = rng.uniform() < 0.3
        self.mole = (rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.95)) if has_mole else None


@lru_cache(maxsize=256)
def identity_of(identity: int, seed: int = 0) -> Identity:
    """The identity with this number under this seed."""
    return Identity(np.random.default_rng([seed, 0, identity]))
