"""What the pages show can be typed: Python runs, commands parse, links lead somewhere."""

import re
import shlex
import string
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sf2_plugin import cli
from sf2_plugin.options import Parser, add_commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("pytorch_metric_learning", "mmpretrain", "mmengine", "insightface", "timm", "lightning")
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def fences(language):
    for page in PAGES:
        for match in FENCE.finditer(page.read_text()):
            if match[2] == language:
                line = page.read_text()[: match.start()].count("\n") + 2
                yield pytest.param(match[3], id=f"{page.relative_to(ROOT)}:{line}")


def before():
    """What a reader's own code has before a snippet."""
    return dict(
        torch=torch,
        config=SimpleNamespace(),
        test_pipeline=[dict(type="PackInputs")],
        embeddings=torch.randn(8, 512, requires_grad=True),
        labels=torch.randint(5000, (8,)),
        cosine=torch.rand(3),
    )


@pytest.mark.parametrize("text", fences("python"))
def test_python_runs(text, monkeypatch, tmp_path):
    for package in PACKAGES:
        if package in text:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    code = compile(text, "snippet", "exec")
    if "my_model" not in text:  # An export of the reader's; tests/deploy opens its own.
        names = before()
        exec(code, names)
        if losses := names.get("losses"):  # It trains, and so it learns.
            assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def commands():
    texts = list(fences("bash"))
    defaults = dict(re.findall(r"\$\{(\w+):=([^}]*)\}", "\n".join(t.values[0] for t in texts)))
    for text in texts:
        lines = text.values[0].replace("\\\n", " ").splitlines()
        for number, line in enumerate(lines):
            if line.startswith("sf2 "):
                line = string.Template(line).safe_substitute(defaults)
                yield pytest.param(line, id=f"{text.id}+{number}")


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line):
    parser = Parser(prog="sf2")
    add_commands(parser, cli.COMMANDS)
    words = shlex.split(line.partition(" || ")[0], comments=True)[1:]
    if words[-1:] == ["..."]:
        words.pop()
    parser.parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = LINK.findall(FENCE.sub("", page.read_text()))
    broken = [target for target in targets if not (page.parent / target).exists()]
    assert not broken, f"{page.relative_to(ROOT)} links to {broken}, which is not there"


def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs", reason='needs pip install "sf2-plugin[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "api" / "index.html").is_file()
