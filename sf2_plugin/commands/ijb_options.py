"""What both commands on IJB take: the set, and how the images of a template weigh."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.ijb import IjbImages
from ..options import add_outside_option
from .models import Model


def add_ijb_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ijb", type=Path, metavar="DIR", help="meta/ and loose_crop/, as InsightFace has them"
    )
    add_outside_option(parser)
    parser.add_argument(
        "--no-norm-weighting", action="store_true", help="every image of a template weighs the same"
    )
    parser.add_argument(
        "--detector-scores", action="store_true", help="weigh images by the detector's confidence"
    )


@dataclass(frozen=True)
class Pooling:
    """How the images of a template weigh."""

    norm_weighting: bool = True
    detector_scores: bool = False

    def inputs(self, model: Model, images: IjbImages | None) -> dict[str, Any]:
        """What `pool_templates` takes: from the set on disk, else from the saved arrays."""
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
        if self.detector_scores:
            inputs["detector_scores"] = (
                model.array("detector_scores") if images is None else images.detector_scores
            )
        return {**inputs, "norm_weighting": self.norm_weighting}


def read_pooling(arguments: argparse.Namespace) -> Pooling:
    return Pooling(not arguments.no_norm_weighting, arguments.detector_scores)
