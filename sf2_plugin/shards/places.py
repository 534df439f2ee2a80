"""Values in nested dicts and lists, by the keys and indices that lead to them."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]


def at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def leaves(tree: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value in nested dicts and lists, and where it is."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*place, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*place, index))
    else:
        yield place, tree


def replaced(tree: Any, changes: dict[Place, Any]) -> Any:
    """`tree` with other values at some places; what lies on the way to them is copied."""
    tree = copy.copy(tree)
    for (key, *rest), value in changes.items():
        tree[key] = replaced(tree[key], {tuple(rest): value}) if rest else value
    return tree


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b
