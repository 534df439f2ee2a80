"""What an epoch of SphereFace2 makes of a network that ArcFace has trained, and of a fresh one.

Trains `configs/mmpretrain/sphereface2_resnet18_faces.py` from several beginnings and verifies
people never seen in training::

    python benchmarks/finetuning.py --faces DIR --arcface epoch_4.pth --out docs/finetuning.json

The ArcFace checkpoint is one of `configs/mmpretrain/arcface_resnet18_faces.py` on the same faces.
"""

import argparse
import json
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sf2_plugin.atomic import atomic_file

#: What a run begins with -> whether it loads the network, its class centers, and their means.
BEGINNINGS = {
    "nothing": (False, False, False),
    "ArcFace's network, fresh class centers": (True, False, False),
    "ArcFace's network, centers from means": (True, False, True),
    "ArcFace's network and class centers": (True, True, False),
}


def train(beginning: str, seed: int, faces: str, arcface: str, epochs: int) -> dict[str, Any]:
    """One run: its figures on unseen people before and after, and its loss."""
    warnings.filterwarnings("ignore")
    import torch
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from sf2_plugin.commands.demo import config_for
    from sf2_plugin.weights import load_checkpoint

    torch.set_num_threads(1)
    network, centers, means = BEGINNINGS[beginning]
    config, pair_set = config_for("sphereface2_resnet18_faces", Path(faces), epochs, seed)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.custom_hooks = [
        dict(type="FaceVerificationHook", pair_sets=[pair_set], interval=10**9, batch_size=64)
    ]
    if means:
        config.custom_hooks.append(dict(type="ClassMeansHook"))
    losses, biases = [], []

    class Losses(Hook):
        def after_train_iter(self, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
            losses.append(outputs["loss"].item())
            biases.append(runner.model.head.loss_module.bias.item())

    with tempfile.TemporaryDirectory() as work_dir:
        config.work_dir = work_dir
        if network:
            weights = load_checkpoint(arcface)["state_dict"]
            taken = {k: v for k, v in weights.items() if centers or not k.startswith("head.")}
            config.load_from = str(Path(work_dir) / "start.pth")
            torch.save({"state_dict": taken}, config.load_from)
        runner = Runner.from_cfg(config)
        runner.register_hook(Losses())
        runner.train()
    verification = next(h for h in runner.hooks if type(h).__name__ == "FaceVerificationHook")
    report = verification.reports["val"]
    return {
        "beginning": beginning,
        "seed": seed,
        "accuracy": report.accuracy_mean,
        "eer": report.eer,
        "auc": report.auc,
        "first_loss": losses[0],
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
        "first_bias": biases[0],
        "last_bias": biases[-1],
    }


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| begins with | ten-fold accuracy | EER | AUC | loss, first batch | last 20 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for beginning in BEGINNINGS:
        mine = [run for run in runs if run["beginning"] == beginning]
        if mine:
            mean = {
                name: sum(run[name] for run in mine) / len(mine)
                for name in ("accuracy", "eer", "auc", "first_loss", "last_loss")
            }
            lines.append(
                f"| {beginning} | {mean['accuracy']:.4f} | {mean['eer']:.4f} | {mean['auc']:.4f} "
                f"| {mean['first_loss']:.2f} | {mean['last_loss']:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, help="folder with train/PERSON/*.jpg and pairs")
    parser.add_argument("--arcface", required=True, help="checkpoint of ArcFace on these faces")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a thread each")
    parser.add_argument("--out", type=Path, help="write the runs here as JSON")
    arguments = parser.parse_args()
    runs = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(train, name, seed, arguments.faces, arguments.arcface, arguments.epochs)
            for seed in arguments.seeds
            for name in BEGINNINGS
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
