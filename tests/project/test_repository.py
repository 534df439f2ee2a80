"""What is written in two places says the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def found(file, pattern):
    return re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)


def test_one_version():
    assert found("CITATION.cff", r"^version: (\S+)$") == found(
        "pyproject.toml", r'^version = "(\S+)"$'
    )


def test_one_ruff():
    assert found("constraints.txt", r"^ruff==(\S+)$") == found(
        ".pre-commit-config.yaml", r"ruff-pre-commit\n    rev: v(\S+)$"
    )


def test_every_python_that_is_named_is_run():
    named = found("pyproject.toml", r'"Programming Language :: Python :: (3\.\d+)"')
    (matrix,) = found(".github/workflows/ci.yml", r'python: \[(.*"3.11".*)\]')
    assert named == re.findall(r"3\.\d+", matrix)
    floor = found("pyproject.toml", r'^requires-python = ">=(\S+)"$')
    assert floor == named[:1]
    assert {floor[0], named[-1]} <= set(found("noxfile.py", r'": "(3\.\d+)"'))


def test_every_stack_has_its_pins():
    listed = found("noxfile.py", r'^    "(\S+)": "3\.\d+",$')
    pinned = {path.stem for path in (ROOT / "stacks").glob("*.txt")}
    assert set(listed) == {*pinned, "newest"}
