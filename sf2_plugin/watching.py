"""What training looks like from inside a head: cosines and bias, for a host's log.

A loss that falls says little of a one-vs-all head: whether faces come nearer to their own class
center, and the others stay away, says more. Both are computed from the batch at hand and a sample
of the classes, and only for steps that a host will log.
"""

from typing import Any

import torch
from torch import Tensor, distributed

from .definition import unit
from .distributed import ProcessGroup, rank_and_world_size

#: Classes that a rank draws to tell how near the others are.
SAMPLED_CLASSES = 256


class HeadWatch:
    """Watches a head in the steps that are due; a head calls it where its attribute `watch` is set.

    Attributes:
        due: whether the next step is watched; all ranks of a sharded head must say the same.

    Example:
        >>> from sf2_plugin import SphereFace2
        >>> head = SphereFace2(num_classes=10, embedding_size=4)
        >>> head.watch = HeadWatch()
        >>> head.watch.due = True
        >>> loss = head(torch.randn(3, 4), torch.tensor([0, 1, 9]))
        >>> figures = head.watch.figures()
    """

    def __init__(self) -> None:
        self.due = False
        self._sums: Tensor | None = None
        self._drawn = torch.Generator().manual_seed(0)  # Its own: training draws as without it.

    @torch.no_grad()
    def see(
        self,
        x: Tensor,
        labels: Tensor,
        weight: Tensor,
        bias: Tensor,
        *,
        sharded: bool = False,
        group: ProcessGroup = None,
    ) -> None:
        """Look at a step; nothing waits for the device.

        Args:
            x: (B, D) embeddings, with a sharded head those of all ranks.
            labels: (B,) rows of `weight`, or -1 for a face whose center is not in it.
            weight: (C, D) class centers that this rank holds.
            bias: (1,).
            sharded: whether the centers are shared out over the ranks of `group`; otherwise each
                rank sees its own faces alone.
        """
        self.due = False
        x, classes = unit(x.detach().float()), len(weight)
        own = labels >= 0
        positive = (x * unit(weight[labels.clamp(min=0)].float())).sum(dim=1)
        drawn = torch.arange(classes)
        if classes > SAMPLED_CLASSES:
            drawn = torch.randint(classes, (SAMPLED_CLASSES,), generator=self._drawn)
        drawn = drawn.to(weight.device)
        negative = x @ unit(weight[drawn].float()).T
        other = labels[:, None] != drawn
        each = classes / max(
            len(drawn), 1
        )  # Of the classes, each that is drawn stands for so many.
        sums = torch.stack(
            [
                torch.where(own, positive, 0).sum(),
                own.sum(),
                torch.where(other, negative, 0).sum() * each,
                other.sum() * each,
            ]
        )
        if sharded and rank_and_world_size(group)[1] > 1:
            distributed.all_reduce(sums, group=group)
        self._sums = torch.cat([sums, bias.detach().float()])

    def figures(self) -> dict[str, float]:
        """Of the last step that was watched, once; empty where there was none.

        ``positive_cosine`` is the mean cosine of faces and their own class center (left out where
        no face has one), ``negative_cosine`` that of faces and other centers, and ``bias`` the
        head's.
        """
        if self._sums is None:
            return {}
        positive, faces, negative, pairs, bias = self._sums.tolist()
        self._sums = None
        means: dict[str, tuple[Any, Any]] = {
            "positive_cosine": (positive, faces),
            "negative_cosine": (negative, pairs),
        }
        return {name: total / n for name, (total, n) in means.items() if n} | {"bias": bias}
