"""The plots are whole PNG files that show what they were given."""

import sys
import warnings

import numpy as np
import pytest

from sf2_plugin.evaluation import roc_curve, verify_scores
from sf2_plugin.report.drawings import thin
from sf2_plugin.report.plots import plot_roc, plot_scores

pytest.importorskip("matplotlib")


def made_up_report(pairs: int = 500):
    rng = np.random.default_rng(0)
    issame = rng.random(pairs) < 0.5
    return verify_scores(np.clip(0.2 * rng.normal(size=pairs) + 0.4 * issame, -1, 1), issame)


def pixels(path) -> np.ndarray:
    return np.asarray(pytest.importorskip("PIL.Image").open(path).convert("L"))


def test_plots_are_png_files_that_replace_older_ones_and_leave_nothing_else(tmp_path):
    report = made_up_report()
    for name in ("roc.png", "scores.png"):
        (tmp_path / name).write_text("older")
    plot_roc({"a": report, "b": made_up_report(900)}, tmp_path / "roc.png")
    plot_scores(report, tmp_path / "scores.png", threshold=0.2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["roc.png", "scores.png"]
    for path in tmp_path.iterdir():
        image = pixels(path)
        assert min(image.shape) > 400
        assert image.min() < 100 < 200 < image.max()


def test_a_second_curve_and_a_threshold_show(tmp_path):
    first, second = made_up_report(), made_up_report(900)
    plot_roc({"a": first}, tmp_path / "one.png")
    plot_roc({"a": first, "b": second}, tmp_path / "two.png")
    plot_scores(first, tmp_path / "without.png")
    plot_scores(first, tmp_path / "with.png", threshold=0.2)
    for left, right in (("one", "two"), ("without", "with")):
        assert np.any(pixels(tmp_path / f"{left}.png") != pixels(tmp_path / f"{right}.png"))


def test_a_collapsed_backbone_has_a_histogram(tmp_path):
    report = verify_scores(np.ones(40), np.arange(40) % 2 == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_scores(report, tmp_path / "scores.png")
        plot_roc({"a": report}, tmp_path / "roc.png")
    assert pixels(tmp_path / "scores.png").min() < 100


def test_a_failed_plot_leaves_the_older_file(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    (tmp_path / "roc.png").write_text("older")
    with pytest.raises(OSError, match="disk full"):
        plot_roc({"a": made_up_report()}, tmp_path / "roc.png")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["older"]


def test_plotting_neither_needs_nor_picks_a_display(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    plot_roc({"a": made_up_report()}, tmp_path / "roc.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "sf2-plugin\[eval\]"'):
        plot_scores(made_up_report(), tmp_path / "scores.png")


def test_no_reports_make_no_plot(tmp_path):
    with pytest.raises(ValueError, match="at least one report"):
        plot_roc({}, tmp_path / "roc.png")


def test_long_curves_are_thinned_evenly_in_log_far():
    rng = np.random.default_rng(0)
    issame = np.arange(60_000) % 2 == 0
    roc = roc_curve(rng.normal(size=60_000) + issame, issame)
    shown = thin(roc.far)
    assert len(shown) < 10_000 < len(roc.far)
    along = np.interp(roc.far, roc.far[shown], roc.tar[shown])
    np.testing.assert_allclose(along, roc.tar, atol=0.01)
    short = np.linspace(0, 1, 50)
    np.testing.assert_array_equal(thin(short), np.arange(50))
