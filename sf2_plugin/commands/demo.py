"""`sf2 demo`: train a face model with SphereFace2 in MMPretrain and verify people it never saw."""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from .. import integrations
from ..data import read_face_folder
from ..evaluation import PairReport
from ..options import count
from ..progress import progress_bar
from ..report.plots import plot_roc, plot_scores
from ..synthetic import write_synthetic_faces
from ..terminal import json_text, say

# Beside the adapters, in the source tree and where the package is installed.
CONFIGS = Path(integrations.__file__).parents[1] / "configs" / "mmpretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--faces",
        type=Path,
        metavar="DIR",
        help="train/PERSON/*.jpg and val_pairs.txt (with val/) or val.bin; drawn where left out",
    )
    parser.add_argument("--out", type=Path, default=Path("demo_output"), metavar="DIR")
    parser.add_argument("--epochs", type=count, help="passes over the training faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train, verify before and after, and leave plots, logs and checkpoints in ``--out``."""
    # The host warns of what it can do without, such as compiled operators.
    warnings.filterwarnings("ignore", module=r"(mmcv|mmengine|mmpretrain|torch)\b.*")
    from ..integrations import mmpretrain  # noqa: F401  (registers the head, and names the extra)

    faces = arguments.faces or _synthetic_faces(arguments.out, arguments.seed)
    name = "sphereface2_resnet18_faces" if arguments.faces else "sphereface2_first_look"
    work_dir = arguments.out / "train"
    runner, pair_set = _build(name, faces, work_dir, arguments.epochs, arguments.seed)

    before = _verify(runner, pair_set)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start
    after = _verify(runner, pair_set)

    plots = {"roc": arguments.out / "roc.png", "scores": arguments.out / "scores.png"}
    plot_roc({"before": before, "after": after}, plots["roc"])
    plot_scores(after, plots["scores"], threshold=float(after.thresholds.mean()))
    if arguments.json:
        figures: dict[str, Any] = {"before": before.as_dict(), "after": after.as_dict()}
        figures |= {"training_seconds": round(seconds, 1), "faces": str(faces)}
        say(json_text(figures | {name: str(path) for name, path in plots.items()}))
        return
    say(f"\nTrained in {seconds:.0f} s; checkpoints and TensorBoard logs: {runner.work_dir}")
    say(f"Verification of {len(after.issame)} pairs of people never seen in training:\n")
    say(_table(before, after))
    say(f"\nROC curve: {plots['roc']}\nScore histogram: {plots['scores']}")


def _synthetic_faces(out: Path, seed: int) -> Path:
    folder = out / ("faces" if seed == 0 else f"faces_{seed}")
    if not folder.exists():
        bar, processes = progress_bar("drawing faces"), os.cpu_count() or 1
        write_synthetic_faces(folder, seed=seed, progress=bar, processes=processes)
    return folder


def config_for(name: str, faces: Path, epochs: int | None, seed: int) -> tuple[Any, Any]:
    """A config of this project for a folder of faces, without its own verification; and its pairs.

    Args:
        name: of the file in `CONFIGS`.
        epochs: None keeps the config's.

    Raises:
        FileNotFoundError: there are no pairs to verify with.
    """
    from mmengine.config import Config

    people = read_face_folder(faces / "train")
    pairs = next((n for n in ("val_pairs.txt", "val.bin") if (faces / n).is_file()), None)
    if pairs is None:
        raise FileNotFoundError(f"{faces} has neither val_pairs.txt nor val.bin to verify with")
    config = Config.fromfile(CONFIGS / f"{name}.py")
    config.log_level = "ERROR"
    config.randomness = dict(seed=seed)
    config.model.head.num_classes = len(people.class_names)
    loader = config.train_dataloader
    loader.dataset.data_root = str(faces)
    loader.batch_size = min(loader.batch_size, len(people.samples))
    pair_set = dict(config.val_dataloader.dataset, data_root=str(faces), ann_file=pairs)
    for loop in ("val", "test"):
        for part in ("cfg", "evaluator", "dataloader"):
            config.pop(f"{loop}_{part}")
    if epochs is not None:
        config.train_cfg.max_epochs = epochs
        warmup, cosine = config.param_scheduler
        cosine.T_max = epochs - 1
        config.param_scheduler = [warmup, cosine] if epochs > 1 else [warmup]
    return config, pair_set


def _build(
    name: str, faces: Path, work_dir: Path, epochs: int | None, seed: int
) -> tuple[Any, Any]:
    """MMEngine's runner on a folder of faces, and the pair set that verifies it."""
    from mmengine.registry import DATASETS
    from mmengine.runner import Runner

    config, pair_config = config_for(name, faces, epochs, seed)
    config.work_dir = str(work_dir)
    # Threads that train wait for each other, and so for one whose core a reader of faces takes: of
    # many cores one is left to that, of two none.
    cores = os.cpu_count() or 1
    if cores <= 2:
        config.train_dataloader.update(num_workers=0, persistent_workers=False)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores if cores <= 2 else cores - 1)
    runner = Runner.from_cfg(config)
    # Convolutions of few channels are faster on a CPU where those lie side by side.
    backbone = runner.model.backbone.to(memory_format=torch.channels_last)
    backbone.register_forward_hook(lambda _, __, maps: tuple(each.contiguous() for each in maps))
    runner.register_hook(_progress_hook(), priority="VERY_LOW")
    return runner, DATASETS.build(pair_config)


def _verify(runner: Any, pair_set: Any) -> PairReport:
    from ..evaluation.pairs import FAR_TARGETS
    from ..integrations.mmengine.metrics import verify_faces
    from ..integrations.mmengine.verification_hook import embed_faces

    embeddings = embed_faces(runner.model, pair_set, batch_size=128)
    return verify_faces(embeddings, pair_set.metainfo, folds=10, far_targets=FAR_TARGETS)


def _progress_hook() -> Any:
    from mmengine.hooks import Hook

    class Progress(Hook):
        """A bar on a terminal, and a line an epoch everywhere."""

        def before_train(self, runner: Any) -> None:
            self.draw = progress_bar("training")

        def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            self.draw(runner.iter + 1, runner.max_iters)

        def after_train_epoch(self, runner: Any) -> None:
            loss = runner.message_hub.get_scalar("train/loss").mean(len(runner.train_dataloader))
            line = f"\repoch {runner.epoch + 1}/{runner.max_epochs}  loss {loss:.3f}"
            print(line, file=sys.stderr, flush=True)

    return Progress()


def _table(before: PairReport, after: PairReport) -> str:
    rows = [("", "before", "after")]
    for old, new in zip(before.figures(), after.figures(), strict=True):
        rows.append((new.label, old.brief(), new.brief()))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
