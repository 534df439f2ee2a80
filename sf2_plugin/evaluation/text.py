"""Figures as names and as lines of text, alike in every report."""

from collections.abc import Mapping, Sequence

from .roc import TarAtFar

Figures = dict[str, float | int | None]


def rate_figures(name: str, rates: Mapping[float, TarAtFar | None]) -> Figures:
    """`NAME_0.001` with its interval, `_low` and `_high`, for every target."""
    figures: Figures = {}
    for target, rate in rates.items():
        for suffix, field in (("", "tar"), ("_low", "low"), ("_high", "high")):
            figures[f"{name}_{target:g}{suffix}"] = getattr(rate, field) if rate else None
    return figures


def rate_rows(
    name: str, rates: Mapping[float, TarAtFar | None], scarce: str
) -> list[tuple[str, str]]:
    """A line for every target; `scarce` says what there was too little of to measure it."""
    return [
        (
            f"{name}={target:g}",
            f"{rate.tar:.5f} [{rate.low:.5f}, {rate.high:.5f}] at {rate.threshold:.4f}"
            if rate
            else f"not measurable: too few {scarce}",
        )
        for target, rate in rates.items()
    ]


def text_table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
