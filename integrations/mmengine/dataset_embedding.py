"""Embeddings of a dataset from a model that is being trained, shared out over ranks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.model import is_model_wrapper

from sf2_plugin.distributed import on_all_ranks

from .datasets import FacePairDataset


@torch.no_grad()
def embed_faces(
    model: Any, dataset: FacePairDataset | Sequence[Any], batch_size: int
) -> np.ndarray:
    """Embeddings (items, D) of a dataset in its order, float32; every rank embeds its share.

    Items are what a test pipeline makes of an image.

    Raises:
        OSError, ValueError, ...: what one rank could not embed, on all of them.
    """
    if is_model_wrapper(model):
        model = model.module
    world_size = get_world_size()
    mine = range(get_rank(), len(dataset), world_size)
    training = model.training
    model.eval()
    try:
        with on_all_ranks("embed faces"):
            shares = [
                _embed(model, [dataset[i] for i in batch]) for batch in _batches(mine, batch_size)
            ]
    finally:
        model.train(training)
    # A rank without images has no array, not one of an unknown width.
    gathered = all_gather_object(np.concatenate(shares) if shares else None)
    filled = next(share for share in gathered if share is not None)
    embeddings = np.empty((len(dataset), filled.shape[1]), np.float32)
    for rank, share in enumerate(gathered):
        if share is not None:
            embeddings[rank::world_size] = share
    return embeddings


def _batches(indices: range, batch_size: int) -> Iterator[range]:
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


def _embed(model: Any, items: list[Any]) -> np.ndarray:
    inputs = model.data_preprocessor(pseudo_collate(items), False)["inputs"]
    return embed_inputs(model, inputs).float().cpu().numpy()


def embed_inputs(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Embeddings (B, D) of preprocessed images: of the neck, or of the head's ``pre_logits``."""
    features = model.extract_feat(inputs)
    if getattr(model, "head", None) is not None and hasattr(model.head, "pre_logits"):
        return model.head.pre_logits(features)
    return features[-1] if isinstance(features, (tuple, list)) else features
