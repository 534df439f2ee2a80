"""The host on a machine with no GPU: the CUDA calls that it makes, and what becomes of them."""

import functools
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from sf2_plugin.patching import Make


class PlainLoader(DataLoader):
    """Stands for the host's DataLoaderX, which copies batches to a GPU ahead of time."""

    def __init__(self, local_rank: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "pin_memory": False})


class DataParallelOnCpu(DistributedDataParallel):
    def __init__(self, *args: Any, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def _stay(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self


def _gloo(init_process_group: Any) -> Any:
    def init(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        init_process_group("gloo", *args, **kwargs)

    return init


#: What every script of the host calls.
CALLS: dict[str, Make] = {
    "torch.Tensor.cuda": lambda original: _stay,
    "torch.nn.Module.cuda": lambda original: _stay,
    "torch.cuda.set_device": lambda original: lambda device: None,
}

#: What its training does besides.
TRAINING: dict[str, Make] = {
    "torch.cuda.amp.grad_scaler.GradScaler": lambda original: (
        functools.partial(torch.amp.GradScaler, "cpu", enabled=False)
        if hasattr(torch.amp, "GradScaler")
        else functools.partial(original, enabled=False)  # Ends with torch 2.3.
    ),
    "torch.distributed.init_process_group": _gloo,
    "torch.nn.parallel.DistributedDataParallel": lambda original: DataParallelOnCpu,
    "dataset.DataLoaderX": lambda original: PlainLoader,
    "utils.utils_distributed_sampler.sync_random_seed": lambda original: functools.partial(
        original, device="cpu"
    ),
}
