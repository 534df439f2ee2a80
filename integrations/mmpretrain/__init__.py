"""SphereFace2 for MMPretrain: in a config that trains today, change the head's type.

Importing this package registers everything::

    custom_imports = dict(imports=["sf2_plugin.integrations.mmpretrain"])
    model = dict(head=dict(type="SphereFace2ClsHead", num_classes=..., in_channels=...))
"""

from sf2_plugin.requirements import require

require("mmpretrain", "mmpretrain", "hosts")

from ..mmengine import (  # noqa: E402
    ClassMeansHook,
    FacePairDataset,
    FaceVerification,
    FaceVerificationHook,
    FreezeBackboneHook,
    MarginScheduleHook,
)
from .heads import SphereFace2ClsHead  # noqa: E402
from .retrievers import patch_retriever  # noqa: E402

patch_retriever()

__all__ = [
    "ClassMeansHook",
    "FacePairDataset",
    "FaceVerification",
    "FaceVerificationHook",
    "FreezeBackboneHook",
    "MarginScheduleHook",
    "SphereFace2ClsHead",
]
