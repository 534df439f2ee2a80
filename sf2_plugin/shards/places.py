"""Values in nested dicts and lists, by the keys and indices that lead to them."""

import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]


def at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def replaced(tree: Any, changes: dict[Place, Any]) -> Any:
    """`tree` with other values at some places; what lies on the way to them is copied.

    Raises:
        KeyError, IndexError, TypeError: `tree` has no such place.
    """
    tree = copy.copy(tree)
    for (key, *rest), value in changes.items():
        tree[key] = replaced(tree[key], {tuple(rest): value}) if rest else value
    return tree


def equal(a: Any, b: Any) -> bool:
    """Whether two trees hold the same: dicts, lists, tuples, tensors, values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def differences(
    tree: Any, other: Any, but: Collection[Place] = (), place: Place = ()
) -> Iterator[tuple[Place, Any]]:
    """The places where `tree` is not as `other`, except some, and what it holds there."""
    if place in but:
        return
    if isinstance(tree, dict) and isinstance(other, dict) and tree.keys() == other.keys():
        for key, value in tree.items():
            yield from differences(value, other[key], but, (*place, key))
    elif isinstance(tree, list) and isinstance(other, list) and len(tree) == len(other):
        for index, value in enumerate(tree):
            yield from differences(value, other[index], but, (*place, index))
    elif not equal(tree, other):
        yield place, tree
