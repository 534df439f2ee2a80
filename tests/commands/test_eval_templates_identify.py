"""`sf2 eval templates` and `sf2 eval identify`: on saved embeddings, folders, and IJB's layout."""

import re
import shutil

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "sf2-plugin[eval]"')
pytest.importorskip("matplotlib", reason='needs pip install "sf2-plugin[eval]"')
pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin.backbones import open_backbone
from sf2_plugin.data import decode_image, encode_jpeg
from sf2_plugin.data.alignment import TEMPLATE, align_face
from sf2_plugin.evaluation import identify, pool_templates, verify_templates

from ..onnx_models import onnx_file
from .test_eval_page import Page


@pytest.fixture
def ijb(tmp_path):
    """8 people in IJB-C's layout: two templates of two images each; one is not enrolled.

    The second templates of persons 2 and 3 are mistaken for each other, as happens.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / "ijbc"
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    faces, members = [], []
    patterns = [np.kron(rng.integers(30, 220, (8, 8, 3)), np.ones((20, 20, 1))) for _ in range(8)]
    for person in range(8):
        for image in range(4):
            pattern = patterns[{2: 3, 3: 2}.get(person, person) if image > 1 else person]
            pixels = (pattern + rng.normal(0, 40, pattern.shape)).clip(0, 255)
            name = f"{person}_{image}.jpg"
            (root / "loose_crop" / name).write_bytes(encode_jpeg(pixels.astype(np.uint8)))
            points = (TEMPLATE + 20 + rng.normal(0, 1, (5, 2))).ravel()
            faces.append(f"{name} {' '.join(f'{x:.3f}' for x in points)} {0.5 + image / 10}")
            members.append(f"{name} {10 * person + image // 2} {image}")
    templates = [10 * person + half for person in range(8) for half in range(2)]
    pairs = [f"{a} {b} {int(a // 10 == b // 10)}" for a in templates for b in templates if a < b]
    probes = [f"{10 * person + 1},{person}" for person in range(8)]
    for name, lines in {
        "name_5pts_score.txt": faces,
        "face_tid_mid.txt": members,
        "template_pair_label.txt": pairs,
        "1N_gallery_G1.csv": ["TEMPLATE_ID,SUBJECT_ID", *(f"{10 * p},{p}" for p in range(4))],
        "1N_gallery_G2.csv": ["TEMPLATE_ID,SUBJECT_ID", *(f"{10 * p},{p}" for p in range(4, 7))],
        "1N_probe_mixed.csv": ["TEMPLATE_ID,SUBJECT_ID", *probes],
    }.items():
        (root / "meta" / f"ijbc_{name}").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def embedded(ijb, tmp_path):
    """An ONNX model, and the obvious loop over the set's images."""
    onnx_file(tmp_path / "model.onnx", normalises=False)
    backbone = open_backbone(tmp_path / "model.onnx")
    features = []
    for line in (ijb / "meta" / "ijbc_name_5pts_score.txt").read_text().splitlines():
        name, *numbers = line.split()
        points = np.array(numbers[:10], np.float32).reshape(5, 2)
        face = align_face(decode_image(ijb / "loose_crop" / name), points)
        features.append(backbone.embed([face, face[:, ::-1]]).sum(axis=0))
    templates = np.repeat([10 * p + h for p in range(8) for h in range(2)], 2)
    return tmp_path / "model.onnx", dict(
        features=np.array(features), templates=templates, medias=np.tile([0, 1, 2, 3], 8)
    )


def template_face(ijb, template):
    """The image whose detector score is highest: the second of a template's two."""
    person, half = divmod(template, 10)
    lines = (ijb / "meta" / "ijbc_name_5pts_score.txt").read_text().splitlines()
    name, *numbers = lines[4 * person + 2 * half + 1].split()
    points = np.array(numbers[:10], float).reshape(5, 2)
    return align_face(decode_image(ijb / "loose_crop" / name), points)


def assert_shown(page, faces):
    """The faces of a page are these, but for being encoded again."""
    assert len(page.images()) == len(faces) > 0
    for shown, face in zip(page.images(), faces, strict=True):
        assert np.abs(shown.astype(float) - face).mean() < 20


def test_targets_are_checked_before_anything_is_embedded(evaluate, ijb, embedded, monkeypatch):
    monkeypatch.setattr("sf2_plugin.commands.models.embed_images", None)
    for command, option in (("templates", "--far"), ("identify", "--fpir")):
        status, error = evaluate(command, embedded[0], "--ijb", ijb, option, 1)
        assert status == 2
        assert f"{option} must lie between 0 and 1" in error


def test_templates_of_a_backbone(evaluate, ijb, embedded, tmp_path):
    model, arrays = embedded
    lines = (ijb / "meta" / "ijbc_template_pair_label.txt").read_text().split()
    p1, p2, labels = np.array(lines, int).reshape(-1, 3).T
    options = ["templates", model, "--ijb", ijb, "--far", 0.1, "--json"]
    page = tmp_path / "page.html"
    _, printed = evaluate(*options, "--html", page)
    report = verify_templates(**arrays, p1=p1, p2=p2, labels=labels, far_targets=[0.1])
    (figures,) = printed["results"]
    assert figures.pop("model") == "model"
    assert figures == pytest.approx(report.as_dict(), abs=1e-6)
    assert report.auc > 0.5
    parsed = Page(page)
    parsed.assert_loads_nothing()
    assert parsed.tags.count("svg") == 3
    assert f"{report.auc:.5f}" in parsed.text

    accepted = report.scores >= report.roc.eer_threshold
    expected = []
    for wrong, order in ((accepted & (labels == 0), -1), (~accepted & (labels == 1), 1)):
        found = np.flatnonzero(wrong)
        expected += found[np.argsort(order * report.scores[found], kind="stable")][:8].tolist()
    faces = [template_face(ijb, template) for i in expected for template in (p1[i], p2[i])]
    assert_shown(parsed, faces)
    i = expected[0]
    assert f"pair {i}, score {report.scores[i]:.3f}" in parsed.text
    for template in (p1[i], p2[i]):
        assert f"template {template}" in parsed.text

    _, printed = evaluate(*options, "--detector-scores", "--no-norm-weighting")
    weighted = verify_templates(
        **arrays,
        p1=p1,
        p2=p2,
        labels=labels,
        detector_scores=np.tile([0.5, 0.6, 0.7, 0.8], 8),
        norm_weighting=False,
    )
    assert printed["results"][0]["eer"] == pytest.approx(weighted.eer)

    np.save(tmp_path / "saved.npy", arrays["features"])
    shutil.rmtree(ijb / "loose_crop")
    _, printed = evaluate("templates", tmp_path / "saved.npy", *options[2:], "--html", page)
    assert printed["results"][0]["auc"] == pytest.approx(report.auc)
    assert Page(page).images() == []


def test_identification_of_a_backbone(evaluate, ijb, embedded, tmp_path):
    model, arrays = embedded
    page = tmp_path / "page.html"
    options = ["--ijb", ijb, "--fpir", 0.3, "--json", "--html", page]
    _, printed = evaluate("identify", model, *options)
    pooled, ids = pool_templates(**arrays)
    of = dict(zip(ids.tolist(), pooled, strict=True))
    probes = [of[10 * p + 1] for p in range(8)]
    faces = []
    for result, people in zip(printed["results"], (range(4), range(4, 7)), strict=True):
        gallery = [of[10 * p] for p in people]
        report = identify(gallery, list(people), probes, list(range(8)), [0.3])
        figures = {name: value for name, value in result.items() if name in report.as_dict()}
        assert figures == pytest.approx(report.as_dict())
        wrong = np.flatnonzero(report.ranks > 1)
        lead = (report.rival_scores - report.mate_scores)[wrong]
        for i in wrong[np.argsort(-lead)]:
            person, rival = (people[rows[i]] for rows in (report.mates, report.rivals))
            faces += [template_face(ijb, t) for t in (10 * person + 1, 10 * rival, 10 * person)]
    parsed = Page(page)
    parsed.assert_loads_nothing()
    assert_shown(parsed, faces)
    assert [result["gallery"] for result in printed["results"]] == ["gallery 1", "gallery 2"]


def test_saved_arrays(evaluate, tmp_path):
    rng = np.random.default_rng(0)
    people = rng.normal(size=(12, 16))
    probe_ids = rng.integers(0, 12, 60)
    probes = people[probe_ids] + rng.normal(size=(60, 16))
    arrays = dict(gallery=people[:9], gallery_ids=np.arange(9), probes=probes, probe_ids=probe_ids)
    np.savez(tmp_path / "search.npz", **arrays)
    page = tmp_path / "page.html"
    _, printed = evaluate("identify", tmp_path / "search.npz", "--json", "--html", page)
    report = identify(**arrays)
    assert printed["results"] == [{"model": "search", "gallery": "gallery", **report.as_dict()}]
    parsed = Page(page)
    parsed.assert_loads_nothing()
    assert parsed.tags.count("svg") == 2
    assert f"{report.rank_accuracy(1):.5f}" in parsed.text
    _, text = evaluate("identify", tmp_path / "search.npz")
    assert text == f"search on gallery\n{report}\n"

    arrays = dict(
        embeddings=probes,
        templates=probe_ids,
        medias=np.arange(60),
        p1=[0, 0, 1, 2],
        p2=[0, 1, 2, 2],
        labels=[1, 0, 0, 1],
    )
    np.savez(tmp_path / "templates.npz", **arrays)
    _, printed = evaluate("templates", tmp_path / "templates.npz", "--json")
    arrays["features"] = arrays.pop("embeddings")
    report = verify_templates(**arrays)
    assert printed["results"] == [{"model": "templates", **report.as_dict()}]
    assert printed["results"][0]["tar_at_far_1e-06"] is None
    assert "AUC" in evaluate("templates", tmp_path / "templates.npz")[1]


def test_folders_of_people(evaluate, tmp_path):
    onnx_file(tmp_path / "model.onnx", normalises=False)
    rng = np.random.default_rng(0)
    patterns = np.kron(rng.integers(30, 220, (5, 4, 4, 3)), np.ones((1, 4, 4, 1)))
    gallery, probes = tmp_path / "gallery", tmp_path / "probes"
    files = [(gallery, person, person) for person in range(3)]
    # The last one lies in the wrong person's folder.
    files += [(probes, person, person) for person in range(5)] + [(probes, 0, 1)]
    for number, (folder, name, shown) in enumerate(files):
        pixels = patterns[shown] + rng.normal(0, 5, patterns[shown].shape)
        path = folder / f"person {name}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(pixels.clip(0, 255).astype(np.uint8)))
    page = tmp_path / "page.html"
    options = ["--gallery", gallery, "--probes", probes, "--json", "--html", page]
    _, printed = evaluate("identify", tmp_path / "model.onnx", *options)
    (figures,) = printed["results"]
    assert (figures["identities"], figures["mated"], figures["nonmated"]) == (3, 4, 2)
    assert figures["rank_1"] == 0.75
    assert_shown(Page(page), patterns[[1, 1, 0]])
    text = Page(page).text
    for line in (r"person 0/8\.jpg", r"person 1/1\.jpg 0\.\d{3}", r"person 0/0\.jpg -?0\.\d{3}"):
        assert re.search(line, text)
    assert "the right one is at rank" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["identify", "a.onnx"], "a backbone needs images to embed"),
        (["identify", "a.onnx", "--gallery", "."], "--gallery and --probes belong together"),
        (
            ["identify", "a.onnx", "--gallery", ".", "--probes", ".", "--ijb", "."],
            "--ijb brings its own galleries",
        ),
        (["identify", "a.npz"], "has no array 'gallery', only embeddings"),
        (["templates", "a.npz"], "has no array 'templates', only embeddings"),
        (["templates", "a.onnx"], "--ijb is wanted"),
        (["templates", "a.onnx", "--ijb", "."], "meta must hold ijbb_face_tid_mid.txt or"),
        (["templates", "b.onnx"], "there is no model b.onnx"),
    ],
)
def test_bad_input(evaluate, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"")
    np.savez(tmp_path / "a.npz", embeddings=np.eye(3))
    status, error = evaluate(*arguments)
    assert status == 2
    assert message in error
