"""The head that `config.loss` names, where the host builds its PartialFC_V2."""

import importlib
import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sf2_plugin import PartialFCSphereFace2, available_heads
from sf2_plugin.distributed import rank_and_world_size
from sf2_plugin.registry import head_builder
from sf2_plugin.shards import load_centers

from .host import host_config

#: What this project's own head is called in a config.
NAMES = ("sphereface2", "partial_fc_sphereface2")


def choose_by_config() -> None:
    """Make the host's PartialFC_V2 build the head that ``config.loss`` names, if it names one.

    ``config.loss`` is a name of `sf2_plugin.registry`; its sharded form (`partial_fc_NAME`) is
    taken where there is one. The dict of that name in the config, as ``config.sphereface2``,
    refines it: its items are the head's arguments, and ``centers`` a folder to take class centers
    from (see ``sf2 shards import``). On several ranks a head must say that it is made for them, by
    an attribute ``sharded = True``: nothing in the host keeps the ranks' heads equal.
    """
    # The class itself is changed, not what its name stands for: it calls itself by that name.
    hosts_own = importlib.import_module("partial_fc_v2").PartialFC_V2
    hosts_own.__new__ = staticmethod(_new)


def _new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    name = host_config().get("loss")
    return object.__new__(cls) if name is None else _head(name, *args, **kwargs)


def _head(
    name: str,
    margin_loss: Any,
    embedding_size: int,
    num_classes: int,
    sample_rate: float = 1.0,
    fp16: bool = False,
) -> nn.Module:
    threshold = margin_loss.interclass_filtering_threshold
    hosts = dict(
        sample_rate=sample_rate,
        # The host takes any number; one that is not positive filters nothing, nor does one above 1.
        interclass_filtering_threshold=threshold if 0 < threshold <= 1 else 0.0,
    )
    own = dict(host_config().get(name) or {})
    centers = own.pop("centers", None)
    if own.get("sparse_gradient"):
        raise ValueError(
            f"config.{name} asks for sparse_gradient, and neither of the host's optimizers takes "
            "one: SGD with momentum and weight decay, and AdamW"
        )
    sharded = f"partial_fc_{name}"
    builder = head_builder(sharded if sharded in available_heads() else name)
    taken = _arguments(builder)
    if taken is not None:
        hosts = {key: value for key, value in hosts.items() if key in taken}
    try:
        head = builder(num_classes, embedding_size, **{**hosts, **own})
    except TypeError as error:
        if not any(f"unexpected keyword argument {key!r}" in str(error) for key in own):
            raise
        raise ValueError(f"config.{name} holds what the head does not take: {error}") from None
    _, world_size = rank_and_world_size()
    if world_size > 1 and not getattr(head, "sharded", False):
        raise ValueError(
            f"config.loss = {name!r} is not sharded, and each of the {world_size} ranks would "
            "train a head of its own: run it on one, or give it an attribute sharded = True"
        )
    if centers is not None:
        if not isinstance(head, PartialFCSphereFace2):
            raise ValueError(f"config.{name} names centers, and only sphereface2 takes some")
        load_centers(head, centers)
    head.register_forward_pre_hook(_flat_labels)
    logging.info("config.loss = %r: %s(%s)", name, type(head).__name__, head.extra_repr())
    return head


def _arguments(builder: Callable[..., nn.Module]) -> set[str] | None:
    """Keyword arguments that a builder takes; None where it takes any.

    A class hands those that it does not name itself to its base class.
    """
    functions = [builder]
    if isinstance(builder, type):
        functions = [
            vars(owner)["__init__"] for owner in builder.mro() if "__init__" in vars(owner)
        ]
    names: set[str] = set()
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None


def _flat_labels(head: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Labels (B, 1) are (B,) to the host's head."""
    embeddings, labels = inputs
    return embeddings, labels.squeeze(1) if labels.ndim == 2 else labels
