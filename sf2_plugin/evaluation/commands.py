"""`sf2 eval`: figures of one model or several, as tables, JSON and a page."""

import argparse

COMMANDS = {
    "pairs": ("sf2_plugin.evaluation.command_pairs:add_arguments", "verify pairs of faces, 1:1"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..cli import add_commands

    add_commands(parser, COMMANDS)
