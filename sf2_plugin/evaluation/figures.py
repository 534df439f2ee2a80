"""The figures of a report: one list, from which tables, JSON, pages and loggers are drawn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .roc import Roc, TarAtFar


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: in JSON and in loggers, `tar_at_far_0.001`.
        label: for people, `TAR@FAR=0.001`.
        value: None where it cannot be measured; a whole number where it counts something.
        low, high: ends of its 95 % interval, None where it has none.
        note: what stands behind it for people.
    """

    name: str
    label: str
    value: float | int | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def has_interval(self) -> bool:
        return self.low is not None

    def brief(self) -> str:
        """The value and its interval, for a table of many models."""
        if self.value is None:
            return "not measurable"
        text = str(self.value) if isinstance(self.value, int) else f"{self.value:.5f}"
        return f"{text} [{self.low:.5f}, {self.high:.5f}]" if self.has_interval else text

    def __str__(self) -> str:
        link = ": " if self.value is None and self.note else " "
        return f"{self.brief()}{link}{self.note}".rstrip()


class Report(ABC):
    """Base of all reports: one list of figures, shown as a table, as JSON and in logs."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """All figures, in the order in which they are shown."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain values by name, for JSON: an interval is NAME_low and NAME_high."""
        values: dict[str, float | int | None] = {}
        for figure in self.figures():
            values[figure.name] = figure.value
            if figure.has_interval or figure.value is None:
                values |= {f"{figure.name}_low": figure.low, f"{figure.name}_high": figure.high}
        return values

    def logged(self) -> list[Figure]:
        """What a training log shows: figures that were measured and count nothing."""
        return [figure for figure in self.figures() if isinstance(figure.value, float)]

    def table(self) -> str:
        """A line a figure."""
        return text_table([(figure.label, str(figure)) for figure in self.figures()])

    def __str__(self) -> str:
        return self.table()


class VerificationReport(Report):
    """Base of those of pairs, by their exact ROC."""

    roc: Roc

    @property
    def auc(self) -> float:
        return self.roc.auc

    @property
    def eer(self) -> float:
        return self.roc.eer

    def pair_counts(self) -> list[Figure]:
        """How many pairs the verification rests on."""
        genuine, impostor = len(self.roc.genuine), len(self.roc.impostor)
        return [
            Figure("pairs", "pairs", genuine + impostor),
            Figure("genuine", "genuine pairs", genuine),
            Figure("impostor", "impostor pairs", impostor),
        ]


def rate_figures(
    name: str, label: str, rates: Mapping[float, TarAtFar | None], scarce: str
) -> list[Figure]:
    """A figure for every target; `scarce` says what there was too little of to measure it."""
    return [
        Figure(
            f"{name}_{target:g}",
            f"{label}={target:g}",
            rate.tar,
            rate.low,
            rate.high,
            f"at threshold {rate.threshold:.4f}",
        )
        if rate
        else Figure(f"{name}_{target:g}", f"{label}={target:g}", None, note=f"too few {scarce}")
        for target, rate in rates.items()
    ]


def text_table(rows: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and a value, the values in one column."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
