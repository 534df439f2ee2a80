"""Lists of benchmarks, encodings and separators; and names that lead out of the folder."""

import codecs
import os

import numpy as np
import pytest

pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[data]"')

from sf2_plugin.data import encode_jpeg, read_pairs
from sf2_plugin.evaluation.ijb import read_ijb_images

PIXELS = encode_jpeg(np.full((4, 4, 3), 99, np.uint8))


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PIXELS)


def names_of(pairs, folder):
    return [str(path.relative_to(folder)) for path in pairs.images]


LFW_NAMES = [f"{n}/{n}_{i:04d}.jpg" for n, i in (("Ann", 1), ("Ann", 2), ("Bo_Li", 1))]
LFW_NAMES += ["Bo_Li/Bo_Li_0012.jpg", "Cy/Cy_0003.jpg"]
A1, A2, B1, B12, C3 = LFW_NAMES


@pytest.mark.parametrize("header", ["2\t2\n", "2 2\n", ""])
@pytest.mark.parametrize("separator", ["\t", " ", "   ", ","])
@pytest.mark.parametrize("folder", ["", "val", "lfw", "lfw-deepfunneled"])
def test_lfws_own_list(tmp_path, header, separator, folder):
    make(tmp_path / folder, *LFW_NAMES)
    lines = ["Ann 1 2", "Bo_Li 1 12", "Ann 1 Bo_Li 12", "Ann 2 Cy 3"]
    text = header + "\n".join(lines).replace(" ", separator)
    (tmp_path / "pairs.txt").write_text(text)
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert names_of(pairs, tmp_path / folder) == [A1, A2, B1, B12, A1, B12, A2, C3]
    assert pairs.issame.tolist() == [True, True, False, False]
    assert pairs.format == "LFW's list of 4 pairs"


def test_lfws_list_finds_other_suffixes_and_names_what_is_missing(tmp_path):
    make(tmp_path, "Ann/Ann_0001.png", "Ann/Ann_0002.jpeg")
    (tmp_path / "pairs.txt").write_text("1 1\nAnn 1 2\nAnn 1 Cy 3\n")
    with pytest.raises(ValueError, match=r"line 3: there is no image .*Cy/Cy_0003\.jpg"):
        read_pairs(tmp_path / "pairs.txt")
    (tmp_path / "pairs.txt").write_text("1 1\nAnn 1 2\nAnn x Cy 3\n")
    with pytest.raises(ValueError, match=r"line 3: 'Ann x Cy 3'; `name n n`"):
        read_pairs(tmp_path / "pairs.txt")


def test_lfws_development_list_is_brought_into_folds(tmp_path):
    make(tmp_path, *[f"P{i}/P{i}_{k:04d}.jpg" for i in range(20) for k in (1, 2)])
    same = [f"P{i}\t1\t2" for i in range(20)]
    other = [f"P{i}\t1\tP{(i + 1) % 20}\t1" for i in range(20)]
    (tmp_path / "pairsDevTest.txt").write_text("\n".join(["20", *same, *other]))
    pairs = read_pairs(tmp_path / "pairsDevTest.txt")
    assert pairs.issame.tolist() == [True, True, False, False] * 10
    assert pairs.format.endswith("brought into 10 folds")


def test_calfws_list_has_folds_for_one_person_alone(tmp_path):
    """All pairs of one person come first, with their fold; then the others, with 0."""
    names = [f"P{i}_{k}.jpg" for i in range(6) for k in (1, 2)]
    make(tmp_path / "aligned images", *names)
    same = [f"P{i}_{k}.jpg {1 + i // 3}" for i in range(6) for k in (1, 2)]
    other = [line for i in range(4) for line in (f"P{i}_1.jpg 0", f"P{i + 1}_2.jpg 0")]
    (tmp_path / "pairs_CALFW.txt").write_bytes("\r\n".join(same + other).encode())
    pairs = read_pairs(tmp_path / "pairs_CALFW.txt")
    assert pairs.issame.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2
    found = names_of(pairs, tmp_path / "aligned images")
    assert found[:2] == ["P0_1.jpg", "P0_2.jpg"]
    assert found[6:8] == ["P0_1.jpg", "P1_2.jpg"]
    assert found[10:12] == ["P3_1.jpg", "P3_2.jpg"]
    assert "brought into 2 folds" in pairs.format


def test_cplfws_list_keeps_its_order(tmp_path):
    make(tmp_path, "A_1.jpg", "A_2.jpg", "B_1.jpg")
    lines = ["A_1.jpg 1", "A_2.jpg 1", "A_1.jpg 0", "B_1.jpg 0"] * 3
    path = tmp_path / "pairs_CPLFW.txt"
    path.write_text("\n".join(lines))
    assert read_pairs(path).issame.tolist() == [True, False] * 3
    path.write_text("\n".join([*lines, "A_1.jpg 1"]))
    with pytest.raises(ValueError, match="has 13 lines, and two make a pair"):
        read_pairs(path)
    path.write_text("\n".join([*lines, "A_1.jpg 1", "B_1.jpg 0"]))
    with pytest.raises(ValueError, match=r"line 14: 'B_1.jpg 0'; a path and a number"):
        read_pairs(path)


@pytest.fixture
def cfp(tmp_path):
    """Two people with two frontal images and one profile each, in two folds."""
    frontal = [f"Data/Images/00{p}/frontal/0{k}.jpg" for p in (1, 2) for k in (1, 2)]
    profile = [f"Data/Images/00{p}/profile/01.jpg" for p in (1, 2)]
    make(tmp_path, *frontal, *profile)
    protocol = tmp_path / "Protocol"
    for kind, names in (("F", frontal), ("P", profile)):
        lines = [f"{i} ../{name}" for i, name in enumerate(names, start=1)]
        protocol.mkdir(exist_ok=True)
        (protocol / f"Pair_list_{kind}.txt").write_text("\n".join(lines) + "\n")
    for split, same, other in (("FP", "1,1\n4,2\n", "1,2\n"), ("FF", "1,2\n", "1,3\n2,4\n")):
        for fold in ("01", "02"):
            (protocol / "Split" / split / fold).mkdir(parents=True)
            (protocol / "Split" / split / fold / "same.txt").write_text(same)
            (protocol / "Split" / split / fold / "diff.txt").write_text(other)
    return protocol


def test_cfps_folders(cfp):
    pairs = read_pairs(cfp / "Split/FP")
    assert pairs.name == "FP"
    assert pairs.issame.tolist() == [True, True, False] * 2
    images = cfp.parent / "Data/Images"
    first = ["001/frontal/01.jpg", "001/profile/01.jpg", "002/frontal/02.jpg"]
    assert names_of(pairs, images)[:3] == first
    pairs = read_pairs(cfp / "Split/FF")
    assert names_of(pairs, images)[2:6] == [
        f"00{p}/frontal/0{k}.jpg" for p, k in ((1, 1), (2, 1), (1, 2), (2, 2))
    ]
    assert pairs.format == "CFP's FF protocol, 6 pairs in 2 folds"
    (cfp / "Split/FP/02/diff.txt").write_text("1,2\n1,9\n")
    with pytest.raises(ValueError, match=r"diff\.txt, line 2: '1,9'"):
        read_pairs(cfp / "Split/FP")
    with pytest.raises(ValueError, match="is a folder, and not one of CFP's"):
        read_pairs(cfp / "Split")


PLAIN = "A b/1.jpg\tA b/2.jpg\t1\nA b/1.jpg\tß/ü.jpg\t0\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-16-be with mark"]
)
def test_encodings_and_ends_of_lines(tmp_path, encoding, end):
    make(tmp_path, "A b/1.jpg", "A b/2.jpg", "ß/ü.jpg")
    text = PLAIN.replace("\n", end)
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    name, _, marked = encoding.partition(" ")
    mark = marks[name] if marked else b""
    (tmp_path / "pairs.txt").write_bytes(mark + text.encode(name))
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert names_of(pairs, tmp_path) == ["A b/1.jpg", "A b/2.jpg", "A b/1.jpg", "ß/ü.jpg"]
    assert pairs.issame.tolist() == [True, False]
    assert pairs.format == ""


@pytest.mark.parametrize(
    "line",
    [
        "A/1.jpg\tMary Ann/my face.jpg\t1",
        "A/1.jpg\t\tMary Ann/my face.jpg\t1\t",
        "A/1.jpg,Mary Ann/my face.jpg,1",
        "A/1.jpg, Mary Ann/my face.jpg, 1",
        '"A/1.jpg","Mary Ann/my face.jpg",1',
        "A/1.jpg;Mary Ann/my face.jpg;1",
        "A/1.jpg Mary Ann/my face.jpg 1",
        "A/1.jpg    Mary Ann/my face.jpg   1",
    ],
)
def test_separators(tmp_path, line):
    make(tmp_path, "A/1.jpg", "Mary Ann/my face.jpg")
    (tmp_path / "pairs.txt").write_text(f"{line}\n")
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert names_of(pairs, tmp_path) == ["A/1.jpg", "Mary Ann/my face.jpg"]


def test_spaces_that_part_a_line_in_two_ways_are_refused(tmp_path):
    make(tmp_path, "a", "b c", "a b", "c")
    (tmp_path / "pairs.txt").write_text("a b c 1\n")
    with pytest.raises(ValueError, match="line 1: 'a b c 1'; two paths and 0 or 1"):
        read_pairs(tmp_path / "pairs.txt")


@pytest.fixture
def elsewhere(tmp_path):
    """A set in a folder, whose names may lead to an image beside that folder."""
    make(tmp_path, "secret/x.jpg", "set/a.jpg", "set/deep/b.jpg")
    (tmp_path / "set/link.jpg").symlink_to(tmp_path / "secret/x.jpg")
    (tmp_path / "set/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "set/inside.jpg").symlink_to("deep/b.jpg")
    return tmp_path


OUTSIDE = [
    "../secret/x.jpg",
    "deep/../../secret/x.jpg",
    "link.jpg",
    "folder/x.jpg",
    "{}/secret/x.jpg",
]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
@pytest.mark.parametrize("name", OUTSIDE)
def test_images_outside_the_folder_are_read_where_it_is_said(elsewhere, name):
    name = name.format(elsewhere)
    path = elsewhere / "set/pairs.txt"
    path.write_text(f"a.jpg a.jpg 1\na.jpg {name} 0\n")
    with pytest.raises(ValueError, match=r"pairs\.txt, line 2: .* leads out of .*--follow-outside"):
        read_pairs(path)
    assert read_pairs(path, outside=True).images[3] == elsewhere / "set" / name


def test_paths_that_stay_inside_are_no_matter(elsewhere):
    path = elsewhere / "set/pairs.txt"
    path.write_text(f"deep/../a.jpg inside.jpg 1\n{elsewhere}/set/a.jpg deep/b.jpg 0\n")
    assert len(read_pairs(path).images) == 4
    (elsewhere / "linked").symlink_to(elsewhere / "set")
    assert len(read_pairs(elsewhere / "linked/pairs.txt").images) == 4


@pytest.mark.parametrize("name", OUTSIDE)
def test_ijbs_lists_likewise(elsewhere, name):
    name = name.format(elsewhere)
    (elsewhere / "set").rename(elsewhere / "loose_crop")
    meta = elsewhere / "meta"
    meta.mkdir()
    points = " ".join(["1 2"] * 5)
    (meta / "ijbc_name_5pts_score.txt").write_text(f"a.jpg {points} 0.9\n{name} {points} 0.9\n")
    (meta / "ijbc_face_tid_mid.txt").write_text(f"a.jpg 1 1\n{name} 2 2\n")
    with pytest.raises(ValueError, match=r"5pts_score\.txt: .* leads out of .*loose_crop"):
        read_ijb_images(elsewhere)
    assert len(read_ijb_images(elsewhere, outside=True).paths) == 2
