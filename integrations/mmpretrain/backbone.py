"""A backbone from a checkpoint of MMPretrain alone: its weights, and the config inside it.

The config is Python text. It is read as data: names given literals, `dict(...)`, lists; a
statement of any other kind is refused, and so is a type that is not registered already.
"""

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.registry.registry
import mmpretrain.registry
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS, TRANSFORMS
from numpy.typing import NDArray

from sf2_plugin import SphereFace2
from sf2_plugin.evaluation import Calibration
from sf2_plugin.patching import replaced

from ..mmengine.datasets import pipeline_item, without_loaders
from ..mmengine.embedding import embed_faces

SCOPES = ("mmengine", "mmcv", "mmpretrain")
#: Where MMPretrain wraps other libraries, which find and read files of their own.
READERS_OF_FILES = (
    "mmpretrain.models.backbones.timm_backbone",
    "mmpretrain.models.classifiers.hugging_face",
    "mmpretrain.models.classifiers.timm",
    "mmpretrain.models.multimodal",
    "mmpretrain.models.retrievers",
    "mmpretrain.models.utils.huggingface",
    "mmpretrain.models.utils.tokenizer",
)


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
    inputs: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, path: Path, checkpoint: dict[str, Any]) -> None:
        text = checkpoint["meta"]["cfg"]
        if not isinstance(text, str) or not isinstance(checkpoint.get("state_dict"), dict):
            raise ValueError(
                f"{path} is no checkpoint of MMPretrain: a config or weights are amiss"
            )
        try:
            config = read_config(text)
            model = without_centers(dict(config["model"]))
            pipeline = without_loaders(_test_pipeline(config))
            refuse_unregistered([model, config.get("data_preprocessor"), pipeline])
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise ValueError(f"{path}: its config cannot be used: {error}") from None
        init_default_scope("mmpretrain")
        if config.get("data_preprocessor") is not None:
            model.setdefault("data_preprocessor", config["data_preprocessor"])
        try:
            with isolated():
                self.model = MODELS.build(model)
                self.pipeline = Compose(pipeline)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: its model cannot be built: {error}") from None
        self._load(path, checkpoint["state_dict"])
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def _load(self, path: Path, weights: dict[str, Any]) -> None:
        """The head's class centers may lie elsewhere, and are not asked for."""
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


def read_config(text: str) -> dict[str, Any]:
    """What a config's text assigns, from literals and `dict(...)` alone."""
    values: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = _literal(value)
            case _:
                raise ValueError(f"line {statement.lineno} is more than `name = value`")
    return values


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            pairs = {word.arg: _literal(word.value) for word in keywords}
            if None not in pairs:
                return pairs
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                _literal(key): _literal(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Constant() | ast.UnaryOp(operand=ast.Constant()) | ast.Set() | ast.BinOp():
            return ast.literal_eval(node)
    raise ValueError(f"line {node.lineno} holds {ast.unparse(node)[:80]!r}, which is no literal")


def refuse_unregistered(part: Any) -> None:
    """Every `type`, however deep, is a name that is registered; MMEngine would import another.

    Raises:
        ValueError: an import path, another scope's registry, trust in remote code, or another
            checkpoint, whose reader is not this project's.
    """
    if isinstance(part, dict):
        if "type" in part:
            _check_registered(part["type"])
        if part.get("_scope_") not in (None, *SCOPES):
            raise ValueError(f"scope {part['_scope_']!r} is none of {', '.join(SCOPES)}")
        for key in ("trust_remote_code", "checkpoint_path"):
            if part.get(key):
                raise ValueError(f"{key} is refused")
    if isinstance(part, (dict, list, tuple)):
        for value in part.values() if isinstance(part, dict) else part:
            refuse_unregistered(value)


def _check_registered(name: Any) -> None:
    scope, _, bare = name.rpartition(".") if isinstance(name, str) else ("", "", None)
    registries = [each for each in _registries() if scope in ("", each.scope)]
    found = [each.module_dict[bare] for each in registries if bare in each.module_dict]
    if not found:
        raise ValueError(f"type {name!r} is not a registered name; import paths are refused")
    if any(each.__module__.startswith(READERS_OF_FILES) for each in found):
        raise ValueError(f"type {name!r} may read other files, and is refused")


def _registries() -> Iterator[Registry]:
    for registry in (MODELS, TRANSFORMS):  # Whose names are registered when they are first used.
        registry.import_from_location()
    for part in (mmengine.registry, mmpretrain.registry):
        yield from (each for each in vars(part).values() if isinstance(each, Registry))


@contextmanager
def isolated() -> Iterator[None]:
    """While it lasts, MMEngine imports nothing for a name that a registry lacks, and loads nothing.

    Either is a ValueError.
    """

    def refuse_name(name: str) -> None:
        raise ValueError(f"{name!r} is not registered")  # MMEngine puts its own words to it.

    def refuse_file(filename: str, *args: Any, **kwargs: Any) -> None:
        raise ValueError(f"it asks for another checkpoint, {filename!r}, which is refused")

    with (
        replaced(mmengine.registry.registry, "get_object_from_string", refuse_name),
        replaced(CheckpointLoader, "load_checkpoint", refuse_file),
    ):
        yield


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
        pipeline = ((config.get(loader) or {}).get("dataset") or {}).get("pipeline")
        if pipeline:
            return pipeline
    if config.get("test_pipeline"):
        return config["test_pipeline"]
    raise ValueError("it has no test_pipeline")
