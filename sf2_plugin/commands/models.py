"""Models as the command line names them: a backbone's file, or embeddings saved before."""

import argparse
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import Backbone, file_digest, open_backbone
from ..backbones.embedding import BATCH_SIZE, default_cache, embed_images
from ..data.arrays import read_arrays
from ..options import count
from ..progress import progress_bar
from ..terminal import printable

SAVED = (".npy", ".npz")


def add_model_options(parser: argparse.ArgumentParser, saved: str) -> None:
    """The models that every evaluation takes; `saved` says what a file of embeddings holds."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="[NAME=]MODEL",
        help=f".onnx, a checkpoint of MMPretrain or of arcface_torch, or {saved}",
    )
    add_backbone_options(parser)


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    """How models are opened and images embedded; `models` itself is the caller's argument."""
    host = parser.add_argument_group("backbones of arcface_torch")
    host.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="[NAME=]NETWORK",
        help="its name there: r50, mbf, ...; of all models, or of one",
    )
    host.add_argument("--arcface-torch", type=Path, metavar="DIR", help="the host's folder")
    onnx = parser.add_argument_group(
        "ONNX files", "what a graph leaves open; of all files, or of one, as NAME=VALUE"
    )
    onnx.add_argument(
        "--input-mean",
        action="append",
        default=[],
        metavar="[NAME=]MEAN",
        help="the input is (x - mean) / std of x in 0..255; a number, or three as 1,2,3",
    )
    onnx.add_argument("--input-std", action="append", default=[], metavar="[NAME=]STD")
    onnx.add_argument("--channels", action="append", default=[], metavar="[NAME=]rgb|bgr")
    onnx.add_argument(
        "--output", action="append", default=[], metavar="[NAME=]OUTPUT", help="the embedding's"
    )
    embedding = parser.add_argument_group("embedding")
    embedding.add_argument("--batch-size", type=count, default=BATCH_SIZE, metavar="N")
    embedding.add_argument("--no-flip", action="store_true", help="leave out the flip test")
    embedding.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    embedding.add_argument("--no-cache", action="store_true", help="embed everything anew")


@dataclass(frozen=True)
class Embedding:
    """How images become embeddings, whatever the model."""

    batch_size: int = BATCH_SIZE
    flip_test: bool = True
    cache: Path | None = None
    """Folder of cached parts; None caches nothing."""


@dataclass(frozen=True)
class Model:
    """A named model: a backbone's file, or embeddings saved before.

    Attributes:
        name: what reports call it.
        network: for a backbone of arcface_torch, its name there.
        arcface_torch: for the same, the host's folder.
        onnx: mean, std, channels and output of an ONNX file, where they are given.
        embedding: how its embeddings are made.
    """

    name: str
    path: Path
    network: str | None = None
    arcface_torch: Path | None = None
    onnx: Mapping[str, Any] = field(default_factory=dict)
    embedding: Embedding = Embedding()

    @property
    def is_saved(self) -> bool:
        return self.path.suffix in SAVED

    @functools.cached_property
    def arrays(self) -> dict[str, NDArray]:
        """What a file of saved embeddings holds, by name; one array is called `embeddings`."""
        return read_arrays(self.path)

    def array(self, name: str) -> NDArray:
        """One saved array; a ValueError that names those there are."""
        if name not in self.arrays:
            raise ValueError(f"{self.path} has no array {name!r}, only {', '.join(self.arrays)}")
        return self.arrays[name]

    @functools.cached_property
    def backbone(self) -> Backbone:
        # Hosts warn of what they can do without, such as compiled operators.
        warnings.filterwarnings("ignore", module=r"(mmcv|mmengine|mmpretrain|torch)\b.*")
        return open_backbone(
            self.path, network=self.network, arcface_torch=self.arcface_torch, **self.onnx
        )

    @property
    def inputs(self) -> dict[str, str]:
        """How faces are given to the backbone; nothing of saved embeddings."""
        return {} if self.is_saved else self.backbone.inputs

    def provenance(self) -> dict[str, str]:
        """Which file it is, and how its embeddings were made."""
        facts = {"file": str(self.path), "SHA-256": self._digest}
        if self.is_saved:
            return facts | {"embeddings": "saved before, as they are"}
        flipped = "each image and its mirror image" if self.embedding.flip_test else "left out"
        return facts | self.inputs | {"flip test": flipped}

    @functools.cached_property
    def _digest(self) -> str:
        return file_digest(self.path)

    def embed(
        self,
        images: Sequence[bytes | Path],
        landmarks: NDArray[np.floating] | None = None,
        names: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """(N, D) embeddings of images by the backbone."""
        return embed_images(
            self.backbone,
            images,
            names=names,
            landmarks=landmarks,
            flip_test=self.embedding.flip_test,
            batch_size=self.embedding.batch_size,
            cache=self.embedding.cache,
            model_digest=self._digest,
            progress=progress_bar(f"{self.name}: embedding"),
        )


def read_models(arguments: argparse.Namespace) -> list[Model]:
    """The models that the arguments name; one without a name takes its file's.

    Raises:
        ValueError: a name twice.
        FileNotFoundError: a file that does not exist.
    """
    embedding = Embedding(
        arguments.batch_size,
        not arguments.no_flip,
        None if arguments.no_cache else arguments.cache,
    )
    networks = _by_model(arguments.network)
    onnx = {
        "mean": _by_model(arguments.input_mean, _numbers),
        "std": _by_model(arguments.input_std, _numbers),
        "channels": _by_model(arguments.channels),
        "output": _by_model(arguments.output),
    }
    models: list[Model] = []
    for text in arguments.models:
        name, path = named_path(text)
        if not path.is_file():
            raise FileNotFoundError(f"there is no model {path}")
        if any(model.name == name for model in models):
            raise ValueError(f"two models are called {name!r}: name them, as NAME=MODEL")
        network = networks.get(name, networks.get(""))
        general = "" if path.suffix == ".onnx" else name
        given = {key: of.get(name, of.get(general)) for key, of in onnx.items()}
        given = {key: value for key, value in given.items() if value is not None}
        models.append(Model(name, path, network, arguments.arcface_torch, given, embedding))
    known = {"", *(model.name for model in models)}
    for of in (networks, *onnx.values()):
        if strangers := of.keys() - known:
            raise ValueError(f"there is no model called {min(strangers)!r} to give an option to")
    return models


def named_path(text: str) -> tuple[str, Path]:
    """The name and the path of NAME=PATH; of a path alone, or one that exists, the file's name."""
    name, _, path = text.rpartition("=")
    if not name or Path(text).exists():
        name, path = Path(text).stem, text
    return printable(name), Path(path)


def _by_model(texts: Sequence[str], value: Callable[[str], Any] = str) -> dict[str, Any]:
    """By the model's name, or "" for all, from NAME=VALUE or VALUE."""
    return {name: value(text) for name, _, text in (text.rpartition("=") for text in texts)}


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
