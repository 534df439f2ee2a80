"""Whether the switch works in MMPretrain here, found by making it."""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from sf2_plugin.findings import Finding
from sf2_plugin.requirements import installed


def switch() -> Finding:
    """The head built by MMPretrain's registry, after one step."""
    head = MODELS.build(dict(type="SphereFace2ClsHead", num_classes=3, in_channels=4))
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    head.loss((torch.ones(2, 4),), samples)["loss"].backward()
    found = installed("mmpretrain", "onedl-mmpretrain")
    return Finding("mmpretrain", True, f'{found}: dict(type="SphereFace2ClsHead") takes a step')
