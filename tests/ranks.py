"""Run a function on several ranks: real processes that talk over gloo."""

import datetime
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import start_processes

from sf2_plugin.ending import rest_at_the_end

from .processes import START_METHOD

#: Seconds after which a rank gives up on the others: on a busy machine imports take minutes.
TIMEOUT = 900


def on_ranks(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """What ``function(rank, *args)`` returns on each rank; it must be importable from a module.

    A single rank needs no process of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = (function, world_size, folder, args)
        if world_size == 1:
            _run(0, *arguments)
        else:
            # A test that is out of time leaves no rank that Python would wait for at its end.
            start_processes(_run, arguments, world_size, daemon=True, start_method=START_METHOD)
        return [
            torch.load(Path(folder) / f"{rank}.pt", weights_only=False)
            for rank in range(world_size)
        ]


def _run(rank: int, function: Callable[..., Any], world_size: int, folder: str, args: Any) -> None:
    torch.set_num_threads(1)
    rest_at_the_end()
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    try:
        torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def rank_variables(rank, world_size, port):
    """What torchrun would set. Alone, the host takes a fixed port, which two runs cannot share."""
    values = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size, OMP_NUM_THREADS=1)
    values.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    return {key: str(value) for key, value in values.items()}
