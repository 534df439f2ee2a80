"""Names that would do something: shown as they are read, on the terminal, the page and in JSON."""

import html
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from sf2_plugin.terminal import json_text, printable

pytest.importorskip("matplotlib")

#: A name, and what is seen of it.
NAMES = {
    "\x1b[31mred\x07": r"\x1b[31mred\x07",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2066isolated": r"\u2066isolated",
    "bad\udcff": r"bad\udcff",
    "two\nlines": r"two\nlines",
    "$x^{": "$x^{",
    "$$": "$$",
    r"\$y$ \alpha": r"\$y$ \alpha",
    "_hidden": "_hidden",
    "<script>alert(1)</script>&\"'": "<script>alert(1)</script>&\"'",
    "café 漢字 שלום": "café 漢字 שלום",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All of them at once: the table, JSON, and the page."""
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    issame = np.arange(40) % 2 == 0
    embeddings = rng.normal(size=(80, 8))
    embeddings[1::2][issame] = embeddings[::2][issame] + rng.normal(size=(20, 8))
    np.savez(folder / "e.npz", embeddings=embeddings, issame=issame)
    command = [sys.executable, "-m", "sf2_plugin", "eval", "pairs", "--html", "page.html"]
    models = [os.fsencode(f"{name}=e.npz") for name in NAMES]
    answers = []
    for option in ([], ["--json"]):
        done = subprocess.run([*command, *models, *option], cwd=folder, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        answers.append(done.stdout.decode())
    return *answers, (folder / "page.html").read_text(encoding="utf-8")


def test_on_the_terminal(pages):
    table, _, _ = pages
    for shown in NAMES.values():
        assert f"{shown} on e\n" in table
    assert all(character.isprintable() or character == "\n" for character in table)


def test_in_json(pages):
    def refuse(word):
        raise AssertionError(f"JSON has no {word}")

    figures = json.loads(pages[1], parse_constant=refuse)
    assert [result["model"] for result in figures["results"]] == list(NAMES.values())


def test_on_the_page_and_in_its_drawings(pages):
    page = pages[2]
    assert "<script" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert "unicode-bidi: isolate" in page
    headings = [html.unescape(text) for text in re.findall(r'<th scope="col">(.*?)</th>', page)]
    assert headings[1 : 1 + len(NAMES)] == list(NAMES.values())
    legends = {html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)<", page)}
    assert legends >= set(NAMES.values())


def test_what_is_not_finite_is_null_in_json():
    def refuse(word):
        raise AssertionError(f"JSON has no {word}")

    figures = {"a": [float("inf"), 1.5], "b": {"c": float("nan")}, "d": (-float("inf"), "NaN")}
    read = json.loads(json_text(figures), parse_constant=refuse)
    assert read == {"a": [None, 1.5], "b": {"c": None}, "d": [None, "NaN"]}


def test_what_has_no_name_in_json_is_escaped():
    text = json_text({"\udcff": "\ud800"})
    assert json.loads(text) == {"\\udcff": "\\ud800"}


def test_printable_text_is_left_alone():
    for text in ("a b", "naïve", "日本語", "עברית", "😀"):
        assert printable(text) == text
