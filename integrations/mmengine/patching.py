"""Methods of a framework's classes with something done around them, from a table."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

#: Under this name a patched method keeps the one that it stands for.
ORIGINAL = "_sf2_plugin_original"


def patch_methods(owner: type, patches: Mapping[str, Callable[..., Any]]) -> None:
    """Call each of `patches` instead of `owner`'s method of that name, which it gets first.

    Patching again, as a second import does, replaces what is there and adds nothing to it.
    """
    for name, around in patches.items():
        patched = getattr(owner, name)
        setattr(owner, name, _around(getattr(patched, ORIGINAL, patched), around))


def _around(original: Any, around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(patched, ORIGINAL, original)
    return patched
