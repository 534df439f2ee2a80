"""Names for heads: what a config says, and what it builds.

Third parties add their own by an entry point in the group ``sf2_plugin.heads``::

    [project.entry-points."sf2_plugin.heads"]
    my_head = "my_package.heads:MyHead"

or, within a process, by `register_head`. A builder takes ``(num_classes, embedding_size, **kw)``
and returns a module whose ``forward(embeddings, labels)`` is a scalar loss. It may say by an
attribute ``takes`` which keyword arguments it takes; a host then passes on its own of these names
(``sample_rate``, ``interclass_filtering_threshold``), and refuses others by name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from torch import nn

from .head import SphereFace2
from .partial_fc import PartialFCSphereFace2

ENTRY_POINT_GROUP = "sf2_plugin.heads"

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class HeadEntry:
    """A head of the registry.

    Attributes:
        builder: takes ``(num_classes, embedding_size, **kw)``.
        takes: the names of its keyword arguments; None where it does not say.
    """

    builder: Callable[..., nn.Module]
    takes: frozenset[str] | None = None

    @classmethod
    def of(
        cls, builder: Callable[..., nn.Module], takes: Iterable[str] | None = None
    ) -> "HeadEntry":
        if takes is None:
            takes = getattr(builder, "takes", None)
        return cls(builder, None if takes is None else frozenset(takes))


_heads: dict[str, HeadEntry] = {}


def register_head(name: str, takes: Iterable[str] | None = None) -> Callable[[Builder], Builder]:
    """Decorator that registers a head under `name`.

    Args:
        takes: the names of its keyword arguments; None stands for the builder's attribute `takes`.

    Raises:
        ValueError: the name is taken by another builder. One of the same module and name, as a
            reloaded module brings, takes its place.
    """

    def register(builder: Builder) -> Builder:
        known = _heads.get(name)
        if known and _source(known.builder) != _source(builder):
            raise ValueError(f"a head named {name!r} is registered already: {known.builder!r}")
        _heads[name] = HeadEntry.of(builder, takes)
        return builder

    return register


def _source(builder: Any) -> Any:
    names = tuple(getattr(builder, name, None) for name in ("__module__", "__qualname__"))
    return builder if None in names or "<lambda>" in str(names[1]) else names


def available_heads() -> list[str]:
    """Names that `build_head` knows, those of installed third parties included."""
    return sorted({*_heads, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def head_entry(name: str) -> HeadEntry:
    """The registry's entry of the head called `name`.

    Raises:
        ValueError: no head of that name, or several packages that bring one.
        ImportError: the package that brings it is broken; says which.
    """
    if name not in _heads:
        _heads[name] = HeadEntry.of(_load(_only_point(name)))
    return _heads[name]


def _only_point(name: str) -> EntryPoint:
    found = entry_points(group=ENTRY_POINT_GROUP, name=name)
    points = {(point.value, _package(point)): point for point in found}
    if not points:
        known = ", ".join(map(repr, available_heads()))
        raise ValueError(f"no head is called {name!r}; there are {known}")
    if len(points) > 1:
        told = " and ".join(f"{package} ({value})" for value, package in sorted(points))
        raise ValueError(f"head {name!r} must come from one package, got {told}: uninstall one")
    (point,) = points.values()
    return point


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unnamed package"


def _load(point: EntryPoint) -> Callable[..., nn.Module]:
    try:
        builder = point.load()
    except Exception as error:  # Whatever another's module raises.
        raise ImportError(
            f"head {point.name!r} of {_package(point)} cannot be loaded from {point.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(builder):
        raise ImportError(
            f"head {point.name!r} of {_package(point)} must be a class or function, got "
            f"{point.value} = {builder!r}"
        )
    return builder


def build_head(name: str, num_classes: int, embedding_size: int, **kwargs: Any) -> nn.Module:
    """The head called `name`, built.

    Raises:
        ValueError, ImportError: as `head_entry`.
    """
    return head_entry(name).builder(num_classes, embedding_size, **kwargs)


register_head("sphereface2")(SphereFace2)
register_head("partial_fc_sphereface2")(PartialFCSphereFace2)
