"""What a head refuses, each with one sentence that says what was given and what is wanted."""

import torch
from torch import Tensor

INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_inputs(embeddings: Tensor, weight: Tensor, labels: Tensor, bias: Tensor) -> None:
    """Shapes, dtypes and devices: nothing that needs to look at a value.

    Raises:
        TypeError: embeddings that are not floating point, labels that are not integers.
        ValueError: a shape or a device that does not fit.
    """
    if not embeddings.is_floating_point():
        raise TypeError(f"embeddings must be floating point, got {embeddings.dtype}")
    if labels.dtype not in INTEGER_TYPES:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
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
    bad = (~torch.isfinite(embeddings)).any(dim=1).nonzero()
    if len(bad):
        raise ValueError(
            f"embeddings must be finite, got NaN or infinity in {len(bad)} of "
            f"{len(embeddings)} rows, the first of them row {bad[0].item()}"
        )
