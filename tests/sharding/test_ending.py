"""A rank whose collectives' threads are late must end well all the same."""

import os
import subprocess
import sys

import pytest

# Its threads get a core only when nobody else wants one, as on a busy machine. Without the wait
# most such processes abort, and that the group was destroyed does not help: DDP keeps it alive.
PROCESS = """
import os, threading, torch
from torch import distributed, nn
from sf2_plugin.ending import rest_at_the_end
rest_at_the_end()
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
model = nn.parallel.DistributedDataParallel(nn.Linear(3, 3))
for task in map(int, os.listdir("/proc/self/task")):
    if task != threading.get_native_id():
        os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
for i in range(20):
    distributed.all_reduce(torch.full((10,), float(i)))
    model(torch.ones(2, 3)).sum().backward()
if {destroy}:
    distributed.destroy_process_group()
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux can hold threads back so")
@pytest.mark.parametrize("destroy", [True, False])
def test_a_process_ends_well_though_threads_are_late(destroy):
    command = [sys.executable, "-c", PROCESS.format(destroy=destroy)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
