"""`sf2 doctor`: what is installed here, and in which hosts the switch works."""

import argparse
import importlib
import pkgutil
import platform
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy
import torch

from .. import __version__
from ..engine.backends import BACKENDS, unfit_triton
from ..findings import Finding
from ..requirements import version
from ..terminal import json_text, say

#: Host -> the module of its adapter whose `switch` tries it.
HOSTS = {"arcface_torch": "checkout", "mmengine": "switch_trial", "mmpretrain": "head_trial"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arcface-torch",
        metavar="DIR",
        help="also examine this folder of arcface_torch: its files are read, none is run",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 where no host takes the switch, or not the one that is asked for."""
    versions = list(examine())
    hosts = [switch(host) for host in HOSTS]
    asked_for: list[Finding] = []
    if arguments.arcface_torch:
        from ..integrations.arcface_torch.checkout import examine as examine_arcface_torch

        asked_for += examine_arcface_torch(arguments.arcface_torch)
    bad = [finding.name for finding in asked_for if not finding.good]
    works = [finding.name for finding in hosts if finding.good]
    good = not bad if asked_for else bool(works)
    findings = [*versions, *hosts, *asked_for]
    if arguments.json:
        say(json_text({"good": good, "findings": [asdict(f) for f in findings]}))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark = "ok " if finding.good else "BAD"
            say(f"{mark}  {finding.name:{width}}  {finding.found}")
        if asked_for:
            say(f"This will not run: {', '.join(bad)}." if bad else "This will run.")
        else:
            say(f"The switch works in: {', '.join(works) or 'no host'}.")
    return 0 if good else 1


def examine() -> Iterator[Finding]:
    """Versions, the device, and what the hosts are made of."""
    yield Finding("sf2-plugin", True, __version__)
    yield Finding("python", True, platform.python_version())
    yield Finding("numpy", True, numpy.__version__)
    yield Finding("torch", True, torch.__version__)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield Finding("GPU", True, device)
    yield Finding("Triton", True, _triton())
    yield Finding("mxnet", True, _mxnet())
    yield Finding("mmcv", True, _mmcv())


def switch(host: str) -> Finding:
    """Whether the switch works in a host, tried here; where not, what to install."""
    warnings.simplefilter("ignore")  # Of hosts about themselves.
    try:
        return pkgutil.resolve_name(f"sf2_plugin.integrations.{host}.{HOSTS[host]}:switch")()
    except Exception as error:  # What does not fit together fails in a way of its own.
        return Finding(host, False, " ".join(str(error).split()) or type(error).__name__)


def _triton() -> str:
    there = version("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    obstacle = unfit_triton() or BACKENDS["triton"].obstacle(device, torch.float32)
    return f"{there or 'none'}: {obstacle or 'its kernels compute the loss'}"


def _mxnet() -> str:
    there = version("mxnet")
    if there is None:
        return "none: this package reads train.rec and .bin files in its place"
    try:
        importlib.import_module("mxnet")
    except Exception as error:
        return f"{there} cannot be imported ({error}); this package reads in its place"
    return f"{there}: arcface_torch reads with it"


def _mmcv() -> str:
    names = [name for name in ("mmcv", "mmcv-lite", "onedl-mmcv") if version(name)]
    there = " and ".join(f"{name} {version(name)}" for name in names)
    module = find_spec("mmcv")
    if module is None or module.origin is None:
        return "none"
    compiled = any(Path(module.origin).parent.glob("_ext.*"))
    operators = "with compiled operators" if compiled else "without compiled operators"
    over = ", which install over each other" if len(names) > 1 else ""
    return f"{there}{over}: {operators}"
