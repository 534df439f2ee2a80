"""SphereFace2 with the class centers shared out over ranks, and negatives sampled: Partial FC.

Sharding and sampling follow An et al., "Killing Two Birds with One Stone: Efficient and Robust
Training of Face Recognition CNNs by Partial FC", CVPR 2022 (arXiv 2203.15565). A softmax needs its
normaliser from all ranks before it has a gradient; here a rank needs nothing from the others but
their embeddings and labels.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from .agreement import agree_on_batch
from .checks import (
    check_finite,
    check_inputs,
    check_labels,
    require_none,
    require_one_of,
)
from .compat import autocast_dtype, is_compiling
from .distributed import (
    ProcessGroup,
    classes_of_rank,
    gather,
    rank_and_world_size,
    sum_gradient_over_ranks,
    sum_over_ranks,
)
from .ending import rest_at_the_end
from .engine.backends import resolve_backend
from .fused import MISSED_STEPS, SampledSGD
from .head import SphereFace2
from .sampling import NEGATIVE_WEIGHTINGS, Sample, TakeRows, fused_loss, require_sample_rate
from .wrappers import check_not_wrapped

#: Fresh class centers are drawn in blocks of this many classes, each with a seed of its own, so
#: that a class starts from the same center whatever the number of ranks.
INITIAL_BLOCK = 1024


class PartialFCSphereFace2(SphereFace2):
    """SphereFace2 whose class centers are shared out over the ranks of a process group.

    Each rank holds the centers of its `classes`, sees the faces of all ranks, and computes the
    loss of those faces against its own classes. The loss returned is that of the global batch, the
    same on every rank, and so are the gradients: those of `SphereFace2` on that batch. Without
    ``torch.distributed`` there is one rank, which holds all classes.

    Keep the head out of DistributedDataParallel and the backbone in it: the gradient that reaches
    the embeddings is multiplied by the number of ranks, which DDP's mean divides by.

    **Communication.** A step exchanges, and none of it depends on the number of classes: what ranks
    must agree on (48 bytes a rank), embeddings and labels (gathered), the embeddings'
    gradient (reduced and scattered, in at least float32), and two scalars, the loss and the bias'
    gradient. With B faces in all, b of them on this rank, and embeddings of D elements of s bytes,
    a rank receives (B - b)(D s + D max(s, 4) + 8) bytes: 3.7 MB with 8 ranks of 128 faces and 512
    float32 elements. With several ranks the host waits for the device once a step, for the batch
    sizes, and once more where classes are sampled, for how many are in the batch.

    **Agreement.** Ranks that differ in anything that must be equal (number of classes, recipe,
    sampling, dtypes, the bias, whether gradients are on, ...), and a rank whose batch cannot be
    taken, end the step on all ranks with the same sentence, which says what which rank has. What
    is replaced later, as a margin schedule replaces the recipe, is compared again.

    **Sampling.** With ``sample_rate`` below 1, the classes of the faces in the batch always take
    part, and of the others a fresh uniform sample does. A face's loss against sampled classes is
    multiplied by (classes not in the batch / classes sampled), rank by rank, so that the expected
    loss and gradient are those of ``sample_rate=1``. At ``sample_rate=0`` nothing is sampled and
    the batch's own classes are the only negatives.

    **Optimizers.** The gradient of the centers is dense, zero in rows that did not take part. SGD's
    momentum goes on moving such a row by past gradients, weight decay shortens it (which changes
    no cosine), and AdamW moves it by its decaying averages. PartialFC_V2 of arcface_torch does the
    same. From the same centers and momentum, SGD's next step is in expectation that of
    ``sample_rate=1``; of many steps this holds nearly, as the gradient is not linear in the
    centers. AdamW's is another, by its second moment. ``sparse_gradient=True`` gives the optimizer
    the sampled rows and nothing else, as ``nn.Embedding(sparse=True)`` does: for SGD without
    momentum and weight decay (the same update, at the price of the sampled rows), SparseAdam and
    Adagrad. `fuse_sgd` makes SGD's step, momentum and weight decay included, at the price of the
    sampled rows.

    Args:
        num_classes: C, identities in the training set, over all ranks.
        embedding_size: D.
        sample_rate: fraction of the classes not in the batch that are sampled, from 0 to 1.
        negative_weighting: "unbiased" as above, or "none" to count every sampled class once.
        sparse_gradient: a sparse gradient for the centers; takes effect below a sample rate of 1.
        process_group: None stands for all ranks.
        hyperparameters: those of `SphereFace2`.

    Attributes:
        classes: the classes of this rank, a range.
        weight: (len(classes), D) their centers.
        bias: (1,), equal on all ranks: its gradient is summed over ranks, so that every rank makes
            the same update. A state that is loaded without one leaves it as it is.
        sharded: says to a host that this head may be built on several ranks.

    Raises:
        ValueError: an unknown name, or a value outside its domain; a process that is not in
            `process_group`.

    Example:
        >>> head = PartialFCSphereFace2(1000, 512, sample_rate=0.1)
        >>> loss = head(torch.randn(8, 512), torch.randint(1000, (8,)))
    """

    sharded = True
    takes = SphereFace2.takes | {
        "sample_rate",
        "negative_weighting",
        "sparse_gradient",
        "process_group",
    }

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        sample_rate: float = 1.0,
        negative_weighting: str = "unbiased",
        sparse_gradient: bool = False,
        process_group: ProcessGroup = None,
        **hyperparameters: Any,
    ) -> None:
        require_sample_rate(sample_rate)
        require_one_of("negative_weighting", negative_weighting, NEGATIVE_WEIGHTINGS)
        self.process_group = process_group
        self.rank, self.world_size = rank_and_world_size(process_group)
        if self.world_size > 1:
            rest_at_the_end()
        super().__init__(num_classes, embedding_size, **hyperparameters)
        self.sample_rate = sample_rate
        self.negative_weighting = negative_weighting
        self.sparse_gradient = sparse_gradient

    def _classes_held(self) -> range:
        return classes_of_rank(self.num_classes, self.rank, self.world_size)

    def reset_parameters(self) -> None:
        """Class centers in random directions, and the recipe's initial bias.

        A center depends on torch's seed, its class and the kind of device it is drawn on. Ranks
        that share a seed, as arcface_torch's do, thus start from different centers, and any number
        of them from the same ones.
        """
        if self.weight.is_meta:  # Which holds nothing to be drawn.
            return
        self.catch_up()  # Of what is forgotten, nothing is to be made up.
        first, last = self.classes.start, self.classes.stop
        device = self.weight.device
        with torch.no_grad():
            seed = int(torch.randint(2**62, (), device="cpu"))
            for start in range(first - first % INITIAL_BLOCK, last, INITIAL_BLOCK):
                generator = torch.Generator(device).manual_seed(seed + start)
                block = torch.randn(
                    INITIAL_BLOCK, self.embedding_size, generator=generator, device=device
                )
                held = slice(max(start, first), min(start + INITIAL_BLOCK, last))
                self.weight[held.start - first : held.stop - first] = torch.nn.functional.normalize(
                    block[held.start - start : held.stop - start]
                )
            self.bias.fill_(self.recipe.initial_bias(self.num_classes))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.catch_up()
        # Imported centers come without a bias, whose right value goes by the hyperparameters.
        if not self.bias.is_meta:
            state.setdefault(f"{prefix}bias", self.bias.detach())
        super()._load_from_state_dict(state, prefix, *rest)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.catch_up()
        super()._save_to_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        self.catch_up()
        return super().__getstate__()

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: None = None,
        ref_emb: None = None,
        ref_labels: None = None,
    ) -> Tensor:
        """The loss of the global batch, a scalar, equal on all ranks.

        Args:
            embeddings: (b, D) floating point, this rank's faces; b may differ between ranks and
                steps, and may be 0.
            labels: (b,) integers in 0..num_classes-1, or -1 for a face of no known identity.
            indices_tuple, ref_emb, ref_labels: must be None, see `SphereFace2.forward`.

        Raises:
            TypeError, ValueError: what is wrong with a rank's batch, or differs between ranks; on
                every rank at once.
            RuntimeError: torch.distributed was initialised after the head was built; the head sits
                in DistributedDataParallel or FSDP.
        """
        require_none(indices_tuple=indices_tuple, ref_emb=ref_emb, ref_labels=ref_labels)
        group = self.process_group
        if rank_and_world_size(group) != (self.rank, self.world_size):
            raise RuntimeError(
                f"the head was built as rank {self.rank} of {self.world_size} and is used as "
                "rank {} of {}: initialise torch.distributed first".format(
                    *rank_and_world_size(group)
                )
            )
        if self.world_size > 1:
            check_not_wrapped(self)
            x, labels = self._gathered(embeddings, labels)
        else:
            check_inputs(embeddings, self.weight, labels, self.bias)
            x, labels = embeddings, labels.long()
            check_labels(labels, self.num_classes)
            if self.check_finite:
                check_finite(x)

        first, last = self.classes.start, self.classes.stop
        held = (labels >= first) & (labels < last)
        own = torch.where(held, labels - first, -1)
        bias = sum_gradient_over_ranks(self.bias, group)
        if self.sample_rate < 1:
            share = self._sampled_loss(x, own, bias)
        else:
            self.catch_up()
            share = self._loss(x, self.weight, own, bias)
        if self.watch is not None and not is_compiling() and self.watch.due:
            self.watch.see(x, own, self.weight, self.bias, sharded=True, group=group)
        return sum_over_ranks(share, group)

    def _gathered(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and labels of all ranks, which are found to fit together first."""
        common: dict[str, Any] | Exception
        try:
            check_inputs(embeddings, self.weight, labels, self.bias)
            resolve_backend(self.backend, embeddings.device, embeddings.dtype)
            common = self._in_common(embeddings)
        except Exception as error:  # Told to the others before it is raised.
            common = error
        sizes = agree_on_batch(
            embeddings,
            labels,
            self.bias,
            common,
            num_classes=self.num_classes,
            check_finite=self.check_finite,
            group=self.process_group,
        )
        if torch.is_grad_enabled() and not embeddings.requires_grad:
            # The gather's backward is a collective: a rank that left it out would hang the others.
            embeddings = embeddings.detach().requires_grad_()
        group = self.process_group
        return gather(embeddings, sizes, group), gather(labels.long(), sizes, group)

    def _in_common(self, embeddings: Tensor) -> dict[str, Any]:
        """What must be equal on all ranks, by name."""
        device, fused = embeddings.device.type, self._fused_sgd()
        sgd = fused and fused.step(self.weight)
        return {
            "num_classes": self.num_classes,
            "embedding_size": self.embedding_size,
            **dataclasses.asdict(self.recipe),
            "sample_rate": self.sample_rate,
            "negative_weighting": self.negative_weighting,
            "sparse_gradient": self.sparse_gradient,
            "learn_bias": self.bias.requires_grad,
            "requires_grad of the class centers": self.weight.requires_grad,
            "dtype of the class centers": self.weight.dtype,
            "dtype of the bias": self.bias.dtype,
            "dtype of the embeddings": embeddings.dtype,
            "device": device,
            "autocast": autocast_dtype(device) or False,
            "torch.is_grad_enabled()": torch.is_grad_enabled(),
            "watch.due": self.watch is not None and self.watch.due,
            "fused SGD": sgd and (sgd.lr, sgd.momentum, sgd.weight_decay),
            "missed_steps": isinstance(fused, SampledSGD) and fused.missed_steps,
        }

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines (B, C) between embeddings (B, D) and the class centers of the only rank.

        Raises:
            ValueError: the centers are shared out over several ranks.
        """
        if self.world_size > 1:
            raise ValueError(
                "cosine and logits must have the centers of all classes, got those of "
                f"{self.classes.start}..{self.classes.stop - 1} on rank {self.rank} of "
                f"{self.world_size}: merge the shards with sf2 shards reshard DIR --ranks 1"
            )
        self.catch_up()
        return super().cosine(embeddings)

    def fuse_sgd(self, optimizer: torch.optim.SGD, *, missed_steps: str = "made_up") -> None:
        """`SphereFace2.fuse_sgd`, with sampled classes too, whose step costs what it samples.

        Rows that are not sampled are not touched. By ``missed_steps="made_up"`` they get, when they
        are next sampled, the steps that the optimizer would have made meanwhile, by momentum and
        weight decay, at the learning rates of the time: in one go, exact but for rounding. The
        same for all rows when the state of the head or of the optimizer is saved or loaded, and
        where the head is evaluated; whoever reads or writes ``weight`` or the momentum by other
        ways calls `catch_up` first. By ``missed_steps="skipped"`` nothing moves a row that is not
        sampled, nor its momentum, as with SparseAdam and in Partial FC's first version.

        Raises:
            TypeError, ValueError: as `SphereFace2.fuse_sgd`; another `missed_steps`.
        """
        require_one_of("missed_steps", missed_steps, MISSED_STEPS)
        self._check_sweep()
        self.catch_up()
        self._fused = SampledSGD(optimizer, self.weight, missed_steps)

    def catch_up(self) -> None:
        """Make up, on this rank, for the steps that class centers have missed; see `fuse_sgd`."""
        if isinstance(self._fused, SampledSGD):
            self._fused.catch_up()

    def _sampled_loss(self, x: Tensor, labels: Tensor, bias: Tensor) -> Tensor:
        """The loss against the batch's own classes, and against a sample of the rest."""
        sample = Sample.of(labels, len(self.weight), self.sample_rate)
        indices = sample.present, sample.sampled
        stands_for = sample.stands_for if self.negative_weighting == "unbiased" else 1.0
        nobody = torch.full_like(labels, -1)
        losses = self._compute(sample.labels, bias), self._compute(nobody, bias, stands_for)
        fused = self._fused_sgd()
        if isinstance(fused, SampledSGD):
            return fused_loss(fused, losses, indices, x)
        self.catch_up()
        parts = TakeRows.apply(self.weight, *indices, self.sparse_gradient)
        first, second = (loss(x, rows, None) for loss, rows in zip(losses, parts, strict=True))
        if self.recipe.weight_norm == "in_place":
            with torch.no_grad():
                for index, rows in zip(indices, parts, strict=True):
                    self.weight.index_copy_(0, index, rows)
        return first + second

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, classes {self.classes.start}..{self.classes.stop - 1} "
            f"on rank {self.rank} of {self.world_size}, sample_rate={self.sample_rate}, "
            f"negative_weighting={self.negative_weighting}"
        )
