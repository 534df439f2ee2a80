"""The head that `config.loss` names, where the host builds its PartialFC_V2."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sf2_plugin.distributed import rank_and_world_size
from sf2_plugin.registry import HeadEntry, available_heads, head_entry

from . import head_log
from .fusing import take_fusion
from .host import host_config
from .margin import schedule_margin
from .skipping import skip_not_finite
from .starting import take_centers

#: This project's own head, which the host gets sharded by either name.
NAMES = ("sphereface2", "partial_fc_sphereface2")

#: Items of ``config.NAME`` that are the adapter's own, not arguments of the head.
CENTERS = "centers"


def new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """What ``PartialFC_V2(...)`` makes: the head that ``config.loss`` names, if it names one.

    ``config.loss`` is a name of `sf2_plugin.registry`; its sharded form (`partial_fc_NAME`) is
    taken where there is one. The dict of that name in the config, as ``config.sphereface2``,
    refines it: its items are the head's arguments, ``centers``, see `starting`, and ``fuse_sgd``,
    see `fusing`. On several ranks a head must say that it is made for them, by an attribute
    ``sharded = True``: nothing in the host keeps the ranks' heads equal.
    """
    name = host_config().get("loss")
    return object.__new__(cls) if name is None else build_head(name, *args, **kwargs)


def build_head(
    name: str,
    margin_loss: Any,
    embedding_size: int,
    num_classes: int,
    sample_rate: float = 1.0,
    fp16: bool = False,
) -> nn.Module:
    """The head called `name`, from PartialFC_V2's arguments and the config.

    Raises:
        ValueError: an item of the config that the head does not take, or a head that is not made
            for several ranks.
    """
    entry = sharded_form(name)
    items = dict(host_config().get(name) or {})
    centers = items.pop(CENTERS, None)
    fuse = take_fusion(name, items)
    check_items(name, items, entry)
    hosts = hosts_items(sample_rate, margin_loss.interclass_filtering_threshold)
    taken = {key: value for key, value in hosts.items() if key in (entry.takes or ())}
    head = entry.builder(num_classes, embedding_size, **{**taken, **items})
    check_ranks(name, head)
    if centers is not None:
        take_centers(name, head, centers)
    fuse(head)
    if margins := host_config().get("margin_schedule"):
        schedule_margin(head, margins)
    head.register_forward_pre_hook(_flat_labels)
    head_log.watch(head)
    if host_config().get("skip_not_finite"):
        skip_not_finite(head)
    logging.info("config.loss = %r: %s(%s)", name, type(head).__name__, head.extra_repr())
    return head


def sharded_form(name: str) -> HeadEntry:
    """The registry's entry of `partial_fc_NAME` where there is one, and of `name` otherwise."""
    sharded = f"partial_fc_{name}"
    return head_entry(sharded if sharded in available_heads() else name)


def hosts_items(sample_rate: float, threshold: float) -> dict[str, Any]:
    """The host's own items of the config, for heads that take them."""
    return dict(
        sample_rate=sample_rate,
        # As PartialFC_V2 counts, and by docs/accuracy.md the more accurate.
        negative_weighting="none",
        # The host takes any number; one that is not positive filters nothing, nor does one above 1.
        interclass_filtering_threshold=threshold if 0 < threshold <= 1 else 0.0,
    )


def check_items(name: str, items: Mapping[str, Any], entry: HeadEntry) -> None:
    """Refuse items of ``config.NAME`` that this head, or a head in this host, cannot have."""
    unknown = [key for key in items if entry.takes is not None and key not in entry.takes]
    if unknown:
        raise ValueError(
            f"config.{name} must hold arguments of the head alone, got {', '.join(unknown)}; it "
            f"takes {', '.join(sorted(entry.takes or ()))}"
        )
    if items.get("sparse_gradient"):
        raise ValueError(
            f"config.{name} asks for sparse_gradient, and neither of the host's optimizers takes "
            "one: SGD with momentum and weight decay, and AdamW"
        )


def check_ranks(name: str, head: nn.Module) -> None:
    """Refuse, on several ranks, a head that does not say that it is made for them."""
    _, world_size = rank_and_world_size()
    if world_size > 1 and not getattr(head, "sharded", False):
        raise ValueError(
            f"config.loss = {name!r} is not sharded, and each of the {world_size} ranks would "
            "train a head of its own: run it on one, or give it an attribute sharded = True"
        )


def _flat_labels(head: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Labels (B, 1) are (B,) to the host's head."""
    embeddings, labels = inputs
    return embeddings, labels.squeeze(1) if labels.ndim == 2 else labels
