"""InsightFace's `.bin` pair sets, read without unpickling.

A `.bin` file (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, ...) is a pickle of
`(images, issame)`: two encoded images a pair, one flag a pair. A pickle is a program, so none is
run here: the few opcodes that such files are made of are interpreted as data, and every other
opcode, and every global that is not a byte string's or a NumPy array's, is refused by name.

Files in circulation were written by Python 2 (images as `str`), by Python 3 (images as `bytes`,
at protocol 2 through `_codecs.encode`), and from OpenCV's output (images as uint8 arrays, flags as
`numpy.bool_`); all of them are read.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..atomic import atomic_file


def read_pair_bin(path: str | Path) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Read a pair set in InsightFace's `.bin` format; nothing in the file is executed.

    Returns:
        The encoded images, 2N of them, those of pair i at 2i and 2i + 1; and `issame` (N,), bool.

    Raises:
        ValueError: the file is cut short, is no such pickle, asks for anything but byte strings,
            numbers and their NumPy forms (the refused name is given), or does not hold two images
            for each flag.
        FileNotFoundError: there is no such file.
    """
    content = Path(path).read_bytes()
    try:
        return _pairs(_parse(content))
    except IndexError:
        reason = "its pickle takes a value that it has not put there"
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{path} is not a readable pair file (images, issame): {reason}")


def write_pair_bin(path: str | Path, images: Sequence[bytes], issame: ArrayLike) -> None:
    """Write encoded images (2N, those of pair i at 2i and 2i + 1) and `issame` (N,) as a `.bin`.

    The file is what InsightFace's own evaluation reads, and appears whole or not at all.
    """
    flags = np.asarray(issame)
    if flags.ndim != 1 or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"issame has shape {flags.shape}; one flag a pair, 0 or 1, is wanted")
    pairs = _pairs((list(images), [bool(flag) for flag in flags]))
    with atomic_file(path) as file:
        pickle.dump((pairs[0], pairs[1].tolist()), file, protocol=4)


class _Global(NamedTuple):
    """A function or class that the pickle names; it stays a name."""

    name: str


class _Dtype(NamedTuple):
    """numpy.dtype, of which the code alone (u1, b1) is kept."""

    code: str


@dataclass
class _Array:
    """numpy.ndarray, of which the bytes alone are kept."""

    code: str = ""
    content: bytes = b""


_GLOBALS = frozenset(
    {
        "_codecs.encode",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.core.numeric._frombuffer",
    }
)


def _parse(content: bytes) -> object:
    """The value that a pickle made of data alone stands for."""
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}
    encoded = 0
    argument: Any

    def since_mark() -> list:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    for opcode, argument, position in pickletools.genops(content):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE" | "NONE":
                stack.append({"NEWTRUE": True, "NEWFALSE": False, "NONE": None}[opcode.name])
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                stack.append(bytes(argument))
            case "BINSTRING" | "SHORT_BINSTRING":  # Python 2's str
                stack.append(argument.encode("latin-1"))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                value = stack.pop()
                _list(stack[-1]).append(value)
            case "APPENDS":
                values = since_mark()
                _list(stack[-1]).extend(values)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(values)))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in memo:
                    raise IndexError
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(module, str) or not isinstance(name, str):
                    raise ValueError("it names a global by something other than text")
                stack.append(_global(f"{module}.{name}"))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
                if isinstance(stack[-1], bytes):
                    encoded += len(stack[-1])
                    if encoded > len(content):  # one text encoded over and over
                        raise ValueError("it unfolds to more bytes than it has")
            case "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            case _:
                raise ValueError(f"opcode {opcode.name} at byte {position} is refused")
    raise ValueError("it has no end")


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(f"it appends to a {type(value).__name__}")
    return value


def _global(name: str) -> _Global:
    name = name.replace("numpy._core.", "numpy.core.", 1)  # NumPy 2's name of the same module
    if name not in _GLOBALS:
        raise ValueError(f"it asks for {name[:200]}, which is refused: pair files hold data alone")
    return _Global(name)


def _call(function: object, arguments: object) -> object:
    """What calling a permitted global would have made."""
    match function, arguments:
        case _Global("_codecs.encode"), (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
        case _Global("numpy.dtype"), (("u1" | b"u1" | "b1" | b"b1") as code, *_):
            return _Dtype(code if isinstance(code, str) else code.decode())
        case _Global("numpy.core.multiarray._reconstruct"), (_Global("numpy.ndarray"), *_):
            return _Array()
        case _Global("numpy.core.numeric._frombuffer"), (bytes(content), _Dtype(code), *_):
            return _Array(code, content)
        case _Global("numpy.core.multiarray.scalar"), (_Dtype("b1"), (b"\0" | b"\1") as flag):
            return flag == b"\1"
    name = function.name if isinstance(function, _Global) else type(function).__name__
    raise ValueError(f"it calls {name} otherwise than a byte string or an array is made")


def _set_state(target: object, state: object) -> None:
    match target, state:
        case _Dtype(), tuple():
            pass
        case _Array(), (int(), tuple(), _Dtype(code), bool(), bytes(content)):
            target.code, target.content = code, content
        case _:
            raise ValueError(f"it sets the state of a {type(target).__name__}")


def _pairs(value: object) -> tuple[list[bytes], NDArray[np.bool_]]:
    """(images, issame), checked."""
    match value:
        case (images, issame) if isinstance(images, (list, tuple)):
            pass
        case _:
            raise ValueError("a tuple of two lists is wanted")
    if isinstance(issame, _Array) and issame.code == "b1":
        issame = [bool(flag) for flag in issame.content]
    if not isinstance(issame, (list, tuple)):
        raise ValueError(f"issame is a {type(issame).__name__}; a list of flags is wanted")
    encoded = [_image(i, image) for i, image in enumerate(images)]
    for i, flag in enumerate(issame):
        if not isinstance(flag, int) or flag not in (0, 1):
            raise ValueError(f"flag {i} of issame is a {type(flag).__name__}; 0 or 1 is wanted")
    if not issame or len(encoded) != 2 * len(issame):
        raise ValueError(
            f"{len(encoded)} images for {len(issame)} flags; two images a flag are wanted"
        )
    return encoded, np.array(issame, dtype=bool)


def _image(i: int, image: object) -> bytes:
    if isinstance(image, _Array) and image.code == "u1":
        image = image.content
    if not isinstance(image, bytes) or not image:
        raise ValueError(f"image {i} is not a byte string with something in it")
    return image
