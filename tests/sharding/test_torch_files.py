"""Checkpoints whose use would cost more than their size: refused before they are used."""

import io
import pickle
import tarfile
import zipfile

import pytest
import torch

from sf2_plugin import unpickling
from sf2_plugin.torch_files import load_torch_file


def refused(tmp_path, content, match):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x\.pt: not readable as a checkpoint.*{match}"):
        load_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_trainer_saves_is_read(tmp_path, zipped):
    weight = torch.randn(5, 4)
    betas = (0.9, 0.999)
    content = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "rows": weight[1:3],
        "one row for all": torch.randn(1, 4).expand(1, -1),
        "empty": torch.zeros(0, 4),
        "groups": [{"betas": betas, "params": [i]} for i in range(200)],
        "nothing": [{}, [], (), None],
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    read = load_torch_file(tmp_path / "x.pt")
    assert read.keys() == content.keys()
    torch.testing.assert_close(read["transposed"], weight.T)
    assert read["groups"] == content["groups"]


def test_lists_shared_over_and_over(tmp_path):
    nested = [1]
    for _ in range(40):
        nested = [nested, nested]
    refused(tmp_path, {"x": nested}, "over and over")
    wide = {i: i for i in range(10_000)}
    refused(tmp_path, [wide] * 10_000, "over and over")


def test_nesting(tmp_path):
    buffer = io.BytesIO()
    content = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        for name in archive.namelist():
            out.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    with pytest.raises(ValueError, match=r"x\.pt: .*nested"):
        load_torch_file(tmp_path / "x.pt")
    # One chain hung below another, through a value that is known by then.
    chains = []
    for _ in range(5):
        chain = chains[-1] if chains else []
        for _ in range(90):
            chain = [chain]
        chains.append(chain)
    refused(tmp_path, chains, "nested")


def test_a_list_that_holds_itself(tmp_path):
    endless = []
    endless.append(endless)
    refused(tmp_path, {"x": endless}, "holds itself")


def test_tensors_larger_than_their_content(tmp_path):
    refused(tmp_path, {"w": torch.zeros(1).expand(1 << 40)}, r"has 4 bytes")
    refused(tmp_path, {"w": torch.zeros(16).as_strided((1 << 20, 16), (0, 1))}, r"has 64 bytes")
    refused(tmp_path, {"w": torch.empty(1 << 40, 4, device="meta")}, "no device")
    refused(tmp_path, {"w": torch.eye(3).to_sparse()}, "sparse")


def test_an_archive_that_unfolds(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as archive,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match=r"x\.pt: .*unfold to 4"):
        load_torch_file(tmp_path / "x.pt")


def test_a_program_of_torchscript(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    with pytest.raises(ValueError, match=r"x\.pt: .*TorchScript"):
        load_torch_file(tmp_path / "x.pt")


def test_a_tar_file(tmp_path):
    with tarfile.open(tmp_path / "x.pt", "w:") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match=r"x\.pt: .*tar file"):
        load_torch_file(tmp_path / "x.pt")


class Runs:
    """Pickles as whatever is given as its reduction."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "part",
    [
        Runs(print, ("code ran",)),
        Runs(torch.Size, ([2],), {"x": 1}),
        Runs(torch.zeros, (3,)),
    ],
)
def test_what_is_no_tensor_is_refused_and_not_called(tmp_path, capsys, part, zipped):
    torch.save({"x": part}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"x\.pt: (not readable as a checkpoint|it holds .* refused)"
    ):
        load_torch_file(tmp_path / "x.pt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("load", [torch.load, None])
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02c__builtin__\neval\nX\x06\0\0\0[][0:]\x85R.",
        b"\x80\x02ctorch\nSize\n}X\x01\0\0\0xK\x01sb.",
        b"\x80\x02(iposix\ngetpid\n.",
        b"\x80\x02(cposix\ngetpid\no.",
    ],
)
def test_hostile_operations(content, load, tmp_path):
    """By torch's own unpickler, and by the one that stands in for it before torch 2.6."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        for name in archive.namelist():
            out.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    if load is None:
        with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
            unpickling._load(io.BytesIO(content))
    else:
        with pytest.raises(
            ValueError, match=r"x\.pt: (not readable as a checkpoint|it holds .* refused)"
        ):
            load_torch_file(tmp_path / "x.pt", load)


def test_a_name_that_is_added():
    entries = [(complex, "tests.Added")]
    unpickling.add_safe_globals(entries)
    assert unpickling._load(io.BytesIO(b"\x80\x02ctests\nAdded\nK\x01K\x02\x86R.")) == 1 + 2j
