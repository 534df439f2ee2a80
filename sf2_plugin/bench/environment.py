"""What a measurement was made on and with."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..requirements import version


def environment(device: torch.device, *, commit: str | None = None) -> dict[str, Any]:
    """Machine, threads, versions and commit, to stand in every file of figures.

    Args:
        commit: where it is known; None asks the checkout.
    """
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "sf2-plugin": __version__,
            "torch": torch.__version__,
            "triton": version("triton"),
        },
        "commit": commit or _commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, with a mark where files differ from it; None outside a checkout."""

    def git(*command: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A package that is installed may lie inside another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
