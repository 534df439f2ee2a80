"""Time and memory of a step, on a CPU and on a GPU."""

import os
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..compat import began
from ..progress import Progress

Step = Callable[[], None]

MIB = 2**20


def interleaved_medians(
    steps: Mapping[str, Step],
    rounds: int,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Median milliseconds of each step over `rounds` rounds, after one that warms up.

    Every round runs every step once, so that a machine which slows down slows all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    done, total = 0, (rounds + 1) * len(steps)
    for _ in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(_milliseconds(step, device))
            done += 1
            progress(done, total)
    return {name: median(measured[1:]) for name, measured in times.items()}


def _milliseconds(step: Step, device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    step()
    wait_for(device)
    return (time.perf_counter() - start) * 1000


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(step: Step, device: torch.device) -> int:
    """The most bytes that tensors took at any one time within `step`, above those before it.

    On a CPU this is a running sum over the allocator's events as the profiler records them: exact
    and repeatable, where a process's resident size also holds what libraries and the C allocator
    keep for themselves. On CUDA it is what the caching allocator counts.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # It reports each start and stop otherwise.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        # The profiler misses the freeing of what it did not see allocated, and some heads replace
        # their class centers in every step: the second step frees what the first has allocated.
        step()
        with record_function("measured"):
            step()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = recorded.profiler.kineto_results.events()
    start = next(began(event) for event in events if event.name() == "measured")
    memory = [event for event in events if event.name() == "[memory]" and began(event) >= start]
    levels = accumulate(event.nbytes() for event in sorted(memory, key=began))
    return max(levels, default=0)
