"""Resuming MMEngine's checkpoints on a current torch."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load` read the log history that MMEngine 0.10 stores in its checkpoints.

    Since torch 2.6, `torch.load` reads tensors and plain containers only, and MMEngine's resume
    fails on its own `HistoryBuffer`. These types hold numbers and run no code, so they join the
    allow-list; everything else in a checkpoint stays refused.
    """
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            np.dtypes.Float64DType,
            np.dtypes.Int64DType,
            # Where numpy keeps it depends on its version, and checkpoints outlive versions.
            (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
            (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
            (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
            (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
            # How `HistoryBuffer` pickles its statistics: by looking its own methods up.
            getattr,
        ]
    )
