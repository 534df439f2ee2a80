"""`sf2 data check`: what is wrong with a folder is found, each kind by its name."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from sf2_plugin.data import decode_image, encode_jpeg
from sf2_plugin.datasets.likeness import BITS, look_alike, perceptual_hash


def test_a_good_folder(data, people):
    status, text = data("check", people)
    assert (status, text) == (0, "12 images of 4 people\nnothing found\n")


@pytest.fixture
def spoiled(people):
    def image(person, number):
        return people / f"person {person}" / f"{number}.jpg"

    image(0, 0).write_bytes(image(0, 0).read_bytes()[:1000])
    (people / "person 1" / "copy.jpg").write_bytes(image(1, 0).read_bytes())
    (people / "person 1" / "other.jpg").write_bytes(image(2, 2).read_bytes())
    pixels = decode_image(image(3, 0))
    (people / "person 3" / "again.jpg").write_bytes(encode_jpeg(pixels, quality=40))
    small = np.asarray(Image.fromarray(decode_image(image(3, 1))).resize((40, 40)))
    (people / "person 2" / "small.png").write_bytes(encode_png(small))
    (people / "person 2" / "blank.jpg").write_bytes(encode_jpeg(np.full_like(pixels, 90)))
    (people / "nobody").mkdir()
    (people / "nobody" / "notes.txt").write_text("none yet")
    (people / "single").mkdir()
    image(0, 1).rename(people / "single" / "one.jpg")
    return people


def encode_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_everything_wrong_is_found(data, spoiled):
    status, found = data("check", spoiled, "--json")
    assert status == 1
    assert (found["people"], found["images"]) == (6, 17)
    assert found["sizes"] == {"112 x 112": 15, "40 x 40": 1}
    assert list(found["damaged"]) == ["person 0/0.jpg"]
    assert found["damaged"]["person 0/0.jpg"].startswith("not readable as an image: ")
    assert found["tiny"] == {"person 2/small.png": "40 x 40"}
    assert found["blank"] == ["person 2/blank.jpg"]
    assert found["duplicates"] == [["person 1/0.jpg", "person 1/copy.jpg"]]
    assert found["near_duplicates"] == [["person 3/0.jpg", "person 3/again.jpg"]]
    assert found["people_in_two_folders"] == [
        {"people": ["person 1", "person 2"], "images": [["person 1/other.jpg", "person 2/2.jpg"]]},
        {
            "people": ["person 2", "person 3"],
            "images": [["person 2/small.png", "person 3/1.jpg"]],
        },
    ]
    assert found["one_image"] == ["single"]
    assert found["no_image"] == ["nobody"]


def test_options_say_what_is_wrong(data, spoiled):
    _, found = data("check", spoiled, "--min-size", 40, "--distance", 0, "--json")
    assert found["tiny"] == {}
    assert found["near_duplicates"] == []
    status, text = data("check", spoiled)
    assert status == 1
    assert "people in two folders: 2\n" in text
    assert "  person 1 and person 2: person 1/other.jpg person 2/2.jpg\n" in text
    assert "of 2 sizes, most of 112 x 112: 15\n" in text


def test_bad_input(data, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("none", "file", "."):
        assert data("check", tmp_path / folder)[0] == 2
    for distance in (-1, 65):
        status, line = data("check", tmp_path, "--distance", distance)
        assert status == 2
        assert f"--distance must lie between 0 and 64, got {distance}" in line
    assert data("check", tmp_path, "--min-size", "large")[0] == 2


@pytest.mark.parametrize("distance", [0, 3, 16])
def test_hashes_that_differ_little(distance, rng):
    hashes = rng.integers(0, 256, (60, BITS // 8), np.uint8)
    for copy, of in ((10, 2), (20, 2), (30, 31), (40, 10), (50, 51)):
        flipped = np.unpackbits(hashes[of])
        count = (0, 1, distance, distance + 1)[copy // 10 % 4]
        flipped[rng.choice(BITS, count, replace=False)] ^= 1
        hashes[copy] = np.packbits(flipped)
    bits = np.unpackbits(hashes, axis=1).astype(int)
    parts = [{i} for i in range(60)]
    for i, j in itertools.combinations(range(60), 2):
        if (bits[i] != bits[j]).sum() <= distance:
            first, second = (next(part for part in parts if k in part) for k in (i, j))
            if first is not second:
                parts.remove(second)
                first |= second
    expected = sorted(sorted(part) for part in parts if len(part) > 1)
    assert sorted(look_alike(list(hashes), distance)) == expected
    assert look_alike([], distance) == []


def test_copies_hash_alike_and_other_faces_do_not(drawn):
    hashes = {}
    for key, content in drawn.items():
        pixels = decode_image(content)
        hashes[key] = np.unpackbits(perceptual_hash(pixels))
        half = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.BILINEAR))
        for copy in (decode_image(encode_jpeg(pixels, quality=50)), half):
            assert (np.unpackbits(perceptual_hash(copy)) != hashes[key]).sum() <= 16
    for first, second in itertools.combinations(hashes, 2):
        assert (hashes[first] != hashes[second]).sum() > 16
