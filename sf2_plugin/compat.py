"""What older versions of torch lack, each with one fallback, named with the version that ends it.

Supported from torch 2.1 on. Also what torch tells only by names of its own.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from packaging.version import Version
from torch import Tensor, distributed, nn
from torch.autograd import Function

TORCH = Version(Version(torch.__version__).base_version)

#: From torch 2.10 on, CUDA multiplies half-precision factors and adds the result up in float32.
MIXED_PRODUCTS = Version("2.10") <= TORCH

#: Before torch 2.5, of CUDA alone.
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)

logger = logging.getLogger("sf2_plugin")


class _EagerOperator:
    """What `torch.library.custom_op` makes, for eager mode alone; ends with torch 2.4."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call: Any = function

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def register_fake(self, function: Callable[..., Any]) -> None:
        """Nothing to register: a fake tensor gets this far only in a graph."""

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., None]
    ) -> None:
        methods = dict(forward=self._call, setup_context=setup_context, backward=backward)
        function: Any = type(
            "EagerOperator",
            (Function,),
            {name: staticmethod(method) for name, method in methods.items()},
        )
        self._call = function.apply


def custom_op(name: str, *, mutates_args: tuple[str, ...]) -> Callable[[Callable[..., Any]], Any]:
    """`torch.library.custom_op`; before torch 2.4, an operator of eager mode."""
    if hasattr(torch.library, "custom_op"):
        return torch.library.custom_op(name, mutates_args=mutates_args)
    return _EagerOperator


Called = TypeVar("Called", bound=Callable[..., Any])


def compiled_with_operators(function: Called) -> Called:
    """`function`, which `torch.compile` leaves out of its graphs before torch 2.4, and says so."""
    if hasattr(torch.library, "custom_op"):
        return function

    @functools.wraps(function)
    def eager(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return _leave_graph(function, *args, **kwargs)
        return function(*args, **kwargs)

    return cast(Called, eager)


@torch.compiler.disable
def _leave_graph(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    _say_once("torch.compile leaves SphereFace2's loss out of its graphs before torch 2.4")
    return function(*args, **kwargs)


@functools.cache
def _say_once(sentence: str) -> None:
    logger.warning("%s, and this is %s", sentence, torch.__version__)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype autocast takes on that kind of device, or None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):
        enabled = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if enabled else None
    # Before torch 2.4, a function for each kind of device.
    if device_type == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def allows_tf32() -> bool:
    """Whether the user lets CUDA multiply float32 factors as TF32."""
    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on both names are there, and the older refuses to answer beside the newer. (To
    # ask older ones for a name that they lack is an AssertionError.)
    if Version("2.9") <= TORCH:
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


@contextmanager
def float16_summed_in_float32() -> Iterator[None]:
    """Within, CUDA adds float16 products up in float32, whatever it is allowed.

    From torch 2.7 on it may be allowed to add them up in float16, and then refuses to write a
    float32 result.
    """
    matmul = torch.backends.cuda.matmul
    allowed = Version("2.7") <= TORCH and matmul.allow_fp16_accumulation
    if allowed:
        matmul.allow_fp16_accumulation = False
    try:
        yield
    finally:
        if allowed:
            matmul.allow_fp16_accumulation = True


def is_compiling() -> bool:
    """Whether `torch.compile` is looking on."""
    if hasattr(torch.compiler, "is_compiling"):
        return torch.compiler.is_compiling()
    return torch._utils.is_compiling()  # Before torch 2.3.


def keeps_graph() -> bool:
    """Whether the backward pass that runs keeps its graph, and may so come again."""
    # Before torch 2.5 nobody says, and it may.
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
    return asked()


def is_transformed() -> bool:
    """Whether a transform of `torch.func` (grad, vmap, jvp ...) is looking on."""
    return not is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def plain(tensor: Tensor) -> Tensor:
    """What a transform of `torch.func` has wrapped, whole: under vmap, all of its batch."""
    while not is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def all_gather_single(everyone: Tensor, mine: Tensor, group: Any = None) -> None:
    """Every rank's `mine`, one below the other, into `everyone`."""
    if hasattr(distributed, "all_gather_single"):  # Newer torch, where the older name warns.
        distributed.all_gather_single(everyone, mine, group=group)
    elif _single_is_served(group):
        distributed.all_gather_into_tensor(everyone, mine, group=group)
    else:
        parts = everyone.chunk(distributed.get_world_size(group))
        distributed.all_gather(list(parts), mine, group=group)


def reduce_scatter_single(mine: Tensor, everyone: Tensor, group: Any = None) -> None:
    """The sum over ranks of this one's part of `everyone`, into `mine`."""
    if hasattr(distributed, "reduce_scatter_single"):
        distributed.reduce_scatter_single(mine, everyone, group=group)
    elif _single_is_served(group):
        distributed.reduce_scatter_tensor(mine, everyone, group=group)
    else:
        total = everyone.clone()
        distributed.all_reduce(total, group=group)
        parts = total.chunk(distributed.get_world_size(group))
        mine.copy_(parts[distributed.get_rank(group)])


def _single_is_served(group: Any) -> bool:
    """Whether the group exchanges single tensors: before torch 2.4, gloo takes lists of them."""
    return Version("2.4") <= TORCH or distributed.get_backend(group) == "nccl"


def loss_scaler_of_all_ranks(device_type: str) -> Any:
    """A GradScaler that skips a step on all ranks or on none."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler  # Imports much.

    if "device" in inspect.signature(ShardedGradScaler).parameters:
        return ShardedGradScaler(device_type)
    return ShardedGradScaler()  # Before torch 2.3, for CUDA alone.


def gradients_norm(gradients: list[Tensor], norm_type: float, foreach: bool | None) -> Tensor:
    """`torch.nn.utils.get_total_norm`."""
    if hasattr(nn.utils, "get_total_norm"):
        return nn.utils.get_total_norm(gradients, norm_type, foreach=foreach)
    # Before torch 2.6.
    norms = [torch.linalg.vector_norm(gradient, norm_type) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms or [torch.zeros(())]), norm_type)


def clip_gradients(
    parameters: list[Tensor], max_norm: float, norm: Tensor, foreach: bool | None
) -> None:
    """`torch.nn.utils.clip_grads_with_norm_`: scales them as `max_norm` wants of that norm."""
    if hasattr(nn.utils, "clip_grads_with_norm_"):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach)
        return
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)  # Before torch 2.6.
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.device))


def began(event: Any) -> float:
    """When an event of the profiler began: one unit for all of a profile."""
    return event.start_ns() if hasattr(event, "start_ns") else event.start_us()  # Before 2.2.


def hook_state_dict(module: nn.Module, *, saved: Callable[..., None], loads: Callable) -> None:
    """Call `saved` with what `module.state_dict` gives, and `loads` before it is loaded."""
    if hasattr(module, "register_state_dict_post_hook"):
        module.register_state_dict_post_hook(saved)
        module.register_load_state_dict_pre_hook(loads)
    else:  # Before torch 2.5, names of its own.
        module._register_state_dict_hook(saved)
        module._register_load_state_dict_pre_hook(loads, with_module=True)
