"""`sf2 eval pairs`: LFW's protocol, and how far the probabilities of a head can be trusted."""

import argparse
import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import PairSet, read_pairs
from ..evaluation import Calibration, calibration_path, evaluate_calibration
from ..evaluation.calibration import refit_pairs
from ..evaluation.input_checks import as_embeddings, as_targets
from ..evaluation.pairs import (
    FAR_TARGETS,
    check_pairs,
    pair_cosines,
    verify_pairs,
)
from ..options import add_outside_option, count
from ..report.results import CommonResult, PairResult
from ..report.sections import pair_sections
from ..terminal import complain, printable
from .models import Model, add_model_options, named_path, read_models
from .output import add_output_options, check_outputs, read_output

#: Between cosines that tell nothing apart, as of a network whose statistics have not settled.
SAME = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(
        parser, "saved embeddings: .npy (2N, D) in the order of --pairs, or .npz with embeddings "
        "and, in the place of --pairs, issame"
    )  # fmt: skip
    parser.add_argument(
        "--pairs",
        type=named_path,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a .bin of InsightFace, lines of `path path same`, lists of LFW, CALFW or CPLFW, or "
        "CFP's folder Split/FP; may be given several times",
    )
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="of the paths in --pairs")
    add_outside_option(parser)
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


@dataclass(frozen=True)
class Refit:
    """How calibration is judged and refitted.

    Attributes:
        head: the scale, t and bias that were given; None takes the model's own.
        development: pairs of other people to refit on; None takes the first half of the folds.
        save: store the refit beside the model.
    """

    head: Calibration | None
    development: PairSet | None
    save: bool


@dataclass(frozen=True)
class Protocol:
    """How pairs are verified."""

    folds: int
    targets: tuple[float, ...]
    refit: Refit | None = None


def run(arguments: argparse.Namespace) -> None:
    head = _check(arguments)
    targets = as_targets(arguments.far or FAR_TARGETS, "--far")
    read_set = functools.partial(_read_pairs, arguments.image_root, arguments.follow_outside)
    sets = [replace(read_set(path), name=name) for name, path in arguments.pairs]
    for pair_set in sets:
        check_pairs(pair_set.name, pair_set.issame, arguments.folds, targets)
    refit = None
    if arguments.calibration:
        development = arguments.development
        if development is not None:
            development = read_set(development)
        refit = Refit(head, development, arguments.save)
    protocol = Protocol(arguments.folds, targets, refit)
    models = read_models(arguments)
    paths = [path for _, path in arguments.pairs]
    read = [*(model.path for model in models), *paths, arguments.development]
    read += [image for pair_set in sets for image in pair_set.images if isinstance(image, Path)]
    stored = [calibration_path(model.path) for model in models]
    output = read_output(arguments, [*read, *stored])
    if arguments.save:
        check_outputs([*dict.fromkeys(stored), *filter(None, [output.html])], read)
    results = [result for model in models for result in verify_model(model, sets, protocol)]
    common = [CommonResult.of(model.name, results) for model in models if len(sets) > 1]
    figures: dict[str, Any] = {"results": [result.as_dict() for result in results]}
    if common:
        figures["common_threshold"] = {result.model: result.as_dict() for result in common}
    output.write(
        f"Verification of pairs: {', '.join(model.name for model in models)}",
        figures,
        "\n\n".join([result.text() for result in results] + [result.text() for result in common]),
        lambda: pair_sections(results, common),
        models,
        [*paths, arguments.development],
    )


def _read_pairs(root: Path | None, outside: bool, path: Path) -> PairSet:
    pair_set = read_pairs(path, root=root, outside=outside)
    if pair_set.format:
        complain(f"sf2: {path} is read as {pair_set.format}")
    return pair_set


def _check(arguments: argparse.Namespace) -> Calibration | None:
    """Refuse options that contradict each other; the calibration that they give, if they do."""
    given = [getattr(arguments, name) is not None for name in ("scale", "t", "bias")]
    if any(given) and not all(given):
        raise ValueError("--scale, --t and --bias belong together: give all three or none")
    if (arguments.development or arguments.save or any(given)) and not arguments.calibration:
        raise ValueError("--development, --save, --scale, --t and --bias need --calibration")
    if arguments.save and len(arguments.pairs) > 1 and not arguments.development:
        raise ValueError("--save stores one refit: give --development, or one --pairs")
    names = [name for name, _ in arguments.pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"two pair sets are called {min(twice)!r}: name them, as --pairs NAME=FILE"
        )
    return Calibration(arguments.scale, arguments.t, arguments.bias) if all(given) else None


def verify_model(model: Model, sets: list[PairSet], protocol: Protocol) -> list[PairResult]:
    """The model on every set, or on the pairs that its saved embeddings come with."""
    refit = protocol.refit
    if not (sets or model.is_saved):
        raise ValueError("--pairs is wanted: a backbone needs images to embed")
    if refit and refit.development is not None and model.is_saved:
        raise ValueError("--development needs a backbone: saved embeddings are of one set")
    known = _known_calibrations(model, refit.head) if refit else {}
    results = [_verify(model, pair_set, protocol) for pair_set in sets]
    results = results or [_verify(model, None, protocol)]
    if refit:
        after = _calibrate(model, results, known, refit.development, protocol.folds)
        if refit.save:
            if after is None:
                raise ValueError(f"there is no refit to save: {results[-1].no_refit}")
            after.save(calibration_path(model.path))
    return results


def _verify(model: Model, pair_set: PairSet | None, protocol: Protocol) -> PairResult:
    name, issame = (
        (pair_set.name, pair_set.issame)
        if pair_set is not None
        else (printable(model.path.stem), model.array("issame"))
    )
    embeddings = _embeddings(model, pair_set)
    report = verify_pairs(embeddings, issame, protocol.folds, protocol.targets)
    if np.ptp(report.scores) < SAME:
        complain(
            f"sf2: {model.name} tells no face of {name} from another: all cosines are "
            f"{report.scores[0]:.4f}"
        )
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
    return pair_set.embeddings(model.embed)


def _known_calibrations(model: Model, given: Calibration | None) -> dict[str, Calibration]:
    """The head's own, or the one given, as `before`; one that lies beside the model as `stored`."""
    stored = calibration_path(model.path)
    before = given
    if before is None and not model.is_saved:
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
    folds: int,
) -> Calibration | None:
    """Judge what is known and a refit of it, result by result; the last refit."""
    first = next(iter(known.values()))
    refitted: dict[str, Calibration] = {}
    if development is not None:
        cosines = pair_cosines(as_embeddings(_embeddings(model, development)))
        refitted, no_refit = _refit(first, cosines, development.issame)
    for result in results:
        scores, issame = result.report.scores, result.report.issame
        if development is not None:
            result.calibration_pairs = f"on all pairs, refit on {development.name}"
        else:
            fitted = refit_pairs(len(scores), folds)
            refitted, no_refit = _refit(first, scores[:fitted], issame[:fitted])
            scores, issame = scores[fitted:], issame[fitted:]
            result.calibration_pairs = (
                f"on the last {math.ceil(folds / 2)} of {folds} folds, refit "
                "on the others, whose people may be the same"
            )
        result.no_refit = no_refit
        result.calibrations = {
            name: evaluate_calibration(calibration, scores, issame)
            for name, calibration in {**known, **refitted}.items()
        }
    return refitted.get("after")


def _refit(
    calibration: Calibration, cosines: NDArray, issame: NDArray
) -> tuple[dict[str, Calibration], str]:
    """The refit as `after`; or none, and why: what was known is judged all the same."""
    try:
        return {"after": calibration.refit(cosines, issame)}, ""
    except ValueError as error:
        return {}, str(error)
