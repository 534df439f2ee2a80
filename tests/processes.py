"""Python in processes of its own."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import torch

from sf2_plugin.requirements import version

ROOT = Path(__file__).parents[1]

# Processes are forked from one that has imported torch and computed nothing, where that can be:
# its import takes longer than most of what is tested.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
if START_METHOD == "forkserver":
    multiprocessing.set_forkserver_preload(
        ["torch._dynamo", "torch.nn.parallel", "torchvision", "sf2_plugin.head"]
    )


def advice(extra):
    """What a host's adapter advises where its framework is missing: the fork's own, where that is
    what is there."""
    if version("onedl-mmpretrain"):
        return 'pip install "onedl-mmpretrain[mminstall]"'
    return f'pip install "sf2-plugin[{extra}]"'


def python(*arguments, **options):
    """What `python ARGUMENTS` printed, and how it ended."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def torchrun(module, *arguments):
    """Run a module on two ranks, as `torchrun` does; it must end well."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    done = python(*launcher, module, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-5000:]


def forked(module, *arguments, cwd, log, variables):
    """`python -m MODULE ARGUMENTS`, begun in a process that need not import torch; its output goes
    to the file `log`."""
    context = multiprocessing.get_context(START_METHOD)
    command = [module, *map(str, arguments)]
    process = context.Process(target=_as_main, args=(command, cwd, log, variables), daemon=True)
    process.start()
    return process


def _as_main(command, cwd, log, variables):
    os.chdir(cwd)
    os.environ.update(variables)
    with open(log, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))  # As torch reads it when imported.
    sys.argv, sys.path[0] = command, str(cwd)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
