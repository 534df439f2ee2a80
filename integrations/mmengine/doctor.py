"""Whether the switch works in MMEngine here, found by making it."""

import torch
from mmengine.registry import MODELS

from sf2_plugin.findings import Finding

from ..requirements import installed


def switch() -> Finding:
    """The loss module built by MMEngine's registry, after one step."""
    loss = MODELS.build(dict(type="SphereFace2", num_classes=3, embedding_size=4))
    loss(torch.ones(2, 4), torch.tensor([0, 2])).backward()
    found = installed("mmengine", "onedl-mmengine")
    return Finding("mmengine", True, f'{found}: dict(type="SphereFace2") takes a step')
