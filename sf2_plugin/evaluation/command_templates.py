"""`sf2 eval templates`: the 1:1 protocol of IJB-B and IJB-C."""

import argparse
from dataclasses import dataclass

from ._checks import Pixels, as_targets
from .ijb import IjbImages, IjbPairs, read_ijb_images, read_ijb_pairs
from .ijb_options import add_ijb_options, ijb_inputs
from .models import Model, add_model_options, read_models
from .output import add_output_options, write_output
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
    add_output_options(parser)
    parser.set_defaults(run=run)


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
    targets = as_targets(arguments.far or FAR_TARGETS, "--far")
    models = read_models(arguments)
    images = read_ijb_images(arguments.ijb) if arguments.ijb else None
    pairs = read_ijb_pairs(arguments.ijb) if arguments.ijb else None
    results = [
        TemplateResult(
            model.name, _evaluate(model, images, pairs, targets, arguments), images, pairs
        )
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
    targets: tuple[float, ...],
    arguments: argparse.Namespace,
) -> TemplateReport:
    options = ijb_inputs(model, images, arguments)
    if pairs is not None:
        options |= dict(p1=pairs.p1, p2=pairs.p2, labels=pairs.labels)
    else:
        options |= {name: model.array(name) for name in ("p1", "p2", "labels")}
    return verify_templates(**options, far_targets=targets)
