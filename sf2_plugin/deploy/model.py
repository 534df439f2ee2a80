"""A folder that `sf2 export` wrote, as an object that embeds, compares and searches faces.

Importing it takes NumPy; embedding, onnxruntime; paths and images of another size, Pillow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from ..data.images import decode_image, resize
from ..evaluation import Calibration
from ..evaluation.input_checks import Floats, Pixels, as_embeddings
from ..evaluation.vectors import unit
from ..requirements import require
from .folder import read_folder

#: An aligned crop, uint8 (size, size, 3), RGB, or its path; or an embedding (D,), of any length.
Face = Union[str, "os.PathLike[str]", NDArray[Any]]


@dataclass(frozen=True)
class Candidate:
    """One person of a gallery, for one probe; of several faces enrolled, by the best."""

    name: Any
    cosine: float
    probability: float | None
    """That it is the probe's person; None where the folder has no calibration."""


class FaceModel:
    """A face recognition model; see `load`.

    Attributes:
        name: of the package.
        size: of its aligned crops, in pixels.
        dimension: D of its embeddings.
        calibration: what turns a cosine into a probability; None where export knew none.
        thresholds: on the cosine, by false accept rate; None where it was not measurable.
    """

    def __init__(self, folder: str | os.PathLike[str], providers: Sequence[Any] | None = None):
        content = read_folder(Path(folder))
        self.folder = Path(folder)
        self.name: str = content.name
        self.size: int = content.size
        self.dimension: int = content.dimension
        self.calibration: Calibration | None = content.calibration
        self.thresholds: dict[float, float | None] = content.thresholds
        self._mean, self._std = np.float32(content.mean), np.float32(content.std)
        onnxruntime = require("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            # The bytes whose hash was checked, not the file once more.
            self._session = onnxruntime.InferenceSession(
                content.network,
                options,
                providers=providers or onnxruntime.get_available_providers(),
            )
        except Exception as error:  # onnxruntime has a class of its own for each kind
            reason = str(error).partition("\n")[0][:300]
            raise ValueError(f"{folder}: its network cannot be run: {reason}") from None
        self._input = self._session.get_inputs()[0].name

    def embed(self, images: Iterable[Face] | Pixels, batch_size: int = 32) -> NDArray[np.float32]:
        """(N, D) embeddings of length one, of N aligned crops.

        Args:
            images: paths, or uint8 (H, H, 3) RGB; or all as one array (N, H, H, 3). Crops of
                another size than the model's are resized.
            batch_size: faces in work at once.

        Raises:
            ValueError: an image that is none, is no aligned crop, or has no embedding.
            FileNotFoundError: there is no such file.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(images, (str, os.PathLike)):
            raise TypeError(f"images must be several, got the path {os.fspath(images)!r}")
        pixels = (self._pixels(image, place) for place, image in enumerate(images))
        parts = []
        while batch := list(islice(pixels, batch_size)):
            parts.append(self._run(batch))
        if not parts:
            return np.empty((0, self.dimension), np.float32)
        return unit(as_embeddings(np.concatenate(parts))).astype(np.float32)

    def same(self, a: Face, b: Face, prior: float = 0.5) -> float:
        """The probability that two faces are one person's.

        Args:
            a, b: aligned crops, paths of such, or embeddings.
            prior: the share of pairs that are of one person where the model is used; 0.5 asks what
                the faces alone say.

        Raises:
            ValueError: the folder has no calibration, or as `embed`.
        """
        if self.calibration is None:
            raise ValueError(
                f"{self.folder} has no calibration, and cosines are no probabilities: export it "
                "with --pairs"
            )
        first, second = self._vectors([a, b])
        return float(self.calibration.probability([_cosine(first, second)], prior)[0])

    def identify(
        self,
        probe: Face,
        gallery: Mapping[Any, Face | Sequence[Face]] | Sequence[Face] | NDArray[Any],
        *,
        top: int = 5,
        prior: float = 0.5,
    ) -> list[Candidate]:
        """The people of a gallery who are most like a probe, the likest first.

        Args:
            probe: an aligned crop, its path, or an embedding.
            gallery: name -> a face or several; or faces, or embeddings (N, D), whose names are
                their places.
            top: how many to list.
            prior: as for `same`, of each person of the gallery alone. Where a probe is one of N
                people or somebody else, as likely as each, it is 1 / (N + 1).

        Raises:
            ValueError: an empty gallery, or as `embed`.
        """
        names, faces = _named(gallery)
        if not faces:
            raise ValueError("gallery must have at least one face, got none")
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        vectors = self._vectors([probe, *faces])
        best: dict[Any, float] = {}
        for name, vector in zip(names, vectors[1:], strict=True):
            best[name] = max(_cosine(vectors[0], vector), best.get(name, -1.0))
        found = sorted(best.items(), key=lambda item: -item[1])[:top]
        probabilities: Sequence[Any] = [None] * len(found)
        if self.calibration is not None:
            cosines = [cosine for _, cosine in found]
            probabilities = self.calibration.probability(cosines, prior).tolist()
        return [
            Candidate(name, cosine, probability)
            for (name, cosine), probability in zip(found, probabilities, strict=True)
        ]

    def _vectors(self, faces: Sequence[Face]) -> Floats:
        """(N, D) float64 at length one, of faces or embeddings."""
        vectors = np.empty((len(faces), self.dimension))
        images = []
        for place, face in enumerate(faces):
            if not (isinstance(face, np.ndarray) and face.ndim == 1):
                images.append(place)
                continue
            row = as_embeddings(face[None], "an embedding")
            if row.shape[1] != self.dimension:
                raise ValueError(
                    f"an embedding must have {self.dimension} numbers, got {row.shape[1]}"
                )
            vectors[place] = row[0]
        vectors[images] = self.embed([faces[place] for place in images])
        return unit(vectors)

    def _pixels(self, image: Face, place: int) -> Pixels:
        if isinstance(image, (str, os.PathLike)):
            name, face = os.fspath(image), decode_image(Path(image))
        else:
            name, face = f"image {place}", np.asarray(image)
        if face.dtype != np.uint8 or face.ndim != 3 or face.shape[2] != 3:
            raise ValueError(
                f"{name}: an image must be uint8 (height, width, 3), got {face.dtype} {face.shape}"
            )
        height, width = face.shape[:2]
        if height != width:
            raise ValueError(
                f"{name}: an aligned crop must be square, got {width}x{height}; align faces by "
                "their landmarks first"
            )
        return resize(face, self.size, self.size)

    def _run(self, batch: Sequence[Pixels]) -> NDArray[np.float32]:
        faces = np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32)
        faces = (faces - self._mean) / self._std
        return self._session.run(None, {self._input: np.ascontiguousarray(faces)})[0]


def load(folder: str | os.PathLike[str], *, providers: Sequence[Any] | None = None) -> FaceModel:
    """Open a folder that `sf2 export` wrote, after checking the hash of each file in use.

    Args:
        folder: the package.
        providers: of onnxruntime; None for all that it has.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: a file that is not what export wrote.
        ImportError: onnxruntime is not installed.

    Example:
        >>> import sf2_plugin.deploy
        >>> model = sf2_plugin.deploy.load("my_model")  # doctest: +SKIP
        >>> model.same("anna_1.jpg", "anna_2.jpg")  # doctest: +SKIP
        0.97
    """
    return FaceModel(folder, providers)


def _named(gallery: Any) -> tuple[list[Any], list[Face]]:
    if not isinstance(gallery, Mapping):
        return list(range(len(gallery))), list(gallery)
    names, faces = [], []
    for name, enrolled in gallery.items():
        is_one = isinstance(enrolled, (str, os.PathLike)) or (
            isinstance(enrolled, np.ndarray)
            and (enrolled.ndim == 1 or (enrolled.ndim == 3 and enrolled.dtype == np.uint8))
        )
        several = [enrolled] if is_one else list(enrolled)
        names += [name] * len(several)
        faces += several
    return names, faces


def _cosine(a: Floats, b: Floats) -> float:
    """From the distance: exact for equal faces, never above 1."""
    return max(float(1 - np.square(a - b).sum() / 2), -1.0)
