"""IJB-B and IJB-C as InsightFace lays them out on disk.

    ROOT/loose_crop/*.jpg
    ROOT/meta/ijbc_name_5pts_score.txt       name, five landmarks (x y), detector score
    ROOT/meta/ijbc_face_tid_mid.txt          name, template id, media id
    ROOT/meta/ijbc_template_pair_label.txt   template id, template id, 1 or 0
    ROOT/meta/ijbc_1N_gallery_G1.csv ...     TEMPLATE_ID,SUBJECT_ID,...

and the same with `ijbb`, whose galleries are S1 and S2.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.alignment import align_face
from ..data.image_root import ImageRoot
from ..data.images import decode_image
from ..reading import reading
from .input_checks import Bools, Floats, Ids, Pixels

_GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}


@dataclass(frozen=True, eq=False)
class IjbImages:
    """N images, one a line of the meta files, in their order."""

    paths: list[Path]
    """(N,)"""
    landmarks: NDArray[np.float32]
    """(N, 5, 2) x and y in pixels: eyes, nose, corners of the mouth."""
    detector_scores: Floats
    """(N,)"""
    templates: Ids
    """(N,)"""
    medias: Ids
    """(N,)"""

    @property
    def on_disk(self) -> bool:
        """Whether the images are there, and not the meta files alone."""
        return self.paths[0].is_file()

    def face(self, template: int) -> Pixels:
        """The template's image of the highest detector score, aligned."""
        rows = np.flatnonzero(self.templates == template)
        best = rows[self.detector_scores[rows].argmax()]
        return align_face(decode_image(self.paths[best], whole=True), self.landmarks[best])


@dataclass(frozen=True, eq=False)
class IjbPairs:
    """The 1:1 protocol: P pairs of templates."""

    p1: Ids
    """(P,) template ids."""
    p2: Ids
    """(P,) template ids."""
    labels: Bools
    """(P,) True for one person."""


@dataclass(frozen=True, eq=False)
class IjbSubjects:
    """A gallery or the probes of the 1:N protocol."""

    templates: Ids
    """(T,) ascending."""
    subjects: Ids
    """(T,) who each template shows."""


def read_ijb_images(root: str | os.PathLike[str], outside: bool = False) -> IjbImages:
    """Images, landmarks, detector scores, templates and medias of the set under `root`.

    `outside` also reads images to which a name or a link leads out of `loose_crop`.

    Raises:
        FileNotFoundError: `root` has no `meta` folder of IJB-B or IJB-C.
        ValueError: a line that is not as the layout says, or two files that name other images.
    """
    meta, name = _find(root)
    faces_path = meta / f"{name}_name_5pts_score.txt"
    members_path = meta / f"{name}_face_tid_mid.txt"
    faces = _read(faces_path, [("name", "O"), ("landmarks", "f4", (5, 2)), ("score", "f8")])
    members = _read(members_path, [("name", "O"), ("template", "i8"), ("media", "i8")])
    if len(faces) != len(members):
        raise ValueError(
            f"{members_path} has {len(members)} lines and {faces_path} has {len(faces)}: "
            "both have a line for each image"
        )
    strangers = faces["name"] != members["name"]
    if strangers.any():
        i = int(strangers.argmax())
        raise ValueError(
            f"line {i + 1} is {members['name'][i]} in {members_path} and {faces['name'][i]} in "
            f"{faces_path}: both list the same images"
        )
    images = ImageRoot(meta.parent / "loose_crop", outside)
    with reading(faces_path):
        paths = [images.path(name) for name in faces["name"]]
    return IjbImages(
        paths=paths,
        landmarks=faces["landmarks"].copy(),
        detector_scores=faces["score"].copy(),
        templates=members["template"].copy(),
        medias=members["media"].copy(),
    )


def read_ijb_pairs(root: str | os.PathLike[str]) -> IjbPairs:
    """The pairs of the 1:1 protocol; errors as `read_ijb_images`."""
    meta, name = _find(root)
    path = meta / f"{name}_template_pair_label.txt"
    pairs = _read(path, [("p1", "i8"), ("p2", "i8"), ("label", "i8")])
    labels = pairs["label"]
    strange = (labels != 0) & (labels != 1)
    if strange.any():
        i = int(strange.argmax())
        raise ValueError(f"{path} line {i + 1} must have the label 1 or 0, not {labels[i]}")
    return IjbPairs(p1=pairs["p1"].copy(), p2=pairs["p2"].copy(), labels=labels == 1)


def read_ijb_galleries(root: str | os.PathLike[str]) -> tuple[IjbSubjects, IjbSubjects]:
    """Both galleries of the 1:N protocol, which share nobody; errors as `read_ijb_images`."""
    meta, name = _find(root)
    first, second = (
        _read_subjects(meta / f"{name}_1N_gallery_{gallery}.csv") for gallery in _GALLERIES[name]
    )
    return first, second


def read_ijb_probes(root: str | os.PathLike[str]) -> IjbSubjects:
    """The mixed-media probes of the 1:N protocol; errors as `read_ijb_images`."""
    meta, name = _find(root)
    return _read_subjects(meta / f"{name}_1N_probe_mixed.csv")


def _find(root: str | os.PathLike[str]) -> tuple[Path, str]:
    meta = Path(root) / "meta"
    for name in _GALLERIES:
        if (meta / f"{name}_face_tid_mid.txt").is_file():
            return meta, name
    wanted = " or ".join(f"{name}_face_tid_mid.txt" for name in _GALLERIES)
    raise FileNotFoundError(f"{meta} must hold {wanted}, as InsightFace lays out IJB-B and IJB-C")


def _read_subjects(path: Path) -> IjbSubjects:
    table = _read(path, "i8", delimiter=",", skiprows=1, usecols=(0, 1), ndmin=2)
    table = np.unique(table, axis=0)  # Some copies have a line for each image of a template.
    twice = table[1:, 0] == table[:-1, 0]
    if twice.any():
        raise ValueError(f"{path} gives two subjects to template {table[twice.argmax(), 0]}")
    return IjbSubjects(templates=table[:, 0].copy(), subjects=table[:, 1].copy())


def _read(path: Path, dtype: Any, *, ndmin: Literal[1, 2] = 1, **options: Any) -> NDArray:
    with reading(path, "a list as InsightFace lays it out"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        table = np.loadtxt(path, dtype=dtype, comments=None, ndmin=ndmin, **options)
        if not len(table):
            raise ValueError("it is empty")
        return table
