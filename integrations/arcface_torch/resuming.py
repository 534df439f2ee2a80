"""What a resumed run needs besides its files: their model and optimizer, its own schedule."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sf2_plugin.distributed import classes_of_rank, rank_and_world_size
from sf2_plugin.shards import HEAD, OPTIMIZER

from . import host

#: A name in torch's groups of parameters -> the host's name of the optimizer that has it.
OPTIMIZERS = {"momentum": "sgd", "betas": "adamw"}


def check_config(checkpoint: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that this run's config cannot go on from.

    Raises:
        ValueError: names the entry of the config.
    """
    config = host.host_config()
    for entry, saved in _other_entries(checkpoint, config):
        raise ValueError(
            f"{path} was saved with {saved}, and config.{entry} is {config.get(entry)!r}: "
            f"resume with the {entry} it was saved with, or start afresh in another config.output"
        )
    epoch = checkpoint.get("epoch")
    if isinstance(epoch, int) and epoch >= config.get("num_epoch", epoch + 1):
        logging.warning(
            "%s is of the end of epoch %d and config.num_epoch is %d: nothing is left to train",
            path,
            epoch,
            config["num_epoch"],
        )


def _other_entries(checkpoint: dict[str, Any], config: Any) -> Iterator[tuple[str, str]]:
    """Entries of the config that do not fit a checkpoint, and what it was saved with."""
    rank, world_size = rank_and_world_size()
    weight = checkpoint.get(HEAD, {}).get("weight")
    if config.get("loss") is None and "bias" in checkpoint.get(HEAD, {}):
        yield "loss", "a head that has a bias, as sphereface2 has"
    if weight is not None and weight.ndim == 2:
        if weight.shape[1] != config.get("embedding_size", weight.shape[1]):
            yield "embedding_size", f"embeddings of size {weight.shape[1]}"
        held = len(classes_of_rank(config.get("num_classes", 0), rank, world_size))
        if "num_classes" in config and len(weight) != held:
            yield "num_classes", f"{len(weight)} classes on rank {rank} of {world_size}"
    groups = checkpoint.get(OPTIMIZER, {}).get("param_groups") or [{}]
    optimizer = next((name for key, name in OPTIMIZERS.items() if key in groups[0]), None)
    if optimizer not in (None, config.get("optimizer", optimizer)):
        yield "optimizer", f"the optimizer {optimizer!r}"
    if host.backbone is not None:
        saved = _shapes(checkpoint.get("state_dict_backbone", {}))
        built = _shapes(host.backbone.state_dict())
        differing = [name for name in (*built, *saved) if saved.get(name) != built.get(name)]
        if differing:
            yield "network", f"another network, by its {differing[0]!r}"


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def keep_own_end(load_state_dict: Callable[..., None]) -> Callable[..., None]:
    """Around PolynomialLRWarmup.load_state_dict, which takes over the end of the earlier run.

    A run that was finished would go on with a learning rate of 0, whatever ``config.num_epoch``.
    """

    def load(scheduler: Any, state: dict[str, Any]) -> None:
        ends = scheduler.warmup_iters, scheduler.total_iters
        load_state_dict(scheduler, state)
        if ends == (scheduler.warmup_iters, scheduler.total_iters):
            return
        logging.info(
            "the checkpoint's schedule ended at step %s, and this run's ends at step %s: the "
            "learning rate goes on along this run's",
            scheduler.total_iters,
            ends[1],
        )
        scheduler.warmup_iters, scheduler.total_iters = ends
        step = scheduler.last_epoch
        rates = [
            base * polynomial_with_warmup(step, *ends, scheduler.power)
            for base in scheduler.base_lrs
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates

    return load


def polynomial_with_warmup(step: int, warmup: int, total: int, power: float) -> float:
    """The host's learning rate after `step` steps, as a part of its highest."""
    if step <= warmup:
        return step / warmup if warmup else 1.0
    return (1 - (min(step, total) - warmup) / (total - warmup)) ** power
