"""Checkpoints of a sharded head on disk: shown, resharded to another number of ranks, imported.

arcface_torch saves one file a rank, `checkpoint_gpu_{rank}.pt`, and so does this project's head
inside of it. The centers of a rank's classes, and the optimizer's tensors of their shape, are that
rank's share; all else (backbone, schedule, step, the bias) is each rank's copy of the same.
Files are read without running code in them, and a folder is written whole or not at all.

A host that saves gives all files of a save one mark, and resumes from files of one mark alone::

    mark = new_mark()                                   # the same on all ranks
    with file_of_set(path, mark) as file:               # all ranks' files take their names, or none
        torch.save({**checkpoint, MARK: mark}, file)
    ...
    check_marks({path: mark_of(checkpoint, path), ...}) # says which file bears which

`waiting(path, mark)` is where a file or folder that is whole waits for the rest of its set, so that
a kill leaves a whole set to be found (`marked_files`, `common_mark`, `settle`). `claim(lock)` keeps
a second job out of a folder, as long as the first one lives.
"""

from .centers import copy_centers, difference_from, load_centers
from .checkpoints import (
    HEAD,
    OPTIMIZER,
    WORLD_SIZE,
    Shards,
    check_form,
    file_name,
    is_partial_fc_v2,
    read_shards,
    recorded_ranks,
)
from .claims import claim, is_claimed
from .imports import import_shards, with_bias_to_train
from .marks import (
    MARK,
    check_marks,
    common_mark,
    file_of_set,
    mark_of,
    marked_files,
    new_mark,
    remove_leftovers,
    settle,
    waiting,
)
from .resharding import reshard, write_shards

__all__ = [
    "HEAD",
    "MARK",
    "OPTIMIZER",
    "WORLD_SIZE",
    "Shards",
    "check_form",
    "check_marks",
    "claim",
    "common_mark",
    "copy_centers",
    "difference_from",
    "file_name",
    "file_of_set",
    "import_shards",
    "is_claimed",
    "is_partial_fc_v2",
    "load_centers",
    "mark_of",
    "marked_files",
    "new_mark",
    "read_shards",
    "recorded_ranks",
    "remove_leftovers",
    "reshard",
    "settle",
    "waiting",
    "with_bias_to_train",
    "write_shards",
]
