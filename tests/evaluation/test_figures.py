"""A report's figures: one list, drawn everywhere."""

import dataclasses
import json

import numpy as np
import pytest

from sf2_plugin.evaluation import (
    Calibration,
    evaluate_calibration,
    identify,
    verify_scores,
    verify_templates,
)
from sf2_plugin.evaluation.figures import Figure, Report
from sf2_plugin.report.sections import figures_table


def reports():
    rng = np.random.default_rng(0)
    issame = np.arange(400) % 2 == 0
    scores = np.clip(rng.normal(0.3 * issame, 0.2), -1, 1)
    people = rng.normal(size=(8, 4))
    templates = np.arange(8)
    yield verify_scores(scores, issame)
    yield evaluate_calibration(Calibration(20.0, 3.0, 1.0), scores, issame)
    yield identify(people[:6], templates[:6], people + 0.1, templates, [0.1, 0.5])
    yield verify_templates(
        people, templates, templates, [0, 1, 2], [1, 2, 3], [1, 0, 1], far_targets=[0.5]
    )


REPORTS = {type(report).__name__: report for report in reports()}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_every_number_of_a_report_is_a_figure(report):
    names = [field.name for field in dataclasses.fields(report)]
    names += [
        name
        for owner in type(report).mro()
        for name, value in vars(owner).items()
        if isinstance(value, property)
    ]
    numbers = {name for name in names if isinstance(getattr(report, name), (int, float))}
    missing = numbers - {figure.name for figure in report.figures()}
    assert not missing, f"{type(report).__name__} lists no figure for {sorted(missing)}"


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_every_figure_is_in_table_json_page_and_log(report):
    figures = report.figures()
    assert len({figure.name for figure in figures}) == len({f.label for f in figures})
    lines = str(report).splitlines()
    values = json.loads(json.dumps(report.as_dict()))
    page = figures_table({"one": report, "other": report})
    for figure, line in zip(figures, lines, strict=True):
        assert line.startswith(figure.label)
        assert figure.brief() in line
        assert values[figure.name] == figure.value
        assert f'<th scope="row">{figure.label}</th>' in page.replace("&#x27;", "'")
    assert [f for f in figures if isinstance(f.value, float)] == report.logged()


def reports_below(kind):
    """Names of the classes that are no other's base."""
    below = [name for each in kind.__subclasses__() for name in reports_below(each)]
    return below or [kind.__name__]


def test_every_report_is_tried_here():
    assert set(reports_below(Report)) == set(REPORTS)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("pairs", "pairs", 12), "12"),
        (Figure("eer", "EER", 0.125), "0.12500"),
        (
            Figure("tar", "TAR", 0.5, 0.25, 0.75, "at threshold 0.3"),
            "0.50000 [0.25000, 0.75000] at",
        ),
        (Figure("tar", "TAR", None, note="too few pairs"), "not measurable: too few pairs"),
        (Figure("tar", "TAR", None), "not measurable"),
    ],
)
def test_figures_as_text(figure, text):
    assert str(figure).startswith(text)
