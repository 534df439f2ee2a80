"""Gradients clipped by the norm of the whole model, whose class centers lie on several ranks."""

import math
from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from sf2_plugin.compat import clip_gradients, gradients_norm


def clip_grad_norm_over_ranks(
    shard: Tensor,
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` for parameters that are equal on all ranks but `shard`.

    Every rank clips by the same factor, that of the model whose shards lie on one rank. Were each
    to clip by its own shard's norm, their backbones would drift apart.
    """
    parameters = list(parameters)
    gradients = [(p is shard, p.grad) for p in parameters if p.grad is not None and p.numel()]
    shared, own = (
        gradients_norm(
            [gradient for of_shard, gradient in gradients if of_shard == sharded],
            norm_type,
            foreach,
        ).to(shard)
        for sharded in (False, True)
    )
    if math.isinf(norm_type):
        all_reduce(own, "max")
        total = torch.maximum(shared, own)
    else:
        own = own**norm_type
        all_reduce(own, "sum")
        total = (shared**norm_type + own) ** (1 / norm_type)
    if error_if_nonfinite and not total.isfinite():  # On every rank, so that none waits.
        raise RuntimeError(f"the gradient's norm is {total.item()}: it cannot be clipped")
    clip_gradients(parameters, max_norm, total, foreach)
    return total
