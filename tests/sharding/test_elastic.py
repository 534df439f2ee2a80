"""Two launches of torchrun that meet at a rendezvous, as on two machines, and a rank that is lost.

Both agents start their ranks again, and those go on from the last checkpoint that is whole.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.distributed import from_all_ranks
from sf2_plugin.shards import (
    HEAD,
    MARK,
    OPTIMIZER,
    WORLD_SIZE,
    common_mark,
    file_name,
    file_of_set,
    marked_files,
    new_mark,
    read_shards,
)
from sf2_plugin.torch_files import load_torch_file

from ..parity import relative_error

ROOT = Path(__file__).parents[2]
CLASSES, SIZE, STEPS = 11, 6, 8
#: Rank 1 is killed amid this step, after the checkpoint of the one before.
LOST_AT = 5


def train(folder, lost_at=None):
    """Every step is saved, by all ranks together."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(1)
    backbone = nn.Linear(SIZE, SIZE).double()
    head = PartialFCSphereFace2(CLASSES, SIZE).double()
    groups = [{"params": backbone.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=5e-4)
    head.fuse_sgd(optimizer)
    model = DistributedDataParallel(backbone)
    path, first = folder / file_name(rank), 0
    if path.exists():  # The first save is long done when a rank is lost.
        found = marked_files(path)
        checkpoint = load_torch_file(found[common_mark(from_all_ranks(list(found)))])
        first = checkpoint["global_step"]
        backbone.load_state_dict(checkpoint["state_dict_backbone"])
        head.load_state_dict(checkpoint[HEAD])
        optimizer.load_state_dict(checkpoint[OPTIMIZER])
    for step in range(first, STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(12, SIZE, generator=generator, dtype=torch.float64)
        labels = torch.randint(CLASSES, (12,), generator=generator)
        mine = slice(rank, None, world_size)
        loss = head(model(x[mine]), labels[mine])
        if rank == 1 and first == 0 and step == lost_at:
            os.kill(os.getpid(), signal.SIGKILL)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mark = new_mark()
        with file_of_set(path, mark) as file:
            checkpoint = {
                "global_step": step + 1,
                "state_dict_backbone": backbone.state_dict(),
                HEAD: head.state_dict(),
                OPTIMIZER: optimizer.state_dict(),
                WORLD_SIZE: world_size,
                MARK: mark,
            }
            torch.save(checkpoint, file)
    print(f"rank {rank} of {world_size} has gone on from step {first}")


def launch(folder, port):
    """One machine's torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    agent = ["--max-restarts=2", "--monitor-interval=0.2", "--local-addr=127.0.0.1"]
    return subprocess.Popen(
        [*torchrun, *rendezvous, *agent, "-m", __name__, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Of the store torchrun shares with its ranks they take, when started again, the addresses
        # of those that are gone, or two stores after their ranks were swapped, and wait for ever.
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )


def test_a_lost_rank_is_started_again_and_trains_what_would_have_been_trained(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    machines = [launch(tmp_path, port) for _ in range(2)]
    try:
        printed = [machine.communicate()[0] for machine in machines]
    finally:
        for machine in machines:
            machine.terminate()  # Which an agent passes on to its rank.
            machine.wait(timeout=60)
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(printed)[-5000:]
    assert "exitcode: -9" in "".join(printed)  # As torchrun says what SIGKILL is.
    for rank in range(2):
        assert f"rank {rank} of 2 has gone on from step {LOST_AT}" in "".join(printed)
    shards = read_shards(tmp_path)
    assert shards.checkpoints[0]["global_step"] == STEPS

    # One process, of which nobody is lost.
    (tmp_path / "whole").mkdir()
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        train(tmp_path / "whole")
    finally:
        distributed.destroy_process_group()
    whole = read_shards(tmp_path / "whole")
    for place in whole.sharded:
        rows = [each.rows(place, range(CLASSES)) for each in (shards, whole)]
        assert relative_error(*rows) < 1e-9
    assert len(whole.sharded) == 2  # The centers and their momentum.


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    train(Path(sys.argv[1]), LOST_AT)
    distributed.destroy_process_group()
