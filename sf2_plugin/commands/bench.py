"""`sf2 bench`: what the head costs, next to a floor and to other projects' heads."""

import argparse

from ..options import add_commands

COMMANDS = {
    "head": ("sf2_plugin.bench.head_timing:add_arguments", "one head's forward and backward pass"),
    "memory": ("sf2_plugin.bench.rank_memory:add_arguments", "what a rank of a sharded head needs"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, COMMANDS)
