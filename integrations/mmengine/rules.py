"""Which figures of verification are better when they are less, for MMEngine's hooks.

`CheckpointHook(save_best=...)` and `EarlyStoppingHook` guess it from parts of a figure's name where
the config gives no `rule`: they know no EER, and take that of a pair set called "topics" for one
that should grow, because of the "top" in it.
"""

from collections.abc import Callable
from typing import Any

from .method_patches import patch_methods

#: What the figures of the weights before averaging are called by, after MMPretrain's own EMAHook.
ORIGIN = "_origin"

RULES = {
    "accuracy": "greater",
    "accuracy_std": "less",
    "grid_accuracy": "greater",
    "grid_accuracy_std": "less",
    "grid_val": "greater",
    "auc": "greater",
    "eer": "less",
}


def rule_of(key: str) -> str | None:
    """ "less" or "greater" for ``NAME/figure``, None for what is no figure of verification."""
    name, _, figure = key.rpartition("/")
    figure = figure.removesuffix(ORIGIN)
    if not name:
        return None
    return "greater" if figure.startswith("tar_at_far_") else RULES.get(figure)


def _init_rules(
    original: Callable[..., None], hook: Any, rules: list[str | None], keys: list[str]
) -> None:
    if len(rules) == 1:
        rules = rules * len(keys)
    known = [rule or rule_of(key) for rule, key in zip(rules, keys, strict=False)]
    original(hook, known, keys)


def _init_rule(original: Callable[..., str], hook: Any, monitor: str) -> str:
    return rule_of(monitor) or original(hook, monitor)


def patch_rules() -> None:
    patch_methods("mmengine.hooks.CheckpointHook", {"_init_rule": _init_rules})
    patch_methods("mmengine.hooks.EarlyStoppingHook", {"_init_rule": _init_rule})
