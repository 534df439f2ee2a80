"""When SGD's fused step on the class centers is made: in forward, or in the optimizer's turn."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from .compat import autocast_dtype, is_compiling, is_transformed
from .engine import SGDStep
from .engine.missed import MissedSteps

logger = logging.getLogger("sf2_plugin")

#: What becomes of the steps that a class center misses while it is not sampled.
MISSED_STEPS = ("made_up", "skipped")

#: From embeddings, class centers and a step to make on them, or None, to the loss.
Compute = Callable[[Tensor, Tensor, "SGDStep | None"], Tensor]


class FusedSGD:
    """The optimizer's step on the class centers, made by a sweep over them.

    In forward it comes with the sweep that computes the loss, but before a loss scaler can know
    that it will skip this step. So where backward begins with a multiple of the loss, and before
    the first backward has told, forward leaves it out, and ``optimizer.step()`` makes it by another
    sweep: four matrix products instead of three.

    Args:
        optimizer: holds the class centers.
        weight: (C, D) class centers.

    Raises:
        TypeError, ValueError: as `SGDStep.group_of`.
    """

    def __init__(self, optimizer: torch.optim.SGD, weight: Tensor) -> None:
        SGDStep.group_of(optimizer, weight)  # Makes no tensors: the head may still be moved.
        self.optimizer = optimizer
        #: What backward begins with: nothing yet, the loss itself, or a multiple of it.
        self._backward_of: Literal["unseen", "loss", "multiple"] = "unseen"
        self._left_out: Callable[[], object] | None = None
        self._ahead = False  # Of the optimizer, by a forward pass.
        self._warned = False
        self._expect_state(optimizer, weight)
        optimizer.register_load_state_dict_post_hook(lambda o: self._expect_state(o, weight))
        optimizer.register_step_pre_hook(self._before_step)

    @staticmethod
    def _expect_state(optimizer: torch.optim.Optimizer, weight: Tensor) -> None:
        """Have an entry for the momentum: compiled code does not notice that one has come.

        (torch 2.11's would begin each step with none.)
        """
        optimizer.state[weight]  # Which makes it, and no tensors in it.

    def step(self, weight: Tensor) -> SGDStep:
        """The step that the optimizer would make now."""
        return SGDStep.of(self.optimizer, weight)

    def loss(self, compute: Compute, x: Tensor, weight: Tensor) -> Tensor:
        """The loss of embeddings `x` (B, D), and the step on `weight` now or in its turn."""
        if is_compiling() or is_transformed():
            return compute(x, weight, self.step(weight))
        self._warn_if_ahead()
        if self._backward_of == "loss":
            loss = compute(x, weight, self.step(weight))
        else:
            loss = compute(x, weight.detach(), None)
            self._left_out = self._another_sweep(compute, x.detach(), weight.detach())
        if loss.requires_grad:
            loss.register_hook(self._look_at_scale)
        return loss

    def _another_sweep(self, compute: Compute, x: Tensor, weight: Tensor) -> Callable[[], object]:
        device, dtype = weight.device.type, autocast_dtype(weight.device.type)

        @torch.no_grad()
        def sweep() -> None:
            with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
                compute(x, weight, self.step(self._parameter_of(weight)))

        return sweep

    def _parameter_of(self, weight: Tensor) -> Tensor:
        """The optimizer's own tensor that shares memory with `weight`; its state goes by that."""
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        return next(p for p in parameters if p.data_ptr() == weight.data_ptr())

    def _look_at_scale(self, upstream: Tensor) -> None:
        if self._backward_of == "unseen":
            self._backward_of = "loss" if upstream == 1 else "multiple"
        elif self._backward_of == "loss" and upstream.is_cuda:  # Checked there, without a wait.
            torch._assert_async(upstream == 1, _SCALED_LATER)
        elif self._backward_of == "loss" and upstream != 1:
            raise RuntimeError(_SCALED_LATER)

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        self._ahead = False
        sweep, self._left_out = self._left_out, None
        # An optimizer that skips by itself is told so by the loss scaler.
        found_inf = getattr(optimizer, "found_inf", None)
        if sweep is not None and not (found_inf is not None and found_inf.item()):
            sweep()

    def _warn_if_ahead(self) -> None:
        skipped = self._backward_of == "multiple" and not self._has_gradients()
        if self._ahead and not self._warned and not skipped:
            self._warned = True
            logger.warning(
                "SphereFace2: two forward passes with fuse_sgd, and the optimizer made no step "
                "between them: gradients accumulated over batches do not reach the class centers"
            )
        self._ahead = True

    def _has_gradients(self) -> bool:
        """Whether gradients wait for the next backward to add to, which a skipped step's do not."""
        return any(p.grad is not None for g in self.optimizer.param_groups for p in g["params"])


class SampledSGD(FusedSGD):
    """`FusedSGD` on a sample of the class centers; what the others miss is made up later.

    Args:
        optimizer, weight: as for `FusedSGD`.
        missed_steps: of `MISSED_STEPS`.
    """

    def __init__(self, optimizer: torch.optim.SGD, weight: Tensor, missed_steps: str) -> None:
        super().__init__(optimizer, weight)
        self.weight = weight
        self.missed_steps = missed_steps
        self._missed: MissedSteps | None = None
        optimizer.register_state_dict_pre_hook(self._catch_up_first)
        optimizer.register_load_state_dict_pre_hook(self._catch_up_first)

    @contextmanager
    def rows(
        self, indices: Sequence[Tensor], step: SGDStep | None
    ) -> Iterator[list[tuple[Tensor, SGDStep | None]]]:
        """Some rows of the class centers for each of `indices`, and the step to make on them.

        They are copies, up to date, and are stored at the end of the block.
        """
        weight, momentum = self.weight.detach(), self._momentum()
        if self._missed is None or self._missed.last.device != weight.device:
            self._missed = MissedSteps(len(weight), weight.device)
        missed, index = self._missed, torch.cat([*indices])
        rows, moving = missed.take(weight, momentum, index)
        sizes = [len(each) for each in indices]
        movings = [None] * len(sizes) if moving is None else moving.split(sizes)
        yield [
            (some, step and step.on(their_moving))
            for some, their_moving in zip(rows.split(sizes), movings, strict=True)
        ]
        if step and self.missed_steps == "made_up":
            missed.advance(step)
        missed.put(weight, momentum, index, rows, moving)
        if missed.full:
            self.catch_up()

    @torch.no_grad()
    def catch_up(self) -> None:
        """Make up for the steps that class centers have missed."""
        if self._missed is not None:
            self._missed.catch_up(self.weight.detach(), self._momentum())

    def _momentum(self) -> Tensor | None:
        return self.optimizer.state.get(self.weight, {}).get("momentum_buffer")

    def _catch_up_first(self, *_: Any) -> None:
        self.catch_up()

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        super()._before_step(optimizer)
        if self.weight.grad is not None:  # The optimizer is about to move all of them.
            self.catch_up()


_SCALED_LATER = (
    "fuse_sgd must see in backward the loss itself, as in the steps before, got a multiple of it: "
    "the step on the class centers is made already; call fuse_sgd(optimizer) anew before a loss "
    "scaler begins"
)
