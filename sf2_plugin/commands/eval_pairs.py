"""`sf2 eval pairs`: LFW's protocol, and how far the probabilities of a head can be trusted."""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import PairSet, read_pairs
from ..evaluation import Calibration, calibration_path, evaluate_calibration
from ..evaluation.checks import as_embeddings
from ..evaluation.pairs import (
    FAR_TARGETS,
    best_common_threshold,
    check_pairs,
    pair_cosines,
    verify_pairs,
)
from ..options import count
from ..report.results import PairResult
from ..report.sections import pair_sections
from .models import Model, add_model_options, read_models
from .output import add_output_options, write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(
        parser, "saved embeddings: .npy (2N, D) in the order of --pairs, or .npz with embeddings "
        "and, in the place of --pairs, issame"
    )  # fmt: skip
    parser.add_argument(
        "--pairs",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a .bin of InsightFace, or lines of `path path same`; may be given several times",
    )
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="of the paths in --pairs")
    parser.add_argument("--folds", type=count, default=10, metavar="N")
    parser.add_argument(
        "--far", type=float, action="append", metavar="RATE", help="TAR at this FAR"
    )
    calibration = parser.add_argument_group("calibration")
    calibration.add_argument(
        "--calibration",
        action="store_true",
        help="report the head's probabilities before and after a refit of scale and bias",
    )
    calibration.add_argument(
        "--development",
        type=Path,
        metavar="FILE",
        help="pairs of other people to refit on; left out, the first half of the folds is for "
        "refitting and the second for the report",
    )
    for name, what in (("scale", "the head's"), ("t", "of g, the head's"), ("bias", "the head's")):
        calibration.add_argument(
            f"--{name}", type=float, help=f"{what}, where the model's file does not hold it"
        )
    calibration.add_argument("--save", action="store_true", help="store the refit beside the model")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    sets = [read_pairs(path, root=arguments.image_root) for path in arguments.pairs]
    for pair_set in sets:
        check_pairs(pair_set.name, pair_set.issame, arguments.folds, arguments.far or FAR_TARGETS)
    development = None
    if arguments.development:
        development = read_pairs(arguments.development, root=arguments.image_root)
    models = read_models(arguments)
    results = [
        result for model in models for result in _evaluate(model, sets, development, arguments)
    ]
    figures: dict[str, Any] = {"results": [result.as_dict() for result in results]}
    texts = [result.text() for result in results]
    common = {model.name: _common(model.name, results) for model in models if len(sets) > 1}
    if common:
        figures["common_threshold"] = common
        texts += [_common_text(name, figure) for name, figure in common.items()]
    write_output(
        arguments,
        f"Verification of pairs: {', '.join(model.name for model in models)}",
        figures,
        "\n\n".join(texts),
        lambda: pair_sections(results, common),
    )


def _check(arguments: argparse.Namespace) -> None:
    given = [getattr(arguments, name) is not None for name in ("scale", "t", "bias")]
    if any(given) and not all(given):
        raise ValueError("--scale, --t and --bias belong together: give all three or none")
    if (arguments.development or arguments.save or any(given)) and not arguments.calibration:
        raise ValueError("--development, --save, --scale, --t and --bias need --calibration")
    if arguments.save and len(arguments.pairs) > 1 and not arguments.development:
        raise ValueError("--save stores one refit: give --development, or one --pairs")
    names = [path.stem for path in arguments.pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"two pair sets have one name: {', '.join(sorted(names))}")


def _evaluate(
    model: Model,
    sets: list[PairSet],
    development: PairSet | None,
    arguments: argparse.Namespace,
) -> list[PairResult]:
    """The model on every set, or on the pairs that its saved embeddings come with."""
    if not (sets or model.is_saved):
        raise ValueError("--pairs is wanted: a backbone needs images to embed")
    if development is not None and model.is_saved:
        raise ValueError("--development needs a backbone: saved embeddings are of one set")
    known = _known_calibrations(model, arguments) if arguments.calibration else {}
    results = [_verify(model, pair_set, arguments) for pair_set in sets]
    results = results or [_verify(model, None, arguments)]
    if known:
        _calibrate(model, results, known, development, arguments)
    return results


def _verify(model: Model, pair_set: PairSet | None, arguments: argparse.Namespace) -> PairResult:
    name, issame = (
        (pair_set.name, pair_set.issame)
        if pair_set is not None
        else (model.path.stem, model.array("issame"))
    )
    targets = arguments.far or FAR_TARGETS
    report = verify_pairs(_embeddings(model, pair_set), issame, arguments.folds, targets)
    return PairResult(model.name, name, report, pair_set)


def _embeddings(model: Model, pair_set: PairSet | None) -> NDArray:
    if model.is_saved:
        embeddings = model.array("embeddings")
        if pair_set is not None and len(embeddings) != len(pair_set.images):
            raise ValueError(
                f"{model.path} has {len(embeddings)} embeddings; {pair_set.name} has "
                f"{len(pair_set.images)} images, two a pair"
            )
        return embeddings
    assert pair_set is not None
    first, inverse = pair_set.distinct()
    return model.embed([pair_set.images[i] for i in first])[inverse]


def _known_calibrations(model: Model, arguments: argparse.Namespace) -> dict[str, Calibration]:
    """The head's own, or the one given, as `before`; one that lies beside the model as `stored`."""
    stored = calibration_path(model.path)
    before = None
    if arguments.scale is not None:
        before = Calibration(arguments.scale, arguments.t, arguments.bias)
    elif not model.is_saved:
        before = model.backbone.calibration
    known = {"before": before} if before else {}
    if stored.is_file():
        known["stored"] = Calibration.load(stored)
    if not known:
        raise ValueError(
            f"{model.path} holds no SphereFace2 head, and {stored.name} is not beside it: give "
            "--scale, --t and --bias"
        )
    return known


def _calibrate(
    model: Model,
    results: list[PairResult],
    known: dict[str, Calibration],
    development: PairSet | None,
    arguments: argparse.Namespace,
) -> None:
    first = next(iter(known.values()))
    if development is not None:
        cosines = pair_cosines(as_embeddings(_embeddings(model, development)))
        after = first.refit(cosines, development.issame)
    for result in results:
        scores, issame = result.report.scores, result.report.issame
        if development is not None:
            result.calibration_pairs = f"on all pairs, refit on {development.name}"
        else:
            folds = np.array_split(np.arange(len(scores)), arguments.folds)
            fitted = folds[arguments.folds // 2][0]
            after = first.refit(scores[:fitted], issame[:fitted])
            scores, issame = scores[fitted:], issame[fitted:]
            result.calibration_pairs = (
                f"on the last {math.ceil(arguments.folds / 2)} of {arguments.folds} folds, refit "
                "on the others, whose people may be the same"
            )
        result.calibrations = {
            name: evaluate_calibration(calibration, scores, issame)
            for name, calibration in {**known, "after": after}.items()
        }
    if arguments.save:
        after.save(calibration_path(model.path))


def _common(model: str, results: list[PairResult]) -> dict[str, Any]:
    mine = [result for result in results if result.model == model]
    common = best_common_threshold([result.report for result in mine])
    names = [result.set_name for result in mine]
    return {
        "threshold": common.threshold,
        "accuracy": dict(zip(names, common.accuracy.tolist(), strict=True)),
        "own_accuracy": dict(zip(names, common.own_accuracy.tolist(), strict=True)),
    }


def _common_text(model: str, common: dict[str, Any]) -> str:
    lines = [f"{model}, one threshold for all sets: {common['threshold']:.4f}"]
    for name, accuracy in common["accuracy"].items():
        own = common["own_accuracy"][name]
        lines.append(f"{name}  accuracy {accuracy:.5f} ({own:.5f} by its own best threshold)")
    return "\n".join(lines)
