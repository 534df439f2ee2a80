"""Names for heads: what a config says, and what it builds.

Third parties add their own by an entry point in the group ``sf2_plugin.heads``::

    [project.entry-points."sf2_plugin.heads"]
    my_head = "my_package.heads:MyHead"

or, within a process, by `register_head`. A builder takes ``(num_classes, embedding_size, **kw)``
and returns a module whose ``forward(embeddings, labels)`` is a scalar loss.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from .head import SphereFace2
from .partial_fc import PartialFCSphereFace2

ENTRY_POINT_GROUP = "sf2_plugin.heads"

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_heads: dict[str, Callable[..., nn.Module]] = {}


def register_head(name: str) -> Callable[[Builder], Builder]:
    """Decorator that registers a head under `name`.

    Raises:
        ValueError: the name is taken by another builder.
    """

    def register(builder: Builder) -> Builder:
        if _heads.setdefault(name, builder) is not builder:
            raise ValueError(f"a head named {name!r} is registered already: {_heads[name]!r}")
        return builder

    return register


def available_heads() -> list[str]:
    """Names that `build_head` knows, those of installed third parties included."""
    return sorted({*_heads, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def head_builder(name: str) -> Callable[..., nn.Module]:
    """What builds the head called `name`.

    Raises:
        ValueError: no head of that name.
    """
    builder = _heads.get(name)
    if builder is None:
        points = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not points:
            known = ", ".join(map(repr, available_heads()))
            raise ValueError(f"no head is called {name!r}; there are {known}")
        builder = register_head(name)(next(iter(points)).load())
    return builder


def build_head(name: str, num_classes: int, embedding_size: int, **kwargs: Any) -> nn.Module:
    """The head called `name`, built.

    Raises:
        ValueError: no head of that name.
    """
    return head_builder(name)(num_classes, embedding_size, **kwargs)


register_head("sphereface2")(SphereFace2)
register_head("partial_fc_sphereface2")(PartialFCSphereFace2)
