"""`sf2 doctor` says in which hosts the switch works, and what to install where it does not."""

import json
import sys

import pytest

from sf2_plugin import requirements
from sf2_plugin.requirements import version

from ..processes import advice, python


def doctor(tmp_path, missing=(), distributions=(), *arguments):
    """The status, and what was found by name, where modules are missing and distributions there."""
    for name in distributions:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
for name in {list(missing)!r}: sys.modules[name] = None
from sf2_plugin.cli import main
sys.exit(main(["doctor", "--json"]))
"""
    done = python("-c", code)
    printed = json.loads(done.stdout)
    assert printed["good"] == (done.returncode == 0)
    return done.returncode, {f["name"]: f for f in printed["findings"]}


def test_a_host_that_is_here_takes_a_step(tmp_path):
    pytest.importorskip("mmpretrain")
    pytest.importorskip("easydict")
    status, found = doctor(tmp_path)
    assert status == 0
    for host in ("arcface_torch", "mmengine", "mmpretrain"):
        assert found[host]["good"], found[host]
    assert 'dict(type="SphereFace2ClsHead") takes a step' in found["mmpretrain"]["found"]
    assert "operators" in found["mmcv"]["found"]


def test_one_host_is_enough(tmp_path):
    pytest.importorskip("mmengine")
    status, found = doctor(tmp_path, ["torchvision", "mmpretrain"])
    assert status == 0
    assert [found[host]["good"] for host in ("arcface_torch", "mmengine", "mmpretrain")] == [
        False,
        True,
        False,
    ]
    assert 'pip install "sf2-plugin[insightface]"' in found["arcface_torch"]["found"]
    assert advice("mmpretrain") in found["mmpretrain"]["found"]


def test_where_no_host_works_the_status_is_1(tmp_path):
    status, found = doctor(tmp_path, ["torchvision", "mmengine", "mmpretrain"])
    assert status == 1
    assert not any(found[host]["good"] for host in ("arcface_torch", "mmengine", "mmpretrain"))


@pytest.mark.parametrize(
    ("distribution", "completed"),
    [("onedl-mmpretrain", "onedl-mmpretrain[mminstall]"), ("mmcv", "exchange it for mmcv-lite")],
)
def test_advice_exchanges_no_host_that_is_there(tmp_path, distribution, completed):
    if version("onedl-mmpretrain"):
        completed = advice("mmpretrain")
    _, found = doctor(tmp_path, ["mmcv", "mmpretrain"], [distribution])
    assert completed in found["mmpretrain"]["found"]
    assert "sf2-plugin[hosts]" not in found["mmpretrain"]["found"]


def test_advice_exchanges_no_onnxruntime_that_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(requirements, "version", lambda name: {"onnxruntime-gpu": "9.9"}.get(name))
    with pytest.raises(ImportError, match="reinstall onnxruntime-gpu"):
        requirements.require("onnxruntime", "onnxruntime")
