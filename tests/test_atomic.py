"""Writing: what must not be replaced is not, and what is replaced keeps what it was."""

import os
import stat

import pytest

from sf2_plugin.atomic import atomic_file, atomic_folder, remove_partial, writable

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def write(path, text="new"):
    with atomic_file(path, "w") as file:
        file.write(text)


def test_a_new_file_has_the_mode_that_any_has(tmp_path):
    write(tmp_path / "new")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert (tmp_path / "new").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o750])
def test_a_file_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "old"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, there):
    (tmp_path / "a").mkdir()
    target = tmp_path / "a/target"
    if there:
        target.write_text("old")
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "first").symlink_to("second")
    write(tmp_path / "first")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["target"]


def make(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a pipe":
        os.mkfifo(f"{path}.pipe")
        path.symlink_to(f"{path}.pipe")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "link to a device":
        path.symlink_to(os.devnull)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe", "circle", "link to a device"])
def test_what_is_no_file_is_refused_and_stays(tmp_path, kind):
    path = tmp_path / "x"
    make(path, kind)
    before = sorted((p.name, p.lstat().st_mode) for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"x is a (device or a pipe|folder|link that leads)"):
        write(path)
    assert sorted((p.name, p.lstat().st_mode) for p in tmp_path.iterdir()) == before


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write(tmp_path / "absent/x")
    assert raised.value.filename == str(tmp_path / "absent")


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_no_permission(tmp_path):
    (tmp_path / "x").write_text("old")
    (tmp_path / "x").chmod(0o400)
    with pytest.raises(PermissionError, match="x"):
        writable(tmp_path / "x")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        writable(tmp_path / "y")
    tmp_path.chmod(0o700)


def test_no_permission_is_asked_for_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="may not be written"), atomic_file(tmp_path / "x"):
        raise AssertionError("it was written")


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_full_disk_names_the_file_that_was_wanted(tmp_path, monkeypatch, place):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_text("old")
    if place != "write":
        monkeypatch.setattr(os, place, full)
    with pytest.raises(OSError, match="No space left") as raised, atomic_file(path):
        full() if place == "write" else None
    assert raised.value.filename == str(path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_the_error_of_another_file_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, atomic_file(tmp_path / "x"):
        (tmp_path / "other").read_text()
    assert raised.value.filename == str(tmp_path / "other")


def test_the_longest_name_that_a_file_can_have(tmp_path):
    write(tmp_path / ("x" * 255))
    with atomic_folder(tmp_path / ("y" * 255)) as folder:
        (folder / "part").write_text("")
    assert (tmp_path / ("y" * 255) / "part").is_file()


def test_what_a_killed_process_of_this_number_left_is_replaced(tmp_path):
    (tmp_path / f".x.{os.getpid()}.partial").write_text("left")
    write(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_half_written_can_be_removed(tmp_path):
    with atomic_folder(tmp_path / "a") as folder, atomic_file(tmp_path / "x") as file:
        file.write(b"half")
        (folder / "part").write_text("half")
        assert len(list(tmp_path.iterdir())) == 2
        remove_partial()
        assert not list(tmp_path.iterdir())
        folder.mkdir()
        (tmp_path / f".x.{os.getpid()}.partial").write_text("")
    remove_partial()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "x"}
