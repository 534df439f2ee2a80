"""MMPretrain's retriever, whose predictions keep the embedding that they come from."""

from collections.abc import Callable
from typing import Any

from mmpretrain.structures import DataSample
from torch import Tensor

from ..mmengine.method_patches import patch_methods


def _matching(original: Any, retriever: Any, inputs: Tensor) -> dict[str, Tensor]:
    return original(retriever, inputs) | {"embedding": inputs}


def _get_predictions(
    original: Any, retriever: Any, result: dict[str, Tensor], *args: Any, **kwargs: Any
) -> list[DataSample]:
    predictions = original(retriever, result, *args, **kwargs)
    for prediction, embedding in zip(predictions, result["embedding"], strict=True):
        prediction.set_field(embedding, "embedding")
    return predictions


#: What is called instead of each of the retriever's methods.
PATCHES: dict[str, Callable[..., Any]] = {
    "matching": _matching,
    "_get_predictions": _get_predictions,
}


def patch_retriever() -> None:
    patch_methods("mmpretrain.models.ImageToImageRetriever", PATCHES)
