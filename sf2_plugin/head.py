"""SphereFace2 for one process: the functional form and the module around it."""

import dataclasses
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .agreement import check_finite_on_all_ranks
from .checks import check_inputs, check_labels, require_count, require_none
from .compat import autocast_dtype, compiled_with_operators, is_compiling, is_transformed
from .definition import sphereface2, unit
from .distributed import ProcessGroup
from .engine import BACKENDS, SGDStep, check_backend, loss_with_gradients
from .fused import Compute, FusedSGD
from .margins import g
from .recipe import PRESETS, Recipe
from .watching import HeadWatch
from .wrappers import check_fused_ranks, check_wrappers

logger = logging.getLogger("sf2_plugin")

NO_SWEEP = (
    "backend must be one of the sweep to fuse SGD, got 'reference', which torch.func and "
    "forward-mode derivatives take too"
)


@compiled_with_operators
def sphereface2_loss(
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    recipe: Recipe,
    *,
    backend: str = "auto",
    chunk_size: int | None = None,
    negative_weight: float = 1.0,
    sgd: SGDStep | None = None,
) -> Tensor:
    """SphereFace2's loss of a batch, a scalar (paper, Eq. 5 to 8; see `sf2_plugin.definition`).

    Args:
        embeddings: (B, D) floating point, of any length. NaN or infinity makes the loss NaN.
        weight: (C, D) class centers. A recipe with ``weight_norm="in_place"`` stores them back at
            length one, as the authors' code does.
        labels: (B,) integers in 0..C-1, or -1 for a face of no known identity.
        bias: (1,), shared by all classes.
        recipe: the hyperparameters.
        backend: "chunked" (one pass over classes), "triton" (the same with fused kernels, on
            NVIDIA GPUs), "fused" (cosines and slopes in one kernel, from compute capability 9.0 on;
            not measured yet), "reference" (the plain definition, which builds all (B, C)
            cosines), or "auto", the fastest there is.
        chunk_size: classes at a time; None chooses by shape and device.
        negative_weight: factor on the negatives' loss, for heads that sample them.
        sgd: a step of SGD to make on the class centers; see `SphereFace2.fuse_sgd`.

    Under the transforms of torch.func (grad, vmap, jvp ...) and with forward-mode derivatives, the
    reference computes it; class centers then count as unit vectors and are not stored.

    Under autocast, the matrix products take autocast's dtype; the loss and its sums stay float32.
    An empty batch has loss 0.

    Raises:
        TypeError: embeddings not floating point, labels not integers.
        ValueError: a shape, label, device or backend that does not fit.
    """
    check_backend(backend)
    check_inputs(embeddings, weight, labels, bias)
    labels = labels.long()
    if is_transformed() or _has_tangent(embeddings, weight, bias):
        backend = "reference"  # Plain autograd, which can be transformed.
    if backend != "auto" and BACKENDS[backend].pointwise is None:
        check_labels(labels, len(weight))
        if sgd:
            raise ValueError(NO_SWEEP)
        with torch.autocast(weight.device.type, enabled=False):
            return sphereface2(
                embeddings, weight, labels, bias, recipe, negative_weight=negative_weight
            )
    return loss_with_gradients(
        embeddings,
        weight,
        labels,
        bias,
        recipe,
        product_dtype=autocast_dtype(weight.device.type) or embeddings.dtype,
        negative_weight=negative_weight,
        chunk_size=chunk_size,
        backend=backend,
        sgd=sgd,
    )


def _has_tangent(*tensors: Tensor) -> bool:
    """Whether forward-mode derivatives are asked for."""
    if is_compiling() or forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


class SphereFace2(nn.Module):
    """SphereFace2 head: class centers, one shared bias, and the loss over them.

    Args:
        num_classes: C, identities in the training set.
        embedding_size: D.
        preset: a name of `sf2_plugin.PRESETS`: "opensphere" is the authors' code.
        learn_bias: False freezes the bias at its initial value.
        backend: see `sphereface2_loss`.
        chunk_size: classes at a time; None chooses by shape and device.
        check_finite: refuse NaN and infinite embeddings by name, while training on all ranks at
            once, at the price of waiting for the device; otherwise they make the loss NaN.
        hyperparameters: in place of the preset's: margin_type, lam, scale, margin and the others
            of `sf2_plugin.Recipe`; None takes the preset's value.

    Attributes:
        weight: (C, D) class centers.
        bias: (1,).
        classes: those whose centers are held here, a range.
        recipe: the hyperparameters; replace it whole to change one, as a margin schedule does.
        watch: None, or a `sf2_plugin.watching.HeadWatch`, for cosines in a log.

    Raises:
        TypeError: no such hyperparameter.
        ValueError: an unknown preset or backend, or a value outside its domain.

    Example:
        >>> head = SphereFace2(num_classes=1000, embedding_size=512)
        >>> loss = head(torch.randn(8, 512), torch.randint(1000, (8,)))
    """

    #: Keyword arguments, for whoever builds a head from a config; see `sf2_plugin.registry`.
    takes = frozenset(PRESETS["opensphere"]) | {
        "preset",
        "learn_bias",
        "backend",
        "chunk_size",
        "check_finite",
    }

    #: See `sf2_plugin.watching`.
    watch: HeadWatch | None = None

    #: Whether the class centers are shared out over the ranks of `process_group`.
    sharded = False
    process_group: ProcessGroup = None

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        preset: str = "opensphere",
        learn_bias: bool = True,
        backend: str = "auto",
        chunk_size: int | None = None,
        check_finite: bool = False,
        **hyperparameters: Any,
    ) -> None:
        super().__init__()
        check_backend(backend)
        self.recipe = Recipe.from_preset(preset, **hyperparameters)
        self.num_classes = require_count("num_classes", num_classes)
        self.embedding_size = require_count("embedding_size", embedding_size)
        self.backend = backend
        self.chunk_size = None if chunk_size is None else require_count("chunk_size", chunk_size)
        self.check_finite = check_finite
        self._stored_before_steps = False
        self._fused: FusedSGD | None = None
        self.classes = self._classes_held()
        self.weight = nn.Parameter(torch.empty(len(self.classes), embedding_size))
        self.bias = nn.Parameter(torch.empty(1), requires_grad=learn_bias)
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        # What optimizers were told, they were told of this head and not of its copies.
        return {**self.__dict__, "_stored_before_steps": False, "_fused": None, "watch": None}

    def _classes_held(self) -> range:
        return range(self.num_classes)

    def reset_parameters(self) -> None:
        """Class centers in random directions, and the recipe's initial bias."""
        with torch.no_grad():
            nn.init.normal_(self.weight)
            self.weight.div_(torch.linalg.vector_norm(self.weight, dim=1, keepdim=True))
            self.bias.fill_(self.recipe.initial_bias(self.num_classes))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the bias with the centers it belongs to, or neither: it goes by their number."""
        weight, bias = f"{prefix}weight", f"{prefix}bias"
        found, own = state.get(weight), self.bias.detach().clone()
        super()._load_from_state_dict(state, prefix, *rest)
        if found is not None:
            found = state[weight]  # A host's hook may have cut this rank's share out of them.
            if found.shape == self.weight.shape:
                return
        if bias in state:
            self.bias.data = own
            logger.warning(
                "SphereFace2: neither class centers nor bias are taken from the state that is "
                "loaded: it has %s where %s holds %s",
                "no class centers" if found is None else f"centers {tuple(found.shape)}",
                prefix.rstrip(".") or "the head",
                tuple(self.weight.shape),
            )

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: None = None,
        ref_emb: None = None,
        ref_labels: None = None,
    ) -> Tensor:
        """The batch's loss, a scalar; see `sphereface2_loss` for arguments and errors.

        The last three are what pytorch-metric-learning's loops pass on to every loss; a loss
        against class centers takes no mined pairs, and they must be None.

        Raises:
            RuntimeError: a wrapper (FSDP, DDP, DataParallel) in which this head would train
                something else; it says which, and the way out.
        """
        require_none(indices_tuple=indices_tuple, ref_emb=ref_emb, ref_labels=ref_labels)
        check_wrappers(self)
        if self.check_finite:
            check_finite_on_all_ranks(embeddings, self.training and torch.is_grad_enabled())
        loss = self._loss(embeddings, self.weight, labels, self.bias)
        if self.watch is not None and not is_compiling() and self.watch.due:
            self.watch.see(embeddings, labels, self.weight, self.bias)
        return loss

    def _loss(self, x: Tensor, weight: Tensor, labels: Tensor, bias: Tensor) -> Tensor:
        compute, fused = self._compute(labels, bias), self._fused_sgd()
        return compute(x, weight, None) if fused is None else fused.loss(compute, x, weight)

    def _compute(self, labels: Tensor, bias: Tensor, negative_weight: float = 1.0) -> Compute:
        """`sphereface2_loss` as this head is made, from embeddings, class centers and a step."""
        recipe = self.recipe

        # Before torch 2.6, torch.compile stumbles over `SGDStep | None` within a function.
        def compute(x: Tensor, weight: Tensor, sgd: Any) -> Tensor:
            return sphereface2_loss(
                x,
                weight,
                labels,
                bias,
                recipe,
                backend=self.backend,
                chunk_size=self.chunk_size,
                negative_weight=negative_weight,
                sgd=sgd,
            )

        return compute

    def fuse_sgd(self, optimizer: torch.optim.SGD) -> None:
        """Let forward make the optimizer's step on the class centers, whose gradient never exists.

        Saves the memory of that gradient, as much as the class centers take, as much again that
        the optimizer needs for weight decay, and writing and reading both (`sf2 bench memory` tells
        the bytes). The step is the one `optimizer` would make, with the learning rate,
        momentum and weight decay it has at the time; its state holds the momentum as ever, and
        ``optimizer.step()`` finds no gradient and leaves the class centers alone.

        For loops that call forward, backward on the loss itself (or on a loss scaler's multiple of
        it) and the optimizer once each: a factor on the loss, clipping of gradients and gradients
        accumulated over batches do not reach the class centers; a warning tells where forward
        comes twice and the optimizer's step not between. Where backward begins with a multiple of
        the loss, ``optimizer.step()`` makes the step, by another sweep, so that what a loss scaler
        skips moves nothing. With gradients switched off, class centers that are frozen, or in
        evaluation mode, there is no step. On several ranks `PartialFCSphereFace2` alone can make
        it. A copy of the head makes none.

        Under `torch.compile` the step is always made in forward, and a learning rate that changes
        compiles anew, unless it is a tensor.

        Raises:
            TypeError: an optimizer other than SGD.
            ValueError: it does not hold the class centers, or has dampening, nesterov or maximize;
                a backend without a sweep.
        """
        self._check_sweep()
        self._fused = FusedSGD(optimizer, self.weight)

    def _check_sweep(self) -> None:
        if self.backend == "reference":
            raise ValueError(NO_SWEEP)

    def _fused_sgd(self) -> FusedSGD | None:
        """What makes the step that belongs to this forward pass; None where there is none."""
        wanted = self.training and self.weight.requires_grad and torch.is_grad_enabled()
        if self._fused is None or not wanted:
            return None
        check_fused_ranks(self)
        return self._fused

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines (B, C) between embeddings (B, D) and the class centers."""
        wide = torch.promote_types(embeddings.dtype, self.weight.dtype)
        return unit(embeddings.to(wide)) @ unit(self.weight.to(wide)).T

    def logits(self, embeddings: Tensor) -> Tensor:
        """scale * g(cosine) + bias, (B, C): the log-odds that a face is of each class."""
        return self._log_odds(self.cosine(embeddings))

    def verification_probability(self, cosine: Tensor) -> Tensor:
        """Probability that a pair of faces with this cosine is of one person; same shape.

        The head learns when a face and a class center belong together; this reads the same scale,
        g and bias for a face and a face, which is far too sure. Refit both numbers first: see
        `sf2_plugin.evaluation.Calibration`, or ``sf2 eval pairs --calibration``.
        """
        return torch.sigmoid(self._log_odds(cosine))

    def _log_odds(self, cosine: Tensor) -> Tensor:
        return self.recipe.scale * g(cosine, self.recipe.t) + self.bias

    def extra_repr(self) -> str:
        shown = dataclasses.asdict(self.recipe)
        shown.pop("bias")
        details = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"{self.num_classes}, {self.embedding_size}, {details}, backend={self.backend}"
