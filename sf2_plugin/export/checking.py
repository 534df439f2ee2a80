"""A package tried as its users will: what its readers answer, against the checkpoint."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import Backbone
from ..deploy import load
from ..deploy.folder import NETWORK
from ..evaluation.input_checks import Pixels, as_embeddings
from ..evaluation.vectors import unit

#: The least cosine between an embedding of a reader and the checkpoint's.
LEAST_COSINE = 0.9999
LEAST_COSINE_FP16 = 0.999
#: The same of what is left of them without their mean.
_LEAST_APART = 0.9
BATCHES = (1, 5)

Reader = Callable[[Sequence[Pixels]], NDArray]


def check_package(
    folder: Path, backbone: Backbone, size: int, *, fp16: bool, detector: bool
) -> dict[str, Any]:
    """Compare all readers with the checkpoint on drawn images, in batches of 1 and 5.

    Returns:
        The least cosine of each reader, and what was asked for.

    Raises:
        ValueError: a reader whose answer is another, or which does not open the folder.
    """
    faces = drawn_faces(size)
    expected = as_embeddings(backbone.embed(faces), "the checkpoint's embeddings")
    least = LEAST_COSINE_FP16 if fp16 else LEAST_COSINE
    readers: dict[str, Reader] = {"sf2_plugin.deploy": load(folder).embed}
    absent = _insightface_absence()
    if not absent:
        readers |= _insightface_readers(folder, detector)
    found = {}
    for name, reader in readers.items():
        found[name], apart = _agreement(name, reader, faces, expected)
        if not found[name] >= least:
            raise ValueError(
                f"{name} embeds a test image at cosine {found[name]:.6f} with the checkpoint; at "
                f"least {least} is wanted, and nothing was written"
            )
        if not apart >= _LEAST_APART:
            raise ValueError(
                f"the network takes all test images for nearly one, and {name} does not tell them "
                "apart as the checkpoint does; nothing was written"
            )
    checked: dict[str, Any] = {"least_cosine": found, "wanted": least}
    if absent:
        checked["not_checked"] = f"by insightface: {absent}"
    return checked


def drawn_faces(size: int) -> list[Pixels]:
    """Images (size, size, 3) of patches of colour, each unlike the others, the same every time."""
    rng = np.random.default_rng(0)
    tiles = -(-size // 8)
    faces = []
    for _ in range(max(BATCHES)):
        patches = rng.integers(0, 256, (tiles, tiles, 3))
        pixels = np.kron(patches, np.ones((8, 8, 1)))[:size, :size]
        # Soft edges, as those of faces are.
        pixels = (pixels + np.roll(pixels, 2, 0) + np.roll(pixels, 2, 1)) / 3
        faces.append(pixels.astype(np.uint8))
    return faces


def _agreement(
    name: str, reader: Reader, faces: Sequence[Pixels], expected: NDArray
) -> tuple[float, float]:
    """The least cosine between a reader's embeddings and those expected, over all batches.

    And the least cosine of their differences from the mean embedding: a network without training
    may give all images nearly the same embedding, whatever is done to them.
    """
    rows = unit(expected)
    mean = rows.mean(axis=0)
    least = apart = 1.0
    for batch in BATCHES:
        for start in range(0, len(faces) - batch + 1, batch):
            part = slice(start, start + batch)
            with _as_refusal(f"{name} cannot embed {batch} faces"):
                embedded = np.asarray(reader(faces[part]))
            if embedded.shape != expected[part].shape:
                raise ValueError(
                    f"{name} gives {embedded.shape} for {batch} faces, not {expected[part].shape}"
                )
            least = min(least, _least_cosine(unit(embedded), rows[part]))
            apart = min(apart, _least_cosine(unit(embedded) - mean, rows[part] - mean))
    return least, apart


def _least_cosine(a: NDArray, b: NDArray) -> float:
    cosines = np.einsum("ij,ij->i", unit(a), unit(b))
    return float(np.nan_to_num(cosines, nan=-1).min())


def _insightface_absence() -> str:
    """Why InsightFace's package cannot be asked; empty where it can."""
    try:
        importlib.import_module("insightface.model_zoo")
    except ImportError as error:
        # It asks for onnxruntime by that name, which would be installed over another of its names.
        there = importlib.util.find_spec("onnxruntime") is not None
        how = f"pip install {'--no-deps ' * there}insightface"
        return f"{' '.join(str(error).split())[:200]}: {how}"
    return ""


def _insightface_readers(folder: Path, detector: bool) -> dict[str, Reader]:
    """InsightFace's package on the folder, by its manifest, and on the file, by its shapes."""
    get_model = importlib.import_module("insightface.model_zoo").get_model
    opened = {"insightface, by the file": _opened(get_model, folder / NETWORK)}
    try:
        importlib.import_module("insightface.model_zoo.package_manifest")
    except ImportError:  # Of a release that knows no manifests.
        pass
    else:
        opened["insightface, by the manifest"] = _opened(
            get_model, folder, model_task="recognition"
        )
    if detector:
        opened["insightface, FaceAnalysis"] = _face_analysis(folder)
    return {name: _of_rgb(model.get_feat) for name, model in opened.items()}


def _of_rgb(get_feat: Callable[[list[Pixels]], NDArray]) -> Reader:
    """InsightFace's package takes BGR, as OpenCV reads images."""
    return lambda faces: get_feat([np.ascontiguousarray(face[..., ::-1]) for face in faces])


def _opened(get_model: Any, path: Path, **options: Any) -> Any:
    with _as_refusal(f"insightface does not open {path.name}"):
        model = get_model(str(path), providers=["CPUExecutionProvider"], **options)
    if getattr(model, "taskname", None) != "recognition":
        raise ValueError(f"insightface does not take {path.name} for a model of recognition")
    return model


def _face_analysis(folder: Path) -> Any:
    """The recognition model of `FaceAnalysis`, which has looked at an image."""
    FaceAnalysis = importlib.import_module("insightface.app").FaceAnalysis
    with _as_refusal("insightface's FaceAnalysis cannot use the detector"):
        app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1, det_size=(128, 128))
        app.get(np.zeros((128, 128, 3), np.uint8))
        return app.models["recognition"]


@contextmanager
def _as_refusal(what: str) -> Iterator[None]:
    """Turn whatever a reader raises, each in its own way, into a ValueError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{what}: {reason}") from error
