"""Building a network from an untrusted config: nothing is read, fetched or imported for it, and it
grows no larger than its weights say."""

import math
import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

import mmengine.registry.registry
from mmengine.runner import CheckpointLoader
from torch import Tensor
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from sf2_plugin.patching import replaced

#: Modules a network may have: layers without weights are a few for each tensor.
MODULES, MODULES_A_TENSOR = 1000, 20
#: Elements a tensor may have: tables of positions may be larger than any weight.
ELEMENTS, TIMES_ALL_WEIGHTS = 10_000_000, 4
#: Seconds that building may take.
SECONDS = 120
#: Whole numbers in a network's config are sizes of its weights, of images, or smaller.
LARGEST_SIZE = 2048


@contextmanager
def isolated(weights: Mapping[str, Any]) -> Iterator[None]:
    """While it lasts, what is built reads no file and grows to no more than fits `weights`.

    Raises:
        ValueError: it tries to.
    """

    def refuse_name(name: str) -> None:
        raise ValueError(f"{name!r} is not registered")  # MMEngine puts its own words to it.

    def refuse_file(filename: str, *args: Any, **kwargs: Any) -> None:
        raise ValueError(f"it asks for another checkpoint, {filename!r}, which is refused")

    with ExitStack() as stack:
        registry = mmengine.registry.registry
        stack.enter_context(replaced(registry, "get_object_from_string", refuse_name))
        stack.enter_context(replaced(CheckpointLoader, "load_checkpoint", refuse_file))
        stack.enter_context(_alone())
        stack.enter_context(_Bounded(weights))
        yield


def check_sizes(part: Any, largest: int) -> None:
    """Refuse numbers in a config that no layer of such a network has.

    Raises:
        ValueError: a whole number above `largest`.
    """
    if isinstance(part, int) and not isinstance(part, bool) and part > largest:
        raise ValueError(f"{part} is more than any size of its weights, or of a face's image")
    if isinstance(part, (dict, list, tuple)):
        for value in part.values() if isinstance(part, dict) else part:
            check_sizes(value, largest)


def largest_size(weights: Mapping[str, Any]) -> int:
    tensors = (value for value in weights.values() if isinstance(value, Tensor))
    return max([LARGEST_SIZE, *(size for tensor in tensors for size in tensor.shape)])


class _Bounded(TorchDispatchMode):
    """Counts what is built, and looks at the size of each tensor before there is memory for it."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__()
        tensors = [value for value in weights.values() if isinstance(value, Tensor)]
        self.modules = MODULES + MODULES_A_TENSOR * len(tensors)
        self.elements = ELEMENTS + TIMES_ALL_WEIGHTS * sum(tensor.numel() for tensor in tensors)
        self.until = time.monotonic() + SECONDS

    def __enter__(self) -> Any:
        self.hook = register_module_module_registration_hook(self._count)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.hook.remove()
        super().__exit__(*error)

    def _count(self, *_: Any) -> None:
        self.modules -= 1
        if self.modules < 0:
            raise ValueError("its config builds many more layers than its weights are of")
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        if time.monotonic() > self.until:
            raise ValueError(f"its config builds for more than {SECONDS} seconds")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for size in (*args, *kwargs.values()):
            is_size = isinstance(size, (list, tuple)) and all(isinstance(n, int) for n in size)
            if is_size and math.prod(size) > self.elements:
                raise ValueError(f"its config builds a tensor {tuple(size)}, unlike any weight")
        self._look_at_the_clock()
        return func(*args, **kwargs)


_is_alone: ContextVar[bool] = ContextVar("_is_alone", default=False)
_listens = False

#: Events of Python's audit by which a process reaches outside.
OUTSIDE = (
    "ctypes.dlopen",
    "os.exec",
    "os.fork",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.system",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
    "urllib.Request",
)


@contextmanager
def _alone() -> Iterator[None]:
    """While it lasts, this thread opens no file but of Python's packages, and no connection."""
    global _listens
    if not _listens:  # What Python's audit calls, it calls for ever.
        sys.addaudithook(_audit)
        _listens = True
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def _audit(
    event: str,
    arguments: tuple[Any, ...],
    outside: tuple[str, ...] = OUTSIDE,  # Bound: audits outlive this module's names.
    is_alone: ContextVar[bool] = _is_alone,
) -> None:
    if event not in outside and event != "open":
        return
    if not is_alone.get() or (event == "open" and _of_a_package(arguments[0])):
        return
    _is_alone.set(False)  # Words are found in files, too.
    try:
        what = f"opens {arguments[0]!r}" if event == "open" else f"calls {event}"
        raise ValueError(f"its config {what}, which is refused")
    finally:
        _is_alone.set(True)


def _of_a_package(path: Any) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return True  # A file that is open already.
    name = os.fsdecode(path)
    parts = Path(os.path.realpath(name)).parts
    installed = "site-packages" in parts or "dist-packages" in parts
    standard = sysconfig.get_paths()["stdlib"]
    return (
        name.endswith(tuple(all_suffixes()))
        or name == os.devnull
        or installed
        or os.path.realpath(name).startswith(os.path.realpath(standard) + os.sep)
    )
