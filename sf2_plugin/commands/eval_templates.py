"""`sf2 eval templates`: the 1:1 protocol of IJB-B and IJB-C."""

import argparse

from ..evaluation.checks import as_targets
from ..evaluation.ijb import IjbImages, IjbPairs, read_ijb_images, read_ijb_pairs
from ..evaluation.templates import FAR_TARGETS, TemplateReport, verify_templates
from ..report.results import TemplateResult
from ..report.sections import template_sections
from .ijb_options import add_ijb_options, ijb_inputs
from .models import Model, add_model_options, read_models
from .output import add_output_options, write_output


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
