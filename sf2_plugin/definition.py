r"""SphereFace2 as the paper writes it, in plain autograd PyTorch.

Every other implementation in this package is tested against this file, so it is written to be
read, not to be fast: it builds the whole (B, C) matrix of cosines.

With unit embeddings :math:`x_i` and unit class centers :math:`w_j`, :math:`z_{ij} = <x_i, w_j>`,

.. math::
    L = \frac{s}{r B} \sum_i \Big[ \lambda \log(1 + e^{-(r \varphi_+(z_{i y_i}) + b)})
        + (1 - \lambda) \sum_{j \ne y_i} \log(1 + e^{r \varphi_-(z_{ij}) + b}) \Big]

with r the `scale`, s the `loss_weight`, and phi+ and phi- the curves of `sf2_plugin.margins`.

Source: Wen et al., "SphereFace2: Binary Classification is All You Need for Deep Face
Recognition", ICLR 2022 (arXiv 2108.01513), Eq. 5 to 8.
"""

import torch
from torch import Tensor

from .compat import is_transformed
from .margins import phi_negative, phi_positive
from .recipe import Recipe


def unit(vectors: Tensor) -> Tensor:
    """Rows of `vectors` (N, D) at length one; half precision is raised to float32 first.

    A row of zeros has no direction: it stays zero and passes its gradient on unscaled, where
    dividing by a tiny epsilon would blow the gradient up.
    """
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own switches to x above 20, which is visible in float64."""
    return torch.logaddexp(x, torch.zeros_like(x))


def sphereface2(
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    recipe: Recipe,
    *,
    negative_weight: float = 1.0,
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        embeddings: (B, D), of any length; normalised here.
        weight: (C, D) class centers, of any length. With ``recipe.weight_norm == "in_place"`` they
            are stored back at length one and their gradient is not projected, as the authors' code
            does; with ``"in_graph"`` normalisation is a part of the graph.
        labels: (B,) integers in 0..C-1, or -1 for a face of no known identity, to which every
            class is a negative.
        bias: (1,), shared by all classes.
        recipe: the hyperparameters. With ``gradient="detached"`` phi's slope is taken as one, as
            the authors do; negatives whose cosine exceeds an `interclass_filtering_threshold`
            above 0 are left out.
        negative_weight: factor on the negatives' loss, for heads that sample them.
    """
    wide = torch.promote_types(embeddings.dtype, weight.dtype)
    x, w = unit(embeddings.to(wide)), unit(weight.to(wide))
    if recipe.weight_norm == "in_place":
        stored = w.detach().to(weight.dtype)
        if not is_transformed():  # There, functions have no side effects.
            with torch.no_grad():
                weight.copy_(stored)
        w = _with_gradient_of(weight.to(w.dtype), stored.to(w.dtype))
    z = x @ w.T

    classes = torch.arange(len(weight), device=labels.device)
    positive = labels[:, None] == classes
    negative = ~positive
    if recipe.interclass_filtering_threshold > 0:
        negative = negative & (z <= recipe.interclass_filtering_threshold)

    phi_p = phi_positive(z, recipe.margin_type, recipe.margin, recipe.t)
    phi_n = phi_negative(z, recipe.margin_type, recipe.margin, recipe.t)
    if recipe.gradient == "detached":
        phi_p, phi_n = _with_gradient_of(z, phi_p), _with_gradient_of(z, phi_n)

    loss_p = recipe.lam * softplus(-(recipe.scale * phi_p + bias))
    loss_n = (1 - recipe.lam) * negative_weight * softplus(recipe.scale * phi_n + bias)
    terms = torch.where(positive, loss_p, 0.0) + torch.where(negative, loss_n, 0.0)
    return recipe.loss_weight / recipe.scale * terms.sum() / max(len(embeddings), 1)


def _with_gradient_of(source: Tensor, value: Tensor) -> Tensor:
    """`value`, exactly, whose gradient goes to `source` as if it were that."""
    return value.detach() + (source - source.detach())
