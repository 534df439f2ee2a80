"""The command line: `sf2 COMMAND ...`, or `python -m sf2_plugin.cli COMMAND ...`."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .options import Parser, add_commands

#: Name -> ("module:function", what it does). The function is given the command's parser, adds its
#: arguments and sets the default `run`, a callable that takes the parsed arguments.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": (
        "sf2_plugin.commands.demo:add_arguments",
        "train a face model and verify people unseen",
    ),
    "shards": ("sf2_plugin.commands.shards:add_arguments", "show, reshard, import sharded heads"),
    "eval": ("sf2_plugin.commands.eval:add_arguments", "verify, identify, calibrate a model"),
    "doctor": (
        "sf2_plugin.commands.doctor:add_arguments",
        "say what is installed and whether a host runs",
    ),
    "bench": (
        "sf2_plugin.commands.bench:add_arguments",
        "measure time and memory against other heads",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 where it went well, 2 on bad input, after one line that says what is bad."""
    parser = Parser(prog="sf2", description="SphereFace2 for face recognition frameworks.")
    parser.add_argument("--version", action="version", version=__version__)
    add_commands(parser, COMMANDS)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            arguments = parser.parse_args(argv)
            return arguments.run(arguments) or 0
    except (ValueError, TypeError, ImportError, OSError) as error:
        print("sf2: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


_show_anothers_warning = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *place: Any, **other: Any
) -> None:
    """This package's own in a line, as errors are."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        print("sf2: warning:", " ".join(str(message).split()), file=sys.stderr)
    else:
        _show_anothers_warning(message, category, filename, *place, **other)


if __name__ == "__main__":
    sys.exit(main())
