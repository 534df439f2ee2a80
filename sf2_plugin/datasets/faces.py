"""Faces found in a photo, by a detector or by landmarks that were found before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..reading import reading

PICKS = ("largest", "central", "only")


@dataclass(frozen=True)
class Faces:
    """The faces of a photo, in its pixels.

    Attributes:
        boxes: (n, 4), left, top, right and bottom.
        landmarks: (n, 5, 2), x and y of eyes, nose and corners of the mouth.
    """

    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]

    @classmethod
    def of_landmarks(cls, landmarks: ArrayLike) -> Faces:
        """Faces of which no more is known; a box holds the landmarks."""
        points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
        return cls(np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1), points)

    def __len__(self) -> int:
        return len(self.landmarks)

    def pick(self, how: str, height: int, width: int) -> NDArray[np.float64] | None:
        """The landmarks (5, 2) of the face that is the photo's; None where there is none.

        Args:
            how: of several, the `largest` by its box, or the most `central`; `only` takes none.
            height, width: the photo's.
        """
        if len(self) == 0 or (how == "only" and len(self) > 1):
            return None
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        away = (self.boxes[:, 2:] + self.boxes[:, :2] - (width, height)) / 2
        score = -np.square(away).sum(axis=1) if how == "central" else sides.prod(axis=1)
        return self.landmarks[int(score.argmax())]


class InsightFaceDetector:
    """A detector that the `insightface` package opens: an ONNX file, or a folder of models.

    Args:
        path: nothing is fetched; what is not there is an error.
        size: the side that photos are brought to; None leaves it to the package.
        threshold: the least score of a face.

    Raises:
        ValueError: the package opens no detector of five landmarks there.
        FileNotFoundError: there is nothing of that name.
        ImportError: the package is not installed.
    """

    def __init__(self, path: str | Path, size: int | None = None, threshold: float = 0.5) -> None:
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"there is no detector {path}")
        try:
            from insightface.app import FaceAnalysis
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise ImportError(f"{error}: a detector needs pip install insightface") from None
        with reading(path, "a detector of the package insightface"):
            try:
                if path.is_dir():
                    models = FaceAnalysis(str(path.resolve()), allowed_modules=["detection"])
                    self.model = models.det_model
                else:
                    self.model = get_model(str(path.resolve()))
            except AssertionError:  # Its own says nothing.
                raise ValueError("it has no model that detects faces") from None
            kind = getattr(self.model, "taskname", None)
            if kind != "detection":
                raise ValueError(f"it is a model for {kind}" if kind else "it is another model")
            if not getattr(self.model, "use_kps", True):
                raise ValueError("it finds no landmarks")
            options: dict[str, Any] = {"det_thresh": threshold}
            if size is None and not hasattr(self.model, "input_sizes"):  # Before 2.0
                size = 640
            if size is not None:
                options["input_size"] = (size, size)
            self.model.prepare(0, **options)

    def __call__(self, pixels: NDArray[np.uint8]) -> Faces:
        """The faces of a photo uint8 (H, W, 3), RGB."""
        try:
            boxes, landmarks = self.model.detect(np.ascontiguousarray(pixels[..., ::-1]))
        except Exception as error:  # Of OpenCV, onnxruntime ...
            raise ValueError(f"the detector fails: {' '.join(str(error).split())[:200]}") from error
        if landmarks is None:
            raise ValueError("the detector finds no landmarks")
        return Faces(np.asarray(boxes, np.float64)[:, :4], np.asarray(landmarks, np.float64))


def read_landmarks(path: str | Path) -> dict[str, Faces]:
    """Landmarks by the photo's path: of several lines of one photo, several faces.

    Lines are `path x1 y1 ... x5 y5`, separated by tabs, commas or spaces, with a line of names
    before them or not; or JSON, `{"path": ..., "landmarks": [[x1, y1], ...]}` a line, as
    `align_photos` writes, where `null` is no face. A file of one JSON object has the landmarks by
    path.

    Raises:
        ValueError: a line that is neither, by its number; no landmarks.
        FileNotFoundError: there is no such file.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    with reading(path, "landmarks"):
        text = Path(path).read_text(encoding="utf-8-sig")
        for number, name, points in _landmark_lines(text):
            try:
                array = np.asarray(points, np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"line {number}: five x and y are wanted") from None
            if array.size != 10 or not np.isfinite(array).all():
                raise ValueError(f"line {number}: five finite x and y are wanted")
            if not np.ptp(array.reshape(5, 2), axis=0).any():
                raise ValueError(f"line {number}: the landmarks lie all in one place")
            found.setdefault(name.replace("\\", "/"), []).append(array.reshape(5, 2))
        if not found:
            raise ValueError("it has no landmarks")
    return {name: Faces.of_landmarks(points) for name, points in found.items()}


def _landmark_lines(text: str) -> Iterator[tuple[int, str, Any]]:
    """The line, the path and what should be five points, of each face."""
    if text.lstrip().startswith("{"):
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        if isinstance(whole, dict) and "landmarks" not in whole:
            yield from ((1, name, points) for name, points in whole.items())
            return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if line.lstrip().startswith("{"):
            entry = json.loads(line)
            if entry.get("landmarks") is not None and isinstance(entry.get("path"), str):
                yield number, entry["path"], entry["landmarks"]
            continue
        separator = "\t" if "\t" in line else "," if "," in line else None
        name, *numbers = line.strip().rsplit(separator, 10)
        if number == 1 and not _is_number(numbers[-1] if numbers else ""):
            continue
        yield number, name.strip().strip('"'), numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
