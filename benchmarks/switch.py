"""What switching a config from ArcFace to SphereFace2 does, everything else untouched.

Trains `configs/mmpretrain/{arcface,sphereface2}_resnet18_faces.py` over several seeds and compares
ten-fold accuracies on people never seen in training::

    python benchmarks/switch.py --faces DIR --epochs 8 --out docs/switch.json
"""

import argparse
import json
import statistics
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sf2_plugin.atomic import atomic_file

HEADS = {"ArcFaceClsHead": "arcface", "SphereFace2ClsHead": "sphereface2"}


def train(
    head: str, seed: int, faces: str, epochs: int, threads: int, options: dict[str, Any]
) -> dict[str, Any]:
    """One run: its figures on the unseen people, and the largest and last loss."""
    warnings.filterwarnings("ignore")
    import torch
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from sf2_plugin.commands.demo import config_for

    torch.set_num_threads(threads)
    config, pair_set = config_for(f"{HEADS[head]}_resnet18_faces", Path(faces), epochs, seed)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.custom_hooks = [
        dict(type="FaceVerificationHook", pair_sets=[pair_set], interval=10**9, batch_size=64)
    ]
    config.merge_from_dict(options if head == "SphereFace2ClsHead" else {})
    losses = []

    class Losses(Hook):
        def after_train_iter(self, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
            losses.append(outputs["loss"].item())

    with tempfile.TemporaryDirectory() as work_dir:
        config.work_dir = work_dir
        runner = Runner.from_cfg(config)
        runner.register_hook(Losses())
        runner.train()
    verification = next(h for h in runner.hooks if type(h).__name__ == "FaceVerificationHook")
    report = verification.reports["val"]
    return {
        "head": head,
        "seed": seed,
        "accuracy": report.accuracy_mean,
        "eer": report.eer,
        "auc": report.auc,
        "first_loss": losses[0],
        "largest_loss": max(losses),
        "last_loss": statistics.fmean(losses[-20:]),
    }


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| head | ten-fold accuracy, mean over seeds | spread (min to max) | EER | AUC |",
        "| --- | --- | --- | --- | --- |",
    ]
    for head in HEADS:
        mine = [run for run in runs if run["head"] == head]
        if not mine:
            continue
        accuracy = [run["accuracy"] for run in mine]
        eer, auc = (statistics.fmean(run[name] for run in mine) for name in ("eer", "auc"))
        lines.append(
            f"| `{head}` | {statistics.fmean(accuracy):.4f} | {min(accuracy):.4f} to "
            f"{max(accuracy):.4f} | {eer:.4f} | {auc:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--faces", required=True, help="folder with train/PERSON/*.jpg, val/, pairs"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a thread each")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE for SphereFace2")
    parser.add_argument("--out", type=Path, help="write the runs here as JSON")
    arguments = parser.parse_args()

    options = {key: json.loads(value) for key, value in (o.split("=") for o in arguments.option)}
    wanted = [(head, seed) for seed in arguments.seeds for head in arguments.heads]
    runs = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(train, head, seed, arguments.faces, arguments.epochs, 1, options)
            for head, seed in wanted
        ]
        for future in futures:
            runs.append(future.result())
            print(json.dumps(runs[-1]), flush=True)
    if arguments.out:
        with atomic_file(arguments.out, "w") as file:
            json.dump({"epochs": arguments.epochs, "runs": runs}, file, indent=2)
    print("\n" + table(runs))


if __name__ == "__main__":
    main()
