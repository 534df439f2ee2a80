"""A checkpoint's config made harmless: registered types, and no argument that reads another file.

MMEngine imports whatever a config's `type` names, and parts of MMPretrain fetch weights, read lists
and run code by their arguments. What only fills a network that its checkpoint fills again is taken
out of the config; what else does harm is refused.
"""

import sys
from collections.abc import Iterator
from typing import Any

import mmengine.registry
import mmpretrain.registry
from mmengine.registry import Registry
from mmpretrain.registry import MODELS, TRANSFORMS

SCOPES = ("mmengine", "mmcv", "mmpretrain")

#: Where MMPretrain wraps libraries that find and read files by the names of models.
READERS_OF_FILES = (
    "mmpretrain.models.classifiers.hugging_face",
    "mmpretrain.models.multimodal",
    "mmpretrain.models.utils.huggingface",
    "mmpretrain.models.utils.tokenizer",
)

#: Arguments that say how weights begin, which the checkpoint then replaces.
BEGINNINGS = ("init_cfg", "pretrained")

#: Arguments that make timm or transformers read another file, or fetch one.
REFUSED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "trust_remote_code")


def harmless(part: Any) -> Any:
    """A part of a config with every `type`, however deep, by the name that it is registered by.

    Raises:
        ValueError: a type that is not registered, which MMEngine would import; another scope's
            registry; or an argument or type that reads other files.
    """
    if isinstance(part, (list, tuple)):
        return type(part)(map(harmless, part))
    if not isinstance(part, dict):
        return part
    if part.get("_scope_") not in (None, *SCOPES):
        raise ValueError(f"scope {part['_scope_']!r} is none of {', '.join(SCOPES)}")
    for key in REFUSED:
        if part.get(key):
            raise ValueError(f"{key} is refused")
    model = part.get("model_name")
    if isinstance(model, str) and not model.replace(".", "").replace("_", "").isalnum():
        raise ValueError(f"model_name {model!r} is no plain name, and may be fetched: refused")
    made = {key: harmless(value) for key, value in part.items() if key not in BEGINNINGS}
    if "type" in part:
        made["type"] = registered_name(part["type"])
    return made


def registered_name(name: Any) -> str:
    """The name that a type is registered by, from that name or from where it is imported.

    The latter is how configs of MMEngine's new style are saved. Nothing is imported: the module
    must be there, and hold the registered class under that name.
    """
    if not isinstance(name, str):
        raise ValueError(f"type {name!r} is not a registered name")
    scope, _, bare = name.rpartition(".")
    registries = [each for each in _registries() if scope in ("", each.scope)]
    found = [each.module_dict[bare] for each in registries if bare in each.module_dict]
    if scope in sys.modules and not found:
        there = vars(sys.modules[scope]).get(bare)
        named = [item for each in _registries() for item in each.module_dict.items()]
        for key, value in named:
            if value is there and not found:
                name, found = key, [value]
    if not found:
        raise ValueError(f"type {name!r} is not a registered name; import paths are refused")
    if any(each.__module__.startswith(READERS_OF_FILES) for each in found):
        raise ValueError(f"type {name!r} may read other files, and is refused")
    return name


def _registries() -> Iterator[Registry]:
    for registry in (MODELS, TRANSFORMS):  # Whose names are registered when they are first used.
        registry.import_from_location()
    for part in (mmengine.registry, mmpretrain.registry):
        yield from (each for each in vars(part).values() if isinstance(each, Registry))
