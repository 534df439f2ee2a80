"""Figures as names and as lines of text, alike in every report."""

from collections.abc import Mapping, Sequence

from .roc import TarAtFar

Figures = dict[str, float | int | None]


def tar_figures(tar_at_far: Mapping[float, TarAtFar | None]) -> Figures:
    """`tar_at_far_0.001` with its interval, `_low` and `_high`, for every target."""
    figures: Figures = {}
    for target, tar in tar_at_far.items():
        for suffix, field in (("", "tar"), ("_low", "low"), ("_high", "high")):
            figures[f"tar_at_far_{target:g}{suffix}"] = getattr(tar, field) if tar else None
    return figures


def tar_rows(tar_at_far: Mapping[float, TarAtFar | None]) -> list[tuple[str, str]]:
    return [
        (
            f"TAR@FAR={target:g}",
            f"{tar.tar:.5f} [{tar.low:.5f}, {tar.high:.5f}] at {tar.threshold:.4f}"
            if tar
            else "not measurable: too few impostor pairs",
        )
        for target, tar in tar_at_far.items()
    ]


def text_table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
