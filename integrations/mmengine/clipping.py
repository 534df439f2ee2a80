"""Gradients clipped by the norm of the whole model, whose class centers lie on several ranks."""

import math
from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


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
        _norm(
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
    _scale(parameters, max_norm, total, foreach)
    return total


# torch has both as functions of their own from 2.6 on.


def _norm(gradients: list[Tensor], norm_type: float, foreach: bool | None) -> Tensor:
    if hasattr(nn.utils, "get_total_norm"):
        return nn.utils.get_total_norm(gradients, norm_type, foreach=foreach)
    norms = [torch.linalg.vector_norm(gradient, norm_type) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms or [torch.zeros(())]), norm_type)


def _scale(parameters: list[Tensor], max_norm: float, norm: Tensor, foreach: bool | None) -> None:
    if hasattr(nn.utils, "clip_grads_with_norm_"):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach)
        return
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.device))
