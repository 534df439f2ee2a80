"""`sf2 eval templates`: the 1:1 protocol of IJB-B and IJB-C."""

import argparse

from ..evaluation.ijb import IjbImages, IjbPairs, read_ijb_images, read_ijb_pairs
from ..evaluation.input_checks import as_targets
from ..evaluation.templates import FAR_TARGETS, TemplateReport, verify_templates
from ..report.results import TemplateResult
from ..report.sections import template_sections
from .ijb_options import Pooling, add_ijb_options, read_pooling
from .models import Model, add_model_options, read_models
from .output import add_output_options, read_output


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
    output = read_output(arguments, [*(model.path for model in models), arguments.ijb])
    images = None
    if arguments.ijb:
        images = read_ijb_images(arguments.ijb, arguments.follow_outside)
    pairs = read_ijb_pairs(arguments.ijb) if arguments.ijb else None
    pooling = read_pooling(arguments)
    results = [
        TemplateResult(
            model.name, verify_model(model, images, pairs, pooling, targets), images, pairs
        )
        for model in models
    ]
    output.write(
        f"Verification of templates: {', '.join(model.name for model in models)}",
        {"results": [result.as_dict() for result in results]},
        "\n\n".join(result.text() for result in results),
        lambda: template_sections(results),
        models,
    )


def verify_model(
    model: Model,
    images: IjbImages | None,
    pairs: IjbPairs | None,
    pooling: Pooling,
    targets: tuple[float, ...],
) -> TemplateReport:
    """The model on the set on disk, or on the pairs that its saved embeddings come with."""
    inputs = pooling.inputs(model, images)
    if pairs is not None:
        inputs |= dict(p1=pairs.p1, p2=pairs.p2, labels=pairs.labels)
    else:
        inputs |= {name: model.array(name) for name in ("p1", "p2", "labels")}
    return verify_templates(**inputs, far_targets=targets)
