"""`sf2 data split`: nobody is in both parts, and nothing is lost."""

import errno
import shutil

import pytest


def people_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("test", "expected"), [("3", 3), ("0.3", 3), ("0.25", 2)])
def test_people_are_divided_and_images_kept(data, named, tmp_path, test, expected):
    folder = named({f"p{i}": 2 + i % 3 for i in range(10)})
    status, figures = data("split", folder, "--out", tmp_path / "out", "--test", test, "--json")
    train, val = (people_in(tmp_path / "out" / part) for part in ("train", "val"))
    assert status == 0
    assert len(val) == expected
    assert train | val == people_in(folder)
    assert not train & val
    assert figures["people"] == {"train": 10 - expected, "val": expected}
    copies = {
        path.relative_to(tmp_path / "out" / part): path
        for part in ("train", "val")
        for path in (tmp_path / "out" / part).rglob("*.jpg")
    }
    assert {str(path) for path in copies} == {
        str(path.relative_to(folder)) for path in folder.rglob("*.jpg")
    }
    assert all(path.read_bytes() == str(name)[:-4].encode() for name, path in copies.items())
    assert not any(path.is_symlink() for path in copies.values())
    assert all((folder / name).samefile(path) for name, path in copies.items())


def test_the_same_people_again_and_others_with_another_seed(data, named, tmp_path):
    folder = named({f"p{i}": 2 for i in range(40)})
    chosen = []
    for out, options in (("a", []), ("b", []), ("c", ["--seed", 1])):
        data("split", folder, "--out", tmp_path / out, "--test", 20, *options)
        chosen.append(people_in(tmp_path / out / "val"))
    assert chosen[0] == chosen[1] != chosen[2]
    # Whoever comes moves none but those whose place they take.
    named({f"q{i}": 2 for i in range(4)})
    data("split", folder, "--out", tmp_path / "d", "--test", 20)
    assert len(chosen[0] - people_in(tmp_path / "d" / "val")) <= 4


def test_one_image_verifies_nobody(data, named, tmp_path):
    folder = named({"a": 1, "b": 1, "c": 2, "d": 3})
    data("split", folder, "--out", tmp_path / "out", "--test", 2)
    assert people_in(tmp_path / "out" / "val") == {"c", "d"}
    status, line = data("split", folder, "--out", tmp_path / "more", "--test", 3)
    assert status == 2
    assert "3 people for the test must be from 1 to 2" in line
    assert data("split", folder, "--out", tmp_path / "more", "--test", 3, "--min-images", 1)[0] == 0


def test_copies_stand_alone(data, named, tmp_path):
    folder = named({"a": 2, "b": 2})
    options = ["--test", 1, "--copy", "--names", "learn", "test"]
    assert data("split", folder, "--out", tmp_path / "out", *options)[0] == 0
    shutil.rmtree(folder)
    (person,) = (tmp_path / "out" / "test").iterdir()
    assert (person / "0.jpg").stat().st_nlink == 1
    assert (person / "0.jpg").read_bytes() == f"{person.name}/0".encode()


def test_another_disk_gets_copies(data, named, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    assert data("split", named({"a": 2, "b": 2}), "--out", tmp_path / "out", "--test", 1)[0] == 0
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--test", "0"], "a number of people, or a share"),
        (["--test", "1.5"], "a number of people, or a share"),
        (["--test", "many"], "a number of people, or a share"),
        (["--test", "2"], "from 1 to 1"),
        (["--test", "0.01"], "0 people for the test"),
        (["--test", "1", "--names", "a", "a"], "names must be those of two folders"),
        (["--test", "1", "--names", "a", "../b"], "names must be those of two folders"),
        (["--test", "1", "--names", "a", ""], "names must be those of two folders"),
    ],
)
def test_bad_input_writes_nothing(data, named, tmp_path, options, complaint):
    folder = named({"a": 2, "b": 2})
    status, line = data("split", folder, "--out", tmp_path / "out", *options)
    assert status == 2
    assert complaint in line
    assert not (tmp_path / "out").exists()


def test_the_parts_lie_beside_the_whole(data, named):
    folder = named({"a": 2, "b": 2})
    for out in (folder, folder / "out"):
        status, line = data("split", folder, "--out", out, "--test", 1)
        assert status == 2
        assert "which is read: give a folder beside it" in line
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_a_folder_with_something_in_it_is_kept(data, named, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    status, line = data("split", named({"a": 2, "b": 2}), "--out", tmp_path / "out", "--test", 1)
    assert status == 2
    assert "already exists" in line
    assert (tmp_path / "out" / "mine").read_text() == "kept"
