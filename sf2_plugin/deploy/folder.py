"""The files of an exported folder: names, content, hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation import Calibration
from ..reading import reading

#: As InsightFace's package names it.
MANIFEST = "manifest.json"
NETWORK = "recognition.onnx"
DETECTOR = "detection.onnx"
CALIBRATION = "calibration.json"
CARD = "README.md"
#: What the manifest holds besides what InsightFace's package reads.
OWN_KEY = "sf2_plugin"
VERSION = 1


@dataclass(frozen=True)
class Folder:
    """What an exported folder holds, checked against the hashes in its manifest."""

    name: str
    size: int
    dimension: int
    mean: float
    std: float
    network: bytes
    calibration: Calibration | None
    thresholds: dict[float, float | None]


def read_folder(folder: Path) -> Folder:
    """Read and check a folder that `sf2 export` wrote.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: a file that is not what export wrote, by name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: a folder of sf2 export is wanted")
    with reading(path, "a manifest of sf2 export"):
        manifest = _object(json.loads(path.read_text(encoding="utf-8")), "it")
        own = _object(manifest.get(OWN_KEY), OWN_KEY)
        if own.get("version") != VERSION:
            raise ValueError(f"{OWN_KEY}.version must be {VERSION}, got {own.get('version')!r}")
        task = _object(_object(manifest.get("tasks"), "tasks").get("recognition"), "recognition")
        preprocessing = _object(task.get("preprocessing"), "preprocessing")
        sizes = task.get("input_size")
        if not isinstance(sizes, list) or len(sizes) != 2:
            raise ValueError(f"input_size must be two numbers, got {sizes!r}")
        name = str(manifest.get("model_id"))
        size = _number(sizes[0], "input_size", int)
        dimension = _number(task.get("embedding_dimension"), "embedding_dimension", int)
        mean = _number(preprocessing.get("mean"), "mean")
        std = _number(preprocessing.get("std"), "std")
        if std == 0:
            raise ValueError("std must be above 0")
        network_hash = task.get("sha256")
        calibration_hash = _object(own.get("calibration"), "calibration").get("sha256")
    network = _checked(folder / NETWORK, network_hash)
    encoded = _checked(folder / CALIBRATION, calibration_hash)
    with reading(folder / CALIBRATION, "a calibration of sf2 export"):
        values = _object(json.loads(encoded), "it")
        calibration = None
        if values.get("scale") is not None:
            scale, t, bias = (_number(values.get(name), name) for name in ("scale", "t", "bias"))
            fitted_pairs = _number(values.get("fitted_pairs"), "fitted_pairs", int)
            calibration = Calibration(scale, t, bias, fitted_pairs)
        thresholds = {
            float(far): _threshold(at)
            for far, at in _object(values.get("thresholds"), "thresholds").items()
        }
    return Folder(name, size, dimension, mean, std, network, calibration, thresholds)


def _checked(path: Path, sha256: Any) -> bytes:
    """A file's content, whose hash is as given."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which the manifest names")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{path}: its SHA-256 must be {sha256}, as in {MANIFEST}, got {found}")
    return content


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {str(value)[:80]!r}")
    return value


def _number(value: Any, name: str, kind: Callable[[Any], Any] = float) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or kind(value) != value:
        raise ValueError(f"{name} must be a number, got {str(value)[:80]!r}")
    return kind(value)


def _threshold(at: Any) -> float | None:
    value = _object(at, "a threshold").get("threshold")
    return None if value is None else _number(value, "threshold")
