"""Face verification as an MMEngine metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from sf2_plugin.evaluation import PairReport, verify_pairs
from sf2_plugin.evaluation.pairs import FAR_TARGETS, check_pairs


@METRICS.register_module(force=True)
class FaceVerification(BaseMetric):
    """1:1 verification on a `FacePairDataset` by the protocol of LFW.

    Gives ``NAME/accuracy`` (mean over the folds, each with the best threshold of the others),
    ``NAME/accuracy_std``, ``NAME/grid_accuracy`` (the same with arcface_torch's grid of
    thresholds), ``NAME/eer``, ``NAME/auc``, ``NAME/tar_at_far_0.001`` and so on, where NAME is the
    pair set's.
    A FAR too small for the number of impostor pairs is left out, because it cannot be measured.

    Reads the field ``embedding`` of the model's predictions, which `SphereFace2ClsHead` adds, and
    with any head MMPretrain's `ImageToImageRetriever`. For other models there is
    `FaceVerificationHook`, which needs nothing of the head.

    Args:
        folds: the pairs are cut into this many runs, in order.
        far_targets: FARs at which TAR is given.
        collect_device: see `mmengine.evaluator.BaseMetric`.

    Example:
        >>> val_evaluator = dict(type="FaceVerification", far_targets=[1e-4, 1e-3])
    """

    def __init__(
        self,
        folds: int = 10,
        far_targets: Sequence[float] = FAR_TARGETS,
        collect_device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(collect_device=collect_device, **kwargs)
        self.folds = folds
        self.far_targets = tuple(far_targets)

    @property
    def dataset_meta(self) -> dict[str, Any]:
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, metainfo: dict[str, Any]) -> None:
        """Given when loops are built: what cannot be verified is refused before training."""
        check_pairs(metainfo["name"], metainfo["issame"], self.folds, self.far_targets)
        self._dataset_meta = metainfo

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        for sample in data_samples:
            if "embedding" not in sample:
                raise ValueError(
                    "FaceVerification reads the field `embedding` of the predictions, which "
                    "SphereFace2ClsHead in an ImageClassifier and ImageToImageRetriever give, and "
                    f"got {', '.join(sample)}: for other models use FaceVerificationHook"
                )
            embedding = sample["embedding"].float().cpu().numpy()
            self.results.append((sample["sample_idx"], embedding))

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures; what rank 0 cannot verify fails on every rank."""
        figures = super().evaluate(size)
        for value in figures.values():
            if isinstance(value, Exception):
                raise value
        return figures

    def compute_metrics(self, results: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
        """The figures, or the error instead: the other ranks wait for what rank 0 gives."""
        try:
            ordered = [embedding for _, embedding in sorted(results, key=lambda result: result[0])]
            return pair_figures(
                verify_faces(np.stack(ordered), self.dataset_meta, self.folds, self.far_targets),
                self.dataset_meta["name"],
            )
        except Exception as error:
            return {"failure": error}


def verify_faces(
    views: np.ndarray, metainfo: dict[str, Any], folds: int, far_targets: Sequence[float]
) -> PairReport:
    """The report on a `FacePairDataset` from its embeddings (items, D), in the dataset's order."""
    faces = views.reshape(-1, metainfo["views"], views.shape[1]).sum(axis=1)
    return verify_pairs(faces[metainfo["face_of"]], metainfo["issame"], folds, far_targets)


def pair_figures(report: PairReport, name: str) -> dict[str, float]:
    """The figures a training log shows, as ``NAME/figure``; what cannot be measured is left out.

    MMEngine calls a mean by what it is the mean of: ``NAME/accuracy``.
    """
    return {
        f"{name}/{figure.name.removesuffix('_mean')}": float(figure.value)
        for figure in report.logged()
        if figure.value is not None
    }
