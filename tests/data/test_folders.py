"""Image folders."""

import pytest

from sf2_plugin.data import read_face_folder


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_people_and_images_are_sorted(tmp_path):
    touch(tmp_path, "Zoe/2.PNG", "Zoe/10.jpg", "adam/1.jpeg", "Bo/b.webp", "Bo/sub/a.bmp")
    touch(tmp_path, "readme.txt", "Bo/notes.txt", "Bo/._b.jpg", ".cache/1.jpg")
    found = read_face_folder(tmp_path)
    assert found.class_names == ["Bo", "Zoe", "adam"]
    names = ["Bo/b.webp", "Bo/sub/a.bmp", "Zoe/10.jpg", "Zoe/2.PNG", "adam/1.jpeg"]
    assert [path.relative_to(tmp_path).as_posix() for path, _ in found.samples] == names
    assert [label for _, label in found.samples] == [0, 0, 1, 1, 2]


def test_labels_are_those_of_torchvision(face_set):
    datasets = pytest.importorskip("torchvision.datasets")
    folder = face_set / "train"
    theirs, ours = datasets.ImageFolder(folder), read_face_folder(folder)
    assert [(str(path), label) for path, label in ours.samples] == theirs.samples
    assert ours.class_names == theirs.classes


def test_empty_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no folders"):
        read_face_folder(tmp_path)
    touch(tmp_path, "A/1.jpg", "B/1.txt")
    with pytest.raises(ValueError, match="/B has no images"):
        read_face_folder(tmp_path)
    for absent in (tmp_path / "absent", tmp_path / "A" / "1.jpg"):
        with pytest.raises(FileNotFoundError, match=f"no folder {absent}"):
            read_face_folder(absent)
