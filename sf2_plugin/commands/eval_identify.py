"""`sf2 eval identify`: 1:N search, in folders of people or by the protocol of IJB."""

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import FaceFolder, decode_image, read_face_folder
from ..evaluation.identification import FPIR_TARGETS, identify
from ..evaluation.ijb import (
    IjbImages,
    IjbSubjects,
    read_ijb_galleries,
    read_ijb_images,
    read_ijb_probes,
)
from ..evaluation.input_checks import as_targets
from ..evaluation.templates import pool_templates, rows_of
from ..report.results import People, SearchResult
from ..report.sections import identification_sections
from .ijb_options import Pooling, add_ijb_options, read_pooling
from .models import Model, add_model_options, read_models
from .output import add_output_options, read_output

ARRAYS = ("gallery", "gallery_ids", "probes", "probe_ids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(
        parser,
        f"saved embeddings: .npz with {', '.join(ARRAYS)}, or .npy (images, D) in the order of "
        "--ijb",
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="DIR", help="who is enrolled: DIR/PERSON/*.jpg"
    )
    parser.add_argument(
        "--probes", type=Path, metavar="DIR", help="who is searched for, by the same names"
    )
    add_ijb_options(parser)
    parser.add_argument(
        "--fpir", type=float, action="append", metavar="RATE", help="TPIR at this FPIR"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    targets = as_targets(arguments.fpir or FPIR_TARGETS, "--fpir")
    if (arguments.gallery is None) != (arguments.probes is None):
        raise ValueError("--gallery and --probes belong together: give both or none")
    if arguments.gallery and arguments.ijb:
        raise ValueError("--ijb brings its own galleries: leave out --gallery and --probes")
    models = read_models(arguments)
    folders_read = (arguments.ijb, arguments.gallery, arguments.probes)
    output = read_output(arguments, [*(model.path for model in models), *folders_read])
    searched: Callable[[Model], tuple[dict[str, People], People]]
    if arguments.ijb:
        ijb = IjbSearch.read(arguments.ijb, read_pooling(arguments), arguments.follow_outside)
        searched = ijb.people
    elif arguments.gallery:
        folders = [read_face_folder(folder) for folder in (arguments.gallery, arguments.probes)]
        searched = functools.partial(_folder_people, folders=folders)
    else:
        searched = _saved_people
    results = [result for model in models for result in search(model, *searched(model), targets)]
    results.sort(key=lambda result: result.gallery_name)
    output.write(
        f"Identification: {', '.join(model.name for model in models)}",
        {"results": [result.as_dict() for result in results]},
        "\n\n".join(result.text() for result in results),
        lambda: identification_sections(results),
        models,
    )


def search(
    model: Model, galleries: dict[str, People], probes: People, targets: tuple[float, ...]
) -> list[SearchResult]:
    """The probes in each of the galleries."""
    results = []
    for name, gallery in galleries.items():
        report = identify(gallery.embeddings, gallery.ids, probes.embeddings, probes.ids, targets)
        results.append(SearchResult(model.name, name, gallery, probes, report))
    return results


def _saved_people(model: Model) -> tuple[dict[str, People], People]:
    if not model.is_saved:
        raise ValueError("--gallery and --probes, or --ijb: a backbone needs images to embed")
    gallery, gallery_ids, probes, probe_ids = (model.array(name) for name in ARRAYS)
    return {"gallery": People(gallery, gallery_ids)}, People(probes, probe_ids)


def _folder_people(model: Model, folders: list[FaceFolder]) -> tuple[dict[str, People], People]:
    if model.is_saved:
        return _saved_people(model)
    gallery, probes = (_embed(model, folder) for folder in folders)
    return {"gallery": gallery}, probes


def _embed(model: Model, folder: FaceFolder) -> People:
    paths = [path for path, _ in folder.samples]
    ids = np.array([folder.class_names[label] for _, label in folder.samples])
    names = ["/".join(path.parts[-2:]) for path in paths]
    return People(model.embed(paths), ids, lambda row: decode_image(paths[row]), names)


@dataclass(frozen=True)
class IjbSearch:
    """The 1:N protocol of IJB: both galleries by name, and the probes."""

    images: IjbImages
    galleries: dict[str, IjbSubjects]
    probes: IjbSubjects
    pooling: Pooling

    @classmethod
    def read(cls, folder: Path, pooling: Pooling, outside: bool) -> "IjbSearch":
        first, second = read_ijb_galleries(folder)
        galleries = {"gallery 1": first, "gallery 2": second}
        images = read_ijb_images(folder, outside)
        return cls(images, galleries, read_ijb_probes(folder), pooling)

    def people(self, model: Model) -> tuple[dict[str, People], People]:
        features, ids = pool_templates(**self.pooling.inputs(model, self.images))

        def people(of: IjbSubjects, name: str) -> People:
            rows = rows_of(of.templates, ids, name)
            on_disk = self.images.on_disk
            face = (lambda row: self.images.face(int(of.templates[row]))) if on_disk else None
            return People(features[rows], of.subjects, face)

        galleries = {name: people(gallery, name) for name, gallery in self.galleries.items()}
        return galleries, people(self.probes, "the probes")
