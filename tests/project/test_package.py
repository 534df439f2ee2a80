"""What people install: the wheel's content, and how little it needs."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ..processes import advice

pytest.importorskip("build", reason='needs pip install "sf2-plugin[dev]"')

ROOT = Path(__file__).parents[2]
# What installs in these may not be needed by the core, nor imported by it.
OPTIONAL = ["mmengine", "mmpretrain", "mmcv", "sklearn", "scipy", "PIL", "cv2", "matplotlib"]
OPTIONAL += ["tensorboard", "onnx", "onnxruntime", "insightface", "rich", "easydict"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "demo_output")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_adapters_and_configs(built):
    (wheel,) = built.glob("sf2_plugin-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder in ("sf2_plugin", "integrations", "configs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    places = {n if n.startswith("sf2_plugin/") else f"sf2_plugin/{n}" for n in sources}
    assert not (lacking := places - set(names)), f"the wheel lacks {lacking}"
    assert not any(name.startswith(("tests/", "benchmarks/", "integrations/")) for name in names)


def test_the_sdist_builds_and_holds_the_sources(built):
    (sdist,) = built.glob("sf2_plugin-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "integrations/__init__.py"} <= names


def run_installed(built, code):
    """Run code against the installed wheel where no optional dependency can be imported."""
    (wheel,) = built.glob("sf2_plugin-*.whl")
    target = built / "installed"
    if not target.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
        subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    block = f"import sys\nsys.path.insert(0, {str(target)!r})\n"
    block += f"for name in {OPTIONAL!r}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", block + code]
    return subprocess.run(command, capture_output=True, text=True, cwd=built)


def test_the_core_needs_torch_numpy_and_packaging_only(built):
    code = f"""
import torch, sf2_plugin
assert {str(built)!r} in sf2_plugin.__file__
head = sf2_plugin.SphereFace2(7, 4)
head(torch.randn(3, 4), torch.tensor([0, 6, -1])).backward()
import sf2_plugin.evaluation, sf2_plugin.data, sf2_plugin.cli
print(sorted(name for name in {OPTIONAL!r} if sys.modules.get(name)))
"""
    result = run_installed(built, code)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("name", ["mmengine", "mmpretrain"])
def test_an_adapter_without_its_framework_names_the_extra(built, name):
    result = run_installed(built, f"import sf2_plugin.integrations.{name}")
    assert advice(name) in result.stderr.splitlines()[-1]


def test_the_command_line_names_the_extra_too(built):
    result = run_installed(built, "from sf2_plugin.cli import main; sys.exit(main(['demo']))")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert advice("mmpretrain") in result.stderr


#: Of each of these another distribution installs the same module, or they ask for one of which it
#: does.
OF_SEVERAL_NAMES = {"mmcv", "mmcv-lite", "mmengine", "mmpretrain", "onnxruntime", "insightface"}


def test_no_extra_overwrites_what_is_there_under_another_name(built):
    (wheel,) = built.glob("sf2_plugin-*.whl")
    (installed,) = Distribution.discover(name="sf2-plugin", path=[str(wheel)])
    brings = defaultdict(list)
    for requirement in map(Requirement, installed.requires):
        for extra in re.findall(r'extra == "(\S+)"', str(requirement.marker)):
            brings[extra].append(requirement)

    def distributions(extra):
        for requirement in brings[extra]:
            yield from (each for inner in requirement.extras for each in distributions(inner))
            yield requirement.name

    overwriting = {extra for extra in [*brings] if OF_SEVERAL_NAMES & {*distributions(extra)}}
    # For an environment that has none, as they say.
    assert overwriting == {"hosts", "onnxruntime"}
