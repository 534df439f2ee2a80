"""Writes what a stack's run of the tests showed, and `docs/stacks.md` of all runs::

python stacks/report.py record NAME results.xml
"""

import argparse
import json
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from sf2_plugin.atomic import atomic_file

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Column -> the packages that may stand in it: one is installed, or none.
PACKAGES = {
    "torch": ["torch"],
    "NumPy": ["numpy"],
    "Triton": ["triton"],
    "MMEngine": ["mmengine", "onedl-mmengine"],
    "MMPretrain": ["mmpretrain", "onedl-mmpretrain"],
    "MMCV": ["mmcv", "mmcv-lite", "onedl-mmcv"],
    "mxnet": ["mxnet"],
    "SciPy": ["scipy"],
    "ONNX Runtime": ["onnxruntime", "onnxruntime-gpu"],
}
LONGEST_REASON = 200
HEAD = """\
# Stacks

The environments this package is tested in, made by `make stacks` (`nox -l` lists them, and
`nox -s "stack(NAME)"` runs one): each is a pinned set of
[`stacks/`](https://github.com/sf2-plugin/sf2-plugin/tree/main/stacks), or the project's own
`constraints.txt`, in an environment of its own, with the tests that are named run in it on Linux
without a GPU. Where a test failed, what was at fault was mended and its file run again: the commit
is that of the last run. Installing this package into them has changed no package that was there.
"""

#: Key of a route in the figures of `stacks/hosts.py` -> what it is.
ROUTES = {
    "launcher": "arcface_torch, by the launcher",
    "enable": "arcface_torch, by `enable` in the config",
    "mmpretrain": "MMPretrain, `tools/train.py`",
}
HOSTS = """\
## The hosts themselves, on real faces

`python stacks/hosts.py NAME --arcface-torch DIR --mmpretrain DIR --faces DIR` trains both hosts, as
they are in their repositories, on the faces of a few people (eight of Labeled Faces in the Wild,
six images each, on a CPU), with the switch of one line. A first run is told to end (SIGTERM) once
it has saved a checkpoint; a second resumes it. With `enable` the host's own command runs, in a copy
that was edited to run on a CPU, and to import no mxnet where there is none.
"""


def installed(names: list[str]) -> str:
    for name in names:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return version if name == names[0] else f"{name} {version}"
    return ""


def commit() -> str:
    """What is tested: the commit, and whether files beside the docs differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
        return done.stdout.decode().strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return git("rev-parse", "--short=10", "HEAD") + " with changes" * bool(changed)


def counted(results: list[Path]) -> dict[str, Any]:
    """Figures of files that pytest's --junitxml has written; of a test in several, the last."""
    outcomes: Counter[str] = Counter()
    skips: Counter[str] = Counter()
    failures = {}
    cases = {
        (case.get("classname"), case.get("name")): case
        for path in results
        for case in ElementTree.parse(path).iter("testcase")
    }
    for case in cases.values():
        outcome = next((e for e in case if e.tag in ("skipped", "failure", "error")), None)
        outcomes["passed" if outcome is None else outcome.tag] += 1
        if outcome is None:
            continue
        if outcome.tag == "skipped":
            skips[outcome.get("message", "")] += 1
        else:
            reason = " ".join(outcome.get("message", "").split())
            failures[f"{case.get('classname')}::{case.get('name')}"] = reason[:LONGEST_REASON]
    return {
        "passed": outcomes["passed"],
        "failed": dict(sorted(failures.items())),
        "skipped": dict(sorted(skips.items())),
    }


def record(name: str, results: list[Path], tests: str) -> None:
    figures = {
        "commit": commit(),
        "tests": tests,
        "python": platform.python_version(),
        "versions": {column: installed(names) for column, names in PACKAGES.items()},
        **counted(results),
    }
    (DOCS / "stacks").mkdir(exist_ok=True)
    with atomic_file(DOCS / "stacks" / f"{name}.json") as file:
        file.write(json.dumps(figures, indent=2).encode() + b"\n")


def page(stacks: dict[str, Any]) -> str:
    columns = ["stack", "commit", "Python", *PACKAGES, "tests", "passed", "failed", "skipped"]
    lines = [HEAD, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, figures in stacks.items():
        cells = [name, figures["commit"], figures["python"]]
        cells += (figures["versions"][column] for column in PACKAGES)
        cells += [
            figures["tests"],
            figures["passed"],
            len(figures["failed"]),
            sum(figures["skipped"].values()),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    listed = {"newest", *(path.stem for path in (ROOT / "stacks").glob("*.txt"))}
    if missing := sorted(listed - set(stacks)):
        lines += ["", f"Not recorded yet: {', '.join(missing)}."]
    everywhere = set.intersection(*(set(figures["skipped"]) for figures in stacks.values()))
    lines += ["", "## Not run", "", "Tests skipped in every stack:", ""]
    lines += [f"- {reason}" for reason in sorted(everywhere)]
    for name, figures in stacks.items():
        lines += ["", f"### {name}", ""]
        own = {k: n for k, n in figures["skipped"].items() if k not in everywhere}
        lines += [f"- {n} skipped: {reason}" for reason, n in own.items()]
        lines += [f"- failed: `{test}`: {why}" for test, why in figures["failed"].items()]
        if not own and not figures["failed"]:
            lines.append("Nothing else.")
    return "\n".join(lines) + "\n"


def hosts_section(hosts: dict[str, Any]) -> str:
    """What `stacks/hosts.py` has found, a line a route into a host."""
    columns = ["stack", "commit", "host", "loss at step", "told to end at", "resumed, at the end"]
    lines = [HOSTS, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, figures in hosts.items():
        for route, host in ROUTES.items():
            if route in figures:
                run = figures[route]
                first, resumed = [*run["losses"].items()], [*run["resumed"].items()]
                shown = (first[0], first[-1], resumed[-1])
                cells = [name, run["commit"], host, *(f"{y:.2f} at {x}" for x, y in shown)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """1 where a test of the run that is recorded has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["record", "page"])
    parser.add_argument("name", nargs="?")
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--tests", default="all", help="what was run, where that is not all")
    options = parser.parse_args()
    if options.what == "record":
        record(options.name, options.results, options.tests)
    stacks, hosts = (
        {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
        for folder in (DOCS / "stacks", DOCS / "stacks" / "hosts")
    )

    def age(name: str) -> list[int]:
        return [int(part) for part in stacks[name]["versions"]["torch"].split("+")[0].split(".")]

    with atomic_file(DOCS / "stacks.md") as file:
        ordered = {name: stacks[name] for name in sorted(stacks, key=age)}
        file.write(f"{page(ordered)}\n{hosts_section(hosts)}".encode())
    return 1 if options.what == "record" and stacks[options.name]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
