"""The environments that people train in: `nox -l` lists them, `make stacks` tests them all.

Each is a pinned set in `stacks/NAME.txt`, or the newest, which is the project's own constraints.
This package is installed into it as a user would, and must change nothing that is there.
"""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

#: Name of the set -> the Python it runs on.
STACKS = {
    "torch2.1-mxnet": "3.11",
    "torch2.4": "3.10",
    "torch2.6": "3.11",
    "torch2.11": "3.13",
    "newest": "3.11",
    "onedl": "3.11",
}


@nox.session
@nox.parametrize(
    "python,stack", [nox.param(python, name, id=name) for name, python in STACKS.items()]
)
def stack(session: nox.Session, stack: str) -> None:
    """Install the stack, then this package, and run the tests given, or all and record them."""
    pip = ("python", "-m", "pip", "-q", "--disable-pip-version-check")
    if stack == "newest":
        extras = ".[all,hosts,bench,trainers,dev]"
        session.run_install(*pip, "install", "-c", "constraints.txt", "-e", extras)
    else:
        # Of mmcv no more is built than its Python.
        session.run_install(
            *pip, "install", "-r", f"stacks/{stack}.txt", env={"MMCV_WITH_OPS": "0"}
        )
        before = installed(session)
        session.run_install(*pip, "install", "-e", ".")
        changed = installed(session) ^ before
        if changed:
            session.error(f"installing this package has changed {', '.join(sorted(changed))}")
    results = Path(session.create_tmp()).resolve() / "results.xml"
    session.run(
        *("python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
        *(f"--junitxml={results}", *session.posargs),
        env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
        success_codes=[0] if session.posargs else [0, 1],  # The report fails in its place.
    )
    if not session.posargs:
        session.run("python", "stacks/report.py", "record", stack, str(results))


def installed(session: nox.Session) -> set[str]:
    listed = session.run(
        *("python", "-m", "pip", "list", "--format=freeze", "--exclude=sf2-plugin"), silent=True
    )
    return set(str(listed).split())
