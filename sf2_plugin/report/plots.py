"""PNG plots of reports. Needs matplotlib, and no display."""

import os
from collections.abc import Mapping
from typing import Protocol

from ..evaluation import Roc
from .drawings import draw_roc, draw_scores, write_png


class HasRoc(Protocol):
    """A `PairReport` or a `TemplateReport`."""

    @property
    def roc(self) -> Roc: ...


def plot_roc(reports: Mapping[str, HasRoc], path: str | os.PathLike[str]) -> None:
    """TAR over FAR, FAR on a logarithmic axis from one impostor pair on; a curve for each name."""
    if not reports:
        raise ValueError("reports must hold at least one report")
    rocs = {name: report.roc for name, report in reports.items()}
    labelled = {f"{n} (AUC {roc.auc:.4f}, EER {roc.eer:.4f})": roc for n, roc in rocs.items()}
    write_png(path, draw_roc, labelled)


def plot_scores(
    report: HasRoc, path: str | os.PathLike[str], threshold: float | None = None
) -> None:
    """Histograms of the genuine and the impostor scores, each of area 1, and a threshold."""
    write_png(path, draw_scores, report.roc, threshold)
