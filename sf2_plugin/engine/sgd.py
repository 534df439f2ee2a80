"""A step of SGD on the class centers, made by the sweep chunk by chunk."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGDStep:
    """What `torch.optim.SGD` would do with the class centers' gradient.

    Attributes:
        momentum_buffer: (C, D), updated; None where there is no momentum.
    """

    lr: float
    momentum: float
    weight_decay: float
    momentum_buffer: Tensor | None

    @classmethod
    def of(cls, optimizer: torch.optim.SGD, weight: Tensor) -> "SGDStep":
        """The next step of `optimizer` on `weight`, whose momentum stays in the optimizer's state.

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
        buffer = None
        if group["momentum"]:
            state = optimizer.state[weight]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weight)
            buffer = state["momentum_buffer"] = state["momentum_buffer"].contiguous()
        return cls(float(group["lr"]), group["momentum"], group["weight_decay"], buffer)

    def pack(self) -> Tensor:
        """Its numbers as an operator takes them: data, of which none is compiled in."""
        return torch.tensor(
            [self.lr, self.momentum, self.weight_decay], dtype=torch.float64, device="cpu"
        )

    @classmethod
    def unpack(cls, numbers: Tensor, momentum_buffer: Tensor | None) -> "SGDStep":
        """The step that `pack` packed, with its momentum buffer."""
        lr, momentum, weight_decay = numbers.tolist()
        return cls(lr, momentum, weight_decay, momentum_buffer)
