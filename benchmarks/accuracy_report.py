"""Makes `docs/accuracy.md`, its plots and `docs/accuracy.json` from the runs of the study::

python -m benchmarks.accuracy_report [--runs accuracy_runs]

Without `--runs` the page is made again from `docs/accuracy.json`.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import DYNAMICS, DYNAMICS_EPOCHS, STARTS
from benchmarks.face_training import BATCH, CLIP, LOSSES, MOMENTUM, SEEN, WEIGHT_DECAY, Faces, Run
from benchmarks.report import markdown
from sf2_plugin.atomic import atomic_file
from sf2_plugin.evaluation import verify_scores
from sf2_plugin.evaluation.calibration import Calibration, evaluate_calibration, g
from sf2_plugin.evaluation.roc import Roc, roc_curve
from sf2_plugin.recipe import Recipe, closed_form_bias

DOCS = Path(__file__).parents[1] / "docs"
NAMES = {
    "softmax": "softmax",
    "arcface-mm": "ArcFace (MMPretrain)",
    "arcface": "ArcFace (arcface_torch)",
    "cosface": "CosFace (arcface_torch)",
    "sf2-C": "SphereFace2 C",
    "sf2-A": "SphereFace2 A",
    "sf2-M": "SphereFace2 M",
    "sf2-A2": "SphereFace2 A2",
    "uniface": "SphereFace2, `uniface`",
}
#: The losses that the parts after "clean" compare.
COMPARED = ("arcface", "cosface", "sf2-C")
SOFTMAXES = ("arcface-mm", "arcface", "cosface", "softmax")
#: Settings by share of wrong labels.
WRONG: dict[float, dict[str, float]] = {0: {}} | {s: {"noise": s} for s in (0.2, 0.4, 0.6)}
#: The one threshold is the first test's for this FAR.
FAR = 0.01
#: Chance of seeing a difference that is there, and of one that is not, for the smallest one seen.
POWER, LEVEL = 0.8, 0.05

Figures = dict[str, Any]


# From a run's scores to its figures.


def figures_of(result: dict[str, Any], tests: dict[str, np.ndarray]) -> Figures:
    """A run without its scores: `tests` has whether each pair is of one person."""
    kept = ("settings", "classes", "images", "head", "development", "finite", "train_cpu_seconds")
    figures = {name: result[name] for name in kept if name in result}
    settings = figures["settings"] = {"epochs": Run.epochs, **result["settings"]}
    if settings["epochs"] == DYNAMICS_EPOCHS:
        figures["course"] = {
            name: [None if v is None else float(f"{v:.4g}") for v in values]
            for name, values in result["course"].items()
        }
    scores = {name: np.array(values) for name, values in result.get("scores", {}).items()}
    for name, cosines in scores.items():
        report = verify_scores(cosines, tests[name], far_targets=(1e-3, 1e-2))
        figures[name] = {
            "accuracy": report.accuracy_mean,
            "auc": report.auc,
            "eer": report.eer,
            **{f"tar@{far:g}": point.tar for far, point in report.tar_at_far.items() if point},
        }
    names = list(scores)
    for own in names:
        roc = roc_curve(scores[own], tests[own])
        point = roc.tar_at_far(FAR)
        for other in names:
            if own == other:
                continue
            there = roc_curve(scores[other], tests[other])
            best = np.mean(verify_scores(scores[own], tests[own]).thresholds)
            figures[f"{own} to {other}"] = {
                **(_rates(there, point.threshold) if point else {}),
                "accuracy": there.accuracy(float(best)),
                **_calibrations(result, scores, tests, own, other),
            }
    return figures


def _rates(roc: Roc, threshold: float) -> Figures:
    far, tar = roc.rates(threshold)
    return {"far": far, "tar": tar}


def _calibrations(
    result: dict[str, Any],
    scores: dict[str, np.ndarray],
    tests: dict[str, np.ndarray],
    own: str,
    other: str,
) -> Figures:
    """Of the other test's probabilities: as the head has them, and refitted on this one.

    A softmax head has none of its own; a refit takes it for a logistic regression on the cosine.
    """
    head = result.get("head")
    calibration = Calibration(**head) if head else Calibration(scale=1.0, t=1.0, bias=0.0)
    answers = {"refitted": calibration.refit(scores[own], tests[own])}
    if head:
        answers["head"] = calibration
    found = {}
    for name, answer in answers.items():
        report = evaluate_calibration(answer, scores[other], tests[other])
        found |= {f"{name} cllr": report.cllr, f"{name} ece": report.ece}
    return {**found, "least cllr": report.min_cllr}


def collect(runs: Path) -> dict[str, Any]:
    """All runs on the faces that lie beside them."""
    faces = Faces.load(runs / "faces")
    tests = {name: np.array(test.issame) for name, test in faces.tests.items()}
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
        "runs": [figures_of(result, tests) for result in results],
    }


# Statistics.


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "not run"
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


def verdict(test: dict[str, float] | None) -> str:
    """Of a claim that a difference is above 0."""
    if test is None:
        return "not run"
    if test["low"] > 0:
        return "held"
    return "not held" if test["high"] < 0 else "not decidable"


# The page.


class Page:
    """What the sections read from: the runs of `docs/accuracy.json`."""

    def __init__(self, study: dict[str, Any]) -> None:
        self.study = study
        self.tests = list(study["tests"])
        self.runs = [run for run in study["runs"] if self.tests[0] in run]
        self.searched = [run for run in study["runs"] if "development" in run]

    def chosen(self, loss: str) -> dict[str, Any] | None:
        """The settings that the search chose, as `accuracy.Study.tuned` does."""
        runs = [run for run in self.searched if run["settings"]["loss"] == loss]
        if not runs:
            return None
        best = max(runs, key=lambda run: run["development"]["auc"])["settings"]
        return {k: best[k] for k in ("lr", "margin", "scale") if k in best}

    def tuned(self, loss: str, epochs: int | None = None, **changes: Any) -> list[Figures]:
        """The runs of a loss as the search left it, with `changes` and nothing else."""
        chosen = self.chosen(loss)
        if chosen is None:
            return []
        wanted = {"loss": loss, "epochs": epochs or self.epochs, **chosen, **changes}
        return [run for run in self.runs if _but_seed(run) == wanted]

    def shipped(self, loss: str, **changes: Any) -> list[Figures]:
        """The runs of a loss as it is shipped, with `changes` and nothing else."""
        wanted = Run(loss, epochs=self.epochs, **changes).settings()
        wanted = {"epochs": self.epochs, **json.loads(json.dumps(wanted))}
        return [run for run in self.runs if _but_seed(run) == wanted]

    @property
    def epochs(self) -> int:
        return self.searched[0]["settings"]["epochs"]

    def losses(self, **changes: Any) -> list[str]:
        return [loss for loss in LOSSES if self.tuned(loss, **changes)]


def _but_seed(run: Figures) -> dict[str, Any]:
    return {name: value for name, value in run["settings"].items() if name != "seed"}


def by_seed(runs: list[Figures], test: str, figure: str) -> dict[int, float]:
    return {
        run["settings"].get("seed", 0): run[test][figure]
        for run in runs
        if figure in run.get(test, {})
    }


def head_section(page: Page) -> str:
    study = page.study
    machine, versions = study["environment"]["machine"], study["environment"]["versions"]
    tests = "; ".join(
        f"`{name}`: {n['pairs']:,} pairs of {n['images']:,} images"
        for name, n in study["tests"].items()
    )
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

**What this can tell, and what not.** {study["train people"]:,} people to train on, in
{study["train images"]:,} images; tests, all of other people: {tests}. The backbone is two layers
on histograms of oriented gradients (0.5 million parameters, {page.epochs} epochs in batches of
{BATCH}), because a run then costs seconds and many seeds can be had; where it says so, five
convolutions on pixels. Differences between losses at this size need not be those of a ResNet-50 on
millions of images, and no figure here compares with a published one.

**The same for every loss**: backbone and its start, order and cuts of the images (by the seed),
SGD with momentum {MOMENTUM} and weight decay {WEIGHT_DECAY:g}, a rate that rises over the first
epoch and falls as a cosine, and the backbone's gradient clipped at norm {CLIP:g}, as arcface_torch
does. Tests see one view of a face. Losses are their hosts' own code, with their own start of the
class centers.

{len(study["runs"])} runs of one thread, {study["cpu_hours"]:.2f} hours of one core
({machine["processor"]}), seeds from 0; torch {versions["torch"]}, commits
{", ".join(study["commits"])}.

± is the standard deviation over seeds; a difference is paired by seed, with its 95 % interval and a
t test. **Held** means that the interval lies on the claim's side of 0, **not held** that it lies on
the other, **not decidable** that 0 is in it. Seeds do not speak for other faces: 4,000 pairs alone
move an accuracy of 0.8 by 0.006 (one standard error), though all losses alike. And of twenty
claims with nothing behind them, one is held or not held by chance.
{READINGS.get(study["fingerprint"], "")}"""


#: What a person read from the figures, by the fingerprint of the faces they are of.
READINGS = {
    "0d898f654b09": """
## What came out

- **Clean labels, everyone tuned: a draw.** On lfw112 the accuracies of SphereFace2 C and the margin
  losses lie within 0.004 of each other, and 0.015 would have shown. SphereFace2 C lost to ArcFace
  (MMPretrain) on celeb112, by 0.008 (0.003 to 0.013); of 24 comparisons one such is no surprise.
- **As shipped, at the host's rate of 0.1:** SphereFace2 C has a TAR at FAR 0.01 on lfw112 that is
  0.049 (0.029 to 0.069) above MMPretrain's ArcFace; in accuracy (+0.002, -0.012 to +0.016), and on
  celeb112, nothing is decided. After the search the lead is gone: ArcFace's TAR gained by it,
  SphereFace2's did not.
- **One threshold for all does not hold here,** with any loss: lfw112's threshold for FAR 0.01 has
  FAR 0.19 on celeb112 with SphereFace2 C, 0.18 to 0.20 with the softmax heads. By the threshold it
  loses less accuracy than each of them in the mean, 0.005 to 0.015 less, which is within the noise.
- **Wrong labels: SphereFace2 C bears them better on lfw112,** where 60 % are wrong by 0.014 (0.010
  to 0.019) over ArcFace and 0.013 (0.004 to 0.022) over CosFace, at 40 % by 0.007 (0.005 to 0.010)
  over CosFace; three seeds. On celeb112 nothing is decided, and nothing collapses with any loss.
- **Calibration: the head's own probability is of no use** for two faces (Cllr 7 to 8 where one half
  costs 1). A refit on lfw112 does not carry over to celeb112 with any loss, with SphereFace2 C
  least (0.08 of Cllr behind ArcFace and CosFace of arcface_torch).
- **Why the loss rises at first:** the closed-form bias is too high for cosines that spread, the
  less so the longer the embedding. Its gradient is a sum over all classes, which arcface_torch does
  not clip, and momentum carries it past its place and back. A bias fitted to the first faces stays
  where it is and the loss does not rise; by itself that changes accuracy by no more than noise.
- **A better start:** class centers at people's mean embeddings, with the bias fitted to them, gain
  0.009 (0.004 to 0.014) of lfw112 accuracy over five seeds; on celeb112 nothing is decided.
- Nothing here is clear enough to change a default. The search's best rate was the smallest it had
  for all but softmax: smaller ones are untried.
- Not run, though the script asks most of it: what says so below, the search for A, M and A2, 20,000
  people, long tails, a larger network.
""",
}


def search_section(page: Page) -> str:
    rows = []
    for loss in LOSSES:
        runs = [run for run in page.searched if run["settings"]["loss"] == loss]
        if len(runs) < (3 if LOSSES[loss].margin is None else 7):
            rows.append([NAMES[loss], *["not run"] * 6])
            continue
        shipped, best = LOSSES[loss], page.chosen(loss) or {}
        first = [r for r in runs if r["settings"].keys() == {"loss", "epochs", "choosing"}]
        rows.append(
            [
                NAMES[loss],
                len(runs),
                f"{best.get('lr', 0.1):g}",
                _number(best.get("margin", shipped.margin)),
                _number(best.get("scale", shipped.scale)),
                f"{first[0]['development']['auc']:.4f}" if first else "",
                f"{max(r['development']['auc'] for r in runs):.4f}",
            ]
        )
    header = ["loss", "runs", "rate", "margin", "scale", "AUC as shipped", "AUC chosen"]
    return f"""\
## The search

Each loss gets the same: the rates 0.1, 0.033 and 0.3; then half and one and a half times its
margin; then half and twice its scale; each at the best of what came before, by the area under the
ROC over pairs of a third of the training people, who are left out for it. The tests take no part.

{markdown(header, rows)}
"""


def clean_section(page: Page) -> str:
    losses = page.losses()
    columns = [(t, f) for t in page.tests for f in ("accuracy", "tar@0.01", "tar@0.001")]
    header = ["loss", "seeds"] + [f"{test} {_words(figure)}" for test, figure in columns]
    rows = [
        [NAMES[loss], len(page.tuned(loss))]
        + [mean_and_spread([*by_seed(page.tuned(loss), *c).values()]) for c in columns]
        for loss in losses
    ]
    rows += [[NAMES[loss], 0, *["not run"] * len(columns)] for loss in LOSSES if loss not in losses]
    claims = []
    for test, figure in columns:
        for other in SOFTMAXES:
            claims.append(
                claim(
                    f"{NAMES['sf2-C']} beats {NAMES[other]}, {test} {_words(figure)}",
                    by_seed(page.tuned("sf2-C"), test, figure),
                    by_seed(page.tuned(other), test, figure),
                )
            )
    for other in ("sf2-A", "sf2-M", "sf2-A2", "uniface"):
        claims.append(
            claim(
                f"{NAMES['sf2-C']} beats {NAMES[other]}, {page.tests[0]} accuracy",
                by_seed(page.tuned("sf2-C"), page.tests[0], "accuracy"),
                by_seed(page.tuned(other), page.tests[0], "accuracy"),
            )
        )
    return f"""\
## 1. Clean labels, everyone

{markdown(header, rows)}

![Accuracy by loss, a dot a seed](accuracy/clean.png)

{claims_table(claims)}
"""


def shipped_section(page: Page) -> str:
    title = "## 1a. As shipped, without a search\n\n"
    runs = {loss: page.shipped(loss) for loss in LOSSES}
    # Softmax is tuned as it is shipped.
    runs = {loss: mine for loss, mine in runs.items() if mine and LOSSES[loss].margin is not None}
    if len(runs) < 2:
        return f"{title}Not run.\n"
    columns = [(t, f) for t in page.tests for f in ("accuracy", "tar@0.01")]
    rows = [
        [NAMES[loss], len(mine)] + [mean_and_spread([*by_seed(mine, *c).values()]) for c in columns]
        for loss, mine in runs.items()
    ]
    claims = [
        claim(
            f"{NAMES['sf2-C']} beats {NAMES[other]}, {test} {_words(figure)}",
            by_seed(runs.get("sf2-C", []), test, figure),
            by_seed(mine, test, figure),
        )
        for other, mine in runs.items()
        if other != "sf2-C"
        for test, figure in columns
    ]
    header = ["loss", "seeds", *(f"{t} {_words(f)}" for t, f in columns)]
    return f"""\
{title}Margin and scale as shipped, rate 0.1 for all: what a changed line in a config does.

{markdown(header, rows)}

{claims_table(claims)}
"""


def threshold_section(page: Page) -> str:
    if len(page.tests) < 2:
        return "## 2. One threshold for all\n\nNot run: it needs two tests.\n"
    first, second = page.tests[:2]
    header = ["loss"]
    for a, b in ((first, second), (second, first)):
        header += [f"{a} to {b}: FAR", "TAR", "accuracy lost"]
    rows = []
    for loss in page.losses():
        runs, row = page.tuned(loss), [NAMES[loss]]
        for a, b in ((first, second), (second, first)):
            way = f"{a} to {b}"
            row += [mean_and_spread([*by_seed(runs, way, f).values()]) for f in ("far", "tar")]
            row.append(mean_and_spread([*_lost(runs, a, b).values()]))
        rows.append(row)
    claims = [
        claim(
            f"{NAMES['sf2-C']} loses less accuracy than {NAMES[other]} by {a}'s threshold on {b}",
            _lost(page.tuned(other), a, b),
            _lost(page.tuned("sf2-C"), a, b),
        )
        for a, b in ((first, second), (second, first))
        for other in SOFTMAXES
    ]
    return f"""\
## 2. One threshold for all

The paper's claim: binary decisions are learned with one threshold, so one threshold should serve
everywhere. Here the threshold of FAR {FAR:g} on one test is taken to the other, whose FAR would be
{FAR:g} too if it held; "accuracy lost" is the other test's ten-fold accuracy less its accuracy at
the best threshold of the first.

{markdown(header, rows)}

{claims_table(claims)}
"""


def _lost(runs: list[Figures], a: str, b: str) -> dict[int, float]:
    own = by_seed(runs, b, "accuracy")
    return {seed: own[seed] - v for seed, v in by_seed(runs, f"{a} to {b}", "accuracy").items()}


def noise_section(page: Page) -> str:
    title = "## 3. Labels that are wrong\n\n"
    if not any(page.losses(**change) for change in WRONG.values() if change):
        return f"{title}Not run.\n"
    text = f"{title}A share of labels is replaced by another at random.\n"
    for test in page.tests:
        for figure in ("accuracy", "tar@0.01"):
            rows = compared(page, test, figure, WRONG.values())
            header = [f"{test} {_words(figure)}", *(f"{share:.0%} wrong" for share in WRONG)]
            text += f"\n{markdown(header, rows)}\n"
    claims = beats(page, {f"with {s:.0%} wrong": change for s, change in WRONG.items() if change})
    return f"{text}\n![Accuracy by share of wrong labels](accuracy/noise.png)\n\n{claims}\n"


def compared(
    page: Page, test: str, figure: str, changes: Iterable[dict[str, Any]]
) -> list[list[str]]:
    """A row a loss, a column a change."""
    return [
        [NAMES[loss]]
        + [
            mean_and_spread([*by_seed(page.tuned(loss, **c), test, figure).values()])
            for c in changes
        ]
        for loss in COMPARED
    ]


def beats(page: Page, changes: dict[str, dict[str, Any]]) -> str:
    """The claims that SphereFace2 does better under each change, whose words are given."""
    return claims_table(
        [
            claim(
                f"{NAMES['sf2-C']} beats {NAMES[other]} {words}, {test} accuracy",
                by_seed(page.tuned("sf2-C", **change), test, "accuracy"),
                by_seed(page.tuned(other, **change), test, "accuracy"),
            )
            for words, change in changes.items()
            for test in page.tests
            for other in COMPARED[:2]
        ]
    )


def under_changes(
    title: str, intro: str, changes: Callable[[Page], dict[str, dict[str, Any]]]
) -> Callable[[Page], str]:
    """A section of `COMPARED` under each of some changes."""

    def section(page: Page) -> str:
        found = changes(page)
        if not any(page.losses(**change) for change in found.values()):
            return f"## {title}\n\nNot run.\n"
        text = f"## {title}\n\n{intro}\n"
        for test in page.tests:
            rows = compared(page, test, "accuracy", found.values())
            text += f"\n{markdown([f'{test} accuracy', *found], rows)}\n"
        return f"{text}\n{beats(page, found)}\n"

    return section


few_section = under_changes(
    "1b. A tenth and a third of the people",
    "Three times the epochs; the people are drawn by the seed.",
    lambda page: {
        f"with {words} of the people": {"epochs": 3 * page.epochs, "share": share}
        for words, share in (("a tenth", 0.1), ("a third", 1 / 3))
    },
)
pixels_section = under_changes(
    "1c. A backbone that sees pixels",
    f"Five convolutions on {SEEN}x{SEEN} pixels instead, twice the epochs, hyperparameters as they "
    "were found for the other.",
    lambda page: {"on pixels": {"epochs": 2 * page.epochs, "backbone": "pixels"}},
)


def against_default(title: str, intro: str, rows: dict[str, dict[str, Any]]) -> Callable:
    """A section of SphereFace2 C with some changes, each next to the first row."""

    def section(page: Page) -> str:
        runs = {name: page.tuned("sf2-C", **change) for name, change in rows.items()}
        first = next(iter(rows))
        if not all(runs.values()) and not any(list(runs.values())[1:]):
            return f"## {title}\n\nNot run.\n"
        table = [
            [name]
            + [mean_and_spread([*by_seed(runs[name], t, "accuracy").values()]) for t in page.tests]
            + [mean_and_spread([run["train_cpu_seconds"] for run in runs[name]])]
            for name in rows
        ]
        claims = [
            claim(
                f"{name} beats {first}, {page.tests[0]} accuracy",
                by_seed(runs[name], page.tests[0], "accuracy"),
                by_seed(runs[first], page.tests[0], "accuracy"),
            )
            for name in list(rows)[1:]
        ]
        header = ["SphereFace2 C", *(f"{t} accuracy" for t in page.tests), "core seconds"]
        return f"## {title}\n\n{intro}\n\n{markdown(header, table)}\n\n{claims_table(claims)}\n"

    return section


nobody_section = against_default(
    "4. Faces of nobody",
    "A third of the people are left out of training, or take part as label -1.",
    {"left out": {"people": "known"}, "label -1": {"people": "known and nobody"}},
)
sampling_section = against_default(
    "5. Sampled negatives",
    "Partial FC on the same people; a study of 20,000 classes is not run.",
    {
        "all negatives": {},
        "30 % sampled": {"sample_rate": 0.3},
        "30 % sampled, each counted once": {"sample_rate": 0.3, "negative_weighting": "none"},
        "10 % sampled": {"sample_rate": 0.1},
        "10 % sampled, each counted once": {"sample_rate": 0.1, "negative_weighting": "none"},
    },
)
precision_section = against_default(
    "6. Precision",
    "The head's matrix products in half precision (its sums stay float32), and SGD's step on the "
    "class centers inside the loss.",
    {
        "float32": {},
        "`fuse_sgd`": {"fused": True},
        "bfloat16": {"products": "bfloat16"},
        "float16": {"products": "float16"},
    },
)


def calibration_section(page: Page) -> str:
    title = "## 7. Calibration\n\n"
    if len(page.tests) < 2:
        return title + "Not run: it needs two tests.\n"
    first, second = page.tests[:2]
    header = ["loss"]
    for a, b in ((first, second), (second, first)):
        header += [f"{b}: Cllr of the head", f"refitted on {a}", "at best", "ECE refitted"]
    rows = []
    for loss in page.losses():
        row = [NAMES[loss]]
        for a, b in ((first, second), (second, first)):
            for figure in ("head cllr", "refitted cllr", "least cllr", "refitted ece"):
                values = [*by_seed(page.tuned(loss), f"{a} to {b}", figure).values()]
                row.append(mean_and_spread(values) if values else "has none")
        rows.append(row)
    claims = [
        claim(
            f"A refit on {a} serves {b} better with {NAMES['sf2-C']} than with {NAMES[other]} "
            "(Cllr above its best)",
            _calibration_loss(page.tuned(other), f"{a} to {b}"),
            _calibration_loss(page.tuned("sf2-C"), f"{a} to {b}"),
        )
        for other in ("arcface", "cosface")
        for a, b in ((first, second), (second, first))
    ]
    return f"""\
{title}Cllr is the cost of the probabilities in bits; always to answer one half costs 1. The head's
own scale and bias are those of a face against a class, not of two faces; a refit of the two on one
test is judged on the other. It is a logistic regression on g(cosine), whose exponent t is 3 with
SphereFace2, 1 with `uniface` and softmax heads.

{markdown(header, rows)}

{claims_table(claims)}
"""


def _calibration_loss(runs: list[Figures], way: str) -> dict[int, float]:
    least = by_seed(runs, way, "least cllr")
    return {s: v - least[s] for s, v in by_seed(runs, way, "refitted cllr").items()}


def starts_section(page: Page) -> str:
    title = "## 8b. A better start, to the end of training\n\n"
    runs = {name: page.shipped("sf2-C", loop=loop) for name, loop in STARTS.items()}
    first = next(iter(STARTS))
    if not any(runs[name] for name in list(STARTS)[1:]):
        return f"{title}Not run.\n"
    columns = [(test, figure) for test in page.tests for figure in ("accuracy", "tar@0.01")]
    rows = [
        [name, len(mine)] + [mean_and_spread([*by_seed(mine, *c).values()]) for c in columns]
        for name, mine in runs.items()
    ]
    header = ["SphereFace2 C as shipped", "seeds", *(f"{t} {_words(f)}" for t, f in columns)]
    claims = [
        claim(
            f"{name} beats {first}, {test} {_words(figure)}",
            by_seed(mine, test, figure),
            by_seed(runs[first], test, figure),
        )
        for name, mine in runs.items()
        if name != first
        for test, figure in columns
    ]
    return f"""\
{title}Rate 0.1 after an epoch's warm-up, margin and scale as shipped, {page.epochs} epochs. A
fitted bias starts where the loss of 256 faces is least; people's means are those of the untrained
backbone.

{markdown(header, rows)}

{claims_table(claims)}
"""


def dynamics_section(page: Page) -> str:
    title = "## 8. The first steps\n\n"
    runs = dynamics_runs(page)
    if not runs:
        return title + "Not run.\n"
    rows = []
    for name, run in runs.items():
        loss = run["course"]["loss"]
        first = loss[:10].index(min(loss[:10]))
        bias = run["course"]["bias"]
        rows.append(
            [
                name,
                f"{loss[0]:.1f}",
                f"{loss[first]:.1f}",
                f"{max(loss[first:60]):.1f}",
                f"{statistics.fmean(loss[-5:]):.1f}",
                f"{bias[0]:.1f}, {bias[min(40, len(bias) - 1)]:.1f}, {bias[-1]:.1f}"
                if bias
                else "",
                *(f"{run[test]['accuracy']:.3f}" for test in page.tests),
            ]
        )
    header = [f"SphereFace2 C, {DYNAMICS_EPOCHS} epochs", "first loss", "least of 10 steps"]
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
    for name, change in DYNAMICS.items():
        wanted = Run("sf2-C", epochs=DYNAMICS_EPOCHS, **change).settings()
        wanted = json.loads(json.dumps(wanted))  # Tuples are lists in a file.
        found.update((name, run) for run in page.runs if run["settings"] == wanted)
    return found


SECTIONS = {
    "head": head_section,
    "search": search_section,
    "clean": clean_section,
    "as shipped": shipped_section,
    "few people": few_section,
    "pixels": pixels_section,
    "one threshold": threshold_section,
    "noise": noise_section,
    "nobody": nobody_section,
    "sampling": sampling_section,
    "precision": precision_section,
    "calibration": calibration_section,
    "dynamics": dynamics_section,
    "starts": starts_section,
}


def claim(text: str, ours: dict[int, float], theirs: dict[int, float]) -> list[str]:
    """A row: the claim that ours is larger, and what became of it."""
    test = paired(ours, theirs)
    if test is None:
        return [text, "", "", "", "", "not run"]
    return [
        text,
        str(test["seeds"]),
        f"{test['mean']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f})",
        f"{test['p']:.2g}",
        f"{test['seen']:.4f}",
        f"**{verdict(test)}**",
    ]


def claims_table(claims: list[list[str]]) -> str:
    header = ["claim", "seeds", "difference (95 %)", "p", "smallest that would show", ""]
    shown = [row for row in claims if row[-1] != "not run"]
    return markdown(header, shown) if shown else "No claim was tested."


def _words(figure: str) -> str:
    return figure.replace("tar@", "TAR at FAR ")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def plots(page: Page, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def panels(count: int) -> tuple[Any, Any]:
        return pyplot.subplots(
            1, count, figsize=(4.5 * count, 3.2), layout="constrained", squeeze=False
        )

    def save(drawn: Any, name: str) -> None:
        drawn.savefig(folder / f"{name}.png", dpi=90)
        pyplot.close(drawn)

    losses = page.losses()[::-1]
    drawn, axes = panels(len(page.tests))
    for ax, test in zip(axes[0], page.tests, strict=True):
        for row, loss in enumerate(losses):
            values = [*by_seed(page.tuned(loss), test, "accuracy").values()]
            ax.plot(values, [row] * len(values), "o", alpha=0.5, ms=4)
            ax.plot(statistics.fmean(values), row, "k|", ms=14)
        ax.set_yticks(range(len(losses)), [NAMES[loss].replace("`", "") for loss in losses])
        ax.set(title=f"{test}, ten-fold accuracy")
        ax.grid(alpha=0.3)
    save(drawn, "clean")

    drawn, axes = panels(len(page.tests))
    for ax, test in zip(axes[0], page.tests, strict=True):
        for loss in COMPARED:
            points = {
                share: [*by_seed(page.tuned(loss, **change), test, "accuracy").values()]
                for share, change in WRONG.items()
            }
            points = {share: values for share, values in points.items() if values}
            means = [statistics.fmean(values) for values in points.values()]
            spread = [np.std(values) for values in points.values()]
            ax.errorbar([*points], means, spread, label=NAMES[loss], marker="o", capsize=3)
        ax.set(title=f"{test}, ten-fold accuracy", xlabel="share of labels replaced")
        ax.grid(alpha=0.3)
    axes[0][0].legend()
    save(drawn, "noise")

    drawn, axes = panels(2)
    loss, bias = axes[0]
    for ax in axes[0]:
        ax.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    for name, run in dynamics_runs(page).items():
        factor = 5 if "weight 10" in name else 1
        label = f"{name} (times 5)" if factor > 1 else name
        loss.plot(factor * np.array(run["course"]["loss"][:100]), label=label, lw=1)
        bias.plot(run["course"]["bias"][:100], lw=1)
    # What leaves the frame is in the table.
    loss.set(title="loss", xlabel="step", ylim=(25, 65))
    bias.set(title="bias", xlabel="step", ylim=(-30, 10))
    drawn.legend(fontsize=6, loc="outside right")
    save(drawn, "dynamics")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("::")[0])
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the study wrote its files")
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR", help="default: docs/")
    arguments = parser.parse_args(argv)
    saved, folder = arguments.out / "accuracy.json", arguments.out / "accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.runs is not None:
        with atomic_file(saved, "w") as file:
            json.dump(collect(arguments.runs), file)
    page = Page(json.loads(saved.read_text()))
    plots(page, folder)
    with atomic_file(arguments.out / "accuracy.md", "w") as file:
        file.write("\n".join(section(page) for section in SECTIONS.values()))


if __name__ == "__main__":
    main()
