"""A backbone from a checkpoint of MMPretrain alone: its weights, and the config inside it.

The config is read as data and made harmless, and the network it describes is built in isolation:
nothing in the file imports a module, reads another file or grows beyond bounds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from numpy.typing import NDArray

from sf2_plugin import SphereFace2
from sf2_plugin.evaluation import Calibration
from sf2_plugin.reading import reading
from sf2_plugin.weights import unwrapped

from ..mmengine.dataset_embedding import embed_faces
from ..mmengine.datasets import pipeline_item, without_loaders
from .config_text import read_config
from .harmless import harmless
from .isolation import LARGEST_SIZE, check_sizes, isolated, largest_size


class MMPretrainBackbone:
    """`epoch_N.pth` of MMPretrain: what the neck, and the head's `pre_logits`, give for a face.

    Images pass the test pipeline and the data preprocessor of the config, as in the host.

    Args:
        path: for messages.
        checkpoint: what the file holds; the config's text is its `meta`, `cfg`.

    Raises:
        ValueError: no text or no weights inside, a config that is more than data, without a test
            pipeline, or that does not fit the weights.
    """

    settings = "mmpretrain"
    exporter = "sf2_plugin.integrations.mmpretrain.deployed_model:exportable"

    def __init__(self, path: Path, checkpoint: dict[str, Any]) -> None:
        text = checkpoint["meta"]["cfg"]
        if not isinstance(text, str) or not isinstance(checkpoint.get("state_dict"), dict):
            raise ValueError(
                f"{path} is no checkpoint of MMPretrain: a config or weights are amiss"
            )
        weights = checkpoint["state_dict"]
        with reading(path, "a checkpoint whose config is data"):
            config = read_config(text)
            model = harmless(without_prototype(without_centers(dict(config["model"]))))
            preprocessor = harmless(config.get("data_preprocessor"))
            pipeline = without_loaders(harmless(_test_pipeline(config)))
            check_sizes(model, largest_size(weights))
            check_sizes([preprocessor, pipeline], LARGEST_SIZE)
        init_default_scope("mmpretrain")
        if preprocessor is not None:
            model.setdefault("data_preprocessor", preprocessor)
        if str(model.get("type")).endswith(RETRIEVER):
            model["prototype"] = torch.zeros(1, 1)  # Embedding needs none.
        with reading(path, "a checkpoint whose model can be built"), isolated(weights):
            self.model = MODELS.build(model)
            self.pipeline = Compose(pipeline)
        self.inputs = {
            "pipeline": ", ".join(map(_in_words, pipeline)),
            "preprocessor": _in_words(model.get("data_preprocessor") or {}),
        }
        self._load(path, weights)
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def _load(self, path: Path, weights: dict[str, Any]) -> None:
        """The head's class centers may lie elsewhere, and are not asked for."""
        own = [name for name in self.model.state_dict() if not name.startswith("head.")]
        weights = unwrapped(weights, own)
        heads = {
            f"{name}.bias": module
            for name, module in self.model.named_modules()
            if isinstance(module, SphereFace2) and f"{name}.bias" in weights
        }
        # A head takes no bias without its centers; here it is the bias that is asked for.
        rest = {name: value for name, value in weights.items() if name not in heads}
        try:
            missing, unexpected = self.model.load_state_dict(rest, strict=False)
            for name, head in heads.items():
                head.bias.data.copy_(weights[name])
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit its own config: {error}") from None
        strange = [key for key in [*missing, *unexpected] if not key.startswith("head.")]
        if strange:
            raise ValueError(f"{path} does not fit its own config: {', '.join(strange[:5])}")
        self.calibration = Calibration.from_head(next(iter(heads.values()))) if heads else None

    def embed(self, faces: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        items = [self.pipeline(pipeline_item(face)) for face in faces]
        return embed_faces(self.model, items, batch_size=len(items))


def _in_words(part: dict[str, Any]) -> str:
    """A part of a config: `Resize(scale=(64, 64))`."""
    given = {name: value for name, value in part.items() if name != "type" and value is not None}
    options = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{part.get('type', '')}({options})"


#: Which describes the loader of its prototypes within the model.
RETRIEVER = "ImageToImageRetriever"


def without_prototype(model: dict[str, Any]) -> dict[str, Any]:
    """The model's config without the images that a retriever is to compare with."""
    return {key: value for key, value in model.items() if key != "prototype"}


def without_centers(part: Any) -> Any:
    """The model's config with one class in a sharded head, whose centers lie in the shards."""
    if isinstance(part, dict):
        part = {key: without_centers(value) for key, value in part.items()}
        return part | {"num_classes": 1} if part.get("partial_fc") else part
    if isinstance(part, (list, tuple)):
        return type(part)(map(without_centers, part))
    return part


def _test_pipeline(config: dict[str, Any]) -> list[Any]:
    for loader in ("test_dataloader", "val_dataloader"):
        dataset = config.get(loader)
        while isinstance(dataset, dict):  # One dataset may be wrapped into another.
            if dataset.get("pipeline"):
                return dataset["pipeline"]
            dataset = dataset.get("dataset")
    if config.get("test_pipeline"):
        return config["test_pipeline"]
    raise ValueError("it has no test_pipeline")
