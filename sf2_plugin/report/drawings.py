"""Curves and histograms, as SVG for a page or as a PNG file. Needs matplotlib, and no display."""

import io
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import atomic_file
from ..evaluation import CalibrationReport, IdentificationReport, Roc
from ..terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart by colour-blind readers too, on white and on black.
COLOURS = ("#2f81d6", "#e0701a", "#12a07a", "#a35bd0", "#d64560", "#a98600")
_TEXT = "#010203"  # Stands for the page's text colour, which matplotlib has no name for.
_MOST_POINTS = 4000
_MOST_RANKS = 50
_DET_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8)


def draw_roc(
    axes: "Axes",
    curves: Mapping[str, Roc],
    far: str = "False accept rate",
    tar: str = "True accept rate",
) -> None:
    """TAR over log FAR, from one impostor pair on."""
    for name, roc in curves.items():
        shown = thin(roc.far)
        axes.plot(roc.far[shown], roc.tar[shown], label=_label(name))
    axes.set(xscale="log", ylim=(0, 1.02), xlabel=far, ylabel=tar)
    axes.set_xlim(min(1 / len(roc.impostor) for roc in curves.values()), 1)
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_minor_formatter("")


def draw_det(axes: "Axes", curves: Mapping[str, Roc]) -> None:
    """False rejects over false accepts, both on a scale where normal scores make straight lines."""
    for name, roc in curves.items():
        shown = thin(roc.far)
        frr = 1 - roc.tar[shown]
        axes.plot(*(_probit(rate) for rate in (roc.far[shown], frr)), label=_label(name))
    ticks = _probit(np.array(_DET_TICKS))
    labels = [f"{100 * tick:g}%" for tick in _DET_TICKS]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    lowest = min(1 / max(len(roc.impostor), len(roc.genuine)) for roc in curves.values())
    limits = _probit(np.array([max(lowest, 1e-5), 0.9])).tolist()
    axes.set(xlim=limits, ylim=limits, xlabel="False accept rate", ylabel="False reject rate")


def draw_scores(axes: "Axes", roc: Roc, threshold: float | None = None) -> None:
    """Histograms of genuine and impostor scores, each of area 1."""
    # Equal scores too have a histogram: a collapsed backbone is worth seeing.
    ends = [min(roc.genuine[0], roc.impostor[0]), max(roc.genuine[-1], roc.impostor[-1])]
    edges = np.histogram_bin_edges(ends, 60)
    for name, scores, colour in (
        ("impostor", roc.impostor, COLOURS[1]),
        ("genuine", roc.genuine, COLOURS[0]),
    ):
        density, _ = np.histogram(scores, edges, density=True)
        axes.stairs(density, edges, fill=True, alpha=0.6, color=colour, label=name)
    if threshold is not None:
        label = f"threshold {threshold:.3f}"
        axes.axvline(threshold, color=_TEXT, linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="Score", ylabel="Density")


def draw_cmc(axes: "Axes", reports: Mapping[str, IdentificationReport]) -> None:
    """The share of mated searches with the right person among the best 1, 2 ... 50."""
    for name, report in reports.items():
        shown = report.cmc[:_MOST_RANKS]
        axes.plot(np.arange(1, len(shown) + 1), shown, marker=".", label=_label(name))
    axes.set(xlabel="Rank", ylabel="Identification rate", xscale="log")
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_minor_formatter("")


def draw_reliability(axes: "Axes", reports: Mapping[str, CalibrationReport]) -> None:
    """The share of genuine pairs over the predicted probability; the diagonal is honest."""
    axes.plot([0, 1], [0, 1], color=_TEXT, linestyle=":", linewidth=1)
    for name, report in reports.items():
        label = f"{_label(name)} (ECE {report.ece:.3f})"
        axes.plot(report.predicted, report.observed, marker="o", markersize=4, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="Predicted probability of one person", ylabel="Share that is one person")


def thin(far: np.ndarray) -> np.ndarray:
    """Which points of a long curve to draw: all of a short one, evenly spread in log FAR else."""
    if len(far) <= _MOST_POINTS:
        return np.arange(len(far))
    grid = np.geomspace(far[far > 0][0], 1, _MOST_POINTS)
    return np.unique(
        np.concatenate([np.searchsorted(far, grid, side) for side in ("left", "right")]).clip(
            0, len(far) - 1
        )
    )


def _label(name: str) -> str:
    """A name in a legend, from which matplotlib leaves out what begins with an underscore."""
    text = printable(name)
    return f" {text}" if text.startswith("_") else text


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _probit(share: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return np.clip(ndtri(share), -6, 6)


def svg(draw: Callable[..., None], *what: Any) -> str:
    """What `draw(axes, *what)` draws, as `<svg>`: lines in colours of their own, all else in the
    page's text colour."""
    content = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # The page's reader has the fonts.
        _figure(draw, *what).savefig(content, format="svg", transparent=True, metadata=nothing)
    text = content.getvalue()
    return text[text.index("<svg") :].replace(_TEXT, "currentColor")


def write_png(path: str | os.PathLike[str], draw: Callable[..., None], *what: Any) -> None:
    """The same as a PNG file; it appears whole or not at all."""
    with _style(), atomic_file(os.fspath(path)) as file:
        _figure(draw, *what).savefig(file, format="png", dpi=150)


def _figure(draw: Callable[..., None], *what: Any) -> "Figure":
    # Not pyplot: it keeps figures alive and picks a backend for the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, *what)
    axes.legend()
    return figure


def _style() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('drawings need matplotlib: pip install "sf2-plugin[eval]"') from error
    style: Any = {
        "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 11,
        "grid.color": "#88888855",
        "grid.linewidth": 0.6,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,  # A dollar in a name is a dollar.
        "text.usetex": False,
        "svg.hashsalt": "sf2",  # The same page for the same figures.
    }
    for part in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"):
        style[part] = _TEXT
    return matplotlib.rc_context(style)
