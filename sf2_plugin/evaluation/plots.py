"""PNG plots of reports. Needs matplotlib, and no display."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..data.atomic import atomic_file
from .roc import Roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 4000


class HasRoc(Protocol):
    """A `PairReport` or a `TemplateReport`."""

    @property
    def roc(self) -> Roc: ...


def plot_roc(reports: Mapping[str, HasRoc], path: str | os.PathLike[str]) -> None:
    """TAR over FAR, FAR on a logarithmic axis from one impostor pair on; a curve for each name."""
    if not reports:
        raise ValueError("reports must hold at least one report")
    figure, axes = _figure("False accept rate", "True accept rate")
    for name, report in reports.items():
        roc = report.roc
        shown = thin(roc.far)
        label = f"{name} (AUC {roc.auc:.4f}, EER {roc.eer:.4f})"
        axes.plot(roc.far[shown], roc.tar[shown], label=label)
    axes.set_xscale("log")
    axes.set_xlim(min(1 / len(report.roc.impostor) for report in reports.values()), 1)
    axes.set_ylim(0, 1.01)
    axes.grid(linestyle=":", linewidth=0.6)
    axes.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def plot_scores(
    report: HasRoc, path: str | os.PathLike[str], threshold: float | None = None, bins: int = 100
) -> None:
    """Histograms of the genuine and the impostor scores, each of area 1, and a threshold."""
    genuine, impostor = report.roc.genuine, report.roc.impostor
    figure, axes = _figure("Score", "Density")
    # Equal scores too have a histogram: a collapsed backbone is worth seeing.
    ends = [min(genuine[0], impostor[0]), max(genuine[-1], impostor[-1])]
    edges = np.histogram_bin_edges(ends, bins)
    for name, scores in (("impostor", impostor), ("genuine", genuine)):
        axes.hist(scores, edges.tolist(), density=True, alpha=0.6, label=f"{name} ({len(scores)})")
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4f}")
    axes.legend(fontsize="small")
    _save(figure, path)


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


def _figure(x: str, y: str) -> "tuple[Figure, Axes]":
    try:
        # Not pyplot: it keeps figures alive and picks a backend for the whole process.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "sf2-plugin[eval]"') from error
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    return figure, axes


def _save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    with atomic_file(os.fspath(path)) as file:
        figure.savefig(file, format="png", dpi=150)
