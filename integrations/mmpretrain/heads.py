"""SphereFace2 as an MMPretrain head."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.evaluation.metrics import Accuracy
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from sf2_plugin import SphereFace2

#: Arguments of ArcFaceClsHead that mean nothing to a one-vs-all loss. They are accepted, so that a
#: config that changes nothing but the head's type works.
SOFTMAX_ARGUMENTS = ("loss", "margins", "easy_margin", "num_subcenters")


@MODELS.register_module()
class SphereFace2ClsHead(ClsHead):
    """SphereFace2 in the place of ``ArcFaceClsHead``.

    Args:
        num_classes: identities in the training set.
        in_channels: size of the embeddings, D.
        topk: which top-k accuracies `cal_acc` gives.
        cal_acc: compute accuracies while training, at the price of all (B, C) cosines.
        init_cfg: see `mmengine.model.BaseModule`.
        **kwargs: hyperparameters of `sf2_plugin.SphereFace2` (preset, margin, scale, ...). Those
            of ArcFaceClsHead alone (loss, margins, easy_margin, num_subcenters) are ignored, with
            a line in the log.

    Example:
        >>> custom_imports = dict(imports=["sf2_plugin.integrations.mmpretrain"])
        >>> model = dict(
        ...     type="ImageClassifier",
        ...     backbone=dict(type="ResNet", depth=50),
        ...     neck=dict(type="GlobalAveragePooling"),
        ...     head=dict(type="SphereFace2ClsHead", num_classes=5000, in_channels=2048))

    Raises:
        ValueError: a hyperparameter outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        ignored = [name for name in SOFTMAX_ARGUMENTS if kwargs.pop(name, None) is not None]
        if ignored:
            print_log(
                f"SphereFace2ClsHead ignores {', '.join(ignored)}: a softmax head's arguments",
                logger="current",
            )
        loss = SphereFace2(num_classes, in_channels, **kwargs)
        topk = (topk,) if isinstance(topk, int) else tuple(topk)
        super().__init__(loss=loss, topk=topk, cal_acc=cal_acc, init_cfg=init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Log-odds (B, C) that each face is of each class: scale * g(cosine) + bias."""
        return self.loss_module.logits(self.pre_logits(feats))

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
        of no known identity scores low in all of them.
        """
        embeddings = self.pre_logits(feats)
        scores = torch.sigmoid(self.loss_module.logits(embeddings))
        labels = scores.argmax(dim=1, keepdim=True)
        samples = data_samples or [None] * len(embeddings)
        predictions = []
        for sample, score, label, embedding in zip(
            samples, scores, labels, embeddings, strict=True
        ):
            sample = DataSample() if sample is None else sample
            sample.set_pred_score(score).set_pred_label(label)
            sample.set_field(embedding, "embedding")
            predictions.append(sample)
        return predictions
