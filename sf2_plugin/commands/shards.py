"""`sf2 shards`: checkpoints of a sharded head shown, resharded, imported."""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

from ..backbones.checkpoint import holds_mmengines_own
from ..options import count
from ..progress import progress_bar
from ..shards.checkpoints import Checkpoint, Shards, read_shards
from ..shards.imports import import_shards
from ..shards.resharding import reshard, write_shards
from ..terminal import json_text, say


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="with one checkpoint_gpu_RANK.pt a rank")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=lambda given: _show(read_shards(given.folder), given.json))


def add_reshard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="with one checkpoint_gpu_RANK.pt a rank")
    parser.add_argument("--ranks", type=count, required=True, help="how many there shall be")
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    parser.set_defaults(run=lambda given: _write(read_shards(given.folder), given))


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="a folder of arcface_torch, or a file of OpenSphere, wespeaker, MMPretrain, "
        "pytorch-metric-learning, face.evoLVe or of a head that keeps a kernel",
    )
    parser.add_argument(
        "--classes", type=count, help="how many there must be: tells sub-centers from centers"
    )
    parser.add_argument(
        "--ranks", type=count, help="default: as many as the folder has; 1 for a file"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    parser.set_defaults(run=_import)


def _import(given: argparse.Namespace) -> None:
    if holds_mmengines_own(Path(given.source)):
        importlib.import_module("sf2_plugin.integrations.mmengine")  # Lets them be read.
    _write(import_shards(given.source, given.classes), given)


def _write(shards: Shards, given: argparse.Namespace) -> None:
    progress = progress_bar("writing")
    world_size = given.ranks or len(shards.checkpoints)

    def reported() -> Iterator[Checkpoint]:
        for rank, checkpoint in enumerate(reshard(shards, world_size)):
            yield checkpoint
            progress(rank + 1, world_size)

    write_shards(reported(), given.out)
    _show(read_shards(given.out), as_json=False)


def _show(shards: Shards, as_json: bool) -> None:
    figures = shards.describe()
    if as_json:
        say(json_text(figures))
        return
    say(
        f"{figures['head']}: {figures['classes']} classes of size {figures['embedding_size']}, "
        f"{figures['dtype']}, {figures['ranks']} ranks"
    )
    if figures["ranks_recorded"] is None:
        say("number of ranks: not recorded, so files missing at the end would go unnoticed")
    for name in ("epoch", "global_step", "bias"):
        value = figures[name]
        if value is not None:
            say(f"{name.replace('_', ' ')}: {value if isinstance(value, int) else f'{value:g}'}")
    held = ", ".join(figures["optimizer"]) or "no state for the class centers"
    say(f"optimizer: {held}")
    for shard in figures["shards"]:
        first, held = shard["first_class"], shard["classes"]
        say(f"{shard['file']}: " + (f"classes {first}..{first + held - 1}" if held else "none"))
