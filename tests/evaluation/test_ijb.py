"""Reading IJB-B and IJB-C from a small copy of their layout."""

from pathlib import Path

import numpy as np
import pytest

from sf2_plugin.evaluation import (
    read_ijb_galleries,
    read_ijb_images,
    read_ijb_pairs,
    read_ijb_probes,
)

LANDMARKS = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"


@pytest.fixture(params=["ijbb", "ijbc"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    name = request.param
    files = {
        "name_5pts_score.txt": f"1.jpg {LANDMARKS} 0.99\nb#2.jpg {LANDMARKS} 0.5\n",
        "face_tid_mid.txt": "1.jpg 7 69544\nb#2.jpg 40000 12\n",
        "template_pair_label.txt": "7 40000 0\n7 7 1\n",
        "1N_probe_mixed.csv": "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"
        "40000,102,y.jpg\n7,101,x.jpg\n7,101,z.jpg\n",
    }
    galleries = ("S1", "S2") if name == "ijbb" else ("G1", "G2")
    for k, gallery in enumerate(galleries):
        files[f"1N_gallery_{gallery}.csv"] = f"TEMPLATE_ID,SUBJECT_ID\n{k + 1},{k + 10}\n"
    (tmp_path / "meta").mkdir()
    for file, content in files.items():
        (tmp_path / "meta" / f"{name}_{file}").write_text(content)
    return tmp_path, name


def test_images_pairs_galleries_and_probes_are_read(layout):
    root, _ = layout
    images = read_ijb_images(root)
    assert images.paths == [root / "loose_crop" / "1.jpg", root / "loose_crop" / "b#2.jpg"]
    assert images.landmarks.shape == (2, 5, 2)
    np.testing.assert_allclose(images.landmarks[1, :2], [[38.3, 51.7], [73.5, 51.5]], rtol=1e-6)
    np.testing.assert_array_equal(images.detector_scores, [0.99, 0.5])
    np.testing.assert_array_equal(images.templates, [7, 40000])
    np.testing.assert_array_equal(images.medias, [69544, 12])
    pairs = read_ijb_pairs(str(root))
    np.testing.assert_array_equal([pairs.p1, pairs.p2], [[7, 7], [40000, 7]])
    np.testing.assert_array_equal(pairs.labels, [False, True])
    first, second = read_ijb_galleries(root)
    np.testing.assert_array_equal([first.templates, first.subjects], [[1], [10]])
    np.testing.assert_array_equal([second.templates, second.subjects], [[2], [11]])
    probes = read_ijb_probes(root)
    np.testing.assert_array_equal([probes.templates, probes.subjects], [[7, 40000], [101, 102]])


@pytest.mark.parametrize(
    ("file", "content", "read", "message"),
    [
        ("face_tid_mid.txt", "1.jpg 7 1\n", read_ijb_images, "has 1 lines and"),
        ("face_tid_mid.txt", "1.jpg 7 1\n2.jpg 8 1\n", read_ijb_images, "line 2 is 2.jpg in"),
        (
            "face_tid_mid.txt",
            "1.jpg 7\nb#2.jpg 8\n",
            read_ijb_images,
            "as a list as InsightFace",
        ),
        ("face_tid_mid.txt", "", read_ijb_images, "is empty"),
        (
            "name_5pts_score.txt",
            "1.jpg 1 2 3\n",
            read_ijb_images,
            "as a list as InsightFace",
        ),
        (
            "template_pair_label.txt",
            "1 2 x\n",
            read_ijb_pairs,
            "as a list as InsightFace",
        ),
        (
            "template_pair_label.txt",
            "1 2\n",
            read_ijb_pairs,
            "as a list as InsightFace",
        ),
        ("template_pair_label.txt", "1 2 1\n1 3 2\n", read_ijb_pairs, "line 2 must have the label"),
        ("1N_probe_mixed.csv", "A,B\n", read_ijb_probes, "is empty"),
        (
            "1N_probe_mixed.csv",
            "A,B\n1,x\n",
            read_ijb_probes,
            "as a list as InsightFace",
        ),
        ("1N_probe_mixed.csv", "A,B\n1,2\n3,2\n3,4\n", read_ijb_probes, "subjects to template 3"),
    ],
)
def test_files_that_are_not_as_the_layout_says_are_named(layout, file, content, read, message):
    root, name = layout
    (root / "meta" / f"{name}_{file}").write_text(content)
    with pytest.raises(ValueError, match=r".+") as error:
        read(root)
    assert message in str(error.value)
    assert f"{name}_{file}" in str(error.value)


def test_a_folder_that_is_neither_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ijbb_face_tid_mid\.txt or ijbc_face_tid_mid"):
        read_ijb_pairs(tmp_path)
