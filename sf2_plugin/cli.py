"""The command line: `sf2 COMMAND ...`, or `python -m sf2_plugin.cli COMMAND ...`."""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .options import Commands, Parser, add_commands
from .terminal import answers_alone, complain

DATA: Commands = {
    "align": (".data_align", "cut faces from photos, 112 x 112"),
    "check": (".data_check", "find damaged, tiny and duplicate images, and people in two folders"),
    "audit": (".data_audit", "find labels that look wrong, by a model"),
    "split": (".data_split", "divide people, never their images, into train and val"),
    "pairs": (".data_pairs", "make a pair list and a .bin to verify with"),
    "pack": (
        ".data_pack:add_pack_arguments",
        "write a folder of people as train.rec, train.idx and property",
    ),
    "unpack": (
        ".data_pack:add_unpack_arguments",
        "write train.rec and train.idx as a folder of people",
    ),
}
SHARDS: Commands = {
    "show": (".shards:add_show_arguments", "what a sharded checkpoint holds"),
    "reshard": (
        ".shards:add_reshard_arguments",
        "the same checkpoint for another number of ranks",
    ),
    "import": (
        ".shards:add_import_arguments",
        "class centers that other code trained, as a checkpoint of this head",
    ),
}
EVAL: Commands = {
    "pairs": (".eval_pairs", "verify pairs of faces, 1:1"),
    "templates": (".eval_templates", "verify pairs of templates, 1:1, as IJB-B and IJB-C"),
    "identify": (".eval_identify", "search people in a gallery, 1:N, closed-set and open-set"),
}
BENCH: Commands = {
    "head": (".bench:add_head_arguments", "one head's forward and backward pass"),
    "memory": (".bench:add_memory_arguments", "what a rank of a sharded head needs"),
}
COMMANDS: Commands = {
    "demo": (".demo", "train a face model and verify people unseen"),
    "data": (DATA, "align, check, audit, split, pair and pack faces"),
    "shards": (SHARDS, "show, reshard, import sharded heads"),
    "eval": (EVAL, "verify, identify, calibrate a model"),
    "export": (".export", "write a checkpoint as a package for insightface and products"),
    "doctor": (".doctor", "say what is installed and whether a host runs"),
    "bench": (BENCH, "measure time and memory against other heads"),
}

BAD_INPUT = 2
OWN_FAULT = 1
INTERRUPTED = 130
NOBODY_READS = 141  # As if the signal of a broken pipe had ended it.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 where it went well.

    After one line that says what is wrong, 2 on bad input and 1 where the fault is the program's;
    `--traceback` shows the whole error before it.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(argv)
    except KeyboardInterrupt:
        complain("sf2: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError, AttributeError):  # Else Python tries to write at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except Exception as error:
        if "--traceback" in argv:
            traceback.print_exc()
        line, status = _line(error)
        complain(f"sf2: error: {line}")
        return status


def _run(argv: Sequence[str]) -> int:
    parser = Parser(prog="sf2", description="SphereFace2 for face recognition frameworks.")
    parser.add_argument("--version", action="version", version=__version__)
    add_commands(parser, COMMANDS)
    try:
        arguments = parser.parse_args(argv)
        with warnings.catch_warnings(), answers_alone():
            warnings.showwarning = _show_warning
            return arguments.run(arguments) or 0
    finally:
        if sys.stdout:
            sys.stdout.flush()


def _line(error: Exception) -> tuple[str, int]:
    """The line that tells an error, and the exit status."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}", BAD_INPUT
    if isinstance(error, (ValueError, ImportError, OSError)):
        return str(error), BAD_INPUT
    kind = type(error).__name__
    if (
        isinstance(error, MemoryError)
        or kind == "OutOfMemoryError"
        or "can't allocate" in str(error)
    ):
        return f"there is not enough memory: {str(error) or kind}", BAD_INPUT
    return (
        f"a fault of sf2 itself, please report it with what --traceback shows: {kind}: {error}",
        OWN_FAULT,
    )


_show_anothers_warning = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *place: Any, **other: Any
) -> None:
    """Show this package's own warnings in one line, as its errors are."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        complain(f"sf2: warning: {message}")
    else:
        _show_anothers_warning(message, category, filename, *place, **other)


if __name__ == "__main__":
    from .interruption import end_when_told

    end_when_told()
    sys.exit(main())
