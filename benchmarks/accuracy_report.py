"""Makes `docs/accuracy.md`, its plots and `docs/accuracy.json` from the runs of the study::

python -m benchmarks.accuracy_report [--runs accuracy_runs ...]

Several `--runs` are of several data sets; the page is about the first, and takes from the others
what was asked of them alone. Without `--runs` it is made again from `docs/accuracy.json`.
"""

import argparse
import dataclasses
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy
from benchmarks.accuracy import AREA, STRICT
from benchmarks.face_training import (
    BATCH,
    CLIP,
    LOSSES,
    MOMENTUM,
    SEEN,
    WEIGHT_DECAY,
    Faces,
    Run,
    Test,
)
from benchmarks.report import markdown
from sf2_plugin.atomic import atomic_file
from sf2_plugin.evaluation import verify_scores
from sf2_plugin.evaluation.calibration import Calibration, evaluate_calibration, g
from sf2_plugin.evaluation.roc import roc_curve
from sf2_plugin.recipe import Recipe, closed_form_bias

DOCS = Path(__file__).parents[1] / "docs"
#: What a person read from the figures; its first line has the fingerprint of the faces.
READING = Path(__file__).with_name("accuracy_reading.md")
OURS = "SphereFace2 C"
NAMES = {
    "softmax": "softmax",
    "arcface-mm": "ArcFace (MMPretrain)",
    "arcface": "ArcFace (arcface_torch)",
    "cosface": "CosFace (arcface_torch)",
    "sf2-C": OURS,
    "sf2-A": "SphereFace2 A",
    "sf2-M": "SphereFace2 M",
    "sf2-A2": "SphereFace2 A2",
    "uniface": "SphereFace2, `uniface`",
}
#: What the two halves of the pairs are called, by each of `face_training.MEASURES`.
HALVES = (("dark", "bright"), ("blurred", "sharp"), ("uneven", "even"))
#: The one threshold is the first test's for this FAR.
FAR = 0.01
#: Chance of seeing a difference that is there, and of one that is not, for the smallest one seen.
POWER, LEVEL = 0.8, 0.05

Figures = dict[str, Any]
Changes = dict[str, Any]


# From a run's scores to its figures.


def figures_of(result: dict[str, Any], tests: dict[str, Test]) -> Figures:
    """A run without its scores: figures by test, and by threshold of one test on another."""
    kept = ("settings", "classes", "images", "head", "development", "finite", "train_cpu_seconds")
    figures = {name: result[name] for name in kept if name in result}
    if figures["settings"].get("epochs") == accuracy.DYNAMICS_EPOCHS:
        figures["course"] = {
            name: [None if v is None else float(f"{v:.4g}") for v in values]
            for name, values in result["course"].items()
        }
    scores = {name: np.array(values) for name, values in result.get("scores", {}).items()}
    reports = {
        name: verify_scores(cosines, tests[name].issame, far_targets=(1e-3, 1e-2))
        for name, cosines in scores.items()
    }
    rocs = {name: roc_curve(cosines, tests[name].issame) for name, cosines in scores.items()}
    for own, report in reports.items():
        figures[own] = {
            "accuracy": report.accuracy_mean,
            "auc": report.auc,
            "eer": report.eer,
            **{f"tar@{far:g}": point.tar for far, point in report.tar_at_far.items() if point},
        }
        at, best = rocs[own].tar_at_far(FAR), float(np.mean(report.thresholds))
        for other, there in rocs.items():
            if own != other:
                far, tar = there.rates(at.threshold) if at else (None, None)
                figures[f"{own} to {other}"] = {
                    "far": far,
                    "tar": tar,
                    "lost": reports[other].accuracy_mean - there.accuracy(best),
                    **_calibrations(result, scores, tests, own, other),
                }
            if at:
                figures[f"{own} within {other}"] = _groups(
                    at.threshold, scores[other], tests[other]
                )
    # Settings as they are: a third is looked for by all its digits.
    return _rounded(figures) | {"settings": figures["settings"]}


def _groups(threshold: float, cosines: np.ndarray, test: Test) -> Figures:
    """FAR by half of the pairs, by the lesser of a pair's two measures; and how it varies."""
    of_pairs = np.asarray(test.measures)[test.pairs].min(1)
    figures = {}
    for halves, values in zip(HALVES, of_pairs.T, strict=True):
        upper = values >= np.median(values)
        for half, rows in zip(halves, (~upper, upper), strict=True):
            roc = roc_curve(cosines[rows], np.asarray(test.issame)[rows])
            figures[f"far {half}"] = roc.rates(threshold)[0]
    return figures | {"far range": max(figures.values()) - min(figures.values())}


def _calibrations(
    result: dict[str, Any],
    scores: dict[str, np.ndarray],
    tests: dict[str, Test],
    own: str,
    other: str,
) -> Figures:
    """Of the other test's probabilities: as the head has them, and refitted on this one.

    A softmax head has none of its own; a refit takes it for a logistic regression on the cosine.
    """
    head = result.get("head")
    calibration = Calibration(**head) if head else Calibration(scale=1.0, t=1.0, bias=0.0)
    found = {}
    try:
        answers = {"refitted": calibration.refit(scores[own], tests[own].issame)}
    except ValueError:  # The scores tell too little.
        return {}
    for name, answer in (answers | ({"head": calibration} if head else {})).items():
        report = evaluate_calibration(answer, scores[other], tests[other].issame)
        found |= {f"{name} cllr": report.cllr, f"{name} ece": report.ece}
    lost = found["refitted cllr"] - report.min_cllr
    return {**found, "least cllr": report.min_cllr, "cllr lost": lost}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(of) for name, of in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def collect(runs: Path) -> dict[str, Any]:
    """All runs on the faces that lie beside them."""
    faces = Faces.load(runs / "faces")
    results = [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]
    results = [r for r in results if r["fingerprint"] == faces.fingerprint]
    if not results:
        raise SystemExit(f"accuracy_report: error: {runs} holds no runs")
    environments = [result["environment"] for result in results]
    return {
        "train images": len(faces.labels),
        "train people": len(np.unique(faces.labels)),
        "tests": {
            name: {"images": int(test.pairs.max()) + 1, "pairs": len(test.pairs)}
            for name, test in faces.tests.items()
        },
        "fingerprint": faces.fingerprint,
        "commits": sorted({e["commit"] or "?" for e in environments}),
        "environment": {k: environments[0][k] for k in ("machine", "versions")},
        "cpu_hours": sum(result["cpu_seconds"] for result in results) / 3600,
        "runs": [figures_of(result, faces.tests) for result in results],
    }


# Statistics.


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "none"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def paired(ours: dict[int, float], theirs: dict[int, float]) -> dict[str, float] | None:
    """The difference by seed: mean, its 95 % interval, p of a paired t test, smallest seen.

    The last is what the study would have found, at `LEVEL`, with a chance of `POWER`.
    """
    from scipy import stats

    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    degrees, error = len(seeds) - 1, differences.std(ddof=1) / math.sqrt(len(seeds))
    half = stats.t.ppf(1 - LEVEL / 2, degrees) * error
    mean = differences.mean()
    return {
        "seeds": len(seeds),
        "mean": float(mean),
        "low": float(mean - half),
        "high": float(mean + half),
        "p": float(2 * stats.t.sf(abs(mean) / error, degrees)) if error else float(mean == 0),
        "seen": float(half + stats.t.ppf(POWER, degrees) * error),
    }


def verdict(test: dict[str, float]) -> str:
    """Of a claim that a difference is above 0."""
    if test["low"] > 0:
        return "held"
    return "not held" if test["high"] < 0 else "not decidable"


# The page.


class Page:
    """What the sections read from: the runs of one data set of `docs/accuracy.json`."""

    def __init__(self, study: dict[str, Any]) -> None:
        self.study = study
        self.tests = list(study["tests"])
        self.searched = [run for run in study["runs"] if "development" in run]
        self.runs: dict[str, list[Figures]] = defaultdict(list)
        by_settings = {}
        for run in study["runs"]:
            by_settings[_key(run["settings"])] = run
            if self.tests[0] in run:
                self.runs[_key(run["settings"], seed=False)].append(run)
        first = (self.searched or study["runs"])[0]["settings"]
        self.epochs = first.get("epochs", Run.epochs)
        rates_alone = not any({"margin", "scale"} & run["settings"].keys() for run in self.searched)
        self.asked = accuracy.Study(
            result=lambda run: by_settings.get(_key(run.settings())),
            losses=tuple(LOSSES),
            epochs=self.epochs,
            seeds=0,
            quick=rates_alone,
        )

    def find(
        self,
        loss: str,
        by: str | None = AREA,
        epochs: float = 1,
        scale_times: float | None = None,
        **changes: Any,
    ) -> list[Figures]:
        """The runs of a loss with these changes.

        `by` is what the search went by, None for a loss as it is shipped. `epochs` is a factor on
        the study's, `scale_times` one on the scale that a loss is shipped with.
        """
        if scale_times is not None:
            changes["scale"] = accuracy.times(loss, "scale", scale_times)
        if by and not self.asked.has_searched(loss, by):
            return []
        asked = self.asked.tuned(loss, by) if by else self.asked.shipped(loss)
        run = dataclasses.replace(asked, epochs=round(epochs * self.epochs), **changes)
        return self.runs.get(_key(run.settings(), seed=False), [])

    def ways(self) -> list[str]:
        return [f"{a} to {b}" for a in self.tests for b in self.tests if a != b]

    def within(self) -> list[str]:
        return [f"{self.tests[0]} within {test}" for test in self.tests]


def _key(settings: dict[str, Any], seed: bool = True) -> str:
    return json.dumps({k: v for k, v in settings.items() if seed or k != "seed"}, sort_keys=True)


def by_seed(runs: list[Figures], place: str, figure: str) -> dict[int, float]:
    """A figure of the runs; a `place` of "" is the run itself."""
    found = {run["settings"].get("seed", 0): run.get(place, {}) if place else run for run in runs}
    return {seed: of[figure] for seed, of in found.items() if of.get(figure) is not None}


#: Words for a figure; those of `LESS` are better where they are less.
WORDS = {
    "tar@0.01": "TAR at FAR 0.01",
    "tar@0.001": "TAR at FAR 0.001",
    "far": "FAR",
    "tar": "TAR",
    "lost": "accuracy lost",
    "cllr lost": "Cllr lost",
    "head cllr": "Cllr of the head",
    "refitted cllr": "Cllr refitted",
    "least cllr": "Cllr at best",
    "refitted ece": "ECE refitted",
    "far range": "range of FAR",
    "train_cpu_seconds": "core seconds",
    **{f"far {half}": f"FAR, {half}" for halves in HALVES for half in halves},
}
LESS = ("lost", "cllr lost", "far range", "train_cpu_seconds")


@dataclass(frozen=True)
class Table:
    """A section: runs by row, figures by column, and what is claimed of them.

    Attributes:
        rows: by name: the loss, and what `Page.find` takes.
        under: the same rows under several changes, by their words.
        figures: of each place that has them.
        places: of a page, where the figures are.
        claimed: figures of which is claimed that `OURS` is better than each other row (than the
            `rivals` where they are given), or, where `OURS` is no row, that each row is better than
            the first.
        more: the columns that are of no place.
        data: which of the data sets, from 0.
    """

    title: str
    intro: str
    rows: dict[str, tuple[str, Changes]]
    under: dict[str, Changes] = field(default_factory=lambda: {"": {}})
    figures: tuple[str, ...] = ("accuracy", "tar@0.01")
    claimed: tuple[str, ...] = ("accuracy", "tar@0.01")
    rivals: tuple[str, ...] | None = None
    places: Callable[[Page], Sequence[str]] = lambda page: page.tests
    more: tuple[str, ...] = ()
    plot: str = ""
    data: int = 0

    def found(self, page: Page, **change: Any) -> dict[str, list[Figures]]:
        """The runs of the rows that have any."""
        runs = {
            name: page.find(loss, **(own | change | _both(own, change)))
            for name, (loss, own) in self.rows.items()
        }
        return {name: of for name, of in runs.items() if of}

    def text(self, pages: Sequence[Page]) -> str:
        title = f"## {self.title}\n\n"
        page = pages[self.data] if self.data < len(pages) else None
        found = {
            words: runs
            for words, change in self.under.items()
            if page and len(runs := self.found(page, **change)) > 1
        }
        if not page or not found or not self.places(page):
            return f"{title}Not run.\n"
        columns = [(place, figure) for place in self.places(page) for figure in self.figures]
        columns += [("", figure) for figure in self.more]
        every = [run for runs in found.values() for of in runs.values() for run in of]
        columns = [column for column in columns if by_seed(every, *column)]
        header = ["", "seeds", *(f"{place} {_words(figure)}".strip() for place, figure in columns)]
        rows = [
            [_under(name, words), len(of)]
            + [mean_and_spread([*by_seed(of, *column).values()]) for column in columns]
            for words, runs in found.items()
            for name, of in runs.items()
        ]
        about = f"{_data(page.study)}\n\n" if self.data else ""
        plot = f"![{self.title}](accuracy/{self.plot}.png)\n\n" if self.plot else ""
        claims = list(self.claims(page, found))
        return (
            f"{title}{self.intro}\n\n{about}{markdown(header, rows)}\n\n{plot}{_claims(claims)}\n"
        )

    def claims(self, page: Page, found: dict[str, dict[str, list[Figures]]]) -> Iterator[list[str]]:
        for words, runs in found.items():
            first = OURS if OURS in runs else next(iter(runs))
            for other in runs:
                if other == first or other not in (self.rivals or runs):
                    continue
                pair = (first, other) if OURS in self.rows else (other, first)
                for place in self.places(page):
                    for figure in self.claimed:
                        values = [by_seed(runs[name], place, figure) for name in pair]
                        test = paired(*(values[::-1] if figure in LESS else values))
                        if test:
                            than = f"{pair[0]} beats {pair[1]}{', ' if words else ''}{words}"
                            yield _claim(f"{than}: {place} {_words(figure)}", test)


def _both(own: Changes, change: Changes) -> Changes:
    """What two changes make of the same field: epochs are factors, the others are lists."""
    return {
        name: own[name] * change[name] if name == "epochs" else own[name] + change[name]
        for name in own.keys() & change.keys()
    }


def _under(name: str, words: str) -> str:
    return f"{name}, {words}" if words else name


def _words(figure: str) -> str:
    return WORDS.get(figure, figure)


def _claim(text: str, test: dict[str, float]) -> list[str]:
    return [
        text,
        str(test["seeds"]),
        f"{test['mean']:+.3f} ({test['low']:+.3f} to {test['high']:+.3f})",
        f"{test['p']:.2g}",
        f"{test['seen']:.3f}",
        f"**{verdict(test)}**",
    ]


def _claims(claims: list[list[str]]) -> str:
    header = ["claim", "seeds", "difference (95 %)", "p", "smallest that would show", ""]
    return markdown(header, claims) if claims else "No claim was tested."


def _data(study: dict[str, Any]) -> str:
    tests = "; ".join(
        f"`{name}`: {n['pairs']:,} pairs of {n['images']:,} images"
        for name, n in study["tests"].items()
    )
    return (
        f"{study['train people']:,} people to train on, in {study['train images']:,} images; "
        f"tests, all of other people: {tests}."
    )


def _losses(*losses: str, **changes: Any) -> dict[str, tuple[str, Changes]]:
    return {NAMES[loss]: (loss, changes) for loss in losses}


def _ours(changes: dict[str, Changes], **shared: Any) -> dict[str, tuple[str, Changes]]:
    return {name: ("sf2-C", shared | change) for name, change in changes.items()}


SOFTMAXES = tuple(NAMES[loss] for loss in ("softmax", "arcface-mm", "arcface", "cosface"))
COMPARED = _losses(*accuracy.COMPARED)
#: As shipped, whatever the search finds.
SAMPLED: dict[str, tuple[str, Changes]] = {
    name: (loss, change | {"by": None}) for name, (loss, change) in accuracy.SAMPLED.items()
}
REMEDIED: dict[str, tuple[str, Changes]] = {
    _under(OURS, name): ("sf2-C", change) for name, change in accuracy.REMEDIES.items()
}


def _strictly(rows: dict[str, tuple[str, Changes]]) -> dict[str, tuple[str, Changes]]:
    """The same, as the search by TAR left them."""
    return {name: (loss, change | {"by": STRICT}) for name, (loss, change) in rows.items()}


SECTIONS: dict[str, Table] = {
    "clean": Table(
        "1. Clean labels, everyone",
        "Each loss as the search left it.",
        _losses(*LOSSES),
        figures=("accuracy", "tar@0.01", "tar@0.001"),
        plot="clean",
    ),
    "as shipped": Table(
        "1a. As shipped, without a search",
        "Margin and scale as shipped, rate 0.1 for all: what a changed line in a config does.",
        _losses(*LOSSES, by=None),
        rivals=SOFTMAXES,
    ),
    "scarce": Table(
        "1b. Few people, and long tails",
        "A tenth or a third of the people, drawn by the seed, or a long tail: the nine in ten "
        "people with the fewest images keep one or two each, the others all. With the tail, epochs "
        "are half as many again, with few people three times as many. Below the losses: what might "
        "help SphereFace2 there.",
        COMPARED | REMEDIED,
        under=accuracy.SCARCE,
    ),
    "pixels": Table(
        "1c. A backbone that sees pixels",
        f"Five convolutions on {SEEN}x{SEEN} pixels instead, twice the epochs, hyperparameters as "
        "they were found for the other.",
        COMPARED,
        under={"": {"epochs": 2, "backbone": "pixels"}},
    ),
    "scales": Table(
        "1d. The scale",
        "What the search found but for the scale.",
        _losses("arcface", "sf2-C"),
        under={f"scale x {times:g}": {"scale_times": times} for times in accuracy.SCALED},
        figures=("accuracy", "tar@0.01", "far", "lost"),
        claimed=("accuracy", "tar@0.01", "lost"),
        places=lambda page: [*page.tests, *page.ways()],
    ),
    "strict": Table(
        "1e. Chosen by TAR: clean labels, everyone",
        "Each loss as the search by TAR at FAR 0.01 left it.",
        _losses(*LOSSES, by=STRICT),
        figures=("accuracy", "tar@0.01", "tar@0.001"),
    ),
    "strict scarce": Table(
        "1f. Chosen by TAR: few people, and long tails",
        "As 1b, each loss as in 1e.",
        _strictly(COMPARED | REMEDIED),
        under=accuracy.SCARCE,
    ),
    "threshold": Table(
        "2. One threshold for all",
        "The paper's claim: binary decisions are learned with one threshold, so one threshold "
        f"should serve everywhere. Here the threshold of FAR {FAR:g} on one test is taken to the "
        f'other, whose FAR would be {FAR:g} too if it held; "accuracy lost" is the other test\'s '
        "ten-fold accuracy less its accuracy at the best threshold of the first.",
        _losses(*LOSSES) | {f"{OURS} as shipped": ("sf2-C", {"by": None})},
        figures=("far", "tar", "lost"),
        claimed=("lost",),
        rivals=SOFTMAXES,
        places=Page.ways,
    ),
    "groups": Table(
        "2a. One threshold for all kinds of photos",
        f"The first test's threshold of FAR {FAR:g} in halves of the pairs of each test, split at "
        "the median by the darker, the more blurred (spread of the Laplacian) and the less even "
        "(what a face is less its mirror image: a turned head, light from a side) of a pair's two "
        "faces. The range is from the half of the least FAR to that of the largest.",
        _losses(*LOSSES) | {f"{OURS} as shipped": ("sf2-C", {"by": None})},
        figures=(*(f"far {half}" for halves in HALVES for half in halves), "far range"),
        claimed=("far range",),
        rivals=SOFTMAXES,
        places=Page.within,
    ),
    "noise": Table(
        "3. Labels that are wrong",
        "A share of labels is replaced by another at random.",
        COMPARED,
        under={f"{s:.0%} wrong": {"noise": s} for s in accuracy.NOISE},
        plot="noise",
    ),
    "strict noise": Table(
        "3a. Chosen by TAR: labels that are wrong",
        "As 3, each loss as in 1e.",
        _strictly(COMPARED),
        under={f"{s:.0%} wrong": {"noise": s} for s in accuracy.NOISE},
    ),
    "nobody": Table(
        "4. Faces of nobody",
        "A third of the people are left out of training, or take part as label -1.",
        _ours({"left out": {"people": "known"}, "label -1": {"people": "known and nobody"}}),
    ),
    "sampled here": Table(
        "5. Sampled negatives",
        "Partial FC, losses as shipped at rate 0.1, on the faces of all other sections. "
        f"{OURS}'s sampled negatives count for all that were not, but where each counts once; "
        "CosFace's count once, as PartialFC_V2 has it.",
        SAMPLED,
        more=("train_cpu_seconds",),
    ),
    "sampling": Table(
        "5a. Sampled negatives of many people",
        "The same on drawn faces of many people, a data set of its own. With `fuse_sgd` no row of "
        "the class centers is touched that is not sampled; else the gradient of each is there and "
        "mostly 0.",
        SAMPLED,
        more=("train_cpu_seconds",),
        plot="sampling",
        data=1,
    ),
    "precision": Table(
        "6. Precision",
        "Backbone and head under autocast, where a CPU multiplies in float32 in the head all the "
        "same; the factors of the head's products rounded and added up in float32, as a GPU does "
        "under autocast, but for a face's own cosine; and SGD's step on the class centers inside "
        "the loss. Class centers in bfloat16 are not offered.",
        _ours(accuracy.PRECISIONS),
        more=("train_cpu_seconds",),
    ),
    "calibration": Table(
        "7. Calibration",
        "Cllr is the cost of the probabilities in bits; always to answer one half costs 1. The "
        "head's own scale and bias are those of a face against a class, not of two faces; a refit "
        "of the two on one test is judged on the other, and loses what lies above the best of "
        "Cllr. It is a logistic regression on g(cosine), whose exponent t is 3 with SphereFace2, 1 "
        "with `uniface` and softmax heads.",
        _losses(*LOSSES),
        figures=("head cllr", "refitted cllr", "least cllr", "cllr lost", "refitted ece"),
        claimed=("cllr lost",),
        rivals=SOFTMAXES,
        places=Page.ways,
    ),
    "starts": Table(
        "8b. A better start, to the end of training",
        "Rate 0.1 after an epoch's warm-up, margin and scale as shipped. A fitted bias starts "
        "where the loss of 256 faces is least; people's means are those of the untrained backbone.",
        _ours({name: {"loop": loop} for name, loop in accuracy.STARTS.items()}, by=None),
    ),
}


def head(pages: Sequence[Page]) -> str:
    page, study = pages[0], pages[0].study
    machine, versions = study["environment"]["machine"], study["environment"]["versions"]
    commits = sorted({commit for page in pages for commit in page.study["commits"]})
    mark, _, read = READING.read_text().partition("\n")
    return f"""\
# Accuracy: is the switch worth it?

A study of many small runs that anyone can make again:

```bash
make accuracy FACES=DIR PAIRS=NAME=DIR ARCFACE_TORCH=insightface/recognition/arcface_torch
make accuracy QUICK=1    # on drawn faces, or with FACES; minutes instead of hours
```

A run is one JSON file, is never made twice, and a study that was stopped goes on where it was.
This page, its plots and [all figures](accuracy.json) are made from those files by
`python -m benchmarks.accuracy_report`; `benchmarks/accuracy.py` lists what is asked in one table.

**What this can tell, and what not.** {_data(study)} The backbone is two layers on histograms of
oriented gradients (0.5 million parameters, {page.epochs} epochs in batches of {BATCH}), because a
run then costs seconds and many seeds can be had; where it says so, five convolutions on pixels.
Differences between losses at this size need not be those of a ResNet-50 on millions of images, and
no figure here compares with a published one.

**The same for every loss**: backbone and its start, order and cuts of the images (by the seed),
SGD with momentum {MOMENTUM} and weight decay {WEIGHT_DECAY:g}, a rate that rises over the first
epoch and falls as a cosine, and the backbone's gradient clipped at norm {CLIP:g}, as arcface_torch
does. Tests see one view of a face. Losses are their hosts' own code, with their own start of the
class centers.

{sum(len(of.study["runs"]) for of in pages):,} runs of one thread,
{sum(of.study["cpu_hours"] for of in pages):.2f} hours of one core ({machine["processor"]}), seeds
from 0; torch {versions["torch"]}, commits {", ".join(commits)}.

± is the standard deviation over seeds; a difference is paired by seed, with its 95 % interval and a
t test, and above 0 where it speaks for the claim. **Held** means that the interval lies on the
claim's side of 0, **not held** that it lies on the other, **not decidable** that 0 is in it. Seeds
do not speak for other faces: 4,000 pairs alone move an accuracy of 0.8 by 0.006 (one standard
error), though all losses alike. And of twenty claims with nothing behind them, one is held or not
held by chance.
{read if study["fingerprint"] in mark else ""}"""


def search(page: Page) -> str:
    def listed(values: Sequence[float]) -> str:
        return ", ".join(f"{value:g}" for value in values)

    more = (
        f"; then its margin times\n{listed(accuracy.MARGINS)}; then its scale times "
        f"{listed(accuracy.SCALES)}; each at the best of what\ncame before"
    )
    return f"""\
## The search

Each loss gets the same: the rates {listed(accuracy.RATES)}{"" if page.asked.quick else more},
by the area under the ROC over pairs of a third of the training people, who are left out for it. The
tests take no part.

{_found(page, AREA)}

The same by TAR at FAR 0.01 over the same pairs, for sections 1e, 1f and 3a:

{_found(page, STRICT)}
"""


def _found(page: Page, by: str) -> str:
    """What a search chose, and what that gains."""
    rows = []
    for loss, shipped in LOSSES.items():
        if not page.asked.has_searched(loss, by):
            continue
        best, start = page.asked.tuned(loss, by), page.asked.searched(loss, by)[0][0]
        settings = (best.margin or shipped.margin, best.scale or shipped.scale)
        gained = (start, dataclasses.replace(best, choosing=True))
        rows.append(
            [
                NAMES[loss],
                f"{best.lr:g}",
                *("none" if value is None else f"{value:g}" for value in settings),
                *(f"{page.asked.figure(run, by):.4f}" for run in gained),
            ]
        )
    word = {AREA: "AUC", STRICT: "TAR"}[by]
    header = ["loss", "rate", "margin", "scale", f"{word} as shipped", f"{word} chosen"]
    return markdown(header, rows) if rows else "Not run."


def dynamics(page: Page) -> str:
    title = "## 8. The first steps\n\n"
    runs = dynamics_runs(page)
    if not runs:
        return title + "Not run.\n"
    rows = []
    for name, run in runs.items():
        loss, bias = run["course"]["loss"], run["course"]["bias"]
        first = loss[:10].index(min(loss[:10]))
        figures = (loss[0], loss[first], max(loss[first:60]), statistics.fmean(loss[-5:]))
        biases = (bias[0], bias[min(40, len(bias) - 1)], bias[-1])
        rows.append(
            [
                name,
                *(f"{value:.1f}" for value in figures),
                ", ".join(f"{value:.1f}" for value in biases),
                *(f"{run[test]['accuracy']:.3f}" for test in page.tests),
            ]
        )
    header = [f"{OURS}, {accuracy.DYNAMICS_EPOCHS} epochs", "first loss", "least of 10 steps"]
    header += ["largest from there to 60", "last 5", "bias at first, step 40, last"]
    header += [f"{test} accuracy" for test in page.tests]
    return f"""\
{title}One seed each, as shipped but for what is said; the gradient is clipped in the backbone
alone, as arcface_torch does.

{markdown(header, rows)}

![Loss and bias over the first steps](accuracy/dynamics.png)

The closed-form bias is that of least loss where every angle is a right angle. Random centers and
faces are not quite at right angles: their cosines spread by 1/sqrt(D), and the slope of the logits,
scale * g'(0), makes of that a spread that raises the sum over all negatives. What is expected of
{CLASSES:,} classes (scale 40, margin 0.4), by D:

{markdown(["D", "closed-form bias", "loss there", "bias of least loss", "loss there"], bias_rows())}
"""


#: Of the table that explains the first steps.
CLASSES = 1044


def bias_rows() -> list[list[str]]:
    """By embedding size: closed form and best bias, with the loss of cosines of N(0, 1/D)."""
    recipe = Recipe()
    normal, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()

    def loss(bias: np.ndarray, size: int) -> np.ndarray:
        similarity = recipe.scale * g(normal / math.sqrt(size), recipe.t)
        margin = recipe.scale * recipe.margin
        own = np.logaddexp(0, -(similarity - margin + bias[:, None])) @ weight
        other = np.logaddexp(0, similarity + margin + bias[:, None]) @ weight
        negatives = (1 - recipe.lam) * (CLASSES - 1) * other
        return recipe.loss_weight / recipe.scale * (recipe.lam * own + negatives)

    closed = closed_form_bias(recipe, CLASSES)
    biases = np.linspace(closed - 20, closed + 20, 4001)
    rows = []
    for size in (128, 256, 512):
        losses = loss(biases, size)
        best, there = biases[losses.argmin()], loss(np.array([closed]), size)[0]
        rows.append([str(size), *(f"{v:.1f}" for v in (closed, there, best, losses.min()))])
    return rows


def dynamics_runs(page: Page) -> dict[str, Figures]:
    found = {}
    for name, change in accuracy.DYNAMICS.items():
        epochs = accuracy.DYNAMICS_EPOCHS / page.epochs
        found.update((name, run) for run in page.find("sf2-C", None, epochs, **change)[:1])
    return found


def page_of(pages: Sequence[Page]) -> str:
    sections = {name: table.text(pages) for name, table in SECTIONS.items()}
    before_starts = [*sections.values()][:-1]
    parts = [head(pages), search(pages[0]), *before_starts, dynamics(pages[0]), sections["starts"]]
    return "\n".join(parts)


def plots(pages: Sequence[Page], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    page = pages[0]

    def panels(count: int) -> tuple[Any, Any]:
        drawn, axes = pyplot.subplots(
            1, count, figsize=(4.5 * count, 3.2), layout="constrained", squeeze=False
        )
        for ax in axes[0]:
            ax.grid(alpha=0.3)
        return drawn, axes[0]

    def save(drawn: Any, name: str) -> None:
        drawn.savefig(folder / f"{name}.png", dpi=90)
        pyplot.close(drawn)

    clean = dict(reversed(SECTIONS["clean"].found(page).items()))
    drawn, axes = panels(len(page.tests))
    for ax, test in zip(axes, page.tests, strict=True):
        for row, runs in enumerate(clean.values()):
            values = [*by_seed(runs, test, "accuracy").values()]
            ax.plot(values, [row] * len(values), "o", alpha=0.5, ms=4)
            ax.plot(statistics.fmean(values), row, "k|", ms=14)
        ax.set_yticks(range(len(clean)), [name.replace("`", "") for name in clean])
        ax.set(title=f"{test}, ten-fold accuracy")
    save(drawn, "clean")

    wrong = {
        share: SECTIONS["noise"].found(page, **_noise(share)) for share in (0, *accuracy.NOISE)
    }
    drawn, axes = panels(len(page.tests))
    for ax, test in zip(axes, page.tests, strict=True):
        for name in COMPARED:
            points = {
                share: [*by_seed(runs[name], test, "accuracy").values()]
                for share, runs in wrong.items()
                if name in runs
            }
            means = [statistics.fmean(values) for values in points.values()]
            spread = [np.std(values) for values in points.values()]
            ax.errorbar([*points], means, spread, label=name, marker="o", capsize=3)
        ax.set(title=f"{test}, ten-fold accuracy", xlabel="share of labels replaced")
    axes[0].legend()
    save(drawn, "noise")

    if courses := dynamics_runs(page):
        drawn, (loss, bias) = panels(2)
        for ax in (loss, bias):
            ax.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
        for name, run in courses.items():
            factor = 5 if "weight 10" in name else 1
            label = f"{name} (times 5)" if factor > 1 else name
            loss.plot(factor * np.array(run["course"]["loss"][:100]), label=label, lw=1)
            bias.plot(run["course"]["bias"][:100], lw=1)
        # What leaves the frame is in the table.
        loss.set(title="loss", xlabel="step", ylim=(25, 65))
        bias.set(title="bias", xlabel="step", ylim=(-30, 10))
        drawn.legend(fontsize=6, loc="outside right")
        save(drawn, "dynamics")

    if len(pages) < 2:
        return
    drawn, (ax,) = panels(1)
    many, test = pages[1], pages[1].tests[0]
    for name, runs in SECTIONS["sampling"].found(many).items():
        seconds = statistics.fmean(by_seed(runs, "", "train_cpu_seconds").values())
        values = [*by_seed(runs, test, "accuracy").values()]
        marker = "s" if "CosFace" in name else "o"
        ax.errorbar(seconds, statistics.fmean(values), np.std(values), label=name, fmt=marker)
    ax.set(title=f"{test}, ten-fold accuracy", xlabel="core seconds", xlim=(0, None))
    drawn.legend(fontsize=6, loc="outside right")
    save(drawn, "sampling")


def _noise(share: float) -> Changes:
    return {"noise": share} if share else {}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("::")[0])
    parser.add_argument(
        "--runs", type=Path, nargs="+", metavar="DIR", help="where the study wrote its files"
    )
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR", help="default: docs/")
    arguments = parser.parse_args(argv)
    saved, folder = arguments.out / "accuracy.json", arguments.out / "accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.runs is not None:
        with atomic_file(saved, "w") as file:
            json.dump([collect(runs) for runs in arguments.runs], file)
    pages = [Page(study) for study in json.loads(saved.read_text())]
    plots(pages, folder)
    with atomic_file(arguments.out / "accuracy.md", "w") as file:
        file.write(page_of(pages))


if __name__ == "__main__":
    main()
