"""What the parsers of all commands share."""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

from .terminal import complain


class Parser(argparse.ArgumentParser):
    """A parser that imports a command's module only when the command is used."""

    def __init__(self, *args: Any, target: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = target
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where an error comes from",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.target:
            module, _, function = self.target.partition(":")
            self.target = ""
            commands = importlib.import_module(module, "sf2_plugin.commands")
            getattr(commands, function or "add_arguments")(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        complain(f"sf2: error: {message} (see {self.prog} --help)")
        self.exit(2)


#: Name -> (what is to be done, what it does in words). The first is another such table, or
#: "module:function": the function is given the command's parser, adds its arguments and sets the
#: default `run`, a callable that takes the parsed arguments. It is `add_arguments` where none is
#: named, and a module with a dot before it is one of `sf2_plugin.commands`.
Commands = Mapping[str, tuple[Any, str]]


def add_commands(parser: argparse.ArgumentParser, commands: Commands) -> None:
    """Give `parser` the subcommands of a table."""
    choices = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (done_by, summary) in commands.items():
        words: dict[str, Any] = dict(help=summary, description=f"{summary}.")
        if isinstance(done_by, str):
            choices.add_parser(name, target=done_by, **words)
        else:
            add_commands(choices.add_parser(name, **words), done_by)


def count(text: str) -> int:
    """Argument type: a whole number of at least 1, and of no more than a machine counts to."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, and of at most 18 digits, got {text[:80]!r}"
        )
    return int(text)


def add_outside_option(parser: argparse.ArgumentParser) -> None:
    """Add `--follow-outside`, for commands that read images that a list names."""
    parser.add_argument(
        "--follow-outside",
        action="store_true",
        help="also read images that a list's paths, or links, have outside the images' folder",
    )
