"""`sf2 eval identify`: 1:N search, in folders of people or by the protocol of IJB."""

import argparse
from pathlib import Path

import numpy as np

from ..data import FaceFolder, decode_image, read_face_folder
from ..evaluation.checks import as_targets
from ..evaluation.identification import FPIR_TARGETS, identify
from ..evaluation.ijb import IjbSubjects, read_ijb_galleries, read_ijb_images, read_ijb_probes
from ..evaluation.templates import pool_templates, rows_of
from ..report.results import People, SearchResult
from ..report.sections import identification_sections
from .ijb_options import add_ijb_options, ijb_inputs
from .models import Model, add_model_options, read_models
from .output import add_output_options, write_output

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
    folders = None
    if arguments.gallery:
        folders = [read_face_folder(folder) for folder in (arguments.gallery, arguments.probes)]
    models = read_models(arguments)
    results = []
    for model in models:
        if arguments.ijb:
            galleries, probes = _ijb_people(model, arguments)
        else:
            gallery, probes = _people(model, folders)
            galleries = {"gallery": gallery}
        for name, gallery in galleries.items():
            report = identify(
                gallery.embeddings, gallery.ids, probes.embeddings, probes.ids, targets
            )
            results.append(SearchResult(model.name, name, gallery, probes, report))
    results.sort(key=lambda result: result.gallery_name)
    figures = [{"model": r.model, "gallery": r.gallery_name, **r.report.as_dict()} for r in results]
    write_output(
        arguments,
        f"Identification: {', '.join(model.name for model in models)}",
        {"results": figures},
        "\n\n".join(f"{r.model} on {r.gallery_name}\n{r.report}" for r in results),
        lambda: identification_sections(results),
    )


def _people(model: Model, folders: list[FaceFolder] | None) -> tuple[People, People]:
    """The gallery and the probes of saved arrays, or of two folders."""
    if model.is_saved:
        gallery, gallery_ids, probes, probe_ids = (model.array(name) for name in ARRAYS)
        return People(gallery, gallery_ids), People(probes, probe_ids)
    if folders is None:
        raise ValueError("--gallery and --probes, or --ijb: a backbone needs images to embed")
    first, second = (_embed(model, folder) for folder in folders)
    return first, second


def _embed(model: Model, folder: FaceFolder) -> People:
    paths = [path for path, _ in folder.samples]
    ids = np.array([folder.class_names[label] for _, label in folder.samples])
    return People(model.embed(paths), ids, lambda row: decode_image(paths[row]))


def _ijb_people(model: Model, arguments: argparse.Namespace) -> tuple[dict[str, People], People]:
    """Both galleries of IJB by name, and its probes."""
    images = read_ijb_images(arguments.ijb)
    features, ids = pool_templates(**ijb_inputs(model, images, arguments))

    def people(of: IjbSubjects, name: str) -> People:
        rows = rows_of(of.templates, ids, name)
        face = (lambda row: images.face(int(of.templates[row]))) if images.on_disk else None
        return People(features[rows], of.subjects, face)

    galleries = {
        name: people(gallery, name)
        for name, gallery in zip(
            ("gallery 1", "gallery 2"), read_ijb_galleries(arguments.ijb), strict=True
        )
    }
    return galleries, people(read_ijb_probes(arguments.ijb), "the probes")
