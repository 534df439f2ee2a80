"""InsightFace's `.bin` pair sets, read without running the program that a pickle is.

A `.bin` file (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, ...) is a pickle of
`(images, issame)`: two encoded images a pair, one flag a pair. Opcodes that such files are not made
of are refused, and of all globals only those that make byte strings and NumPy arrays are answered,
by stand-ins that keep bytes and numbers; every other is refused by name.

Files in circulation were written by Python 2 (images as `str`), by Python 3 (images as `bytes`,
at protocol 2 through `_codecs.encode`), and from OpenCV's output (images as uint8 arrays); flags
are booleans, integers or floats, in a list or an array. All of them are read.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..atomic import atomic_file
from ..reading import reading


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
    with reading(path, "a pair file (images, issame)"):
        content = Path(path).read_bytes()
        _check_opcodes(content)
        return _pairs(_Unpickler(content).load())


def write_pair_bin(path: str | Path, images: Sequence[bytes | Path], issame: ArrayLike) -> None:
    """Write encoded images (2N, those of pair i at 2i and 2i + 1) and `issame` (N,) as a `.bin`.

    An image may be the path of its file, as `read_pair_list` gives them; what the file holds is
    written as it is.

    The file is what InsightFace's own evaluation reads, and appears whole or not at all.
    """
    flags = np.asarray(issame)
    if flags.ndim != 1 or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"issame has shape {flags.shape}; one flag a pair, 0 or 1, is wanted")
    content: dict[Path, bytes] = {}  # Pair sets repeat images.
    for image in images:
        if isinstance(image, Path) and image not in content:
            with reading(image):
                content[image] = image.read_bytes()
    encoded = [content[each] if isinstance(each, Path) else each for each in images]
    pairs = _pairs((encoded, [bool(flag) for flag in flags]))
    with atomic_file(path) as file:
        pickle.dump((pairs[0], pairs[1].tolist()), file, protocol=4)


_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|BININT[12]?|LONG1|BINFLOAT"
    "|(SHORT_)?BIN(UNICODE|STRING|BYTES)|BIN(UNICODE|BYTES)8|BYTEARRAY8"
    "|EMPTY_LIST|APPENDS?|(EMPTY_)?TUPLE|TUPLE[123]"
    "|(LONG_)?BIN(PUT|GET)|MEMOIZE|(STACK_)?GLOBAL|REDUCE|BUILD"
)


def _check_opcodes(content: bytes) -> None:
    """Refuse what would cost the unpickler time and memory out of all proportion.

    Its memo has room for the highest number ever named, so that ten bytes can ask for 64 GiB, and
    keys of one hash make a dictionary's time quadratic.
    """
    for opcode, argument, position in pickletools.genops(content):
        if not _OPCODES.fullmatch(opcode.name):
            raise ValueError(f"opcode {opcode.name} at byte {position} is refused")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content):
            raise ValueError(f"it numbers a value {argument}, and has {len(content)} bytes")


class _Unpickler(pickle.Unpickler):
    """Calls nothing but what stands below."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")  # Python 2's str
        self.may_copy = len(content)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        name = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)  # the same in NumPy 2
        makers: dict[str, Callable[..., Any]] = {
            "_codecs.encode": self._encode,
            "numpy.dtype": _Dtype,
            "numpy.ndarray": _Array,
            "numpy.core.multiarray._reconstruct": lambda *_: _Array.__new__(_Array),
            "numpy.core.multiarray.scalar": lambda dtype, content: _Array(dtype, content).number(),
            "numpy.core.numeric._frombuffer": self._frombuffer,
        }
        if name not in makers:
            raise ValueError(f"it asks for {name[:200]}, which is refused: it may hold data alone")
        return makers[name]

    def _encode(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes at protocol 2."""
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"it encodes text as {str(encoding)[:80]!r}")
        self._copy(text)
        return text.encode("latin-1")

    def _frombuffer(self, content: bytes | bytearray, dtype: _Dtype, *_: object) -> _Array:
        if isinstance(content, bytearray):
            self._copy(content)
            content = bytes(content)
        return _Array(dtype, content)

    def _copy(self, content: Sequence) -> None:
        self.may_copy -= len(content)
        if self.may_copy < 0:  # one text or buffer over and over
            raise ValueError("it unfolds to more bytes than it has")


class _Dtype:
    """numpy.dtype of numbers, of whose state the byte order alone is kept."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        name = code.decode("latin-1") if isinstance(code, bytes) else code
        if not re.fullmatch("b1|[iu][1248]|f[248]", name):
            raise ValueError(f"it holds an array of {name[:80]!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        order: Any = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """numpy.ndarray: its bytes, of which there is no copy where images share one."""

    dtype = np.dtype("u1")
    content = b""

    def __init__(self, dtype: _Dtype, content: bytes) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise ValueError("it makes an array otherwise than of bytes")
        self.dtype, self.content = dtype.dtype, content

    def __setstate__(self, state: tuple) -> None:
        _, _, dtype, _, content = state
        self.__init__(dtype, content)  # type: ignore[misc]

    def numbers(self) -> list[Any]:
        return np.frombuffer(self.content, self.dtype).tolist()

    def number(self) -> Any:
        if len(self.content) != self.dtype.itemsize:
            raise ValueError("it makes a number otherwise than of its bytes")
        return self.numbers()[0]


def _pairs(value: object) -> tuple[list[bytes], NDArray[np.bool_]]:
    """(images, issame), checked."""
    match value:
        case (images, issame) if isinstance(images, (list, tuple)):
            pass
        case _:
            raise ValueError("a tuple of two lists is wanted")
    if isinstance(issame, _Array):
        issame = issame.numbers()
    if not isinstance(issame, (list, tuple)):
        raise ValueError(f"issame is a {type(issame).__name__}; a list of flags is wanted")
    encoded = [_image(i, image) for i, image in enumerate(images)]
    for i, flag in enumerate(issame):
        if not isinstance(flag, (int, float)) or flag not in (0, 1):
            raise ValueError(f"flag {i} of issame is a {type(flag).__name__}; 0 or 1 is wanted")
    if not issame or len(encoded) != 2 * len(issame):
        raise ValueError(
            f"{len(encoded)} images for {len(issame)} flags; two images a flag are wanted"
        )
    return encoded, np.array(issame, dtype=bool)


def _image(i: int, image: object) -> bytes:
    if isinstance(image, _Array) and image.dtype == np.uint8:
        image = image.content
    if not isinstance(image, bytes) or not image:
        raise ValueError(f"image {i} is not a byte string with something in it")
    return image
