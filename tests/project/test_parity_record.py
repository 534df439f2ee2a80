"""Recorded numbers are compared, kept where they agree and written anew where they do not."""

import numpy as np
import pytest

from ..parity import record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    np.savez_compressed(tmp_path / "a.npz", **{"double_0/x": [1.0, 2.0], "double_0/y": [2.0, 4.5]})
    return tmp_path


@pytest.mark.parametrize("factor", [2.0, np.nan])
def test_other_answers_are_written(folder, capsys, factor):
    before = (folder / "a.npz").read_bytes()
    answer = {"double": lambda case: {"y": factor * case["x"]}}
    assert not record.record_archive("a.npz", answer, None)
    assert (folder / "a.npz").read_bytes() != before
    with np.load(folder / "a.npz") as archive:
        np.testing.assert_array_equal(archive["double_0/y"], factor * archive["double_0/x"])
    assert "double_0: y differ by" in capsys.readouterr().out
    assert record.record_archive("a.npz", answer, None) == (factor == 2)


def test_what_a_checkout_lacks_is_named_and_kept(folder, capsys):
    def answer(case):
        record.first_file(folder, "head.py")

    before = (folder / "a.npz").read_bytes()
    assert record.record_archive("a.npz", {"double": answer}, None)
    assert (folder / "a.npz").read_bytes() == before
    assert "double_0: not run" in capsys.readouterr().out
