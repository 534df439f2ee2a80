"""The page of `sf2 eval --html`: what it shows, and that it loads nothing."""

import base64
import hashlib
import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "sf2-plugin[eval]"')
pytest.importorskip("matplotlib", reason='needs pip install "sf2-plugin[eval]"')
pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin import cli
from sf2_plugin.data import decode_image, encode_jpeg, write_pair_bin
from sf2_plugin.evaluation import (
    Calibration,
    evaluate_calibration,
    identify,
    verify_pairs,
    verify_templates,
)
from sf2_plugin.evaluation.roc import best_threshold, wilson_interval
from sf2_plugin.report.drawings import draw_det, draw_roc, draw_scores, svg
from sf2_plugin.report.page import Face, Section, face_rows, paragraph, table, write_page
from sf2_plugin.report.results import PairResult, People, SearchResult
from sf2_plugin.report.sections import identification_sections
from sf2_plugin.report.verdict import pair_verdict
from sf2_plugin.report.words import WORDS, word_of

VOID = {"meta", "img", "link", "br", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Tags, text and attributes of a page whose every element must be closed in order."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.attributes, self.words = [], [], [], []
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())

    @property
    def text(self):
        return "\n".join(word for word in self.words if word)

    def images(self):
        sources = [value for name, value in self.attributes if name == "src"]
        prefix = "data:image/jpeg;base64,"
        assert all(source.startswith(prefix) for source in sources)
        return [decode_image(base64.b64decode(source[len(prefix) :])) for source in sources]

    def assert_loads_nothing(self):
        assert not {"script", "link", "iframe", "object", "embed"} & set(self.tags)
        for name, value in self.attributes:
            if name in ("src", "href", "xlink:href", "srcset", "poster", "background"):
                assert value.startswith(("data:", "#")), (name, value)
            if name in ("style", "clip-path", "fill", "filter"):
                assert not re.search(r"url\((?!#)", value), (name, value)
            assert not name.startswith("on")
        assert "@import" not in self.text
        assert not re.search(r"url\((?!#)", self.text)


@pytest.fixture(scope="module")
def pair_page(tmp_path_factory):
    """A page of two models on one pair set with images, and the better one's report."""
    root = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    issame = np.arange(200) % 2 == 0
    people = rng.normal(size=(200, 2, 8))
    people[issame, 1] = people[issame, 0]
    good = (people + 0.6 * rng.normal(size=people.shape)).reshape(400, 8)
    poor = good + rng.normal(size=good.shape)
    # The number of an image is its brightness.
    images = [encode_jpeg(np.full((16, 16, 3), i // 2, np.uint8)) for i in range(400)]
    write_pair_bin(root / "faces.bin", images, issame)
    np.save(root / "good.npy", good)
    np.save(root / "poor.npy", poor)
    models = [f"<b>&good={root / 'good.npy'}", f"poor={root / 'poor.npy'}"]
    files = ["--pairs", str(root / "faces.bin"), "--html", str(root / "page.html")]
    head = ["--calibration", "--scale", "40", "--t", "3", "--bias", "-9"]
    status = cli.main(["eval", "pairs", *models, *files, *head])
    assert status == 0
    return root / "page.html", verify_pairs(good, issame)


def test_the_page_holds_curves_and_figures_of_both_models(pair_page):
    path, report = pair_page
    page = Page(path)
    page.assert_loads_nothing()
    # ROC and DET together, scores and reliability of each model.
    assert page.tags.count("svg") == 2 + 2 + 2
    assert page.tags.count("b") == 0  # the name stays a name
    for text in ("<b>&good", "poor", "False accept rate", "False reject rate", "Density"):
        assert text in page.text
    for figure in (report.accuracy_mean, report.auc, report.eer):
        assert f"{figure:.5f}" in page.text
    assert "Share that is one person" in page.text
    assert "TAR@FAR=0.1" in page.text
    assert "not measurable" in page.text  # 100 impostor pairs say nothing about FAR 0.001
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in path.read_text()
    assert "#010203" not in path.read_text()


def test_the_page_shows_the_hardest_errors(pair_page):
    path, report = pair_page
    page = Page(path)
    threshold = report.thresholds.mean()
    accepted = report.scores >= threshold
    expected = []
    for wrong, order in ((accepted & ~report.issame, -1), (~accepted & report.issame, 1)):
        found = np.flatnonzero(wrong)
        assert len(found) > 2
        expected += found[np.argsort(order * report.scores[found])][:8].tolist()
    shown = [image.mean() for image in page.images()][: 2 * len(expected)]
    assert np.abs(np.array(shown) - np.repeat(expected, 2)).max() < 2
    assert f"pair {expected[0]}, score {report.scores[expected[0]]:.3f}, p = " in page.text
    # Each face with its name.
    for pair in expected:
        assert f"\nimage {2 * pair}\nimage {2 * pair + 1}\npair {pair}, " in page.text


def test_the_page_begins_with_a_verdict_and_says_where_its_figures_come_from(pair_page):
    path, report = pair_page
    text = Page(path).text
    low, high = wilson_interval(round(200 * report.accuracy_mean), 200)
    share = f"{100 * report.accuracy_mean:.1f} % ({100 * low:.1f} % to {100 * high:.1f} %) of 200"
    assert f"In short\n<b>&good decides {share} pairs of faces rightly" in text
    assert "by <b>&good alone and" in text
    assert "two equal models (sign test, p = " in text
    for file in ("good.npy", "poor.npy", "faces.bin"):
        digest = hashlib.sha256((path.parent / file).read_bytes()).hexdigest()
        assert f"{path.parent / file}\n" in text
        assert digest in text
    assert re.search(r"Made on \d{4}-\d\d-\d\d at \d\d:\d\d UTC by sf2-plugin ", text)
    assert "Cllr\nCost of the probabilities" in text


def test_the_page_has_each_threshold_and_the_pairs_behind_it(pair_page):
    path, report = pair_page
    text = Page(path).text
    rate = report.tar_at_far[0.1]
    interval = f"{rate.tar:.4f} [{rate.low:.4f}, {rate.high:.4f}]"
    row = ["0.1", "<b>&good", f"{rate.threshold:.4f}", interval, str(round(rate.far * 100)), "100"]
    assert "\n".join(row) in text
    assert "\n0.001\n<b>&good\nnot measurable below 0.01\n100\n" in text


def test_equal_models_are_not_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    issame = np.arange(100) % 2 == 0
    embeddings = rng.normal(size=(200, 4))
    report = verify_pairs(embeddings, issame)
    results = [PairResult(name, "set", report, None) for name in "ab"]
    *each, both = pair_verdict(results)
    assert both.endswith("no more than chance makes of two equal models (sign test, p = 1).")
    # Pairs drawn at random are no verification.
    assert all("no more than always giving the same answer would (50.0 %)" in one for one in each)


def test_every_figure_of_every_report_has_a_word_that_explains_it():
    rng = np.random.default_rng(0)
    issame = np.arange(40) % 2 == 0
    pairs = verify_pairs(rng.normal(size=(80, 4)), issame)
    people = rng.normal(size=(20, 4))
    half = np.arange(20)
    reports = [
        pairs,
        evaluate_calibration(Calibration(40.0, 3.0, -2.0), pairs.scores, issame),
        identify(people, half, people, half + 5),
        verify_templates(people, half, half, half[:-1], half[1:], np.arange(19) % 2),
    ]
    words = [word_of(figure.label) for report in reports for figure in report.figures()]
    assert len(set(words)) > 25
    assert not (missing := set(words) - set(WORDS)), f"report/words.py does not explain {missing}"


def test_a_search_that_fails_marks_who_was_searched_found_and_right(tmp_path):
    gallery, probes = (
        People(np.array(rows), np.array(["a", "b"]), lambda row: np.zeros((8, 8, 3), np.uint8))
        for rows in ([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, 1.0]])
    )
    gallery.names = ["a/1.jpg", "b/1.jpg"]
    report = identify(gallery.embeddings, gallery.ids, probes.embeddings, probes.ids)
    (section,) = identification_sections([SearchResult("m", "g", gallery, probes, report)])[2:3]
    write_page(tmp_path / "page.html", "title", [section])
    text = Page(tmp_path / "page.html").text
    assert "searched\na\nfound\nb/1.jpg 0.800\nright\na/1.jpg 0.600\n" in text
    assert "the right one is at rank 2" in text


def test_the_page_of_several_sets_shows_their_common_threshold(pair_page, capsys):
    path, report = pair_page
    root = path.parent
    (root / "again.bin").write_bytes((root / "faces.bin").read_bytes())
    files = [f"--pairs={root / name}.bin" for name in ("faces", "again")]
    assert cli.main(["eval", "pairs", str(root / "good.npy"), *files, f"--html={path}2"]) == 0
    page = Page(path.with_name("page.html2"))
    threshold = best_threshold([report.roc])
    accuracy = f"{report.roc.accuracy(threshold):.5f}"
    assert f"\nthreshold\n{threshold:.5f}\nfaces\n{accuracy} ({accuracy})\nagain" in page.text


PHONE = """<iframe id="frame" src="{page}" style="width: 360px"></iframe><pre id="found"></pre>
<script>frame.onload = () => {{
  const page = frame.contentDocument, wide = page.documentElement;
  found.textContent = "overflow " + (wide.scrollWidth - wide.clientWidth)
    + ", broken " + [...page.images].filter(image => !image.naturalWidth).length
    + ", loaded " + frame.contentWindow.performance.getEntriesByType("resource")
      .filter(entry => !entry.name.startsWith("data:")).length;
}}</script>"""


def test_a_browser_shows_all_of_it_on_a_phone_and_loads_nothing(pair_page, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    (tmp_path / "phone.html").write_text(PHONE.format(page=pair_page[0].as_uri()))
    options = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --dump-dom"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [browser, *options.split(), "--virtual-time-budget=5000", profile, tmp_path / "phone.html"],
        capture_output=True,
        text=True,
    )
    assert "overflow 0, broken 0, loaded 0" in shown.stdout


def test_the_same_figures_make_the_same_page(pair_page, tmp_path):
    roc = pair_page[1].roc
    for draw in (draw_roc, draw_det):
        assert svg(draw, {"one": roc}) == svg(draw, {"one": roc})
    assert svg(draw_scores, roc, 0.5) == svg(draw_scores, roc, 0.5)


def test_text_is_escaped_everywhere(tmp_path):
    evil = "<script>alert(1)</script>"
    face = np.zeros((300, 200, 3), np.uint8)
    faces = [Face(face, evil), Face(face, evil, "found")]
    body = table([evil], [[evil, evil]]) + paragraph(evil) + face_rows([(faces, evil)])
    write_page(tmp_path / "page.html", evil, [Section(evil, body)])
    page = Page(tmp_path / "page.html")
    assert "script" not in page.tags
    assert page.text.count(evil) == 10
    assert [image.shape for image in page.images()] == [(112, 75, 3)] * 2


def test_curves_without_errors_can_be_drawn():
    east, north = [1.0, 0.0], [0.0, 1.0]
    report = verify_pairs([east, east, east, north] * 2, [True, False] * 2, folds=2)
    assert report.auc == 1
    curves = {"a": report.roc}
    for draw, what in ((draw_roc, curves), (draw_det, curves), (draw_scores, report.roc)):
        drawn = svg(draw, what)
        assert drawn.startswith("<svg")
        assert "nan" not in drawn
