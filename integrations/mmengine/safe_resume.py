"""Resuming MMEngine's checkpoints on a current torch."""

import pickle
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from sf2_plugin.unpickling import add_safe_globals

STATISTICS = ("min", "max", "current", "mean")


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load` read the log history that MMEngine 0.10 stores in its checkpoints.

    Since torch 2.6, `torch.load` reads tensors and plain containers only, and MMEngine's resume
    fails on its own `HistoryBuffer`. What that needs holds numbers and runs no code, so it joins
    the allow-list; everything else in a checkpoint stays refused.
    """
    new_array: Any = np.empty(0).__reduce__()[0]
    new_scalar: Any = np.float64(0).__reduce__()[0]
    float64, int64 = type(np.dtype(np.float64)), type(np.dtype(np.int64))
    add_safe_globals(
        [
            (HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
            (np.ndarray, "numpy.ndarray"),
            (np.dtype, "numpy.dtype"),
            (float64, "numpy.dtypes.Float64DType"),
            (int64, "numpy.dtypes.Int64DType"),
            # Where numpy keeps these depends on its version, and checkpoints outlive versions.
            (new_array, "numpy._core.multiarray._reconstruct"),
            (new_array, "numpy.core.multiarray._reconstruct"),
            (new_scalar, "numpy._core.multiarray.scalar"),
            (new_scalar, "numpy.core.multiarray.scalar"),
            # Its statistics are pickled as getattr(HistoryBuffer, "mean"); this reads no more.
            (_statistic, "builtins.getattr"),
            (_statistic, "__builtin__.getattr"),
        ]
    )


def _statistic(owner: object, name: str) -> Any:
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f"a checkpoint asks for {name!r} of {owner!r}: refused")
    return getattr(HistoryBuffer, name)
