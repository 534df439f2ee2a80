"""A checkpoint of ArcFaceClsHead in SphereFace2ClsHead: its class centers are class centers."""

from typing import Any

from mmengine.logging import print_log

from sf2_plugin import SphereFace2

#: Where ArcFaceClsHead keeps them.
CENTERS = "norm_product.weight"


def take_arcface_centers(head: SphereFace2, state: dict[str, Any], prefix: str) -> None:
    """Rename ArcFaceClsHead's class centers in a state that is about to be loaded.

    With them comes the bias that a fresh head of this recipe has. Those of another shape, sub-
    centers among them, are renamed too, for `head` to say that it does not take them.

    Args:
        head: a SphereFace2ClsHead's loss module.
        state: by names that begin with `prefix`, the SphereFace2ClsHead's own.
    """
    weight = f"{prefix}loss_module.weight"
    if f"{prefix}{CENTERS}" not in state or weight in state:
        return
    centers = state.pop(f"{prefix}{CENTERS}")
    bias = head.recipe.initial_bias(head.num_classes)
    state[weight] = centers
    state[f"{prefix}loss_module.bias"] = head.bias.detach().new_full((1,), bias)
    if centers.shape == (head.num_classes, head.embedding_size):
        print_log(
            f"SphereFace2ClsHead takes {len(centers)} class centers of size {centers.shape[1]} "
            f"from ArcFaceClsHead ({prefix}{CENTERS}); its bias starts at {bias:.4f}",
            logger="current",
        )
