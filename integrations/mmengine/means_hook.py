"""Class centers from the means of their faces' embeddings, before training."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from sf2_plugin.checks import require_count
from sf2_plugin.class_means import start_from_means

from .dataset_embedding import embed_inputs
from .model_parts import bare_model, head_of


@HOOKS.register_module(force=True)
class ClassMeansHook(Hook):
    """Starts SphereFace2's class centers from the means of their faces' unit embeddings.

    For a network that is trained already, by `load_from` or ``init_cfg``, and a head that is not:
    one pass over the training data before the first iteration, as the training pipeline gives it,
    shared out over ranks. A class without faces keeps its random center; the bias is fitted to
    the first of them. A run that resumes has its checkpoint's.

    Args:
        batch_size: images at a time on each rank.

    Raises:
        ValueError: a batch size that is none; before training, a model that has no SphereFace2
            head, or several.

    Example:
        >>> load_from = "epoch_15.pth"
        >>> custom_hooks = [dict(type="ClassMeansHook")]
    """

    def __init__(self, batch_size: int = 128) -> None:
        self.batch_size = require_count("batch_size", batch_size)

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            return
        model = bare_model(runner)
        head = head_of(model, "ClassMeansHook")
        loader = runner.train_dataloader
        runner.logger.info(f"Class centers: one pass over {len(loader.dataset)} faces")
        training = model.training
        model.eval()
        try:
            found = start_from_means(head, _embedded(model, loader, self.batch_size))
        finally:
            model.train(training)
        runner.logger.info(
            f"{found} of {head.num_classes} class centers are the means of their faces, the bias "
            f"is {head.bias.item():.4f}"
        )


def _embedded(model: Any, loader: DataLoader, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings and labels of this rank's share, each face once."""
    dataset: Any = loader.dataset
    faces = DataLoader(
        dataset,
        batch_size,
        sampler=range(get_rank(), len(dataset), get_world_size()),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )
    for batch in faces:
        data = model.data_preprocessor(batch, False)
        labels = torch.cat([sample.gt_label for sample in data["data_samples"]])
        yield embed_inputs(model, data["inputs"]), labels
