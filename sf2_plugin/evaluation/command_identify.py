"""`sf2 eval identify`: 1:N search, in folders of people or by the protocol of IJB."""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import FaceFolder, read_face_folder
from .command_templates import add_ijb_options, ijb_inputs
from .identification import FPIR_TARGETS, IdentificationReport, identify
from .ijb import read_ijb_galleries, read_ijb_images, read_ijb_probes
from .page import write_page
from .pages import identification_sections
from .sources import Model, add_model_options, read_models
from .templates import pool_templates, rows_of

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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    folders = None
    if (arguments.gallery is None) != (arguments.probes is None):
        raise ValueError("--gallery and --probes belong together: give both or none")
    if arguments.gallery and arguments.ijb:
        raise ValueError("--ijb brings its own galleries: leave out --gallery and --probes")
    if arguments.gallery:
        folders = [read_face_folder(folder) for folder in (arguments.gallery, arguments.probes)]
    models = read_models(arguments)
    galleries: dict[str, dict[str, IdentificationReport]] = {}
    for model in models:
        if arguments.ijb:
            reports = _search_ijb(model, arguments)
        else:
            reports = {"gallery": _search(model, folders, arguments)}
        for gallery, report in reports.items():
            galleries.setdefault(gallery, {})[model.name] = report
    if arguments.html:
        title = f"Identification: {', '.join(model.name for model in models)}"
        write_page(arguments.html, title, identification_sections(galleries))
    flat = [(name, gallery, r) for gallery, of in galleries.items() for name, r in of.items()]
    if arguments.json:
        results = [{"model": name, "gallery": gallery, **r.as_dict()} for name, gallery, r in flat]
        print(json.dumps({"results": results}, indent=2))
    else:
        print("\n\n".join(f"{name} on {gallery}\n{report}" for name, gallery, report in flat))


def _search(
    model: Model, folders: list[FaceFolder] | None, arguments: argparse.Namespace
) -> IdentificationReport:
    if model.is_saved:
        gallery, gallery_ids, probes, probe_ids = (model.array(name) for name in ARRAYS)
    elif folders is None:
        raise ValueError("--gallery and --probes, or --ijb: a backbone needs images to embed")
    else:
        (gallery, gallery_ids), (probes, probe_ids) = (_embed(model, folder) for folder in folders)
    targets = arguments.fpir or FPIR_TARGETS
    return identify(gallery, gallery_ids, probes, probe_ids, targets)


def _embed(model: Model, folder: FaceFolder) -> tuple[NDArray, NDArray]:
    ids = np.array([folder.class_names[label] for _, label in folder.samples])
    return model.embed([path for path, _ in folder.samples]), ids


def _search_ijb(model: Model, arguments: argparse.Namespace) -> dict[str, IdentificationReport]:
    images = read_ijb_images(arguments.ijb)
    features, ids = pool_templates(**ijb_inputs(model, images, arguments))
    probes = read_ijb_probes(arguments.ijb)
    probe_features = features[rows_of(probes.templates, ids, "the probes")]
    reports = {}
    for number, gallery in enumerate(read_ijb_galleries(arguments.ijb), start=1):
        reports[f"gallery {number}"] = identify(
            features[rows_of(gallery.templates, ids, f"gallery {number}")],
            gallery.subjects,
            probe_features,
            probes.subjects,
            arguments.fpir or FPIR_TARGETS,
        )
    return reports
