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
            raise TypeError(f"only torch.optim.SGD can be fused, got {type(optimizer).__name__}")
        group = next(
            (g for g in optimizer.param_groups if any(p is weight for p in g["params"])), None
        )
        if group is None:
            raise ValueError("the optimizer does not hold the class centers")
        for option in ("dampening", "nesterov", "maximize"):
            if group[option]:
                raise ValueError(f"SGD with {option}={group[option]} cannot be fused")
        buffer = None
        if group["momentum"]:
            state = optimizer.state[weight]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weight)
            buffer = state["momentum_buffer"] = state["momentum_buffer"].contiguous()
        return cls(float(group["lr"]), group["momentum"], group["weight_decay"], buffer)
