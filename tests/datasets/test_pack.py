"""`sf2 data pack` and `unpack`: there and back, byte by byte."""

import numpy as np
import pytest

from sf2_plugin.data import FaceRecords, encode_jpeg, write_records


def contents(folder):
    return {
        person.name: sorted(image.read_bytes() for image in person.iterdir())
        for person in folder.iterdir()
    }


def test_there_and_back(data, people, tmp_path):
    status, figures = data("pack", people, "--out", tmp_path / "rec", "--json")
    assert (status, figures) == (0, {"images": 12, "people": 4})
    assert (tmp_path / "rec" / "property").read_text() == "4,112,112\n"
    names = sorted(path.name for path in (tmp_path / "rec").iterdir())
    assert names == ["people.txt", "property", "train.idx", "train.rec"]
    assert [FaceRecords(tmp_path / "rec").encoded(i)[1] for i in (0, 3, 11)] == [0, 1, 3]

    status, figures = data("unpack", tmp_path / "rec", "--out", tmp_path / "back", "--json")
    assert (status, figures) == (0, {"images": 12, "people": 4})
    assert contents(tmp_path / "back") == contents(people)


def test_records_without_names_and_of_all_formats(data, tmp_path):
    beginnings = {b"\xff\xd8a": ".jpg", b"\x89PNGb": ".png", b"BMc": ".bmp", b"RIFFd": ".webp"}
    write_records([(content, 7) for content in beginnings], tmp_path / "rec")
    assert data("unpack", tmp_path / "rec", "--out", tmp_path / "back")[0] == 0
    found = {path.read_bytes(): path.suffix for path in (tmp_path / "back" / "0000007").iterdir()}
    assert found == beginnings


def test_what_would_stop_an_epoch_stops_the_packing(data, people, tmp_path):
    data("pack", people, "--out", tmp_path / "rec")
    before = (tmp_path / "rec" / "train.rec").read_bytes()
    damaged = people / "person 2" / "1.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    status, line = data("pack", people, "--out", tmp_path / "rec")
    assert status == 2
    assert "person 2/1.jpg: not readable as an image" in line
    assert (tmp_path / "rec" / "train.rec").read_bytes() == before

    damaged.write_bytes(encode_jpeg(np.zeros((112, 96, 3), np.uint8)))
    status, line = data("pack", people, "--out", tmp_path / "rec")
    assert status == 2
    assert "person 2/1.jpg is 96 x 112" in line
    assert len(FaceRecords(tmp_path / "rec")) == 12
    assert data("unpack", tmp_path / "rec", "--out", tmp_path / "back")[0] == 0

    assert data("pack", people, "--out", tmp_path / "new" / "rec")[0] == 2
    assert not (tmp_path / "new").exists()
    status, line = data("pack", people, "--out", damaged)
    assert status == 2
    assert f"{damaged} must be a folder" in line


@pytest.mark.parametrize("name", ["../out", "/abs", ".hidden", "", "a/b", "a\\b", ".."])
def test_names_of_people_lead_nowhere_else(data, people, tmp_path, name):
    data("pack", people, "--out", tmp_path / "rec")
    (tmp_path / "rec" / "people.txt").write_text(f"a\nb\nc\n{name}\n")
    status, line = data("unpack", tmp_path / "rec", "--out", tmp_path / "back")
    assert status == 2
    assert "people.txt" in line
    assert "no name of a folder" in line
    assert not (tmp_path / "back").exists()


def test_bad_records_leave_nothing(data, people, tmp_path):
    data("pack", people, "--out", tmp_path / "rec")
    (tmp_path / "rec" / "people.txt").write_text("a\nb\n")
    status, line = data("unpack", tmp_path / "rec", "--out", tmp_path / "back")
    assert status == 2
    assert "record 7: label 2, and people.txt has 2 names" in line
    (tmp_path / "rec" / "people.txt").write_text("a\na\nb\nc\n")
    assert "a name twice" in data("unpack", tmp_path / "rec", "--out", tmp_path / "back")[1]
    write_records([(b"no image", 0)], tmp_path / "other")
    status, line = data("unpack", tmp_path / "other", "--out", tmp_path / "back")
    assert status == 2
    assert "record 1: its image is no JPEG" in line
    assert data("unpack", tmp_path / "none", "--out", tmp_path / "back")[0] == 2
    assert not (tmp_path / "back").exists()
