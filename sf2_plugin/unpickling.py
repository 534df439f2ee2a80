"""What a checkpoint may hold besides tensors and plain values, read without running its code.

From torch 2.6 on, `torch.load` knows names that may be added to its own. Before, its restricted
unpickler cannot build them, and runs TorchScript and tar files in spite of its restrictions; one
of ours stands in its place. What is here for that ends with torch 2.6.
"""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from packaging.version import Version

_OWN_SUFFICES = Version("2.6") <= Version(Version(torch.__version__).base_version)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as the pickles of torch.save have them; by the codec that they have them in alone."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


_allowed: dict[str, Any] = {"_codecs.encode": _encode}


def add_safe_globals(named: Sequence[tuple[Any, str]]) -> None:
    """Let checkpoints hold what these names stand for.

    Args:
        named: pairs of a class or function, and the name, with its module, that files have for it.
    """
    if _OWN_SUFFICES:
        torch.serialization.add_safe_globals([*named])
    _allowed.update({name: value for value, name in named})


#: The standard unpickler in Python, whose steps can be checked one by one.
_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):
    dispatch: ClassVar[dict[int, Any]] = dict(_InPython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        known = {**torch._weights_only_unpickler._get_allowed_globals(), **_allowed}
        # As protocol 2, which torch.save writes, calls what has another name by now.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full not in known:
            # The words of torch, which its own refusal has too.
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full} is not allowed")
        return known[full]

    def load_reduce(self) -> None:
        _check(self.stack[-2], "call")
        super().load_reduce()

    def load_newobj(self) -> None:
        _check(self.stack[-2], "make")
        super().load_newobj()

    def load_build(self) -> None:
        _check(type(self.stack[-2]), "fill")
        super().load_build()

    def refuse(self) -> None:
        raise pickle.UnpicklingError("an operation that torch.save does not write")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_code[0]] = refuse


def _check(value: Any, what: str) -> None:
    known = (*torch._weights_only_unpickler._get_allowed_globals().values(), *_allowed.values())
    # A dtype of numpy's has a class of its own below the one that is named.
    if not any(
        value is one or (what == "fill" and one in getattr(value, "__mro__", ())) for one in known
    ):
        raise pickle.UnpicklingError(f"it asks to {what} {value!r}")


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


#: Arguments of `torch.load` by which it runs nothing that a file says.
RESTRICTED: dict[str, Any] = (
    dict(weights_only=True)
    if _OWN_SUFFICES
    else dict(
        weights_only=False,
        pickle_module=SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__=__name__),
    )
)
