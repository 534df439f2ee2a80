"""What the page of each protocol shows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._text import Figures
from .drawings import draw_cmc, draw_det, draw_reliability, draw_roc, draw_scores
from .page import Section, drawings, face_pairs, heading, paragraph, table

if TYPE_CHECKING:
    from .command_pairs import PairResult
    from .identification import IdentificationReport
    from .templates import TemplateReport

HARDEST = 8
"""How many false accepts, and false rejects, are shown."""

_NAMES = ("AUC", "EER", "TAR", "FAR", "TPIR", "FPIR", "ECE", "Cllr", "DCF")
_WORDS = {word.lower(): word for word in _NAMES}


def pair_sections(results: "Sequence[PairResult]") -> list[Section]:
    """A section a pair set, which compares the models, then each model's errors."""
    sections = []
    for name in dict.fromkeys(result.set for result in results):
        same_set = {result.model: result for result in results if result.set == name}
        rocs = {model: result.report.roc for model, result in same_set.items()}
        pictures = [
            ("ROC: true accepts over false accepts, logarithmic", draw_roc(rocs)),
            ("DET: false rejects over false accepts, normal deviates", draw_det(rocs)),
        ]
        for model, result in same_set.items():
            threshold = float(result.report.thresholds.mean())
            pictures.append((f"Scores of {model}", draw_scores(result.report.roc, threshold)))
        body = figures_table({m: result.report.as_dict() for m, result in same_set.items()})
        sections.append(Section(name, body + drawings(pictures)))
        sections += [_calibration(r) for r in same_set.values() if r.calibrations]
        sections += [_errors(result) for result in same_set.values() if result.pair_set]
    return sections


def template_sections(reports: "Mapping[str, TemplateReport]") -> list[Section]:
    """One section that compares the models."""
    rocs = {model: report.roc for model, report in reports.items()}
    pictures = [
        ("ROC: true accepts over false accepts, logarithmic", draw_roc(rocs)),
        ("DET: false rejects over false accepts, normal deviates", draw_det(rocs)),
    ]
    pictures += [(f"Scores of {model}", draw_scores(roc)) for model, roc in rocs.items()]
    body = figures_table({model: report.as_dict() for model, report in reports.items()})
    return [Section("Templates", body + drawings(pictures))]


def identification_sections(
    galleries: "Mapping[str, Mapping[str, IdentificationReport]]",
) -> list[Section]:
    """A section a gallery, which compares the models; reports by gallery, then by model."""
    sections = []
    for gallery, reports in galleries.items():
        pictures = [("CMC: the right person among the best of so many", draw_cmc(reports))]
        rocs = {model: report.roc for model, report in reports.items() if report.roc}
        if rocs:
            rates = ("False positive identification rate", "True positive identification rate")
            caption = "Open set: mates found over strangers mistaken, logarithmic"
            pictures.append((caption, draw_roc(rocs, *rates)))
        body = figures_table({model: report.as_dict() for model, report in reports.items()})
        sections.append(Section(gallery, body + drawings(pictures)))
    return sections


def figures_table(columns: Mapping[str, Figures]) -> str:
    """A row a figure, a column a model; an interval stands behind its figure."""
    names = list(next(iter(columns.values())))
    rows = []
    for name in names:
        if name.endswith(("_low", "_high")):
            continue
        row = [" ".join(_WORDS.get(word, word) for word in name.split("_"))]
        for figures in columns.values():
            cell = _cell(figures[name])
            if figures.get(f"{name}_low") is not None:
                cell += f" [{_cell(figures[f'{name}_low'])}, {_cell(figures[f'{name}_high'])}]"
            row.append(cell)
        rows.append(row)
    return table(["", *columns], rows)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "not measurable"
    return str(value) if isinstance(value, int) else f"{value:.5f}"


def _calibration(result: "PairResult") -> Section:
    columns = {name: report.as_dict() for name, report in result.calibrations.items()}
    svg = draw_reliability(result.calibrations)
    body = [
        paragraph(f"Probabilities {result.calibration_pairs}."),
        figures_table(columns),
        drawings([("Reliability: on the diagonal, probabilities are what they say", svg)]),
    ]
    return Section(f"{result.model} on {result.set}: calibration", "\n".join(body))


def _errors(result: "PairResult") -> Section:
    report, pair_set = result.report, result.pair_set
    assert pair_set is not None
    threshold = float(report.thresholds.mean())
    accepted = report.scores >= threshold
    parts = []
    for title, wrong, sign in (
        ("Different people, accepted", accepted & ~report.issame, -1),
        ("One person, rejected", ~accepted & report.issame, 1),
    ):
        found = np.flatnonzero(wrong)
        worst = found[np.argsort(sign * report.scores[found], kind="stable")][:HARDEST]
        parts.append(heading(f"{title}: {len(found)}, the hardest {len(worst)}"))
        parts.append(
            face_pairs(
                [
                    (pair_set.decode(2 * i), pair_set.decode(2 * i + 1), _caption(result, i))
                    for i in worst
                ]
            )
        )
    title = f"{result.model} on {result.set}: hardest errors at threshold {threshold:.4f}"
    return Section(title, "\n".join(parts))


def _caption(result: "PairResult", pair: int) -> str:
    text = f"pair {pair}, score {result.report.scores[pair]:.3f}"
    latest = next(reversed(result.calibrations.values()), None)
    if latest is None:
        return text
    probability = latest.calibration.probability(result.report.scores[pair : pair + 1])
    return f"{text}, p = {probability[0]:.2f}"
