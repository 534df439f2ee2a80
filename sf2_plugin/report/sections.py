"""What the page of each protocol shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation import Roc
from ..evaluation.checks import Bools, Floats
from ..evaluation.text import Figures
from .drawings import draw_cmc, draw_det, draw_reliability, draw_roc, draw_scores, svg
from .page import Section, drawings, face_rows, heading, paragraph, table
from .results import PairResult, SearchResult, TemplateResult

HARDEST = 8
"""How many errors of a kind are shown."""

_NAMES = ("AUC", "EER", "TAR", "FAR", "TPIR", "FPIR", "ECE", "Cllr", "DCF")
_WORDS = {word.lower(): word for word in _NAMES}


def pair_sections(
    results: Sequence[PairResult], common: Mapping[str, Mapping[str, Any]]
) -> list[Section]:
    """A section a pair set, which compares the models, then each model's errors.

    `common` holds what `sf2 eval pairs --json` calls `common_threshold`, by model; it may be empty.
    """
    sections = [_common_threshold(common)] if common else []
    for name in dict.fromkeys(result.set_name for result in results):
        same_set = {result.model: result for result in results if result.set_name == name}
        thresholds = {m: float(result.report.thresholds.mean()) for m, result in same_set.items()}
        body = figures_table({m: result.report.as_dict() for m, result in same_set.items()})
        body += _curves({m: result.report.roc for m, result in same_set.items()}, thresholds)
        sections.append(Section(name, body))
        sections += [_calibration(r) for r in same_set.values() if r.calibrations]
        sections += [
            _verification_errors(f"{model} on {name}", result, thresholds[model])
            for model, result in same_set.items()
            if result.has_faces
        ]
    return sections


def template_sections(results: Sequence[TemplateResult]) -> list[Section]:
    """A section that compares the models, then each model's errors.

    Impostor pairs outnumber genuine ones a hundredfold and more, so that the threshold of best
    accuracy would hardly accept anyone: errors are shown where both kinds are equally frequent.
    """
    rocs = {result.model: result.report.roc for result in results}
    thresholds = {model: roc.eer_threshold for model, roc in rocs.items()}
    body = figures_table({result.model: result.report.as_dict() for result in results})
    sections = [Section("Templates", body + _curves(rocs, thresholds))]
    return sections + [
        _verification_errors(result.model, result, thresholds[result.model])
        for result in results
        if result.has_faces
    ]


def identification_sections(results: Sequence[SearchResult]) -> list[Section]:
    """A section a gallery, which compares the models, then each model's errors."""
    sections = []
    for name in dict.fromkeys(result.gallery_name for result in results):
        same_gallery = [result for result in results if result.gallery_name == name]
        reports = {result.model: result.report for result in same_gallery}
        pictures = [("CMC: the right person among the best of so many", svg(draw_cmc(reports)))]
        rocs = {model: report.roc for model, report in reports.items() if report.roc}
        if rocs:
            rates = ("False positive identification rate", "True positive identification rate")
            caption = "Open set: mates found over strangers mistaken, logarithmic"
            pictures.append((caption, svg(draw_roc(rocs, *rates))))
        body = figures_table({model: report.as_dict() for model, report in reports.items()})
        sections.append(Section(name, body + drawings(pictures)))
        sections += [_misidentifications(result) for result in same_gallery if result.has_faces]
    return sections


def _curves(rocs: Mapping[str, Roc], thresholds: Mapping[str, float]) -> str:
    """ROC and DET of all models, and each one's scores."""
    pictures = [
        ("ROC: true accepts over false accepts, logarithmic", svg(draw_roc(rocs))),
        ("DET: false rejects over false accepts, normal deviates", svg(draw_det(rocs))),
    ]
    for model, roc in rocs.items():
        pictures.append((f"Scores of {model}", svg(draw_scores(roc, thresholds[model]))))
    return drawings(pictures)


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


def _common_threshold(common: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = [["threshold", *(_cell(of["threshold"]) for of in common.values())]]
    for name in next(iter(common.values()))["accuracy"]:
        accuracies = [(of["accuracy"][name], of["own_accuracy"][name]) for of in common.values()]
        rows.append([name, *(f"{_cell(one)} ({_cell(own)})" for one, own in accuracies)])
    text = "Accuracy of each set, and in brackets by the set's own best threshold."
    return Section("One threshold for all sets", paragraph(text) + table(["", *common], rows))


def _calibration(result: PairResult) -> Section:
    columns = {name: report.as_dict() for name, report in result.calibrations.items()}
    reliability = svg(draw_reliability(result.calibrations))
    body = [
        paragraph(f"Probabilities {result.calibration_pairs}."),
        figures_table(columns),
        drawings([("Reliability: on the diagonal, probabilities are what they say", reliability)]),
    ]
    return Section(f"{result.model} on {result.set_name}: calibration", "\n".join(body))


def _verification_errors(
    name: str, result: PairResult | TemplateResult, threshold: float
) -> Section:
    scores, issame = result.report.scores, result.report.issame
    accepted = scores >= threshold
    body = _hardest("Different people, accepted", accepted & ~issame, scores, result)
    body += _hardest("One person, rejected", ~accepted & issame, -scores, result)
    return Section(f"{name}: hardest errors at threshold {threshold:.4f}", body)


def _misidentifications(result: SearchResult) -> Section:
    report = result.report
    lead = report.rival_scores - report.mate_scores
    body = paragraph("Who was searched for, whom the model found, and the right one.")
    body += _hardest("Another person found", report.ranks > 1, lead, result)
    return Section(f"{result.model} on {result.gallery_name}: hardest errors", body)


def _hardest(
    title: str,
    wrong: Bools,
    hardness: Floats,
    result: PairResult | TemplateResult | SearchResult,
) -> str:
    """The hardest of the errors `wrong` (N,): the faces and the caption of each."""
    found = np.flatnonzero(wrong)
    worst = found[np.argsort(-hardness[found], kind="stable")][:HARDEST].tolist()
    rows = face_rows([(result.faces(i), result.caption(i)) for i in worst])
    shown = f", the hardest {HARDEST}" if len(found) > HARDEST else ""
    return f"{heading(f'{title}: {len(found)}{shown}')}\n{rows}\n"
