"""`--launcher pytorch` on a machine with no GPU, as arcface_torch's `--device cpu`.

MMEngine's launcher chooses a GPU by the rank and NCCL by default, and its wrapper places the model
on that GPU. Without one, ranks talk by gloo.
"""

import os
from typing import Any

from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import distributed

from sf2_plugin.patching import replace


def _init_dist(original: Any) -> Any:
    def init(backend: str, *args: Any, **kwargs: Any) -> None:
        if has_accelerator():
            return original(backend, *args, **kwargs)
        kwargs.pop("init_backend", None)
        if backend == "nccl":
            print_log("No GPU: ranks talk by gloo instead of nccl", logger="current")
            backend = "gloo"
        distributed.init_process_group(
            backend,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            **kwargs,
        )

    return init


def has_accelerator() -> bool:
    kinds = (is_cuda_available, is_mlu_available, is_musa_available, is_npu_available)
    return any(available() for available in kinds)


def wrapper_without_gpu(runner: Runner, wrapper: dict[str, Any] | None) -> dict[str, Any] | None:
    """Runner's `model_wrapper_cfg`, with no device named where there is none."""
    if has_accelerator() or not (distributed.is_available() and distributed.is_initialized()):
        return wrapper
    if wrapper is None:
        unused = runner.cfg.get("find_unused_parameters", False)
        wrapper = {"broadcast_buffers": False, "find_unused_parameters": unused}
    if wrapper.get("type", "MMDistributedDataParallel") != "MMDistributedDataParallel":
        return wrapper
    return {"device_ids": None, **wrapper}


def serve_cpu() -> None:
    replace("mmengine.dist.utils._init_dist_pytorch", _init_dist, key="sf2_plugin")
