"""`sf2 bench`: what the head costs, next to a floor and to other projects' heads."""

import argparse

from ..options import add_commands

COMMANDS = {
    "head": ("..bench.head_timing", "one head's forward and backward pass"),
    "memory": ("..bench.rank_memory", "what a rank of a sharded head needs"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, COMMANDS)
