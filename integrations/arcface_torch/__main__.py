"""The launcher: patches what the host needs patched here, then runs its script as it is."""

import argparse
import runpy
import sys
from pathlib import Path

from sf2_plugin.requirements import require

from .host import LIBRARIES
from .patches import Run, apply_patches
from .scripts import missing_libraries


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sf2_plugin.integrations.arcface_torch",
        description="Run a script of arcface_torch, from its own folder.",
        epilog="Whatever is not listed here goes to the script.",
    )
    parser.add_argument("script", help="train_v2.py, torch2onnx.py, ...")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long a rank waits for the others before it gives up (default: torch's); they "
        "also wait for rank 0 while it verifies val_targets, so allow for that",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume where config.output holds a whole checkpoint, start afresh where it does not: "
        "for jobs that are restarted, as by torchrun --max-restarts",
    )
    given, script_arguments = parser.parse_known_args()
    if not Path(given.script).is_file():
        parser.error(f"there is no {given.script} here: run this from arcface_torch's folder")
    run = Run(given.device, given.timeout, Path(given.script).name, given.resume)
    try:
        for library in LIBRARIES if run.trains else ():
            require(library, "insightface")
    except ImportError as error:
        parser.exit(2, f"{error}\n")
    if missing := missing_libraries(run.script):
        parser.exit(2, f"{run.script} cannot run: pip install {' '.join(missing)}\n")
    sys.argv = [given.script, *script_arguments]
    sys.path[0] = str(Path(given.script).resolve().parent)
    apply_patches(run)
    runpy.run_path(given.script, run_name="__main__")


if __name__ == "__main__":
    main()
