"""Checkpoints of a sharded head on disk: shown, resharded to another number of ranks, imported.

arcface_torch saves one file a rank, `checkpoint_gpu_{rank}.pt`, and so does this project's head
inside of it. The centers of a rank's classes, and the optimizer's tensors of their shape, are that
rank's share; all else (backbone, schedule, step, the bias) is each rank's copy of the same.
Files are read without running code in them, and a folder is written whole or not at all.
"""

from .centers import copy_centers, difference_from, load_centers
from .checkpoints import (
    HEAD,
    OPTIMIZER,
    WORLD_SIZE,
    Shards,
    file_name,
    is_partial_fc_v2,
    read_shards,
    recorded_ranks,
)
from .imports import import_shards
from .resharding import reshard, write_shards

__all__ = [
    "HEAD",
    "OPTIMIZER",
    "WORLD_SIZE",
    "Shards",
    "copy_centers",
    "difference_from",
    "file_name",
    "import_shards",
    "is_partial_fc_v2",
    "load_centers",
    "read_shards",
    "recorded_ranks",
    "reshard",
    "write_shards",
]
