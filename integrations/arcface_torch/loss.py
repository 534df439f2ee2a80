"""The head that `config.loss` names, where the host builds its PartialFC_V2."""

import importlib
import logging
from typing import Any

from torch import nn

from sf2_plugin import PartialFCSphereFace2, available_heads, build_head
from sf2_plugin.shards import load_centers

from .host import host_config


def choose_by_config() -> None:
    """Make the host's PartialFC_V2 build the head that ``config.loss`` names, if it names one.

    ``config.loss`` is a name of `sf2_plugin.registry`; its sharded form (`partial_fc_NAME`) is
    taken where there is one. The dict of that name in the config, as ``config.sphereface2``,
    refines it: its items are the head's arguments, and ``centers`` a folder to take class centers
    from (see ``sf2 shards import``).
    """
    # The class itself is changed, not what its name stands for: it calls itself by that name.
    hosts_own = importlib.import_module("partial_fc_v2").PartialFC_V2
    hosts_own.__new__ = staticmethod(_new)


def _new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    name = host_config().get("loss")
    return object.__new__(cls) if name is None else _head(name, *args, **kwargs)


def _head(
    name: str,
    margin_loss: nn.Module,
    embedding_size: int,
    num_classes: int,
    sample_rate: float = 1.0,
    fp16: bool = False,
) -> nn.Module:
    arguments: dict[str, Any] = dict(
        sample_rate=sample_rate,
        interclass_filtering_threshold=margin_loss.interclass_filtering_threshold,
    )
    arguments.update(host_config().get(name, {}))
    centers = arguments.pop("centers", None)
    sharded = f"partial_fc_{name}"
    head_name = sharded if sharded in available_heads() else name
    try:
        head = build_head(head_name, num_classes, embedding_size, **arguments)
    except TypeError as error:
        raise ValueError(f"config.{name} holds what the head does not take: {error}") from None
    if centers is not None:
        if not isinstance(head, PartialFCSphereFace2):
            raise ValueError(f"config.{name} names centers, and only sphereface2 takes some")
        load_centers(head, centers)
    logging.info("config.loss = %r: %s(%s)", name, type(head).__name__, head.extra_repr())
    return head
