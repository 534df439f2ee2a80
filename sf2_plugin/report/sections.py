"""What the page of each protocol shows."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation import Roc, TarAtFar
from ..evaluation.figures import Report, text_table
from ..evaluation.input_checks import Bools, Floats
from .drawings import draw_cmc, draw_det, draw_reliability, draw_roc, draw_scores, svg
from .page import (
    Section,
    definitions,
    drawings,
    face_rows,
    heading,
    paragraph,
    side_by_side,
    table,
)
from .results import CommonResult, PairResult, SearchResult, TemplateResult
from .verdict import identification_verdict, pair_verdict, template_verdict
from .words import words_for

HARDEST = 8
"""How many errors of a kind are shown."""


def pair_sections(results: Sequence[PairResult], common: Sequence[CommonResult]) -> list[Section]:
    """A section a pair set, which compares the models, then each model's errors.

    `common` may be empty.
    """
    sections = [in_short(pair_verdict(results))]
    sections += [_common_threshold(common)] if common else []
    for name in dict.fromkeys(result.set_name for result in results):
        same_set = [result for result in results if result.set_name == name]
        thresholds = {r.model: float(r.report.thresholds.mean()) for r in same_set}
        compared, errors = _verification(name, same_set, thresholds, f" on {name}")
        calibrations = [_calibration(result) for result in same_set if result.calibrations]
        sections += [compared, *calibrations, *errors]
    reports = [of for each in results for of in (each.report, *each.calibrations.values())]
    return [*sections, glossary(reports)]


def template_sections(results: Sequence[TemplateResult]) -> list[Section]:
    """A section that compares the models, then each model's errors.

    Impostor pairs outnumber genuine ones a hundredfold and more, so that the threshold of best
    accuracy would hardly accept anyone: errors are shown where both kinds are equally frequent.
    """
    thresholds = {result.model: result.report.roc.eer_threshold for result in results}
    compared, errors = _verification("Templates", results, thresholds)
    verdict = in_short(template_verdict(results))
    return [verdict, compared, *errors, glossary([result.report for result in results])]


def _verification(
    name: str,
    results: Sequence[PairResult] | Sequence[TemplateResult],
    thresholds: Mapping[str, float],
    on: str = "",
) -> tuple[Section, list[Section]]:
    """The models compared on one set, and the errors of each at its threshold."""
    reports = {result.model: result.report for result in results}
    rocs = {model: report.roc for model, report in reports.items()}
    rates = {model: report.tar_at_far for model, report in reports.items()}
    tables = side_by_side([figures_table(reports), thresholds_table(rates, rocs)])
    errors = [
        _verification_errors(f"{result.model}{on}", result, thresholds[result.model])
        for result in results
        if result.has_faces
    ]
    return Section(name, tables + _curves(rocs, thresholds)), errors


def identification_sections(results: Sequence[SearchResult]) -> list[Section]:
    """A section a gallery, which compares the models, then each model's errors."""
    sections = [in_short(identification_verdict(results))]
    for name in dict.fromkeys(result.gallery_name for result in results):
        same_gallery = [result for result in results if result.gallery_name == name]
        reports = {result.model: result.report for result in same_gallery}
        pictures = [("CMC: the right person among the best of so many", svg(draw_cmc, reports))]
        rocs = {model: report.roc for model, report in reports.items() if report.roc}
        tables = [figures_table(reports)]
        if rocs:
            found = {model: reports[model].tpir_at_fpir for model in rocs}
            tables.append(thresholds_table(found, rocs, "FPIR", "TPIR", "non-mated searches"))
            rates = ("False positive identification rate", "True positive identification rate")
            caption = "Open set: mates found over strangers mistaken, logarithmic"
            pictures.append((caption, svg(draw_roc, rocs, *rates)))
        sections.append(Section(name, side_by_side(tables) + drawings(pictures)))
        sections += [_misidentifications(result) for result in same_gallery if result.has_faces]
    return [*sections, glossary([result.report for result in results])]


def inputs_text(model: str, given: Mapping[str, str]) -> str:
    """How faces were given to a model, a line each."""
    return f"{model}, its input\n{text_table(list(given.items()))}"


def provenance_section(
    made: str, models: Mapping[str, Mapping[str, str]], files: Mapping[str, str]
) -> Section:
    """Where figures come from: when and by what they were made, and of which models and files.

    Args:
        made: a sentence.
        models: of each, its file, how faces were given to it, and so on, by name.
        files: digests of the other files, by their paths.
    """
    names = list(dict.fromkeys(name for given in models.values() for name in given))
    rows = [[name, *(given.get(name, "") for given in models.values())] for name in names]
    tables = [table(["", *models], rows)]
    if files:
        tables.append(table(["file", "SHA-256"], list(files.items())))
    return Section("Where these figures come from", paragraph(made) + "\n".join(tables))


def in_short(sentences: Sequence[str]) -> Section:
    return Section("In short", "\n".join(map(paragraph, sentences)))


def glossary(reports: Sequence[Report]) -> Section:
    """The words of these reports' figures."""
    labels = [figure.label for report in reports for figure in report.figures()]
    return Section("What the words mean", definitions(words_for(labels)))


def thresholds_table(
    rates: Mapping[str, Mapping[float, TarAtFar | None]],
    rocs: Mapping[str, Roc],
    far: str = "FAR",
    tar: str = "TAR",
    behind: str = "impostor pairs",
) -> str:
    """Of each rate and model, the threshold and what it rests on."""
    rows = []
    for target in dict.fromkeys(target for of in rates.values() for target in of):
        for model, of in rates.items():
            rate, impostors = of.get(target), len(rocs[model].impostor)
            cells = [f"not measurable below {1 / impostors:.2g}", "", ""]
            if rate:
                cells = [
                    f"{rate.threshold:.4f}",
                    f"{rate.tar:.4f} [{rate.low:.4f}, {rate.high:.4f}]",
                    str(round(rate.far * impostors)),
                ]
            rows.append([f"{target:g}", model, *cells, str(impostors)])
    return table([far, "model", "threshold", tar, "accepted falsely", f"of {behind}"], rows)


def _curves(rocs: Mapping[str, Roc], thresholds: Mapping[str, float]) -> str:
    """ROC and DET of all models, and each one's scores."""
    pictures = [
        ("ROC: true accepts over false accepts, logarithmic", svg(draw_roc, rocs)),
        ("DET: false rejects over false accepts, normal deviates", svg(draw_det, rocs)),
    ]
    for model, roc in rocs.items():
        pictures.append((f"Scores of {model}", svg(draw_scores, roc, thresholds[model])))
    return drawings(pictures)


def figures_table(columns: Mapping[str, Report]) -> str:
    """A row a figure, a column a model; a figure that a model has not got is left empty."""
    cells = {
        (figure.label, name): figure.brief()
        for name, report in columns.items()
        for figure in report.figures()
    }
    labels = dict.fromkeys(label for label, _ in cells)
    rows = [[label, *(cells.get((label, name), "") for name in columns)] for label in labels]
    return table(["", *columns], rows)


def _common_threshold(common: Sequence[CommonResult]) -> Section:
    rows = [["threshold", *(f"{of.threshold:.5f}" for of in common)]]
    for name in common[0].accuracy:
        accuracies = [f"{of.accuracy[name]:.5f} ({of.own_accuracy[name]:.5f})" for of in common]
        rows.append([name, *accuracies])
    text = "Accuracy of each set, and in brackets by the set's own best threshold."
    header = ["", *(of.model for of in common)]
    return Section("One threshold for all sets", paragraph(text) + table(header, rows))


def _calibration(result: PairResult) -> Section:
    reliability = svg(draw_reliability, result.calibrations)
    caption = "Reliability: on the diagonal, probabilities are what they say"
    body = [
        paragraph(f"Probabilities {result.calibration_pairs}."),
        *(paragraph(f"Warning: {doubt}.") for doubt in result.doubts),
        side_by_side([figures_table(result.calibrations), drawings([(caption, reliability)])]),
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
    body = paragraph("Who was searched for, whom the model found, and the right one; cosines.")
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
