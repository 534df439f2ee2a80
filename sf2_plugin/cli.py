"""The command line: `sf2 COMMAND ...`, or `python -m sf2_plugin.cli COMMAND ...`."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from . import __version__

#: Name -> ("module:function", what it does). The function is given the command's parser, adds its
#: arguments and sets the default `run`, a callable that takes the parsed arguments.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("sf2_plugin.demo:add_arguments", "train a face model and verify people unseen"),
    "shards": ("sf2_plugin.shards.commands:add_arguments", "show, reshard, import sharded heads"),
    "eval": ("sf2_plugin.evaluation.commands:add_arguments", "verify, identify, calibrate a model"),
    "doctor": ("sf2_plugin.doctor:add_arguments", "say what is installed and whether a host runs"),
    "bench": ("sf2_plugin.bench:add_arguments", "measure time and memory against other heads"),
}


class Parser(argparse.ArgumentParser):
    """A parser that imports a command's module only when the command is used."""

    def __init__(self, *args: Any, target: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = target

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.target:
            module, function = self.target.split(":")
            self.target = None
            getattr(importlib.import_module(module), function)(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sf2: error: {message} (see {self.prog} --help)\n")


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[str, str]]) -> None:
    """Give `parser` the subcommands of a table like `COMMANDS`."""
    choices = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (target, summary) in commands.items():
        choices.add_parser(name, target=target, help=summary, description=f"{summary}.")


def count(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 where it went well, 2 on bad input, after one line that says what is bad."""
    parser = Parser(prog="sf2", description="SphereFace2 for face recognition frameworks.")
    parser.add_argument("--version", action="version", version=__version__)
    add_commands(parser, COMMANDS)
    try:
        arguments = parser.parse_args(argv)
        return arguments.run(arguments) or 0
    except (ValueError, TypeError, ImportError, OSError) as error:
        print("sf2: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
