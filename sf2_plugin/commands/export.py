"""`sf2 export`: a checkpoint as a folder for products."""

import argparse
from pathlib import Path
from typing import Any

from ..evaluation import Calibration
from ..export.onnx_file import EXPORTERS, OPSET
from ..export.package import Options, export_package
from ..export.thresholds import read_pair_set
from ..options import count
from ..progress import progress_bar
from ..terminal import json_text, say
from .models import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, help="of MMPretrain, or a backbone of arcface_torch"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty")
    parser.add_argument("--name", help="the package's; default: the folder's")
    host = parser.add_argument_group("backbones of arcface_torch")
    host.add_argument("--network", help="its name there: r50, mbf, ...")
    host.add_argument("--arcface-torch", type=Path, metavar="DIR", help="the host's folder")
    file = parser.add_argument_group("the ONNX file")
    file.add_argument("--size", type=count, metavar="N", help="of aligned faces, in pixels")
    file.add_argument("--opset", type=count, default=OPSET, metavar="N", help=f"default: {OPSET}")
    file.add_argument("--fp16", action="store_true", help="half precision inside")
    file.add_argument(
        "--exporter",
        choices=EXPORTERS,
        default="auto",
        help="torch's current one, which needs onnxscript, or its legacy one",
    )
    package = parser.add_argument_group("the package")
    package.add_argument(
        "--detector",
        type=Path,
        metavar="FILE",
        help="SCRFD in ONNX, with which insightface's FaceAnalysis opens the folder",
    )
    package.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="pairs of faces to fit probabilities and thresholds on: a .bin of InsightFace, or "
        "lines of `path path same`",
    )
    package.add_argument("--image-root", type=Path, metavar="DIR", help="of the paths in --pairs")
    for name, what in (("scale", "the head's"), ("t", "of g, the head's"), ("bias", "the head's")):
        package.add_argument(
            f"--{name}", type=float, help=f"{what}, where the checkpoint does not hold it"
        )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint.suffix == ".onnx":
        raise ValueError(f"{arguments.checkpoint} is ONNX already; a checkpoint is wanted")
    options = _options(arguments)
    model = Model(
        arguments.checkpoint.stem,
        arguments.checkpoint,
        network=arguments.network,
        arcface_torch=arguments.arcface_torch,
    )
    progress = progress_bar("embedding pairs") if options.pairs else None
    written = export_package(model.backbone, model.path, arguments.out, options, progress)
    say(json_text(written) if arguments.json else _text(written))


def _options(arguments: argparse.Namespace) -> Options:
    """The arguments as values; what contradicts itself is refused before any work."""
    given = [getattr(arguments, name) is not None for name in ("scale", "t", "bias")]
    only_t = given == [False, True, False]
    if any(given) and not all(given) and not only_t:
        raise ValueError("--scale, --t and --bias belong together: give all three, or --t alone")
    if only_t and not arguments.pairs:
        raise ValueError("--t alone needs --pairs, on which scale and bias are fitted")
    if only_t:
        Calibration(1.0, arguments.t, 0.0)  # Refuses what no t can be.
    if arguments.image_root and not arguments.pairs:
        raise ValueError("--image-root is of the paths in --pairs, which is not given")
    return Options(
        name=arguments.name,
        size=arguments.size,
        opset=arguments.opset,
        fp16=arguments.fp16,
        exporter=arguments.exporter,
        detector=arguments.detector,
        calibration=(
            Calibration(arguments.scale, arguments.t, arguments.bias) if all(given) else None
        ),
        t=arguments.t,
        pairs=read_pair_set(arguments.pairs, arguments.image_root) if arguments.pairs else None,
        pairs_path=arguments.pairs,
    )


def _text(written: dict[str, Any]) -> str:
    size, check, calibration = written["input_size"], written["check"], written["calibration"]
    lines = [
        f"{written['folder']}: {', '.join(written['files'])}",
        f"takes {size}x{size} faces, gives {written['embedding_dimension']} numbers",
        *(
            f"{reader}: cosine with the checkpoint at least {cosine:.7f}"
            for reader, cosine in check["least_cosine"].items()
        ),
    ]
    if "not_checked" in check:
        lines.append(f"not checked {check['not_checked']}")
    if calibration["scale"] is None:
        lines.append(f"no probabilities: {calibration['source']}")
    else:
        lines.append(
            f"probabilities: scale {calibration['scale']:.4f}, t {calibration['t']:g}, bias "
            f"{calibration['bias']:.4f} ({calibration['source']})"
        )
    for far, at in calibration["thresholds"].items():
        found = at.get("note") or f"threshold {at['threshold']:.4f}, TAR {at['tar']:.4f}"
        lines.append(f"FAR {far}: {found}")
    return "\n".join(lines)
