"""The head that `config.loss` names, where the host builds its PartialFC_V2."""

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from sf2_plugin import PartialFCSphereFace2, available_heads, build_head
from sf2_plugin.shards import load_centers

from .host import host_config


def partial_fc(original: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What stands for PartialFC_V2, `original`.

    ``config.loss`` names a head of `sf2_plugin.registry`, its sharded form (`partial_fc_NAME`)
    where there is one. The dict of that name in the config, as ``config.sphereface2``, refines it:
    its items are the head's arguments, and ``centers`` a folder to take class centers from (see
    ``sf2 shards import``). Without ``config.loss`` the host gets its own.
    """

    def build(
        margin_loss: nn.Module,
        embedding_size: int,
        num_classes: int,
        sample_rate: float = 1.0,
        fp16: bool = False,
    ) -> nn.Module:
        config = host_config()
        name = config.get("loss")
        if name is None:
            return original(margin_loss, embedding_size, num_classes, sample_rate, fp16)
        arguments: dict[str, Any] = dict(
            sample_rate=sample_rate,
            interclass_filtering_threshold=margin_loss.interclass_filtering_threshold,
        )
        arguments.update(config.get(name, {}))
        centers = arguments.pop("centers", None)
        sharded = f"partial_fc_{name}"
        head_name = sharded if sharded in available_heads() else name
        try:
            head = build_head(head_name, num_classes, embedding_size, **arguments)
        except TypeError as error:
            raise ValueError(f"config.{name} holds what the head does not take: {error}") from None
        if centers is not None:
            assert isinstance(head, PartialFCSphereFace2), "centers are for sphereface2"
            load_centers(head, centers)
        logging.info("config.loss = %r: %s(%s)", name, type(head).__name__, head.extra_repr())
        return head

    return build
