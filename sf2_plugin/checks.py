"""What is refused: one sentence each, "X must be ..., got ...", before anything is computed."""

import math
import numbers
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from .compat import plain

INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def require_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raises ValueError where `value` is none of the names in `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def require_number(
    name: str, value: Any, wanted: str = "", holds: Callable[[Any], bool] = lambda value: True
) -> float:
    """`value` as a float; ValueError where it is no finite number, or not one that is `wanted`."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be a number {wanted or 'that is finite'}, got {value!r}")
    return float(value)


def require_count(name: str, value: Any) -> int:
    """`value` as an int; ValueError where it is no whole number of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def require_none(**arguments: Any) -> None:
    """Raises ValueError where an argument that another loss takes is given to this one."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"{name} must be None, as faces are compared with class centers and not with each "
                f"other, got {type(value).__name__}"
            )


def check_inputs(embeddings: Tensor, weight: Tensor, labels: Tensor, bias: Tensor) -> None:
    """Shapes, dtypes and devices: nothing that needs to look at a value.

    Raises:
        TypeError: embeddings, class centers or bias that are not floating point, labels that are
            not integers.
        ValueError: a shape or a device that does not fit.
    """
    for name, tensor in (("embeddings", embeddings), ("weight", weight), ("bias", bias)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if labels.dtype not in INTEGER_TYPES:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if weight.ndim != 2:
        raise ValueError(
            f"weight must have shape (classes, embedding size), got {tuple(weight.shape)}"
        )
    if bias.shape != (1,):
        raise ValueError(f"bias must have shape (1,), got {tuple(bias.shape)}")
    size = weight.shape[1]
    if embeddings.ndim != 2 or embeddings.shape[1] != size:
        raise ValueError(
            f"embeddings must have shape (batch, {size}), got {tuple(embeddings.shape)}"
        )
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels must have shape ({embeddings.shape[0]},) to match embeddings "
            f"{tuple(embeddings.shape)}, got {tuple(labels.shape)}"
        )
    for name, tensor in (("embeddings", embeddings), ("labels", labels), ("bias", bias)):
        if tensor.device != weight.device:
            raise ValueError(
                f"{name} must be on {weight.device}, where the class centers are, "
                f"got {tensor.device}"
            )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Labels are -1 (no known identity) or in 0..num_classes-1.

    On CUDA the check runs on the device, so that the host need not wait for it.

    Raises:
        ValueError: a label outside that range (on CUDA, a device-side assertion).
    """
    labels = plain(labels)
    if labels.numel() == 0:
        return
    lowest, highest = labels.aminmax()
    wanted = f"labels must be -1 (no known identity) or in 0..{num_classes - 1}"
    if labels.is_cuda:
        torch._assert_async((lowest >= -1) & (highest < num_classes), wanted)
    elif lowest < -1 or highest >= num_classes:
        raise ValueError(f"{wanted}, got labels from {lowest.item()} to {highest.item()}")


def check_finite(embeddings: Tensor) -> None:
    """Embeddings hold no NaN and no infinity; waits for the device.

    Raises:
        ValueError: how many rows hold one, and which is the first.
    """
    embeddings = plain(embeddings).flatten(end_dim=-2)
    bad = (~torch.isfinite(embeddings)).any(dim=1).nonzero()
    if len(bad):
        raise ValueError(
            f"embeddings must be finite, got NaN or infinity in {len(bad)} of "
            f"{len(embeddings)} rows, the first of them row {bad[0].item()}"
        )
