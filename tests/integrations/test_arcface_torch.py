"""arcface_torch, unmodified, with this project's loss: a stand-in, and the host where it is given.

The host's folder is named by the variable ARCFACE_TORCH. It trains on a few faces of
`../shared/data/lfw112` where that is there, and on drawn ones otherwise.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sf2_plugin.integrations.arcface_torch import (
    fusing,
    head_choice,
    margin,
    resuming,
    scripts,
    whole_checkpoints,
)
from sf2_plugin.integrations.arcface_torch import host as host_side
from sf2_plugin.integrations.arcface_torch.checkout import NAMES
from sf2_plugin.integrations.arcface_torch.patches import PATCHES, Run, table
from sf2_plugin.integrations.arcface_torch.verification import CallBackVerification
from torch import nn
from torch.multiprocessing import ProcessExitedException

import sf2_plugin.distributed as distributed_module
from sf2_plugin import SphereFace2, registry
from sf2_plugin.cli import main
from sf2_plugin.data import (
    encode_jpeg,
    read_face_folder,
    read_pair_bin,
    write_pair_bin,
    write_records,
)
from sf2_plugin.shards import claim, marks, read_shards
from sf2_plugin.synthetic import write_synthetic_faces

from ..conftest import REAL_FACES
from ..parity import relative_error
from ..processes import forked
from ..ranks import free_port, on_ranks, rank_variables

pytest.importorskip("torchvision")
pytest.importorskip("easydict")

STAND_IN = Path(__file__).parent / "arcface_torch_stand_in"
ADAPTER = "sf2_plugin.integrations.arcface_torch"
LAUNCHER = ["-m", ADAPTER]
ON_CPU = ["--device", "cpu"]

#: What someone would edit in the host to run its own loss on a CPU today, without this project.
PORTED_BY_HAND = [
    ('"nccl"', '"gloo"'),
    (".cuda()", ""),
    ('device="cuda"', 'device="cpu"'),
    ("torch.cuda.set_device(local_rank)", "pass"),
    ("device_ids=[local_rank], ", ""),
    ("DataLoaderX(\n        local_rank=local_rank,", "DataLoader("),
    ("import mxnet as mx\n", ""),
    ("from mxnet import ndarray as nd\n", ""),
    (", verbose=verbose)", ")"),
]


@pytest.fixture(scope="module", params=["stand-in", "arcface_torch"])
def host(request, tmp_path_factory):
    """A copy of the host's folder."""
    source = STAND_IN
    if request.param == "arcface_torch":
        if "ARCFACE_TORCH" not in os.environ:
            pytest.skip("ARCFACE_TORCH does not name the host's folder")
        source = Path(os.environ["ARCFACE_TORCH"])
    folder = tmp_path_factory.mktemp("host") / "arcface_torch"
    shutil.copytree(source, folder)
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """24 faces of six people in an image folder, and pairs of others in its `val.bin`."""
    out = tmp_path_factory.mktemp("faces")
    if REAL_FACES.is_dir():
        lfw = REAL_FACES
        people = [p for p in sorted((lfw / "train").iterdir()) if len(list(p.iterdir())) >= 4]
        for person in people[:6]:
            (out / person.name).mkdir()
            for image in sorted(person.iterdir())[:4]:
                shutil.copy(image, out / person.name)
        images, issame = read_pair_bin(lfw / "val.bin")
    else:
        drawn = out.with_name("drawn")
        write_synthetic_faces(
            drawn, train_identities=6, images_per_identity=4, val_identities=8, pairs_per_fold=4
        )
        shutil.copytree(drawn / "train", out, dirs_exist_ok=True)
        images, issame = read_pair_bin(drawn / "val.bin")
    fold = len(issame) // 10
    kept = [start + i for start in range(0, len(issame), fold) for i in (0, fold - 1)]
    write_pair_bin(out / "val.bin", [images[2 * k + j] for k in kept for j in (0, 1)], issame[kept])
    return out


@pytest.fixture(scope="module")
def records(faces, tmp_path_factory):
    """The same faces as `train.rec`, written by this project."""
    out = tmp_path_factory.mktemp("records")
    write_records([s for s in read_face_folder(faces).samples], out)
    shutil.copy(faces / "val.bin", out)
    return out


def write_config(host, name, rec, first_line="", **items):
    values = dict(
        network="mbf",
        embedding_size=32,
        rec=str(rec),
        output=None,
        num_classes=6,
        num_image=24,
        num_epoch=2,
        warmup_epoch=0,
        batch_size=4,
        lr=0.02,
        frequent=1,
        verbose=6,
        num_workers=0,
        save_all_states=True,
        val_targets=[],
    )
    values.update(items)
    lines = [first_line, "from easydict import EasyDict as edict", "config = edict()"]
    lines += [f"config.{key} = {value!r}" for key, value in values.items()]
    (host / "configs" / f"{name}.py").write_text("\n".join(lines) + "\n")
    return f"configs/{name}.py"


def run(host, *arguments, expect=0):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=host,
        capture_output=True,
        text=True,
        env={**os.environ, **rank_variables(0, 1, free_port())},
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == (expect == 0), output[-3000:]
    return output


def train(host, config, ranks=1, expect=0):
    """What the launcher's ranks print on a config: processes as `run`'s, which start sooner."""
    port = free_port()
    logs = [host / f"rank_{rank}.log" for rank in range(ranks)]
    processes = [
        forked(
            ADAPTER,
            *(*ON_CPU, "train_v2.py", config),
            cwd=host,
            log=log,
            variables=rank_variables(rank, ranks, port),
        )
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.join(600)
    output = "".join(log.read_text() for log in logs)
    statuses = [process.exitcode for process in processes]
    assert statuses == [expect] * ranks, f"{statuses}\n{output[-3000:]}"
    return output


def losses(output):
    """Loss by step, as the host logs it."""
    found = re.findall(r"Loss (\S+) .*Global Step: (\d+)", output)
    return {int(step): float(loss) for loss, step in found}


def test_trains_on_an_image_folder_and_verifies(host, faces):
    config = write_config(
        host, "folder", faces, loss="sphereface2", val_targets=["val", "absent"], num_epoch=3
    )
    output = run(host, *LAUNCHER, "train_v2.py", config, *ON_CPU)
    measured = losses(output)
    assert max(measured) == 18
    assert measured[18] < measured[2]
    assert "config.loss = 'sphereface2': PartialFCSphereFace2(6, 32, margin_type=C" in output
    needed = {patch.name for patch in PATCHES if patch.needed(Run("cpu"))}
    assert {"cpu", "checkpoints", "verification", "loss"} <= needed
    assert set(re.findall(r"sf2-plugin, (\w+): ", output)) == needed
    assert "[absent] is not verified" in output
    shown = re.findall(r"Step (\d+)   positive_cosine (\S+)   negative_cosine \S+   bias", output)
    assert [int(step) for step, _ in shown] == list(range(2, 19))
    assert float(shown[-1][1]) > float(shown[0][1])
    assert len(re.findall(r"bias -?\d+\.\d{4}   gradient_norm \d+\.\d{4}", output)) == 17
    for line in (
        r"XNorm: \d+\.\d{6}",
        r"Accuracy-Flip: [01]\.\d{5}\+-0\.\d{5}",
        r"EER: [01]\.\d{5}  TAR@FAR=0.1: [01]\.\d{5}",
        r"Accuracy-Highest: [01]\.\d{5}",
    ):
        assert len(re.findall(r"\[val\]\[(?:6|12|18)\]" + line, output)) == 3
    state = torch.load(host / "work_dirs" / "folder" / "checkpoint_gpu_0.pt", weights_only=True)
    assert set(state["state_dict_softmax_fc"]) == {"weight", "bias"}
    assert (host / "work_dirs" / "folder" / "model.pt").exists()


def ported_by_hand(host):
    copy = host.with_name(f"{host.name}_ported")
    if not copy.exists():
        shutil.copytree(host, copy)
        for path in copy.rglob("*.py"):
            text = path.read_text()
            for old, new in PORTED_BY_HAND:
                text = text.replace(old, new)
            path.write_text(text)
    return copy


def test_without_the_line_the_losses_are_those_of_the_bare_host(host, faces):
    bare = ported_by_hand(host)
    for folder in (bare, host):
        config = write_config(folder, "own_loss", faces, margin_list=(1.0, 0.0, 0.4))
    expected = losses(run(bare, "train_v2.py", config))
    output = run(host, *LAUNCHER, "train_v2.py", config, *ON_CPU)
    assert len(expected) >= 11
    assert losses(output) == expected
    assert "config.loss" not in output.replace("loss: config.loss chooses the loss", "")


def test_the_unchanged_command_with_an_import_in_the_config(host, faces):
    bare = ported_by_hand(host)
    items = dict(loss="sphereface2", sphereface2=dict(margin=0.2), sample_rate=0.9, num_epoch=1)
    line = "import sf2_plugin.integrations.arcface_torch.enable"
    unchanged = run(bare, "train_v2.py", write_config(bare, "enabled", faces, line, **items))
    launched = run(
        host, *LAUNCHER, "train_v2.py", write_config(host, "enabled", faces, **items), *ON_CPU
    )
    assert "margin=0.2" in unchanged
    assert "sample_rate=0.9" in unchanged
    assert len(losses(unchanged)) >= 5
    assert losses(unchanged) == losses(launched)


def weights_of(path):
    return torch.load(path, weights_only=True)


def differing(state, other):
    assert list(state) == list(other)
    return [name for name in state if not torch.equal(state[name], other[name])]


def test_a_trained_backbone_is_fine_tuned(host, faces):
    """The host's own loss, its backbone under a fresh head on two ranks, and that run resumed."""
    train(host, write_config(host, "trained", faces, num_epoch=1))
    trained = host / "work_dirs" / "trained" / "model.pt"
    items = dict(loss="sphereface2", sphereface2=dict(centers="means"), freeze=1)
    items.update(pretrained=str(trained), batch_size=2)

    output = train(host, write_config(host, "tuned", faces, num_epoch=1, **items), ranks=2)
    assert f"the backbone starts from the weights of {trained}" in output
    assert "class centers: one pass over 24 faces" in output
    assert "6 of 6 class centers are the means of their faces, the bias is " in output
    tuned = host / "work_dirs" / "tuned"
    assert not differing(weights_of(tuned / "model.pt"), weights_of(trained))
    centers = read_shards(tuned)
    assert centers.checkpoints[0]["epoch"] == 1

    resumed = write_config(host, "tuned", faces, num_epoch=2, resume=True, **items)
    output = train(host, resumed, ranks=2)
    assert "config.pretrained was the start of this run, and is not read again" in output
    assert "centers of config.sphereface2 was the start" in output
    assert "are the means" not in output
    moved = differing(weights_of(tuned / "model.pt"), weights_of(trained))
    assert {name.rpartition(".")[2] for name in moved} >= {"weight", "running_mean"}

    # By the host's usual command.
    bare = ported_by_hand(host)
    line = "import sf2_plugin.integrations.arcface_torch.enable"
    config = write_config(bare, "tuned_by_import", faces, line, num_epoch=1, **items)
    output = run(bare, "train_v2.py", config)
    assert "6 of 6 class centers are the means of their faces" in output
    alone = bare / "work_dirs" / "tuned_by_import" / "model.pt"
    assert not differing(weights_of(alone), weights_of(trained))


def test_a_run_of_partial_fc_v2_goes_on_with_this_loss(host, faces):
    train(host, write_config(host, "switched", faces))
    path = host / "work_dirs" / "switched" / "checkpoint_gpu_0.pt"
    before = weights_of(path)
    config = write_config(host, "switched", faces, loss="sphereface2", num_epoch=3, resume=True)
    output = train(host, config)
    assert "checkpoint_gpu_0.pt is of PartialFC_V2, and config.loss is 'sphereface2'" in output
    after = weights_of(path)
    assert after["global_step"] == before["global_step"] + 6
    assert set(after["state_dict_softmax_fc"]) == {"weight", "bias"}
    old, new = (
        nn.functional.normalize(each["state_dict_softmax_fc"]["weight"]) for each in (before, after)
    )
    assert (old * new).sum(1).min() > 0.9


def start_rank(host, config, rank, world_size, port, log):
    return subprocess.Popen(
        [sys.executable, *LAUNCHER, "--timeout", "20", *ON_CPU, "train_v2.py", config],
        cwd=host,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **rank_variables(rank, world_size, port)},
    )


def wait_for(condition, processes, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert all(process.poll() is None for process in processes), "a rank has ended"
        time.sleep(0.05)


def test_a_killed_rank_ends_the_others_and_the_last_checkpoint_resumes(
    host, records, tmp_path, capsys
):
    items = dict(loss="sphereface2", sample_rate=0.5, interclass_filtering_threshold=0.9)
    items.update(optimizer="adamw", lr=0.003, gradient_acc=2, fp16=True, val_targets=["val"])
    config = write_config(host, "killed", records, num_epoch=1000, **items)
    output = host / "work_dirs" / "killed"
    port = free_port()
    with open(tmp_path / "log", "w+") as log:
        ranks = [start_rank(host, config, rank, 2, port, log) for rank in range(2)]
        try:
            saved = [output / f"checkpoint_gpu_{rank}.pt" for rank in range(2)]
            wait_for(lambda: all(path.exists() for path in saved), ranks, 900)
            ranks[1].send_signal(signal.SIGKILL)
            assert ranks[0].wait(timeout=200) not in (0, -signal.SIGKILL)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        log.seek(0)
        printed = log.read()
    assert "sf2-plugin, timeout: " in printed
    assert "sample_rate=0.5" in printed
    assert "interclass_filtering_threshold=0.9" in printed
    shards = read_shards(output)
    assert shards.describe()["ranks_recorded"] == 2
    assert shards.num_classes == 6
    epoch, step = (shards.checkpoints[0][name] for name in ("epoch", "global_step"))
    assert step == 3 * epoch

    # The same two ranks go on, under torchrun, beside what a killed rank may leave.
    left = output / ".checkpoint_gpu_1.pt.99.partial"
    left.write_text("cut short")
    more = 5
    config = write_config(host, "killed", records, num_epoch=epoch + more, resume=True, **items)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    resumed = run(host, *torchrun, *LAUNCHER, "train_v2.py", config, *ON_CPU)
    shards = read_shards(output)
    assert shards.checkpoints[0]["global_step"] == step + 3 * more
    assert not left.exists()
    measured = losses(resumed)
    first = losses(printed)
    assert measured[max(measured)] < first[min(first)]
    assert re.search(r"\[val\]\[\d+\]EER: [01]\.\d{5}", resumed)

    # One rank can once the shards are merged, unless a file is cut short.
    merged = host / "work_dirs" / "merged"
    assert main(["shards", "reshard", str(output), "--ranks", "1", "--out", str(merged)]) == 0
    items.update(num_epoch=epoch + more + 1, resume=True, output=str(merged))
    config = write_config(host, "merged", records, **items)
    assert max(losses(train(host, config))) > step + 3 * more
    path = merged / "checkpoint_gpu_0.pt"
    path.write_bytes(path.read_bytes()[:-100])
    refused = train(host, config, expect=1)
    assert f"{path}: not readable as a checkpoint of tensors" in refused


def test_two_ranks_train_save_and_resume_what_the_hosts_optimizer_makes(host, records):
    """Of 60 classes 6 have faces, and a tenth of the others is sampled."""
    found = {}
    for name, options in (("dense", {}), ("fused", dict(fuse_sgd=True))):
        for epochs in (1, 2):
            config = write_config(
                host,
                name,
                records,
                loss="sphereface2",
                sphereface2=options,
                num_classes=60,
                sample_rate=0.1,
                weight_decay=5e-3,
                num_epoch=epochs,
                resume=epochs == 2,
            )
            output = train(host, config, ranks=2)
            assert ("step of SGD is made within the loss' pass" in output) == bool(options)
        found[name] = read_shards(host / "work_dirs" / name), losses(output)
    (shards, measured), (expected, expected_losses) = found["fused"], found["dense"]
    assert measured == pytest.approx(expected_losses, rel=1e-3)
    for place in shards.sharded:  # Centers and momentum.
        rows = [each.rows(place, range(60)) for each in (shards, expected)]
        assert relative_error(*rows) < 1e-4, place
    first, other = shards.checkpoints[0], expected.checkpoints[0]
    assert first["global_step"] == other["global_step"] == 6
    assert first["state_lr_scheduler"] == other["state_lr_scheduler"]
    assert first["state_optimizer"]["param_groups"] == other["state_optimizer"]["param_groups"]


def patch_of(name):
    """The patch of that name, without what it does to modules of the host."""
    (patch,) = (patch for patch in PATCHES if patch.name == name)
    outside = {name: make for name, make in patch.replaces.items() if name.startswith("torch.")}
    return dataclasses.replace(patch, replaces=outside)


def checkpoint(step, world_size=2, head=("weight", "bias"), backbone=0, statistics=0, mark=None):
    return {
        "global_step": step,
        "state_dict_backbone": {
            "bn.weight": torch.full((2,), backbone, dtype=torch.bfloat16),
            "bn.running_mean": torch.full((2,), statistics),
            "bn.num_batches_tracked": torch.tensor(statistics),
        },
        "state_dict_softmax_fc": {name: torch.zeros(1, 1) for name in head},
        "state_optimizer": {"state": {}, "param_groups": [{"params": list(range(len(head)))}]},
        **({"world_size": world_size} if world_size else {}),
        **({"saved_together": mark} if mark else {}),
    }


def save_and_resume(rank, folder):
    """What two ranks, each with a disk of its own, save, and are told when they resume."""
    whole_checkpoints.host_config = host_side.host_config = lambda: {"loss": "sphereface2"}
    torch_save, fsync = torch.save, os.fsync
    patch_of("checkpoints").apply(Run("cpu"))
    path = folder / str(rank) / f"checkpoint_gpu_{rank}.pt"
    path.parent.mkdir()
    answers = {}

    def attempt(name, action):
        try:
            answers[name] = action()
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}"

    def resume():
        return torch.load(f=path)["global_step"]

    (path.parent / f".{path.name}.99.partial").touch()  # A killed rank's.
    claim(path.with_name(f".{path.name}.lock"))
    (path.parent / "checkpoint_gpu_7.pt").touch()  # An older run's.
    torch.save(obj=checkpoint(1, world_size=None), f=path)
    answers["recorded"] = torch.load(path)["world_size"]

    def full(file):
        raise OSError("disk full")

    os.fsync = full if rank == 1 else fsync
    attempt("disk full", lambda: torch.save(checkpoint(2), path))
    os.fsync = fsync
    folder_gone = path if rank == 0 else path.parent / "gone" / path.name
    attempt("no folder", lambda: torch.save(checkpoint(2), folder_gone))
    attempt("after disk full", resume)
    answers["files"] = sorted(each.name for each in path.parent.iterdir())
    for name, content in {
        "bare host": checkpoint(1, world_size=None),
        "other ranks": checkpoint(1, world_size=3),
        "other head": checkpoint(1, head=["weight"]),
        "other step": checkpoint(rank),
        "other run": checkpoint(1, mark=f"{rank:016x}"),
        "half marked": checkpoint(1, mark="0" * 16 if rank == 0 else None),
        "no mark": checkpoint(1, mark="my run"),
        "other backbone": checkpoint(1, backbone=rank),
        "own statistics": checkpoint(1, statistics=rank),
    }.items():
        torch_save(content, path)
        attempt(name, resume)
    if rank == 1:
        path.unlink()
    attempt("missing", resume)
    return answers


def test_checkpoints_are_saved_and_resumed_on_all_ranks_or_on_none(tmp_path):
    for rank, answers in enumerate(on_ranks(save_and_resume, 2, tmp_path)):
        path = tmp_path / str(rank) / f"checkpoint_gpu_{rank}.pt"
        lock = f".{path.name}.lock"
        assert answers["files"] == sorted([lock, path.name, "checkpoint_gpu_7.pt"])
        assert answers["recorded"] == 2
        assert answers["disk full"] == "OSError: rank 1 could not save: disk full"
        start = "FileNotFoundError: rank 1 could not save: [Errno 2] there is no such folder"
        assert answers["no folder"].startswith(start)
        assert answers["after disk full"] == answers["bare host"] == 1
        refused = f"rank {rank} could not resume: {path}"
        assert (
            f"{refused} is of a checkpoint of 3 ranks and this run has 2: "
            f"sf2 shards reshard {path.parent} --ranks 2 --out DIR"
        ) in answers["other ranks"]
        assert answers["other head"] == 1
        assert (
            "checkpoint_gpu_0.pt at step 0, checkpoint_gpu_1.pt at step 1"
            in (answers["other step"])
        )
        apart = "the files of the ranks were not saved together: "
        zeros = "0" * 16
        assert f"{apart}rank 0 with {zeros}, rank 1 with 0000000000000001" in answers["other run"]
        assert f"{apart}rank 0 with {zeros}, rank 1 with no mark" in answers["half marked"]
        assert "has a 'saved_together' that is no mark: 'my run'" in answers["no mark"]
        assert "checkpoint_gpu_0.pt of backbone " in answers["other backbone"]
        assert answers["own statistics"] == 1
        assert answers["missing"].startswith("FileNotFoundError: rank 1 could not resume: ")


CONFIG = dict(loss="sphereface2", embedding_size=4, num_classes=6, optimizer="sgd", num_epoch=9)


def saved_by_sgd(**changes):
    return {
        "epoch": 2,
        "state_dict_backbone": {"fc.weight": torch.zeros(4, 3), "fc.bias": torch.zeros(4)},
        "state_dict_softmax_fc": {"weight": torch.zeros(6, 4), "bias": torch.zeros(1)},
        "state_optimizer": {"state": {}, "param_groups": [{"momentum": 0.9, "params": [0, 1]}]},
        **changes,
    }


@pytest.mark.parametrize(
    ("config", "network", "message"),
    [
        (dict(optimizer="adamw"), (3, 4), "the optimizer 'sgd', and config.optimizer is 'adamw'"),
        (dict(embedding_size=8), (3, 4), "embeddings of size 4, and config.embedding_size is 8"),
        (dict(num_classes=7), (3, 4), "6 classes on rank 0 of 1, and config.num_classes is 7"),
        (dict(loss=None), (3, 4), "as sphereface2 has, and config.loss is None"),
        (dict(network="r50"), (5, 4), "network, by its 'fc.weight', and config.network is 'r50'"),
        (dict(), (3, 4), None),
    ],
)
def test_resuming_with_another_config_names_its_entry(monkeypatch, config, network, message):
    monkeypatch.setattr(host_side, "host_config", lambda: CONFIG | config)
    backbone = nn.ModuleDict(dict(fc=nn.Linear(*network)))
    assert host_side.remember_backbone(lambda name: backbone)("r50") is backbone
    if message is None:
        return resuming.check_config(saved_by_sgd(), Path("a.pt"))
    with pytest.raises(ValueError, match=f"a.pt was saved with .*{re.escape(message)}"):
        resuming.check_config(saved_by_sgd(), Path("a.pt"))
    host_side.backbone = None


def test_a_finished_run_says_that_nothing_is_left(monkeypatch, caplog):
    monkeypatch.setattr(host_side, "host_config", lambda: CONFIG | dict(num_epoch=2))
    monkeypatch.setattr(host_side, "backbone", None)
    resuming.check_config(saved_by_sgd(), Path("a.pt"))
    assert "end of epoch 2 and config.num_epoch is 2: nothing is left to train" in caplog.text


class Polynomial(torch.optim.lr_scheduler.LRScheduler):
    """The host's schedule: each rate is made of the last one."""

    def __init__(self, optimizer, warmup_iters, total_iters, power=2.0):
        self.warmup_iters, self.total_iters, self.power = warmup_iters, total_iters, power
        super().__init__(optimizer)

    def get_lr(self):
        step, warmup, total = self.last_epoch, self.warmup_iters, self.total_iters
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if step == 0 or step > total:
            return rates
        if step <= warmup:
            return [base * step / warmup for base in self.base_lrs]
        factor = (1 - (step - warmup) / (total - warmup)) / (
            1 - (step - 1 - warmup) / (total - warmup)
        )
        return [rate * factor**self.power for rate in rates]


def rates_of(scheduler, optimizer, steps):
    rates = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[1]["lr"])
    return rates


def schedule_of(steps):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.3, 0.1)]
    optimizer = torch.optim.SGD(groups)
    return Polynomial(optimizer, 3, steps), optimizer


@pytest.mark.parametrize("finished", [2, 3, 7, 10])
def test_a_finished_run_goes_on_along_the_new_schedule(finished):
    short, optimizer = schedule_of(10)
    rates_of(short, optimizer, finished)
    whole = rates_of(*schedule_of(15), steps=15)
    scheduler, other = schedule_of(15)
    other.load_state_dict(optimizer.state_dict())
    resuming.keep_own_end(Polynomial.load_state_dict)(scheduler, short.state_dict())
    actual = rates_of(scheduler, other, 15 - finished)
    assert actual == pytest.approx(whole[finished:], abs=1e-12)


def test_a_schedule_of_the_same_end_is_taken_bit_for_bit():
    first, optimizer = schedule_of(10)
    rates_of(first, optimizer, 6)
    second, other = schedule_of(10)
    other.load_state_dict(optimizer.state_dict())
    resuming.keep_own_end(Polynomial.load_state_dict)(second, first.state_dict())
    assert rates_of(second, other, 4) == rates_of(first, optimizer, 4)


def test_the_margin_moves_by_the_hosts_steps(monkeypatch):
    monkeypatch.setattr(margin, "steps_done", 0)
    head = SphereFace2(5, 4, margin=0.1)
    items = dict(begin_margin=0.0, end_margin=0.4, begin=0, end=4, mode="linear")
    margin.schedule_margin(head, items)
    margin.go_on_from(2)
    margins = []
    for _ in range(3):
        head(torch.randn(2, 4), torch.tensor([0, 1]))
        margins.append(head.recipe.margin)
    assert margins == pytest.approx([0.2, 0.3, 0.4])
    for wrong, message in (
        (dict(items, begin=9), "begin and end must be"),
        (dict(items, start=0), "must hold its items alone: .*'start'"),
        (dict(items, end_margin=-1), "margin must be"),
    ):
        with pytest.raises(ValueError, match=message):
            margin.schedule_margin(head, wrong)
    with pytest.raises(
        ValueError, match=r"must be with a config\.loss of SphereFace2's, got Linear"
    ):
        margin.schedule_margin(nn.Linear(1, 1), items)


def test_a_step_that_is_not_finite_is_left_out_where_the_config_says_so(build):
    items = dict(preset="wespeaker")  # Which stores no centers in the forward pass.
    head = build(dict(loss="sphereface2", sphereface2=items, skip_not_finite=True))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    weight = head.weight.detach().clone()
    for value in (1.0, torch.nan):
        optimizer.zero_grad()
        head(torch.full((2, 4), value), torch.tensor([[0], [1]])).backward()
        optimizer.step()
        assert torch.equal(weight, head.weight) == (value != 1.0)
        weight = head.weight.detach().clone()


def test_the_table_of_patches_is_that_of_the_docs():
    page = Path(__file__).parents[2] / "docs" / "arcface_torch.md"
    assert table() in page.read_text()


def test_the_doctor_knows_every_name_of_the_host_that_a_patch_touches():
    of_others = {"torch", "numpy", "mxnet", "menpo", "multiprocessing", "backbones"}
    for patch in PATCHES:
        for name in patch.touches:
            module, *inner = name.split(".")
            if module in of_others:
                continue
            if module == "utils":
                module = f"utils/{inner.pop(0)}"
            assert inner[0] in NAMES[f"{module}.py"]


def test_what_the_other_scripts_lack(monkeypatch):
    monkeypatch.delitem(vars(np), "int", raising=False)  # Which numpy < 1.24 gives all the same.
    scripts.restore_numpy_names()
    assert np.array(["1"]).astype(getattr(np, "int"))[0] == 1  # noqa: B009
    for name in ("mxnet.gluon.data", "menpo.visualize.viewmatplotlib"):
        for end in range(1, name.count(".") + 2):
            monkeypatch.setitem(sys.modules, ".".join(name.split(".")[:end]), None)
    scripts.stand_in_for_libraries(mxnet_is_missing=True)
    assert sys.modules["mxnet"].gluon.data.Dataset is object
    colours = sys.modules["menpo.visualize.viewmatplotlib"].sample_colours_from_colourmap
    assert len(colours(3, "Set2")) == 3
    export = scripts.with_old_exporter(lambda net, dynamo=True: dynamo)
    assert export(None) is False
    assert scripts.missing_libraries("train_v2.py") == []
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert scripts.missing_libraries("inference.py") == ["opencv-python"]


def be_killed(moment, path):
    """Make this process, as it saves to `path`, end itself at a moment."""

    def kill_instead(function, argument, name):
        def killing(*args):
            if Path(args[argument]).name.endswith(name):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return killing

    if moment == "writing":  # Its own file is not whole yet.
        os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
    if moment == "waiting":  # Its own file is whole; the others do not know.
        distributed_module.from_all_ranks = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    if moment == "renaming":  # The others may have renamed theirs.
        settle = marks.settle
        marks.settle = kill_instead(settle, 0, path.name)


def save_until_killed(rank, folder, moment, victim):
    path = folder / f"checkpoint_gpu_{rank}.pt"
    patch_of("checkpoints").apply(Run("cpu"))
    torch.save(checkpoint(1), path)
    if rank == victim:
        be_killed(moment, path)
    try:
        torch.save(checkpoint(2), path)
    except Exception:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "renaming":  # With its own name already.
        os.kill(os.getpid(), signal.SIGKILL)


#: The moment of the kill, the rank that is killed, and the step that must be found afterwards.
KILLS = [("writing", 1, 1), ("waiting", 0, 1), ("renaming", 0, 2), ("renaming", 1, 2)]


def resume_all(rank, folders):
    """The step, mark and files that each of the folders gives this rank."""
    whole_checkpoints.host_config = host_side.host_config = lambda: {"loss": "sphereface2"}
    patch_of("checkpoints").apply(Run("cpu"))
    found = []
    for folder in folders:
        path = folder / f"checkpoint_gpu_{rank}.pt"
        resumed = torch.load(path)
        found.append((resumed["global_step"], resumed["saved_together"]))
        torch.save(checkpoint(3), path)
    return found


def test_a_whole_set_remains_whenever_a_rank_is_killed(tmp_path):
    folders = []
    for moment, victim, _ in KILLS:
        folders.append(tmp_path / f"{moment}{victim}")
        folders[-1].mkdir()
        with pytest.raises(ProcessExitedException):
            on_ranks(save_until_killed, 2, folders[-1], moment, victim)
    shown = [read_shards(folder).checkpoints[0]["global_step"] for folder in folders]
    first, second = on_ranks(resume_all, 2, folders)
    assert first == second
    assert [step for step, _ in first] == shown == [step for *_, step in KILLS]
    assert {read_shards(folder).checkpoints[1]["global_step"] for folder in folders} == {3}


class Plain(nn.Module):
    """A head that knows nothing of ranks, samples or thresholds, and says so."""

    takes = ("temperature",)

    def __init__(self, num_classes, embedding_size, temperature=1.0):
        super().__init__()
        if temperature < 0:
            raise TypeError("its own trouble")


class Anything(nn.Module):
    """A head that says that it takes the host's arguments, and does not stop at others."""

    takes = ("sample_rate", "interclass_filtering_threshold", "color")

    def __init__(self, num_classes, embedding_size, **kwargs):
        super().__init__()
        self.given = kwargs


class Renamed(SphereFace2):
    """A head that takes what its base class takes."""

    def __init__(self, num_classes, embedding_size, **kwargs):
        super().__init__(num_classes, embedding_size, **kwargs)


@pytest.fixture
def build(monkeypatch):
    """The head that the adapter builds with a config, some number of ranks, a threshold."""

    def head(config, ranks=1, threshold=0.0):
        for module in (head_choice, fusing):
            monkeypatch.setattr(module, "host_config", lambda: config)
        monkeypatch.setattr(head_choice, "rank_and_world_size", lambda: (0, ranks))
        others = dict(plain=Plain, anything=Anything, renamed=Renamed)
        entries = {name: registry.HeadEntry.of(head) for name, head in others.items()}
        monkeypatch.setattr(registry, "_heads", registry._heads | entries)
        margin_loss = SimpleNamespace(interclass_filtering_threshold=threshold)
        return head_choice.build_head(config["loss"], margin_loss, 4, 11, 0.5, False)

    return head


@pytest.mark.parametrize(
    ("config", "ranks", "error", "message"),
    [
        (
            dict(loss="sphereface2", sphereface2=dict(margn=1)),
            1,
            ValueError,
            "alone, got margn; it takes",
        ),
        (dict(loss="plain", plain=dict(scale=1)), 1, ValueError, "alone, got scale; it takes temp"),
        (dict(loss="plain", plain=dict(temperature=-1)), 1, TypeError, "its own trouble"),
        (dict(loss="plain"), 2, ValueError, "'plain' is not sharded, and each of the 2 ranks"),
        (
            dict(loss="sphereface2", sphereface2=dict(sparse_gradient=True)),
            1,
            ValueError,
            "config.sphereface2 asks for sparse_gradient",
        ),
        (
            dict(loss="sphereface2", sphereface2=dict(fuse_sgd=True), optimizer="adamw"),
            1,
            ValueError,
            "config.optimizer must be 'sgd' for config.sphereface2's fuse_sgd, whose step it is",
        ),
        (
            dict(loss="sphereface2", sphereface2=dict(fuse_sgd=True), gradient_acc=2),
            1,
            ValueError,
            "config.gradient_acc must be 1 for config.sphereface2's fuse_sgd",
        ),
        (
            dict(loss="sphereface2", sphereface2=dict(fuse_sgd=True), skip_not_finite=True),
            1,
            ValueError,
            "config.skip_not_finite must be False for config.sphereface2's fuse_sgd",
        ),
        (dict(loss="plain", plain=dict(fuse_sgd=True)), 1, ValueError, "only sphereface2 has it"),
        (
            dict(loss="sphereface2", sphereface2=dict(missed_steps="skipped")),
            1,
            ValueError,
            "missed_steps, which go with fuse_sgd=True",
        ),
    ],
)
def test_what_a_head_cannot_do_in_this_host_is_refused(build, config, ranks, error, message):
    with pytest.raises(error, match=message):
        build(config, ranks)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0, 0), (-1, 0), (0.3, 0.3), (1, 1), (1.5, 0), (float("inf"), 0)]
)
def test_the_hosts_threshold_is_any_number(build, threshold, kept):
    head = build(dict(loss="sphereface2", sphereface2=None), ranks=2, threshold=threshold)
    assert head.recipe.interclass_filtering_threshold == kept


def test_the_hosts_items_reach_the_heads_that_take_them(build):
    assert isinstance(build(dict(loss="plain", plain={})), Plain)
    given = build(dict(loss="anything", anything=dict(color="red")), threshold=0.2).given
    assert given == dict(sample_rate=0.5, interclass_filtering_threshold=0.2, color="red")
    assert build(dict(loss="sphereface2")).negative_weighting == "none"
    asked = dict(negative_weighting="unbiased")
    assert build(dict(loss="sphereface2", sphereface2=asked)).negative_weighting == "unbiased"
    renamed = build(dict(loss="renamed", renamed=dict(margin=0.2)), threshold=0.3)
    assert renamed.recipe.margin == 0.2
    assert renamed.recipe.interclass_filtering_threshold == 0.3


def test_labels_may_be_a_column_as_with_partial_fc_v2(build):
    head = build(dict(loss="sphereface2", sphereface2=dict(sample_rate=1.0)))
    x, labels = torch.randn(3, 4), torch.tensor([0, 5, -1])
    assert torch.equal(head(x, labels[:, None]), head(x, labels))


def test_workers_are_forked_where_python_would_not(monkeypatch):
    (patch,) = (patch for patch in PATCHES if patch.name == "workers")
    for methods, needed in (
        (["fork", "spawn", "forkserver"], False),
        (["forkserver", "spawn", "fork"], True),
        (["spawn"], False),
    ):
        monkeypatch.setattr(
            "multiprocessing.get_all_start_methods", lambda methods=methods: methods
        )
        assert patch.needed(Run("cpu")) == needed


def test_the_doctor_knows_the_host(host, capsys):
    assert main(["doctor", "--arcface-torch", str(host)]) == 0
    printed = capsys.readouterr().out
    assert "partial_fc_v2.py" in printed
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for patch in PATCHES:
        assert (f"patch {patch.name} " in printed) == patch.needed(Run(device))
    assert "This will run." in printed


def test_the_doctor_knows_what_another_version_lacks(tmp_path, capsys):
    shutil.copytree(STAND_IN, tmp_path / "host")
    scheduler = tmp_path / "host" / "lr_scheduler.py"
    scheduler.write_text(scheduler.read_text().replace("PolynomialLRWarmup", "Other"))
    dataset = tmp_path / "host" / "dataset.py"
    dataset.write_text(dataset.read_text().replace("root_dir, local_rank):", "root, rank):"))
    (tmp_path / "host" / "losses.py").unlink()
    assert main(["doctor", "--arcface-torch", str(tmp_path / "host"), "--json"]) == 1
    findings = {f["name"]: f["found"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["lr_scheduler.py"].startswith("has no PolynomialLRWarmup")
    assert "MXFaceDataset takes (root, rank) where (root_dir, local_rank)" in findings["dataset.py"]
    assert findings["losses.py"] == "is missing"
    assert main(["doctor", "--arcface-torch", str(tmp_path)]) == 2
    assert "has no train_v2.py" in capsys.readouterr().err


def test_the_doctor_names_the_extra_that_brings_a_library(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main(["doctor", "--arcface-torch", str(STAND_IN), "--json"]) == 1
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["torchvision"]["found"].endswith('pip install "sf2-plugin[insightface]"')
    assert findings["easydict"]["good"]


@pytest.mark.parametrize("library", ["torchvision", "easydict"])
def test_the_launcher_names_the_extra_that_brings_a_library(tmp_path, library):
    (tmp_path / "train_v2.py").touch()
    launch = f"""
import runpy, sys
sys.modules[{library!r}] = None
sys.argv = ["launcher", "train_v2.py", "configs/base.py"]
runpy.run_module("sf2_plugin.integrations.arcface_torch", run_name="__main__")
"""
    output = run(tmp_path, "-c", launch, expect=2)
    assert output.count("\n") == 1
    assert output.startswith(f"{library} cannot be imported")
    assert 'pip install "sf2-plugin[insightface]"' in output


@pytest.mark.usefixtures("one_rank")
def test_pairs_that_cannot_be_verified_are_refused_before_training(tmp_path):
    images = [encode_jpeg(np.zeros((8, 8, 3), np.uint8))] * 80
    write_pair_bin(tmp_path / "val.bin", images, [True] * 20 + [False] * 20)
    with pytest.raises(ValueError, match=r"pair set val: fold 1 of 10 .* has only genuine pairs"):
        CallBackVerification(["val"], str(tmp_path))


class NotANumber(nn.Linear):
    def forward(self, images):
        return super().forward(images.mean(dim=(1, 2))) * torch.nan


def verify_nothing_finite(rank, folder):
    verify = CallBackVerification(["val"], str(folder))
    try:
        verify(1, NotANumber(112, 4))
    except ValueError as error:
        return str(error)


def test_embeddings_that_are_not_finite_end_all_ranks_with_one_sentence(tmp_path):
    images = [encode_jpeg(np.full((8, 8, 3), 9 * k, np.uint8)) for k in range(20)]
    write_pair_bin(tmp_path / "val.bin", [images[k % 20] for k in range(80)], [True, False] * 20)
    first, second = on_ranks(verify_nothing_finite, 2, tmp_path)
    assert first == second
    assert first.startswith("rank 0 could not verify: ")


def test_the_launcher_wants_the_hosts_folder(tmp_path):
    output = run(tmp_path, *LAUNCHER, "train_v2.py", "configs/base.py", expect=2)
    assert "there is no train_v2.py here: run this from arcface_torch's folder" in output
