"""`sf2 doctor`: what is installed here, and whether a host will run."""

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict

import numpy
import torch

from .. import __version__
from ..findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arcface-torch",
        metavar="DIR",
        help="also examine this folder of arcface_torch: its files are read, none is run",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 where one of them is bad."""
    findings = list(examine())
    if arguments.arcface_torch:
        from ..integrations.arcface_torch.doctor import examine as examine_arcface_torch

        findings += examine_arcface_torch(arguments.arcface_torch)
    bad = [finding.name for finding in findings if not finding.good]
    if arguments.json:
        print(json.dumps({"good": not bad, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark = "ok " if finding.good else "BAD"
            print(f"{mark}  {finding.name:{width}}  {finding.found}")
        print(f"This will not run: {', '.join(bad)}." if bad else "This will run.")
    return 1 if bad else 0


def examine() -> Iterator[Finding]:
    """Versions, and the device."""
    yield Finding("sf2-plugin", True, __version__)
    yield Finding("python", True, platform.python_version())
    yield Finding("numpy", True, numpy.__version__)
    yield Finding("torch", True, torch.__version__)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield Finding("GPU", True, device)
