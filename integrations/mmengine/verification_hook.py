"""Verification of several pair sets while a model trains."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner

from sf2_plugin.evaluation import PairReport
from sf2_plugin.evaluation.pairs import FAR_TARGETS, check_pairs

from .datasets import FacePairDataset
from .metrics import pair_figures, verify_faces


@HOOKS.register_module(force=True)
class FaceVerificationHook(Hook):
    """Verifies pair sets every N iterations and sends the figures to log and visualizer.

    Works with any head: it takes what the model's neck (``extract_feat``) and its head's
    ``pre_logits`` give. Ranks share the work. In TensorBoard, a set's figures appear as
    ``verification/NAME/accuracy`` and so on; see `FaceVerification` for their meaning.

    Args:
        pair_sets: configs of `FacePairDataset`, whose ``type`` may be left out.
        interval: verify every this many iterations, and after the last one.
        before_training: verify the untrained model too.
        batch_size: images at a time on each rank.
        folds: see `FaceVerification`.
        far_targets: see `FaceVerification`.

    Attributes:
        reports: the last verification, by pair set, on rank 0.

    Example:
        >>> custom_hooks = [
        ...     dict(type="FaceVerificationHook", interval=2000, pair_sets=[
        ...         dict(ann_file="data/lfw.bin", pipeline=test_pipeline),
        ...         dict(ann_file="data/cfp_fp.bin", pipeline=test_pipeline)])]
    """

    priority = "LOW"

    def __init__(
        self,
        pair_sets: Sequence[dict[str, Any]],
        interval: int = 1000,
        before_training: bool = False,
        batch_size: int = 128,
        folds: int = 10,
        far_targets: Sequence[float] = FAR_TARGETS,
    ) -> None:
        if not pair_sets:
            raise ValueError("pair_sets must name at least one pair set, got none")
        if interval < 1:
            raise ValueError(f"interval must be a number of iterations, at least 1, got {interval}")
        self.pair_sets = [{"type": "FacePairDataset", **pair_set} for pair_set in pair_sets]
        self.interval = interval
        self.before_training = before_training
        self.batch_size = batch_size
        self.folds = folds
        self.far_targets = tuple(far_targets)
        self.datasets: list[FacePairDataset] = []
        self.reports: dict[str, PairReport] = {}

    def before_train(self, runner: Runner) -> None:
        self.datasets = [DATASETS.build(dict(pair_set)) for pair_set in self.pair_sets]
        for dataset in self.datasets:  # Refused before training, not in its middle.
            dataset.full_init()
            name, issame = dataset.metainfo["name"], dataset.metainfo["issame"]
            check_pairs(name, issame, self.folds, self.far_targets)
        if self.before_training and runner.iter == 0:
            self.verify(runner, step=0)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        step = runner.iter + 1
        if step == runner.max_iters or self.every_n_train_iters(runner, self.interval):
            self.verify(runner, step)

    def verify(self, runner: Runner, step: int) -> None:
        """Verify every pair set with the model as it is after `step` iterations."""
        for dataset in self.datasets:
            embeddings = embed_faces(runner.model, dataset, self.batch_size)
            if not is_main_process():
                continue
            report = verify_faces(embeddings, dataset.metainfo, self.folds, self.far_targets)
            name = dataset.metainfo["name"]
            self.reports[name] = report
            figures = pair_figures(report, name)
            shown = "  ".join(f"{figure}: {value:.4f}" for figure, value in figures.items())
            runner.logger.info(f"Verification after {step} iterations  {shown}")
            runner.visualizer.add_scalars(
                {f"verification/{figure}": value for figure, value in figures.items()},
                step=step,
            )


@torch.no_grad()
def embed_faces(
    model: Any, dataset: FacePairDataset | Sequence[Any], batch_size: int
) -> np.ndarray:
    """Embeddings (items, D) of a dataset in its order, float32; every rank embeds its share.

    Items are what a test pipeline makes of an image.
    """
    if is_model_wrapper(model):
        model = model.module
    training = model.training
    model.eval()
    world_size = get_world_size()
    mine = range(get_rank(), len(dataset), world_size)
    embedded = [_embed(model, [dataset[i] for i in batch]) for batch in _batches(mine, batch_size)]
    model.train(training)
    # A rank without images has no array, not one of an unknown width.
    shares = all_gather_object(np.concatenate(embedded) if embedded else None)
    filled = next(share for share in shares if share is not None)
    embeddings = np.empty((len(dataset), filled.shape[1]), np.float32)
    for rank, share in enumerate(shares):
        if share is not None:
            embeddings[rank::world_size] = share
    return embeddings


def _batches(indices: range, batch_size: int) -> Iterator[range]:
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


def _embed(model: Any, items: list[Any]) -> np.ndarray:
    inputs = model.data_preprocessor(pseudo_collate(items), False)["inputs"]
    features = model.extract_feat(inputs)
    if getattr(model, "head", None) is not None and hasattr(model.head, "pre_logits"):
        features = model.head.pre_logits(features)
    elif isinstance(features, (tuple, list)):
        features = features[-1]
    return features.float().cpu().numpy()
