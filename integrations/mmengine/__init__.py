"""SphereFace2 for MMEngine: loss, face pairs, verification metric and hooks, in root registries.

Importing this package registers everything; in a config::

    custom_imports = dict(imports=["sf2_plugin.integrations.mmengine"])

Frameworks built on MMEngine find these names too, because their registries ask the root.
"""

from sf2_plugin.requirements import require

require("mmengine", "mmengine", "hosts")

from mmengine.registry import MODELS  # noqa: E402

from sf2_plugin import PartialFCSphereFace2, SphereFace2  # noqa: E402
from sf2_plugin.ending import rest_at_the_end  # noqa: E402

from .datasets import FacePairDataset  # noqa: E402
from .figures_hook import HeadWatchHook  # noqa: E402
from .finite_hook import SkipNotFiniteHook  # noqa: E402
from .freeze_hook import FreezeBackboneHook  # noqa: E402
from .fused_sgd_hook import FuseSGDHook  # noqa: E402
from .gloo_wrapper import serve_cpu  # noqa: E402
from .logs import log_to_mmengine  # noqa: E402
from .margin_hook import MarginScheduleHook  # noqa: E402
from .means_hook import ClassMeansHook  # noqa: E402
from .metrics import FaceVerification  # noqa: E402
from .partial_fc_hook import PartialFCHook  # noqa: E402
from .rules import patch_rules  # noqa: E402
from .runner_patches import patch_runner  # noqa: E402
from .safe_resume import allow_mmengine_checkpoints  # noqa: E402
from .verification_hook import FaceVerificationHook  # noqa: E402

MODELS.register_module(module=SphereFace2, force=True)
MODELS.register_module(module=PartialFCSphereFace2, force=True)
allow_mmengine_checkpoints()
log_to_mmengine()
serve_cpu()
patch_runner()
patch_rules()
rest_at_the_end()

__all__ = [
    "ClassMeansHook",
    "FacePairDataset",
    "FaceVerification",
    "FaceVerificationHook",
    "FreezeBackboneHook",
    "HeadWatchHook",
    "FuseSGDHook",
    "MarginScheduleHook",
    "PartialFCHook",
    "PartialFCSphereFace2",
    "SkipNotFiniteHook",
    "SphereFace2",
]
