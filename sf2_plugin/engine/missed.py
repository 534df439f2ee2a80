"""SGD's steps that class centers have missed while they were not sampled, made up at once.

Where there is no gradient, a step is linear in a center w and its momentum v,

    v' = momentum * v + weight_decay * w,    w' = w - lr * v',

with the same four numbers for every row. So do steps on end: what a row has become goes by how many
steps had been made when it was last touched, and by nothing else. A table keeps those numbers for
each such count, and every step is made on the table as on a row. Nothing is inverted: the products
shrink, and their inverses would blow up.
"""

import torch
from torch import Tensor

from .memory import keeps_memory
from .sgd import SGDStep

#: Steps after which all rows are brought up to date: a thousandth of a dense step, step by step.
LONGEST = 1024
#: Elements of the class centers that are brought up to date at a time: what stays in a CPU's cache,
#: and long enough for threads that must be woken for each operator.
BLOCK = 2**18


class MissedSteps:
    """How far behind each row of the class centers is.

    Attributes:
        last: (C,) the count of steps when each row was last touched.
        steps: the count now, at most `LONGEST`.
        of_w, of_v: (LONGEST + 1, 2) float64; by that count, how much of its old center and of its
            old momentum a row's center, and its momentum, holds now.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.last = torch.zeros(num_classes, dtype=torch.int32, device=device)
        self.of_w = torch.empty(LONGEST + 1, 2, dtype=torch.float64, device=device)
        self.of_v = torch.empty_like(self.of_w)
        self._spares: dict[str, Tensor] = {}
        self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self.last.zero_()
        self.of_w[:] = self.of_w.new_tensor([1.0, 0.0])
        self.of_v[:] = self.of_v.new_tensor([0.0, 1.0])

    @property
    def full(self) -> bool:
        """Whether all rows must be brought up to date before another step."""
        return self.steps + 1 == len(self.of_w)

    def take(
        self, weight: Tensor, momentum: Tensor | None, index: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Copies of some rows (n, D), and of their momentum, as they are by now.

        They last until the next are taken.
        """
        rows = self._spare("rows", weight, len(index))
        moving = None if momentum is None else self._spare("moving", momentum, len(index))
        for block in _blocks(rows):
            of = index[block]
            w = weight.index_select(0, of)
            v = None if momentum is None else momentum.index_select(0, of)
            self._make_up(
                w, v, self.last[of], rows[block], None if moving is None else moving[block]
            )
        return rows, moving

    def _spare(self, name: str, like: Tensor, count: int) -> Tensor:
        """Memory for that many rows; on a CPU, where new memory costs much, that of the last."""
        if not keeps_memory(like):
            return like.new_empty(count, like.shape[1])
        spare = self._spares.get(name)
        if spare is None or len(spare) < count or spare.dtype != like.dtype:
            # Somewhat more, as the number of classes in a batch varies.
            spare = self._spares[name] = like.new_empty(count + count // 8, like.shape[1])
        return spare[:count]

    def put(
        self,
        weight: Tensor,
        momentum: Tensor | None,
        index: Tensor,
        rows: Tensor,
        moving: Tensor | None,
    ) -> None:
        """Store rows, and their momentum, as they are by now."""
        weight.index_copy_(0, index, rows)
        if momentum is not None and moving is not None:
            momentum.index_copy_(0, index, moving)
        self.last[index] = self.steps

    def advance(self, step: SGDStep) -> None:
        """The step is made; a row that is not put after it has missed it."""
        known = slice(self.steps + 1)
        w, v = self.of_w[known], self.of_v[known]
        if step.momentum:
            w.sub_(v.mul_(step.momentum).add_(w, alpha=step.weight_decay), alpha=step.lr)
        else:  # SGD leaves the momentum that it does not use as it is.
            w.mul_(1 - step.lr * step.weight_decay)
        self.steps += 1

    def catch_up(self, weight: Tensor, momentum: Tensor | None) -> None:
        """Bring all rows up to date, in place."""
        if not self.steps:
            return
        for block in _blocks(weight):
            w, v = weight[block], None if momentum is None else momentum[block]
            self._make_up(w.clone(), None if v is None else v.clone(), self.last[block], w, v)
        self._begin()

    def _make_up(
        self, w: Tensor, v: Tensor | None, last: Tensor, rows: Tensor, moving: Tensor | None
    ) -> None:
        """From rows `w`, `v` as they were to what they are by now, into `rows`, `moving`."""
        if not self.steps:
            rows.copy_(w)
            if v is not None and moving is not None:
                moving.copy_(v)
            return
        wide = torch.promote_types(w.dtype, torch.float32)
        last = last.long()
        of_w, of_v = (table[last].to(wide).split(1, dim=1) for table in (self.of_w, self.of_v))
        if v is None or moving is None:
            torch.mul(w, of_w[0].to(w.dtype), out=rows)
        elif wide == w.dtype:
            torch.mul(w, of_w[0], out=rows).addcmul_(v, of_w[1])
            torch.mul(v, of_v[1], out=moving).addcmul_(w, of_v[0])
        else:
            w, v = w.to(wide), v.to(wide)
            rows.copy_((w * of_w[0]).addcmul_(v, of_w[1]))
            moving.copy_((v * of_v[1]).addcmul_(w, of_v[0]))


def _blocks(rows: Tensor) -> list[slice]:
    height = max(BLOCK // max(rows.shape[1], 1), 1)
    return [slice(start, start + height) for start in range(0, len(rows), height)]
