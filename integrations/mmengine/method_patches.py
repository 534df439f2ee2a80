"""Methods of a framework's classes with something done around them, from a table."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from sf2_plugin.patching import replace


def patch_methods(owner: str, patches: Mapping[str, Callable[..., Any]]) -> None:
    """Call each of `patches` instead of the class `owner`'s method, which it gets first."""
    for name, around in patches.items():
        replace(f"{owner}.{name}", functools.partial(_around, around), key="sf2_plugin")


def _around(around: Callable[..., Any], original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    return patched
