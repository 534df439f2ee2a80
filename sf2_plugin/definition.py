r"""SphereFace2 as the paper writes it, in plain autograd PyTorch.

Every other implementation in this package is tested against this file, so it is written to be
read, not to be fast: it builds the whole (B, C) matrix of cosines.

With unit embeddings :math:`x_i` and unit class centers :math:`w_j`, :math:`z_{ij} = <x_i, w_j>`,

.. math::
    L = \frac{s}{r B} \sum_i \Big[ \lambda \log(1 + e^{-(r \varphi_+(z_{i y_i}) + b)})
        + (1 - \lambda) \sum_{j \ne y_i} \log(1 + e^{r \varphi_-(z_{ij}) + b}) \Big]

with r the `scale` and s the `loss_weight`.

Sources: Wen et al., "SphereFace2: Binary Classification is All You Need for Deep Face
Recognition", ICLR 2022 (arXiv 2108.01513), Eq. 5 to 8; Han et al., "Exploring Binary
Classification Loss for Speaker Verification", ICASSP 2023, for the two-sided margin "A2".
"""

import math

import torch
from torch import Tensor

MARGIN_TYPES = ("C", "A", "M", "A2")


def unit(vectors: Tensor) -> Tensor:
    """Rows of `vectors` (N, D) at length one; half precision is raised to float32 first.

    A row of zeros has no direction: it stays zero and passes its gradient on unscaled, where
    dividing by a tiny epsilon would blow the gradient up.
    """
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


def angle(z: Tensor) -> Tensor:
    """The angle (radians) whose cosine is `z`, with slope 0 at the poles instead of infinity.

    At a pole the gradient points along the embedding, and normalisation projects it away.
    """
    inside = z.abs() < 1
    pole = torch.where(z > 0, 0.0, math.pi).to(z.dtype)
    return torch.where(inside, torch.acos(torch.where(inside, z, 0.0)), pole)


def g(z: Tensor, t: float) -> Tensor:
    """Similarity adjustment, paper Eq. 7: 2((z + 1)/2)^t - 1, which spreads the cosines out.

    Rounding may leave a cosine just below -1, where a fractional power is not a real number.
    """
    half = (z + 1) / 2
    if t != int(t):
        half = half.clamp(min=0)
    return 2 * half**t - 1


def phi_positive(z: Tensor, margin_type: str, margin: float, t: float) -> Tensor:
    """Similarity of a face to its own class center with the margin taken off; same shape as `z`."""
    if margin_type == "C":
        return g(z, t) - margin
    theta = angle(z)
    if margin_type == "A":
        return g(torch.cos((theta + margin).clamp(max=math.pi)), t)
    if margin_type == "M":
        return g(torch.cos((margin * theta).clamp(max=math.pi)), t)
    # A2: beyond theta = pi - m the curve goes on as a straight line, so that it keeps falling.
    turn = math.cos(math.pi - margin)
    return g(torch.where(z > turn, torch.cos(theta + margin), z - 1 - turn), t)


def phi_negative(z: Tensor, margin_type: str, margin: float, t: float) -> Tensor:
    """Similarity of a face to another's class center with the margin put on; same shape as `z`."""
    if margin_type == "C":
        return g(z, t) + margin
    if margin_type == "A2":
        return g(torch.cos(angle(z) - margin), t)
    return g(z, t)


def initial_bias(
    num_classes: int, *, margin_type: str, lam: float, scale: float, margin: float, t: float
) -> float:
    """The bias that minimises the loss when every angle is a right angle (paper, appendix B).

    One class has no negatives and no finite optimum; it gets the bias of two classes.
    """
    right_angle = torch.zeros((), dtype=torch.float64, device="cpu")
    a_y = scale * phi_positive(right_angle, margin_type, margin, t).item()
    a_i = scale * phi_negative(right_angle, margin_type, margin, t).item()
    zeta = lam / ((1 - lam) * max(num_classes - 1, 1))
    root = math.sqrt((1 - zeta) ** 2 + 4 * zeta * math.exp(a_y - a_i))
    if zeta > 1:  # The same value, without subtracting two nearly equal numbers.
        return math.log((root + zeta - 1) / 2) - a_y
    return math.log(2 * zeta) - a_i - math.log(1 - zeta + root)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own switches to x above 20, which is visible in float64."""
    return torch.logaddexp(x, torch.zeros_like(x))


def sphereface2(
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    *,
    margin_type: str,
    lam: float,
    scale: float,
    margin: float,
    t: float,
    loss_weight: float,
    gradient: str,
    weight_norm: str,
    interclass_filtering_threshold: float = 0.0,
    negative_weight: float = 1.0,
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        embeddings: (B, D), of any length; normalised here.
        weight: (C, D) class centers, of any length. With ``weight_norm="in_place"`` they are
            stored back at length one and their gradient is not projected, as the authors' code
            does; with ``"in_graph"`` normalisation is a part of the graph.
        labels: (B,) integers in 0..C-1, or -1 for a face of no known identity, to which every
            class is a negative.
        bias: (1,), shared by all classes.
        gradient: ``"exact"``, or ``"detached"`` to take phi's slope as one, as the authors do.
        interclass_filtering_threshold: negatives whose cosine exceeds it are left out; 0 keeps all.
        negative_weight: factor on the negatives' loss, for heads that sample them.
    """
    x = unit(embeddings)
    if weight_norm == "in_place":
        with torch.no_grad():
            weight.copy_(unit(weight))
        w = weight.to(x.dtype)
    else:
        w = unit(weight).to(x.dtype)
    z = x @ w.T

    classes = torch.arange(len(weight), device=labels.device)
    positive = labels[:, None] == classes
    negative = ~positive
    if interclass_filtering_threshold > 0:
        negative &= z <= interclass_filtering_threshold

    phi_p = phi_positive(z, margin_type, margin, t)
    phi_n = phi_negative(z, margin_type, margin, t)
    if gradient == "detached":
        phi_p = z + (phi_p - z).detach()
        phi_n = z + (phi_n - z).detach()

    loss_p = lam * softplus(-(scale * phi_p + bias))
    loss_n = (1 - lam) * negative_weight * softplus(scale * phi_n + bias)
    terms = torch.where(positive, loss_p, 0.0) + torch.where(negative, loss_n, 0.0)
    return loss_weight / scale * terms.sum() / max(len(embeddings), 1)
