"""SphereFace2 on the base classes of pytorch-metric-learning."""

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses.base_metric_loss_function import BaseMetricLossFunction
from pytorch_metric_learning.losses.mixins import WeightRegularizerMixin
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer
from pytorch_metric_learning.utils import common_functions
from torch import Tensor, nn

from sf2_plugin import Recipe, sphereface2_loss
from sf2_plugin.checks import require_count
from sf2_plugin.definition import unit
from sf2_plugin.margins import g


class SphereFace2Loss(WeightRegularizerMixin, BaseMetricLossFunction):
    r"""One binary classification per class, with class centers w and embeddings x of length one:

    .. math::
        L = \frac{s}{r B} \sum_i \Big[ \lambda \log(1 + e^{-(r \varphi_+(\cos\theta_{i y_i}) + b)})
            + (1 - \lambda) \sum_{j \ne y_i} \log(1 + e^{r \varphi_-(\cos\theta_{ij}) + b}) \Big]

    (Wen et al., ICLR 2022, Eq. 5 to 8; the curves phi are those of `sf2_plugin.margins`.)

    Args:
        num_classes: C.
        embedding_size: D.
        preset, margin_type, lam, scale, margin, t, loss_weight, gradient, weight_norm: as of
            `sf2_plugin.SphereFace2`.
        backend: see `sf2_plugin.sphereface2_loss`.
        weight_regularizer, embedding_regularizer, weight_init_func, ...: as of the library's own
            classification losses.

    Attributes:
        W: (D, C) class centers, as the library's losses have them.
        bias: (1,), learned with them: give both to the optimizer, as ``loss_func.parameters()``.

    A loss of one pass over the classes is a mean over faces, and keeps no face's own: reducers
    that weigh faces, the tuples of a miner, and ``ref_emb`` are refused. A label of -1 is a face
    of no known identity.

    Raises:
        ValueError: a hyperparameter outside its domain; a distance other than `CosineSimilarity`;
            a reducer other than `MeanReducer` and `DoNothingReducer`; `indices_tuple` or `ref_emb`
            in the call.

    Example:
        >>> loss_func = SphereFace2Loss(num_classes=1000, embedding_size=512)
        >>> loss = loss_func(torch.randn(8, 512), torch.randint(1000, (8,)))
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        preset: str = "opensphere",
        margin_type: str | None = None,
        lam: float | None = None,
        scale: float | None = None,
        margin: float | None = None,
        t: float | None = None,
        loss_weight: float | str | None = None,
        gradient: str | None = None,
        weight_norm: str | None = None,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        common_functions.assert_distance_type(self, CosineSimilarity)
        reducer = kwargs.get("reducer")
        if reducer is not None and not isinstance(reducer, (MeanReducer, DoNothingReducer)):
            raise ValueError(
                "reducer must be MeanReducer or DoNothingReducer: SphereFace2 is computed in one "
                f"pass that keeps no face's own loss, got {type(reducer).__name__}"
            )
        self.num_classes = require_count("num_classes", num_classes)
        self.embedding_size = require_count("embedding_size", embedding_size)
        self.recipe = Recipe.from_preset(
            preset,
            margin_type=margin_type,
            lam=lam,
            scale=scale,
            margin=margin,
            t=t,
            loss_weight=loss_weight,
            gradient=gradient,
            weight_norm=weight_norm,
        )
        self.backend = backend
        # The library's shape over the engine's memory: a row a class.
        self.W = nn.Parameter(torch.empty(num_classes, embedding_size).T)
        self.weight_init_func(self.W)
        self.bias = nn.Parameter(torch.full((1,), self.recipe.initial_bias(num_classes)))
        self.add_to_recordable_attributes(
            list_of_names=["num_classes", "embedding_size"], is_stat=False
        )

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Any,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict[str, dict[str, Any]]:
        common_functions.labels_required(labels)
        common_functions.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
        if indices_tuple is not None:
            raise ValueError(
                "indices_tuple must be None: SphereFace2 is computed in one pass that keeps no "
                "face's own loss for a miner to weigh"
            )
        self._follow(embeddings)
        loss = sphereface2_loss(
            embeddings, self.W.T, labels, self.bias, self.recipe, backend=self.backend
        )
        losses = {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}
        self.add_weight_regularization_to_loss_dict(losses, self.W.T)
        return losses

    def get_default_distance(self) -> CosineSimilarity:
        return CosineSimilarity()

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """scale * g(cosine) + bias, (B, C): the log-odds that a face is of each class."""
        self._follow(embeddings)
        wide = torch.promote_types(embeddings.dtype, self.W.dtype)
        cosine = unit(embeddings.to(wide)) @ unit(self.W.T.to(wide)).T
        return self.recipe.scale * g(cosine, self.recipe.t) + self.bias

    def _follow(self, embeddings: Tensor) -> None:
        """The library's losses move to where the embeddings are."""
        for parameter in (self.W, self.bias):
            if parameter.device != embeddings.device:
                parameter.data = parameter.data.to(embeddings.device)
