"""What the parsers of all commands share."""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any, NoReturn


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
    """Give `parser` the subcommands of a table of name -> ("module:function", what it does)."""
    choices = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (target, summary) in commands.items():
        choices.add_parser(name, target=target, help=summary, description=f"{summary}.")


def count(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)
