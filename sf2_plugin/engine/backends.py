"""Which implementation computes the loss: the one table of backends, and the choice among them."""

import logging
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from types import MappingProxyType

import torch
from packaging.version import Version

from ..checks import require_one_of
from .pointwise import Pointwise

#: What Triton's kernels were written for: Ampere and later.
SMALLEST_CAPABILITY = (8, 0)
#: And those whose matrix units take their factors from shared memory: Hopper and later.
SMALLEST_FUSED_CAPABILITY = (9, 0)
#: The first whose language, and whose interpreter, has what they use; torch 2.4 brings it.
SMALLEST_TRITON = Version("3.0")

logger = logging.getLogger("sf2_plugin")


def _obstacle(
    device: torch.device, dtype: torch.dtype, *, smallest: tuple[int, int] = SMALLEST_CAPABILITY
) -> str | None:
    """What stands against Triton's kernels that need compute capability `smallest`."""
    if dtype == torch.float64:
        return "Triton's kernels compute in float32, and the embeddings are float64"
    if device.type != "cuda":
        return f"Triton's kernels need a CUDA device, and the embeddings are on {device.type}"
    if unfit := unfit_triton():
        return unfit
    capability = torch.cuda.get_device_capability(device)
    if capability < smallest:
        needed, there = (".".join(map(str, c)) for c in (smallest, capability))
        return f"Triton's kernels need compute capability {needed}, and {device} has {there}"
    return None


@cache
def unfit_triton() -> str | None:
    """Why the Triton that is installed does not do, or None where it does."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    if Version(triton.__version__) < SMALLEST_TRITON:
        return f"Triton's kernels need Triton {SMALLEST_TRITON}, and {triton.__version__} is here"
    return None


def _triton_interprets(dtype: torch.dtype) -> bool:
    asked = os.environ.get("TRITON_INTERPRET") == "1" and dtype != torch.float64
    return asked and unfit_triton() is None


@dataclass(frozen=True)
class Backend:
    """A way to compute the loss.

    Attributes:
        pointwise: what the backend does between the products of the sweep, as `module:Class`; None
            where the definition computes the loss in plain autograd, without a sweep.
        obstacle: why it cannot run on a device with embeddings of a dtype, or None where it can.
        emulated: whether, asked for by name, it runs in spite of that, slowly, for tests.
    """

    pointwise: str | None
    obstacle: Callable[[torch.device, torch.dtype], str | None] = lambda device, dtype: None
    emulated: Callable[[torch.dtype], bool] = lambda dtype: False


#: Every backend there is.
BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "reference": Backend(None),
        "chunked": Backend("pointwise_torch:TorchPointwise"),
        "triton": Backend("pointwise_triton:TritonPointwise", _obstacle, _triton_interprets),
        "fused": Backend(
            "pointwise_fused:FusedPointwise",
            partial(_obstacle, smallest=SMALLEST_FUSED_CAPABILITY),
            _triton_interprets,
        ),
    }
)

#: What "auto" chooses from, the fastest first; the last runs anywhere. "fused" goes to the front
#: with the commit that adds figures to `docs/benchmarks` in which it is faster, on a GPU that
#: passed the tests.
AUTO = ("triton", "chunked")

_NAMES = ("auto", *BACKENDS)


def check_backend(backend: str) -> None:
    """Raises ValueError where there is no such backend."""
    require_one_of("backend", backend, _NAMES)


def resolve_backend(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The backend that `backend` stands for with embeddings of `dtype` on `device`.

    "auto" takes the fastest one there is, and logs once which one that is and why.

    Raises:
        ValueError: no such backend, or one that cannot run there.
    """
    check_backend(backend)
    if backend != "auto":
        obstacle = BACKENDS[backend].obstacle(device, dtype)
        if obstacle and not BACKENDS[backend].emulated(dtype):
            raise ValueError(
                f"backend {backend!r} cannot run: {obstacle}; take 'chunked' or 'auto'"
            )
        return backend
    obstacles = {name: BACKENDS[name].obstacle(device, dtype) for name in AUTO}
    choice = next(name for name in AUTO if obstacles[name] is None)
    passed_over = [obstacles[name] for name in AUTO[: AUTO.index(choice)]]
    why = "; ".join(filter(None, passed_over)) or "nothing stands against it"
    # What falls short of a GPU's best is worth a warning; a CPU has nothing better.
    level = logging.WARNING if passed_over and device.type == "cuda" else logging.INFO
    return _report(choice, why, level)


@cache
def _report(choice: str, why: str, level: int) -> str:
    logger.log(level, "SphereFace2's backend is %r: %s", choice, why)
    return choice


def pointwise_of(backend: str) -> type[Pointwise]:
    """The pointwise parts of a backend of the sweep.

    Raises:
        ValueError: no such backend, or one without a sweep.
    """
    swept = {name: entry.pointwise for name, entry in BACKENDS.items() if entry.pointwise}
    require_one_of("backend of the sweep", backend, swept)
    return pkgutil.resolve_name(f"{__package__}.{swept[backend]}")
