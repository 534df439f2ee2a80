"""`sf2 eval`: figures of one model or several, as tables, JSON and a page."""

import argparse

from ..options import add_commands

COMMANDS = {
    "pairs": (".eval_pairs", "verify pairs of faces, 1:1"),
    "templates": (".eval_templates", "verify pairs of templates, 1:1, as IJB-B and IJB-C"),
    "identify": (".eval_identify", "search people in a gallery, 1:N, closed-set and open-set"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, COMMANDS)
