"""`sf2 eval templates`: the 1:1 protocol of IJB-B and IJB-C."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._checks import Pixels
from .ijb import IjbImages, IjbPairs, read_ijb_images, read_ijb_pairs
from .models import Model, add_model_options, read_models
from .output import write_output
from .sections import template_sections
from .templates import FAR_TARGETS, TemplateReport, verify_templates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(
        parser,
        "saved embeddings: .npy (images, D) in the order of --ijb, or .npz with embeddings, "
        "templates, medias, p1, p2 and labels",
    )
    add_ijb_options(parser)
    parser.add_argument(
        "--far", type=float, action="append", metavar="RATE", help="TAR at this FAR"
    )
    parser.set_defaults(run=run)


def add_ijb_options(parser: argparse.ArgumentParser) -> None:
    """Arguments that both protocols of IJB share."""
    parser.add_argument(
        "--ijb", type=Path, metavar="DIR", help="meta/ and loose_crop/, as InsightFace has them"
    )
    parser.add_argument(
        "--no-norm-weighting", action="store_true", help="every image of a template weighs the same"
    )
    parser.add_argument(
        "--detector-scores", action="store_true", help="weigh images by the detector's confidence"
    )


@dataclass
class TemplateResult:
    """One model's answers, and the set on disk where it was given."""

    model: str
    report: TemplateReport
    images: IjbImages | None
    pairs: IjbPairs | None

    @property
    def has_faces(self) -> bool:
        return self.images is not None and self.images.on_disk

    def faces(self, pair: int) -> tuple[Pixels, Pixels]:
        assert self.images is not None
        first, second = self._templates(pair)
        return self.images.face(first), self.images.face(second)

    def caption(self, pair: int) -> str:
        first, second = self._templates(pair)
        return f"templates {first} and {second}, score {self.report.scores[pair]:.3f}"

    def _templates(self, pair: int) -> tuple[int, int]:
        assert self.pairs is not None
        return int(self.pairs.p1[pair]), int(self.pairs.p2[pair])


def run(arguments: argparse.Namespace) -> None:
    models = read_models(arguments)
    images = read_ijb_images(arguments.ijb) if arguments.ijb else None
    pairs = read_ijb_pairs(arguments.ijb) if arguments.ijb else None
    results = [
        TemplateResult(model.name, _evaluate(model, images, pairs, arguments), images, pairs)
        for model in models
    ]
    write_output(
        arguments,
        f"Verification of templates: {', '.join(model.name for model in models)}",
        {"results": [{"model": result.model, **result.report.as_dict()} for result in results]},
        "\n\n".join(f"{result.model}\n{result.report}" for result in results),
        lambda: template_sections(results),
    )


def _evaluate(
    model: Model,
    images: IjbImages | None,
    pairs: IjbPairs | None,
    arguments: argparse.Namespace,
) -> TemplateReport:
    options = ijb_inputs(model, images, arguments)
    if pairs is not None:
        options |= dict(p1=pairs.p1, p2=pairs.p2, labels=pairs.labels)
    else:
        options |= {name: model.array(name) for name in ("p1", "p2", "labels")}
    return verify_templates(**options, far_targets=arguments.far or FAR_TARGETS)


def ijb_inputs(
    model: Model, images: IjbImages | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What `pool_templates` takes: from the set on disk, else from the model's saved arrays."""
    if images is None and not model.is_saved:
        raise ValueError("--ijb is wanted: a backbone needs images to embed")
    if images is None:
        inputs = {name: model.array(name) for name in ("templates", "medias")}
    else:
        inputs = dict(templates=images.templates, medias=images.medias)
    if model.is_saved:
        inputs["features"] = model.array("embeddings")
    else:
        assert images is not None
        inputs["features"] = model.embed(images.paths, images.landmarks)
    if arguments.detector_scores:
        inputs["detector_scores"] = (
            model.array("detector_scores") if images is None else images.detector_scores
        )
    return {**inputs, "norm_weighting": not arguments.no_norm_weighting}
