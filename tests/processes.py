"""Python in processes of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(*arguments, **options):
    """What `python ARGUMENTS` printed, and how it ended."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def torchrun(module, *arguments):
    """Run a module on two ranks, as `torchrun` does; it must end well."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    done = python(*launcher, module, *arguments, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stderr[-5000:]
