"""SphereFace2 as an MMPretrain head."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.evaluation.metrics import Accuracy
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.margins import phi_negative, phi_positive

from .arcface_centers import take_arcface_centers

#: Arguments of ArcFaceClsHead that mean nothing to a one-vs-all loss. They are accepted, so that a
#: config that changes nothing but the head's type works.
SOFTMAX_ARGUMENTS = ("loss", "margins", "easy_margin", "num_subcenters")

#: Arguments that only the sharded head takes.
PARTIAL_FC_ARGUMENTS = ("sample_rate", "negative_weighting", "sparse_gradient")


@MODELS.register_module(force=True)
class SphereFace2ClsHead(ClsHead):
    """SphereFace2 in the place of ``ArcFaceClsHead``.

    **Partial FC.** With ``partial_fc=True`` the class centers are shared out over the ranks of a
    distributed run (`sf2_plugin.PartialFCSphereFace2`); the loss is that of the global batch. The
    optimizer and ``paramwise_cfg`` see the shard as ``head.loss_module``; DDP does not. Each rank
    saves its shard and momentum beside every checkpoint, ``epoch_3.shards/`` beside
    ``epoch_3.pth``, in a folder that all ranks must see and no other job saves in; ``resume`` reads
    back what was saved together on any number of ranks, and ``sf2 shards`` shows it.
    ``clip_grad=dict(max_norm=...)`` clips by the gradient of the whole model, all shards included.
    Nothing needs configuring for this: a hook registers itself. No rank holds all classes, so
    `predict` and `forward` give embeddings and no class scores, and `cal_acc` is refused; verify
    with `FaceVerification` or `FaceVerificationHook`.
    Start ranks from one seed, which is MMEngine's default: under
    ``randomness=dict(diff_rank_seed=True)`` the first centers depend on the number of ranks.

    **From ArcFace.** A checkpoint of ArcFaceClsHead, by `load_from` or ``init_cfg``, brings its
    class centers; the bias starts as in a fresh head, and the log says so.

    **Mixed precision.** ArcFaceClsHead turns autocast off. This head does not: under
    `AmpOptimWrapper` its matrix products take autocast's dtype; the loss and its sums stay float32.

    Args:
        num_classes: identities in the training set.
        in_channels: size of the embeddings, D.
        topk: which top-k accuracies `cal_acc` gives.
        cal_acc: compute accuracies while training, at the price of all (B, C) cosines.
        partial_fc: share the class centers out over ranks, as above.
        fuse_sgd: make SGD's step on the class centers within the loss' pass (`FuseSGDHook`).
        missed_steps: with `partial_fc`, `fuse_sgd` and a sample_rate below 1, what becomes of the
            steps that a class misses while it is not sampled: "made_up" or "skipped".
        init_cfg: see `mmengine.model.BaseModule`.
        **kwargs: hyperparameters of `sf2_plugin.SphereFace2` (preset, margin, scale, ...), and
            with `partial_fc` sample_rate, negative_weighting ("none" here, which counts every
            sampled class once) and sparse_gradient. Those of ArcFaceClsHead alone (loss, margins,
            easy_margin, num_subcenters) are ignored, with a line in the log.

    Example:
        >>> custom_imports = dict(imports=["sf2_plugin.integrations.mmpretrain"])
        >>> model = dict(
        ...     type="ImageClassifier",
        ...     backbone=dict(type="ResNet", depth=50),
        ...     neck=dict(type="GlobalAveragePooling"),
        ...     head=dict(type="SphereFace2ClsHead", num_classes=5000, in_channels=2048))
        >>> # Ten million classes over the GPUs of `torchrun ... --launcher pytorch`:
        >>> model["head"].update(num_classes=10_000_000, partial_fc=True, sample_rate=0.1)

    Raises:
        ValueError: a hyperparameter outside its domain, or one that needs `partial_fc`, or
            `cal_acc` together with it.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        partial_fc: bool = False,
        fuse_sgd: bool = False,
        missed_steps: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        ignored = [name for name in SOFTMAX_ARGUMENTS if kwargs.pop(name, None) is not None]
        if ignored:
            print_log(
                f"SphereFace2ClsHead ignores {', '.join(ignored)}: a softmax head's arguments",
                logger="current",
            )
        if partial_fc and cal_acc:
            raise ValueError("cal_acc needs all classes on one rank: leave it out with partial_fc")
        sharding = [name for name in PARTIAL_FC_ARGUMENTS if name in kwargs]
        if sharding and not partial_fc:
            raise ValueError(f"{', '.join(sharding)} needs partial_fc=True")
        if missed_steps is not None and not (partial_fc and fuse_sgd):
            raise ValueError("missed_steps needs partial_fc=True and fuse_sgd=True")
        if partial_fc:  # By docs/accuracy.md the more accurate.
            kwargs.setdefault("negative_weighting", "none")
        head = PartialFCSphereFace2 if partial_fc else SphereFace2
        loss = head(num_classes, in_channels, **kwargs)
        topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not topk or not all(1 <= k <= (num_classes if cal_acc else k) for k in topk):
            raise ValueError(f"topk must be from 1 to num_classes={num_classes}, got {topk}")
        super().__init__(loss=loss, topk=topk, cal_acc=cal_acc, init_cfg=init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.partial_fc = partial_fc
        self.fused_sgd: dict[str, str] | None = None
        if fuse_sgd:
            self.fused_sgd = {} if missed_steps is None else {"missed_steps": missed_steps}

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        take_arcface_centers(self.loss_module, state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The last feature, the embeddings (B, D).

        Raises:
            TypeError: not a tuple of features.
            ValueError: features of another size.
        """
        if not isinstance(feats, (tuple, list)):
            raise TypeError(
                "feats must be a tuple of features, of which the last one counts, got a "
                f"{type(feats).__name__}"
            )
        embeddings = feats[-1]
        if embeddings.ndim != 2 or embeddings.shape[1] != self.in_channels:
            raise ValueError(
                f"the last feature must be (B, {self.in_channels}), got {tuple(embeddings.shape)}: "
                "in_channels is the size that the neck gives"
            )
        return embeddings

    def forward(self, feats: tuple[Tensor, ...], target: Tensor | None = None) -> Tensor:
        """Log-odds (B, C) that each face is of each class: scale * g(cosine) + bias.

        With a `target` (B,) or (B, 1), as ArcFaceClsHead takes it, those that the loss is made of:
        scale * phi + bias, the margin off the target's similarity and on the others'. With
        `partial_fc`, the embeddings (B, D).
        """
        embeddings = self.pre_logits(feats)
        if self.partial_fc:
            return embeddings
        if target is None:
            return self.loss_module.logits(embeddings)
        recipe = self.loss_module.recipe
        cosines = self.loss_module.cosine(embeddings)
        bent = [
            phi(cosines, recipe.margin_type, recipe.margin, recipe.t)
            for phi in (phi_positive, phi_negative)
        ]
        classes = torch.arange(self.num_classes, device=cosines.device)
        phi = torch.where(target.reshape(-1, 1) == classes, *bent)
        return recipe.scale * phi + self.loss_module.bias

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """The batch's loss, and its accuracies where `cal_acc` asks for them.

        Raises:
            ValueError: labels mixed by a batch augmentation, which have no one identity.
        """
        if "gt_score" in data_samples[0]:
            raise ValueError(
                "SphereFace2 needs one identity a face, and a batch augmentation (MixUp, CutMix) "
                "or `to_onehot` has made scores of the labels: take it out of the config"
            )
        embeddings = self.pre_logits(feats)
        labels = torch.cat([sample.gt_label for sample in data_samples])
        losses = {"loss": self.loss_module(embeddings, labels)}
        if self.cal_acc:
            with torch.no_grad():
                cosines = self.loss_module.cosine(embeddings)
            accuracies = Accuracy.calculate(cosines, labels, self.topk, thrs=(None,))
            for k, accuracy in zip(self.topk, accuracies, strict=True):
                losses[f"accuracy_top-{k}"] = accuracy
        return losses

    def predict(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample | None] | None = None
    ) -> list[DataSample]:
        """Class scores, the best class, and the field ``embedding`` (D,), for verification.

        Scores are sigmoids: each class is asked by itself whether the face is its own, so a face
        of no known identity scores low in all of them. With `partial_fc`, the embedding alone.
        """
        embeddings = self.pre_logits(feats)
        predictions = [
            DataSample() if sample is None else sample
            for sample in data_samples or [None] * len(embeddings)
        ]
        for prediction, embedding in zip(predictions, embeddings, strict=True):
            prediction.set_field(embedding, "embedding")
        if not self.partial_fc:
            scores = torch.sigmoid(self.loss_module.logits(embeddings))
            labels = scores.argmax(dim=1, keepdim=True)
            for prediction, score, label in zip(predictions, scores, labels, strict=True):
                prediction.set_pred_score(score).set_pred_label(label)
        return predictions
