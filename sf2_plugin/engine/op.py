"""The sweep as operators that autograd, torch.compile and the profiler know.

The sweep may renormalise the class centers in place, and an operator that mutates its inputs
cannot have a derivative. So one computes the loss and all its gradients outside of autograd, and
another, `attach`, makes them the derivative of the loss.
"""

from typing import Any

import torch
from torch import Tensor

from ..checks import check_labels
from ..compat import custom_op, float16_summed_in_float32, keeps_graph
from ..definition import unit
from ..recipe import Recipe
from .backends import pointwise_of, resolve_backend
from .sgd import SGDStep
from .sweep import sweep
from .trial import proven


def _sweep(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    numbers: Tensor,  # The recipe, packed.
    words: str,
    product_dtype: torch.dtype,
    negative_weight: float,
    chunk_size: int | None,
    backend: str,
    sgd: Tensor | None,  # Numbers of a step to make.
    momentum_buffer: Tensor | None,
    embeddings_gradient: bool,
    weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_labels(labels, len(weight))
    # Kernels are launched where `x` is; without a GPU, this is nothing.
    with torch.cuda.device_of(x), float16_summed_in_float32():
        recipe = Recipe.unpack(numbers, words)
        chosen = resolve_backend(backend, x.device, x.dtype)
        if backend == "auto":
            chosen = proven(chosen, x.device, product_dtype, recipe, x.shape[1])
        return sweep(
            x,
            weight,
            labels,
            bias,
            recipe,
            pointwise_of(chosen),
            product_dtype=product_dtype,
            negative_weight=negative_weight,
            chunk_size=chunk_size,
            embeddings_gradient=embeddings_gradient,
            weight_gradient=weight_gradient,
            sgd=None if sgd is None else SGDStep(sgd, momentum_buffer),
        )


def _fake_sweep(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    *args: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    embeddings_gradient, weight_gradient = args[-2:]
    return (
        x.new_empty(()),
        torch.empty_like(x) if embeddings_gradient else x.new_empty(0),
        torch.empty_like(weight) if weight_gradient else weight.new_empty(0),
        torch.empty_like(bias),
    )


#: Two names for it: what mutates its inputs may not be given a view that somebody else keeps, as
#: FSDP's class centers are.
_sweep_only = custom_op("sf2_plugin::sweep", mutates_args=())(_sweep)
_sweep_and_store = custom_op(
    "sf2_plugin::sweep_and_store", mutates_args=("weight", "momentum_buffer")
)(_sweep)
for operator in (_sweep_only, _sweep_and_store):
    operator.register_fake(_fake_sweep)


@custom_op("sf2_plugin::attach", mutates_args=())
def _attach(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    loss: Tensor,
    x_gradient: Tensor,
    weight_gradient: Tensor,
    bias_gradient: Tensor,
    backend: str,
) -> Tensor:
    return loss.clone()


@_attach.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, loss: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(loss)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[4:7])
    ctx.backend = inputs[7]


def _scale_gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "SphereFace2's gradients are computed together with its loss and cannot be "
            'differentiated again; use backend="reference" for second derivatives'
        )
    scaled = (
        _scaled(gradient, upstream, ctx.backend) if needed else None
        for gradient, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:3], strict=True)
    )
    return (*scaled, None, None, None, None, None)


def _scaled(gradient: Tensor, upstream: Tensor, backend: str) -> Tensor:
    # The class centers' gradient is the largest tensor of a step: where nothing else can see it,
    # it is scaled in place, and not at all by a factor of one. In a graph, Inductor writes the
    # product into the memory of the gradient, which no one else holds (from torch 2.6 on).
    eager = type(gradient) is Tensor
    if eager and upstream.device.type == "cpu" and upstream == 1:
        return gradient
    if eager and not keeps_graph():
        return pointwise_of(resolve_backend(backend, gradient.device)).scale_(gradient, upstream)
    return gradient * upstream.to(gradient.dtype)


_attach.register_autograd(_scale_gradients, setup_context=_save_gradients)


def loss_with_gradients(
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    recipe: Recipe,
    *,
    product_dtype: torch.dtype | None = None,
    negative_weight: float = 1.0,
    chunk_size: int | None = None,
    backend: str = "auto",
    sgd: SGDStep | None = None,
) -> Tensor:
    """The loss, a scalar, with its gradients already computed and waiting for backward.

    Args:
        embeddings: (B, D), of any length.
        weight: (C, D) class centers, renormalised in place where the recipe says so.
        labels: (B,) int64 in -1..C-1.
        bias: (1,).
        product_dtype: dtype of the matrix products' factors; None takes the embeddings'.
        negative_weight: factor on the negatives' loss, for heads that sample them.
        chunk_size: classes at a time; None chooses by shape and device.
        backend: "auto", or one of `BACKENDS` that sweeps.
        sgd: a step to make on the class centers, which then have no gradient.
    """
    x = unit(embeddings.to(torch.promote_types(embeddings.dtype, weight.dtype)))
    wanted = torch.is_grad_enabled()
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        stores = recipe.weight_norm == "in_place" or sgd is not None
        loss, *gradients = (_sweep_and_store if stores else _sweep_only)(
            x.detach(),
            weight.detach(),
            labels,
            bias.detach(),
            *recipe.pack(),
            product_dtype or embeddings.dtype,
            negative_weight,
            chunk_size,
            backend,
            sgd.numbers if sgd else None,
            sgd.momentum_buffer if sgd else None,
            wanted and x.requires_grad,
            wanted and weight.requires_grad and sgd is None,
        )
    if not wanted:
        return loss
    if sgd:
        weight = weight.detach()
    return _attach(x, weight, bias, loss, *gradients, backend)
