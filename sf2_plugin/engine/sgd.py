"""A step of SGD on the class centers, made by the sweep chunk by chunk."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGDStep:
    """What `torch.optim.SGD` would do with the class centers' gradient.

    Attributes:
        numbers: learning rate, momentum and weight decay, (3,) float64 on the CPU: data, of which
            nothing is compiled in.
        momentum_buffer: (C, D), updated; None where there is no momentum.
    """

    numbers: Tensor
    momentum_buffer: Tensor | None

    @classmethod
    def of(cls, optimizer: torch.optim.SGD, weight: Tensor) -> "SGDStep":
        """The next step of `optimizer` on `weight`, whose momentum stays in the optimizer's state.

        Raises:
            TypeError, ValueError: as `group_of`.
        """
        group = cls.group_of(optimizer, weight)
        buffer = None
        if group["momentum"]:
            state = optimizer.state[weight]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weight)
            buffer = state["momentum_buffer"] = state["momentum_buffer"].contiguous()
        # Each may be a tensor, as the learning rate is where a compiled step should see it change.
        numbers = [
            torch.as_tensor(group[name], dtype=torch.float64, device="cpu").reshape(())
            for name in ("lr", "momentum", "weight_decay")
        ]
        return cls(torch.stack(numbers), buffer)

    @staticmethod
    def group_of(optimizer: torch.optim.SGD, weight: Tensor) -> dict[str, Any]:
        """The group of the optimizer's parameters that has `weight`, whose step can be made here.

        Raises:
            TypeError: an optimizer other than SGD.
            ValueError: `weight` is not among its parameters, or an option that is not supported.
        """
        if not isinstance(optimizer, torch.optim.SGD):
            raise TypeError(f"optimizer must be a torch.optim.SGD, got {type(optimizer).__name__}")
        group = next(
            (g for g in optimizer.param_groups if any(p is weight for p in g["params"])), None
        )
        if group is None:
            raise ValueError(
                "optimizer must hold the class centers, got one without them in its param_groups"
            )
        for option in ("dampening", "nesterov", "maximize"):
            if group[option]:
                raise ValueError(f"{option} must be off to fuse SGD, got {group[option]}")
        return group

    def on(self, momentum_buffer: Tensor | None) -> "SGDStep":
        """The same step on other rows, whose momentum that is; it is used where it was."""
        return SGDStep(self.numbers, None if self.momentum_buffer is None else momentum_buffer)

    @cached_property
    def _values(self) -> list[float]:
        return self.numbers.tolist()

    @property
    def lr(self) -> float:
        return self._values[0]

    @property
    def momentum(self) -> float:
        return self._values[1]

    @property
    def weight_decay(self) -> float:
        return self._values[2]
