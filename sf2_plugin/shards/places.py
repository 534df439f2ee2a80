"""Values in nested dicts and lists, by the keys and indices that lead to them."""

import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]

#: Deeper than any checkpoint; a file can nest without end.
MAX_DEPTH = 100
#: More than any checkpoint holds outside of tensors; lists that share lists hold 2^depth values.
MAX_DIFFERENCES = 1_000_000


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


def check_depth(tree: Any) -> None:
    """Refuse nested dicts, lists and tuples that nest too deep, or themselves.

    Raises:
        ValueError: more than `MAX_DEPTH` deep.
    """
    deepest: dict[int, int] = {}
    waiting = [(tree, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, (dict, list, tuple)) and deepest.get(id(value), -1) < depth:
            deepest[id(value)] = depth
            inner = value.values() if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in inner]


class Comparison:
    """What differs between trees that pickle made: dicts, lists, tuples, tensors, values.

    A pair of objects is compared once, however often the trees lead to it. The trees must outlive
    the comparison and not nest without end (`check_depth`).
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}

    def equal(self, a: Any, b: Any) -> bool:
        pair = (id(a), id(b))
        if pair not in self._known:
            self._known[pair] = self._equal(a, b)
        return self._known[pair]

    def _equal(self, a: Any, b: Any) -> bool:
        if type(a) is not type(b):
            return False
        if isinstance(a, Tensor):
            return _equal_tensors(a, b)
        if isinstance(a, dict):
            return _same_keys(a, b) and all(self.equal(a[key], b[key]) for key in a)
        if isinstance(a, (list, tuple)):
            pairs = zip(a, b, strict=False)
            return len(a) == len(b) and all(self.equal(x, y) for x, y in pairs)
        return bool(a == b)

    def differences(self, tree: Any, other: Any, but: Collection[Place] = ()) -> dict[Place, Any]:
        """The places where `tree` is not as `other`, and what it holds there; some left out.

        Raises:
            ValueError: there are more than `MAX_DIFFERENCES`.
        """
        found: dict[Place, Any] = {}
        for place, value in self._differing(tree, other, (), but):
            found[place] = value
            if len(found) > MAX_DIFFERENCES:
                raise ValueError(f"differs in more than {MAX_DIFFERENCES} values")
        return found

    def _differing(
        self, tree: Any, other: Any, place: Place, but: Collection[Place]
    ) -> Iterator[tuple[Place, Any]]:
        if place in but or self.equal(tree, other):
            return
        if isinstance(tree, dict) and _same_keys(tree, other):
            for key, value in tree.items():
                yield from self._differing(value, other[key], (*place, key), but)
        elif isinstance(tree, list) and isinstance(other, list) and len(tree) == len(other):
            for index, value in enumerate(tree):
                yield from self._differing(value, other[index], (*place, index), but)
        else:
            yield place, tree


def _same_keys(a: Any, b: Any) -> bool:
    return isinstance(b, dict) and a.keys() == b.keys()


def _equal_tensors(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.layout, a.shape, a.is_quantized) != (b.dtype, b.layout, b.shape, b.is_quantized):
        return False
    return a.layout is torch.strided and torch.equal(a, b)
