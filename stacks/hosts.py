"""Trains both hosts, as they are on disk, with their switch of one line on real faces::

python stacks/hosts.py NAME --arcface-torch DIR --mmpretrain DIR --faces DIR

A few people's faces, on the CPU: the losses of a run that is told to end (SIGTERM) once it has
saved a checkpoint, and of the run that resumes it, go to docs/stacks/hosts/NAME.json.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import DOCS, commit
from sf2_plugin.integrations.arcface_torch.patches import Run, mxnet_is_missing

from sf2_plugin.atomic import atomic_file

PEOPLE, IMAGES, BATCH, EPOCHS = 8, 6, 8, 4
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
LAUNCHER = ["-m", "sf2_plugin.integrations.arcface_torch", "--device", "cpu"]
ENABLE = "import sf2_plugin.integrations.arcface_torch.enable\n"
#: The edits by which people run the host on a CPU without this project, for its own command: the
#: line in the config is for a host that runs already.
FOR_CPU = {
    '"nccl"': '"gloo"',
    ".cuda()": "",
    'device="cuda"': 'device="cpu"',
    "torch.cuda.set_device(local_rank)": "pass",
    "device_ids=[local_rank], ": "",
    "DataLoaderX(\n        local_rank=local_rank,": "DataLoader(",
}
#: And where its mxnet cannot be imported.
WITHOUT_MXNET = {"import mxnet as mx\n": "", "from mxnet import ndarray as nd\n": ""}
ARCFACE_TORCH = """{first_line}from easydict import EasyDict as edict

config = edict()
config.loss = "sphereface2"
config.network, config.embedding_size = "mbf", 128
config.rec, config.output = {records!r}, {output!r}
config.num_classes, config.num_image, config.batch_size = {people}, {images}, {batch}
config.num_epoch, config.warmup_epoch, config.lr = {epochs}, 0, 0.02
config.frequent, config.verbose, config.val_targets = {batch_count} // 3, 10**6, []
config.num_workers, config.save_all_states, config.resume = 1, True, {resume}
"""
MMPRETRAIN = """_base_ = ["{configs}/mmpretrain/sphereface2_resnet18_faces.py"]
model = dict(head=dict(num_classes={people}))
train_dataloader = dict(batch_size={batch}, dataset=dict(data_root={faces!r}, data_prefix=""))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(by_epoch=True, max_epochs={epochs})
default_hooks = dict(logger=dict(interval={batch_count} // 3))
"""
FIGURES = dict(people=PEOPLE, images=PEOPLE * IMAGES, batch=BATCH, epochs=EPOCHS)
FIGURES["batch_count"] = PEOPLE * IMAGES // BATCH


def choose_faces(source: Path, out: Path) -> Path:
    """The people of most images, and a few images of each."""
    people = [sorted(person.iterdir()) for person in sorted(source.iterdir())]
    for images in sorted(people, key=len, reverse=True)[:PEOPLE]:
        (out / images[0].parent.name).mkdir(parents=True)
        for image in images[:IMAGES]:
            shutil.copy(image, out / image.parent.name)
    return out


def run(command: list[str], folder: Path, stop_at: Path | None = None) -> str:
    """What a command prints; with `stop_at`, it is told to end once that file is there."""
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
        while stop_at and done.poll() is None:
            time.sleep(0.05)
            if stop_at.exists():
                done.send_signal(signal.SIGTERM)
                break
        done.wait()
        log.seek(0)
        printed = log.read()
    told = stop_at is not None and stop_at.exists()
    if (done.returncode == 0) == bool(stop_at) or told != bool(stop_at):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{printed[-3000:]}")
    return printed


def going_on(losses: dict[str, float], resumed: dict[str, float]) -> dict:
    """Losses by step of a run and of the one that resumes it: after its epoch, and lower."""
    if int(min(resumed, key=int)) <= FIGURES["batch_count"]:
        raise RuntimeError(f"the second run began anew: {resumed}")
    if not list(resumed.values())[-1] < next(iter(losses.values())):
        raise RuntimeError(f"the loss has not fallen: {losses}, {resumed}")
    return {"commit": commit(), "losses": losses, "resumed": resumed}


def arcface_torch(host: Path, records: Path, enable: bool) -> dict:
    """Losses by step of the host in `host`, a copy; with its own command, edited for a CPU."""
    output = host / "out"
    command = ["train_v2.py", "configs/small.py"]
    if enable:
        edits = FOR_CPU | (WITHOUT_MXNET if mxnet_is_missing(Run("cpu")) else {})
        for path in host.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for old, new in edits.items():
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")
    else:
        command = [*LAUNCHER, *command]

    def train(resume: bool) -> str:
        config = ARCFACE_TORCH.format(
            first_line=ENABLE if enable else "",
            records=str(records),
            output=str(output),
            resume=resume,
            **FIGURES,
        )
        (host / "configs" / "small.py").write_text(config)
        return run(command, host, None if resume else output / "checkpoint_gpu_0.pt")

    def losses(printed: str) -> dict[str, float]:
        found = re.findall(r"Loss (\S+) .*Global Step: (\d+)", printed)
        return {step: float(loss) for loss, step in found}

    first, second = train(resume=False), train(resume=True)
    patches = sorted(set(re.findall(r"sf2-plugin, (\w+): ", first)))
    return {**going_on(losses(first), losses(second)), "patches": patches}


def mmpretrain(host: Path, faces: Path, work: Path) -> dict:
    """Losses by step of `tools/train.py` of a checkout."""
    config = work / "small.py"
    config.write_text(MMPRETRAIN.format(configs=CONFIGS, faces=str(faces), **FIGURES))
    output = work / "out"
    command = ["tools/train.py", str(config), "--work-dir", str(output)]
    run(command, host, output / "last_checkpoint")  # By which MMEngine finds it, once it is whole.
    run([*command, "--resume"], host)
    runs = []
    for path in sorted(output.glob("*/vis_data/scalars.json")):
        lines = map(json.loads, path.read_text().splitlines())
        runs.append({str(line["step"]): line["loss"] for line in lines})
    return going_on(*runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("::")[0])
    parser.add_argument("name")
    for option in ("--arcface-torch", "--mmpretrain", "--faces"):
        parser.add_argument(option, type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faces = choose_faces(options.faces / "train", folder / "faces")
        records = folder / "records"
        pack = ["-m", "sf2_plugin.cli", "data", "pack", str(faces), "--out", str(records)]
        subprocess.run([sys.executable, *pack], check=True)
        found: dict = dict(FIGURES)
        for route in ("launcher", "enable"):
            host = folder / route
            shutil.copytree(options.arcface_torch, host)
            found[route] = arcface_torch(host, records, route == "enable")
            print(route, json.dumps(found[route]), flush=True)
        (folder / "mmpretrain").mkdir()
        found["mmpretrain"] = mmpretrain(options.mmpretrain, faces, folder / "mmpretrain")
        print("mmpretrain", json.dumps(found["mmpretrain"]), flush=True)
    (DOCS / "stacks" / "hosts").mkdir(parents=True, exist_ok=True)
    with atomic_file(DOCS / "stacks" / "hosts" / f"{options.name}.json") as file:
        file.write(json.dumps(found, indent=2).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
