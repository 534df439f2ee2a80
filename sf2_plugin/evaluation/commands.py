"""`sf2 eval`: figures of one model or several, as tables, JSON and a page."""

import argparse

COMMANDS = {
    "pairs": ("sf2_plugin.evaluation.command_pairs:add_arguments", "verify pairs of faces, 1:1"),
    "templates": (
        "sf2_plugin.evaluation.command_templates:add_arguments",
        "verify pairs of templates, 1:1, as IJB-B and IJB-C",
    ),
    "identify": (
        "sf2_plugin.evaluation.command_identify:add_arguments",
        "search people in a gallery, 1:N, closed-set and open-set",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..cli import add_commands

    add_commands(parser, COMMANDS)
