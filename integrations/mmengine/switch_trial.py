"""Whether the switch works in MMEngine here, found by making it."""

from importlib.util import find_spec

import torch
from mmengine.registry import MODELS

from sf2_plugin.findings import Finding
from sf2_plugin.requirements import installed


def switch() -> Finding:
    """The loss module built by MMEngine's registry, after one step."""
    loss = MODELS.build(dict(type="SphereFace2", num_classes=3, embedding_size=4))
    loss(torch.ones(2, 4), torch.tensor([0, 2])).backward()
    found = installed("mmengine", "onedl-mmengine")
    said = f'{found}: dict(type="SphereFace2") takes a step'
    if find_spec("pkg_resources") is None:
        said += '; `_base_ = ["mmpretrain::..."]` needs pkg_resources: pip install "setuptools<82"'
    return Finding("mmengine", True, said)
