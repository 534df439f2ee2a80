"""SphereFace2 for pytorch-metric-learning: a classification loss among its own.

::

    from sf2_plugin.integrations.pytorch_metric_learning import SphereFace2Loss

    loss_func = SphereFace2Loss(num_classes=1000, embedding_size=512)
"""

from sf2_plugin.requirements import require

require("pytorch_metric_learning", "pytorch-metric-learning")

from .loss import SphereFace2Loss  # noqa: E402

__all__ = ["SphereFace2Loss"]
