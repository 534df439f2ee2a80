"""Steps whose gradients are not finite, left out on all ranks: one bad image costs one step.

A NaN in the embeddings makes the loss, and after the step every class center, NaN. A loss scaler
leaves such a step out; this does the same without one.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import exchange_device, from_all_ranks, gather_numbers, rank_and_world_size

logger = logging.getLogger("sf2_plugin")

#: Steps left out one after another, at which training ends: its weights are past help.
PATIENCE = 10
NAMED_ROWS = 3


class FiniteSteps:
    """Leaves out an optimizer's steps with NaN or infinity in a gradient, and says of which faces.

    Weights, momentum and class centers stay as they are, and batch normalisation's statistics go
    back to those before the step. It costs a look at all gradients, a copy of the model's buffers,
    and, on several ranks, an exchange of one number; the step waits for the device.

    Args:
        model: whose buffers are kept; it holds the head or stands beside it.
        head: takes ``(embeddings, labels)``.
        name_of: what the batch's row i is called, as its image's path.

    Example:
        >>> from sf2_plugin import SphereFace2
        >>> backbone, head = nn.Linear(8, 4), SphereFace2(num_classes=10, embedding_size=4)
        >>> optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.1)
        >>> steps = FiniteSteps(backbone, head)
        >>> handle = optimizer.register_step_pre_hook(steps.before_step)
    """

    def __init__(
        self, model: nn.Module, head: nn.Module, name_of: Callable[[int], str] | None = None
    ) -> None:
        self.model, self.head, self.name_of = model, head, name_of
        self.left_out = 0
        self._batch: tuple[Tensor, Tensor] | None = None
        self._kept = [buffer.clone() for buffer in model.buffers()]
        head.register_forward_pre_hook(self._remember)

    def _remember(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        if head.training and len(inputs) == 2:
            self._batch = inputs[0].detach(), inputs[1].detach()

    def before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """To be called before each of the optimizer's steps, on every rank.

        Raises:
            ValueError: `PATIENCE` steps in a row would be left out; or the head's step is fused
                into its forward pass, which is before anybody can know.
        """
        if getattr(self.head, "_fused", None) is not None:
            raise ValueError("steps can be left out of an optimizer alone: leave fuse_sgd out")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        bad = not _are_finite([p.grad for p in parameters if p.grad is not None])
        if rank_and_world_size()[1] > 1:
            device = exchange_device(parameters[0].device)
            bad = any(any(row) for row in gather_numbers(torch.tensor([int(bad)], device=device)))
        self._keep_buffers(good=not bad)
        if not bad:
            self.left_out = 0
            return
        for parameter in parameters:
            parameter.grad = None  # Which no optimizer steps by.
        self.left_out += 1
        where = "; ".join(filter(None, from_all_ranks(self._found())))
        said = f"gradients are not finite: {where or 'all embeddings of the last batch are'}"
        if self.left_out >= PATIENCE:
            raise ValueError(f"{PATIENCE} steps in a row were left out, the last as {said}")
        logger.warning("SphereFace2: a step is left out, as %s", said)

    @torch.no_grad()
    def _keep_buffers(self, good: bool) -> None:
        """Those of this step, or of the last one where this is left out or they are not finite."""
        buffers = list(self.model.buffers())
        good = good and _are_finite([each for each in buffers if each.is_floating_point()])
        to, of = (self._kept, buffers) if good else (buffers, self._kept)
        for into, values in zip(to, of, strict=True):
            into.copy_(values)

    def _found(self) -> str:
        """Which of this rank's faces are not finite, in words."""
        if self._batch is None:
            return ""
        embeddings, labels = self._batch
        bad = (~torch.isfinite(embeddings)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if not bad:
            return ""
        told = [
            f"row {row}, label {int(labels[row])}{self._named(row)}" for row in bad[:NAMED_ROWS]
        ]
        rank = rank_and_world_size()[0]
        return (
            f"{len(bad)} of {len(embeddings)} embeddings on rank {rank} have NaN or infinity "
            f"({'; '.join(told)}{'; ...' if len(bad) > NAMED_ROWS else ''})"
        )

    def _named(self, row: int) -> str:
        return f", {self.name_of(row)}" if self.name_of else ""


def _are_finite(tensors: list[Tensor]) -> bool:
    largest = [
        torch.linalg.vector_norm((t.coalesce().values() if t.is_sparse else t).float(), torch.inf)
        for t in tensors
        if t.numel()
    ]
    return bool(torch.isfinite(torch.stack(largest)).all()) if largest else True
