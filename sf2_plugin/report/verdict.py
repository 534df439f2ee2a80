"""Reports in a sentence or two each, for who reads no further."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation import Roc, TarAtFar
from ..evaluation.input_checks import Bools
from ..evaluation.roc import wilson_interval
from .results import PairResult, SearchResult, TemplateResult


def pair_verdict(results: Sequence[PairResult]) -> list[str]:
    """What each model does on each set; of several models, whether the best is better."""
    sentences = []
    for name in dict.fromkeys(result.set_name for result in results):
        same_set = [result for result in results if result.set_name == name]
        sentences += [_verification(result) for result in same_set]
        if len(same_set) > 1:
            best, second = sorted(same_set, key=lambda r: -r.report.accuracy_mean)[:2]
            sentences.append(_comparison(name, best, second))
    return sentences


def template_verdict(results: Sequence[TemplateResult]) -> list[str]:
    return [f"{r.model}: {_strictest(r.report.tar_at_far, r.report.roc)}." for r in results]


def identification_verdict(results: Sequence[SearchResult]) -> list[str]:
    sentences = []
    for result in results:
        report = result.report
        first = _share(int(np.count_nonzero(report.ranks == 1)), len(report.ranks))
        sentences.append(
            f"{result.model} finds the right one of {report.identities} people in "
            f"{result.gallery_name} first in {first} searches for somebody who is there."
        )
        if not len(report.nonmate_scores):
            sentences.append("Nobody was searched for who is not there: false alarms are unknown.")
    return sentences


def _verification(result: PairResult) -> str:
    report = result.report
    pairs = len(report.issame)
    right = round(report.accuracy_mean * pairs)
    common = max(len(report.roc.genuine), len(report.roc.impostor)) / pairs
    text = f"{result.model} decides {_share(right, pairs)} pairs of {result.set_name} rightly"
    if wilson_interval(right, pairs)[0] <= common:
        text += f", no more than always giving the same answer would ({_percent(common)})"
    text += f"; {_strictest(report.tar_at_far, report.roc)}."
    return text + "".join(f" Probabilities {doubt}." for doubt in result.doubts)


def _strictest(rates: Mapping[float, TarAtFar | None], roc: Roc) -> str:
    """What passes at the lowest false accept rate that can be measured."""
    measured = {target: rate for target, rate in rates.items() if rate}
    if not measured:
        return f"{len(roc.impostor)} impostor pairs are too few for any of the false accept rates"
    target, rate = min(measured.items())
    return (
        f"where one impostor in {1 / target:,.0f} may pass, {_percent(rate.tar)} of genuine pairs "
        f"do ({_percent(rate.low)} to {_percent(rate.high)})"
    )


def _comparison(name: str, best: PairResult, second: PairResult) -> str:
    """The sign test on the pairs that one model alone decides rightly."""
    from scipy.stats import binomtest

    ours, theirs = _decided_rightly(best), _decided_rightly(second)
    won, lost = int(np.count_nonzero(ours & ~theirs)), int(np.count_nonzero(theirs & ~ours))
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    beyond = p < 0.05 and won > lost
    judged = "more than chance makes" if beyond else "no more than chance makes"
    return (
        f"On {name}, {won} pairs are decided rightly by {best.model} alone and {lost} by "
        f"{second.model} alone: {judged} of two equal models (sign test, p = {p:.2g})."
    )


def _decided_rightly(result: PairResult) -> Bools:
    report = result.report
    return (report.scores >= report.thresholds.mean()) == report.issame


def _share(successes: int, trials: int) -> str:
    low, high = wilson_interval(successes, trials)
    shown = _percent(successes / trials)
    return f"{shown} ({_percent(low)} to {_percent(high)}) of {trials:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
