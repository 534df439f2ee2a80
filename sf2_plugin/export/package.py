"""The folder that `sf2 export` writes: whole and checked, or not at all."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_folder
from ..backbones import Backbone, file_digest
from ..data import PairSet
from ..deploy import FaceModel, load
from ..deploy.folder import CALIBRATION, CARD, DETECTOR, MANIFEST, NETWORK, OWN_KEY, VERSION
from ..evaluation import Calibration
from ..progress import Progress
from ..terminal import json_text
from .card import model_card
from .checking import check_package
from .exportable import exportable
from .insightface_rules import check_detector, check_size
from .onnx_file import OPSET, network_to_onnx
from .thresholds import Thresholds, measure

_MEAN = _STD = 127.5
#: Of SCRFD, InsightFace's detector.
_DETECTOR_PREPROCESSING = {"mean": 127.5, "std": 128.0}


@dataclass(frozen=True)
class Options:
    """How a package is made.

    Attributes:
        name: the package's; None for the folder's.
        size: of aligned crops; None for what suits the network.
        opset, fp16, exporter: as `network_to_onnx` takes them.
        detector: an ONNX file of SCRFD, with landmarks.
        calibration: the head's scale, t and bias, where the checkpoint does not hold them.
        t: the head's, where no more is known of it, or it has none; a refit needs no other.
        pairs: to refit on and measure; and the file they were read from.
        pairs_path: that file.
    """

    name: str | None = None
    size: int | None = None
    opset: int = OPSET
    fp16: bool = False
    exporter: str = "auto"
    detector: Path | None = None
    calibration: Calibration | None = None
    t: float | None = None
    pairs: PairSet | None = None
    pairs_path: Path | None = None


@dataclass
class _Measured:
    """The exported file as a backbone: thresholds are those of what is shipped."""

    model: FaceModel
    settings: str = ""
    calibration: Calibration | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    def embed(self, faces: Any) -> NDArray[np.float32]:
        return self.model.embed(faces)


def export_package(
    backbone: Backbone,
    path: Path,
    out: Path,
    options: Options = Options(),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a package of a checkpoint's backbone.

    Args:
        backbone: as `open_backbone` gives it.
        path: the checkpoint's, for its hash and the card.
        out: a new or empty folder.
        progress: called as progress(images done, images in all) while pairs are embedded.

    Returns:
        What `sf2 export --json` prints: files, input, check, calibration.

    Raises:
        ValueError: what is given does not fit, or cannot be exported, or a reader of the package
            does not answer as the checkpoint; then nothing is written.
        FileNotFoundError: there is no such detector.
        ImportError: onnx or onnxruntime is missing.
    """
    known, source = _known(backbone, path, options)
    name = _model_id(options.name, out)
    if options.detector:
        check_detector(options.detector)
    if options.size is not None:
        check_size(options.size)
    with atomic_folder(out) as folder:
        part = exportable(backbone, path, options.size)
        check_size(part.size)
        model = network_to_onnx(
            part.network, part.size,
            opset=options.opset, fp16=options.fp16, exporter=options.exporter,
        )  # fmt: skip
        dimension = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        (folder / NETWORK).write_bytes(model.SerializeToString())
        del model
        if options.detector:
            shutil.copyfile(options.detector, folder / DETECTOR)
        own: dict[str, Any] = {
            "checkpoint": {"file": path.name, "sha256": file_digest(path)},
            "opset": options.opset,
            "fp16": options.fp16,
            **part.facts,
        }

        def write(thresholds: Thresholds) -> dict[str, Any]:
            _write_json(folder / CALIBRATION, thresholds.as_dict())
            manifest = _manifest(folder, name, part.size, dimension, own)
            _write_json(folder / MANIFEST, manifest)
            return manifest

        thresholds = Thresholds(known, source)
        manifest = write(thresholds)
        checked = check_package(
            folder, backbone, part.size, fp16=options.fp16, detector=bool(options.detector)
        )
        if options.pairs is not None and options.pairs_path is not None:
            exported = _Measured(load(folder))
            of = known or Calibration(1.0, options.t or 1.0, 0.0)
            thresholds = measure(
                exported, of, source if known else "", options.pairs, options.pairs_path, progress
            )
            manifest = write(thresholds)
        card = model_card(manifest, own, thresholds, checked)
        (folder / CARD).write_text(card, encoding="utf-8")
        files = sorted(each.name for each in folder.iterdir())
        return {
            "folder": str(out),
            "files": files,
            "model_id": name,
            "input_size": part.size,
            "embedding_dimension": dimension,
            **own,
            "check": checked,
            "calibration": thresholds.as_dict(),
        }


def _known(backbone: Backbone, path: Path, options: Options) -> tuple[Calibration | None, str]:
    """What is known of the head before a refit, and where it is from."""
    if options.calibration:
        return options.calibration, "given"
    if backbone.calibration:
        return backbone.calibration, "the head's own"
    if options.pairs is not None and options.t is None:
        raise ValueError(
            f"{path} holds no SphereFace2 head: give --t, as it was trained with (1 for another "
            "loss), or --scale, --t and --bias"
        )
    return None, "no head is known, and no pairs were given to fit one"


def _model_id(name: str | None, out: Path) -> str:
    """A name as InsightFace's manifest takes it: the one given, or of the folder's what fits."""
    if name is None:
        return re.sub(r"[^A-Za-z0-9._-]+", "_", out.resolve().name).lstrip("._-")[:128] or "model"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise ValueError(
            f"name must be at most 128 letters, digits, '.', '_' and '-', got {name!r:.200}"
        )
    return name


def _manifest(
    folder: Path, name: str, size: int, dimension: int, own: dict[str, Any]
) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    if (folder / DETECTOR).exists():
        tasks["detection"] = {
            "file": DETECTOR,
            "sha256": file_digest(folder / DETECTOR),
            "preprocessing": _DETECTOR_PREPROCESSING,
        }
    tasks["recognition"] = {
        "file": NETWORK,
        "sha256": file_digest(folder / NETWORK),
        "input_size": [size, size],
        "embedding_dimension": dimension,
        "preprocessing": {"mean": _MEAN, "std": _STD},
    }
    return {
        "manifest_version": 2,
        "model_id": name,
        "display_name": name,
        # A name that the format asks for. InsightFace alone signs such files; none is written.
        "license": "MODEL.LICENSE",
        "tasks": tasks,
        OWN_KEY: {
            "version": VERSION,
            "calibration": {"file": CALIBRATION, "sha256": file_digest(folder / CALIBRATION)},
            **own,
        },
    }


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json_text(values) + "\n", encoding="utf-8")
