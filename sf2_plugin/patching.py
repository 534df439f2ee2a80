"""Names of other people's modules and classes exchanged, in one way for every host.

An exchange belongs to a key. Made again, as when an adapter is reloaded, it takes the place of the
one of its key and adds nothing to it; exchanges of several keys build on each other.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What a name's value is made of: called with the value so far.
Make = Callable[[Any], Any]

#: Under this name an owner keeps, by exchanged name, the original and what was made of it.
_RECORD = "_sf2_plugin_exchanged"


def find(target: str) -> tuple[Any, str]:
    """The module or class that owns a dotted name, and the name in it.

    Raises:
        ImportError: no such module.
        AttributeError: the module has no such class.
    """
    path, _, name = target.rpartition(".")
    module = path
    rest: list[str] = []
    while True:
        try:
            owner = importlib.import_module(module)
            break
        except ModuleNotFoundError as error:
            if error.name != module or "." not in module:
                raise
            module, _, part = module.rpartition(".")
            rest.insert(0, part)
    for part in rest:
        owner = getattr(owner, part)
    return owner, name


def replace(target: str, make: Make, key: str) -> tuple[Any, Any]:
    """Exchange what a dotted name stands for, for good.

    Args:
        target: "module.name" or "module.Class.name".
        make: the new value, from the old one.
        key: whose exchange this is.

    Returns:
        The value so far and the new one.
    """
    owner, name = find(target)
    record = vars(owner).get(_RECORD)
    if record is None:
        record = {}
        setattr(owner, _RECORD, record)
    old = getattr(owner, name)
    original, makes = record.setdefault(name, (old, {}))
    makes[key] = make
    value = original
    for each in makes.values():
        value = each(value)
    setattr(owner, name, value)
    return old, value


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Exchange a name of a module, class or object while the block runs."""
    own = vars(owner)
    there, old = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if there:
            setattr(owner, name, old)
        else:
            delattr(owner, name)
