"""A model card in Markdown: what a package is, what it takes, and what is known of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.figures import Figure
from .thresholds import Thresholds


def model_card(
    manifest: Mapping[str, Any],
    facts: Mapping[str, Any],
    thresholds: Thresholds,
    checked: Mapping[str, Any],
) -> str:
    """The card of a package.

    Args:
        manifest: as it is written.
        facts: of the network and its training; name -> value.
        thresholds: what was measured.
        checked: as `check_package` answers.
    """
    task = manifest["tasks"]["recognition"]
    size = "x".join(map(str, task["input_size"]))
    parts = [
        f"# {manifest['model_id']}",
        "A model that embeds faces, written by `sf2 export`.",
        "## What it is",
        _table(("", ""), [(name.replace("_", " "), _text(value)) for name, value in facts.items()]),
        "## What it takes and gives",
        f"Aligned faces of {size} pixels, as InsightFace's package cuts them, any number at once: "
        f"`face` (batch, 3, {size.replace('x', ', ')}), float32, RGB, (x - 127.5) / 127.5. It "
        f"gives `embedding` (batch, {task['embedding_dimension']}), float32, of any length; faces "
        "are compared by the cosine.",
        "```python\nimport sf2_plugin.deploy\n\n"
        'model = sf2_plugin.deploy.load("FOLDER")\n'
        'model.same("a.jpg", "b.jpg")  # the probability of one person\n```',
        f"The checkpoint's embeddings and those of this file, as each reader makes them, are at a "
        f"cosine of at least {checked['wanted']}; found, on drawn images:",
        _table(("reader", "least cosine"), [
            (name, f"{cosine:.7f}") for name, cosine in checked["least_cosine"].items()
        ]),
        *([f"Not checked {checked['not_checked']}"] if "not_checked" in checked else []),
        "## Probabilities and thresholds",
        _calibration(thresholds),
        _table(("FAR", "threshold on the cosine", "TAR", "impostor pairs"), [
            _threshold_row(far, at) for far, at in thresholds.at_far().items()
        ]),
    ]  # fmt: skip
    if thresholds.report and thresholds.pairs:
        pairs = thresholds.pairs
        parts += [
            f"Measured on `{pairs['name']}` (SHA-256 `{pairs['sha256']}`), without flip test. Who "
            "is in it, and how faces were cut, decides how far this holds elsewhere; a threshold "
            "is no better than the impostor pairs behind it.",
            "## Figures",
            _figures(thresholds.report.figures()),
        ]
        for name, report in thresholds.judged.items():
            parts += [
                f"Probabilities, {name}, on the last half of the folds; a refit is on the others, "
                "whose people may be the same:",
                _figures(report.figures()),
                *(f"Not to be used: {doubt}." for doubt in report.doubts),
            ]
    parts += [
        "## Licence",
        "The manifest names a MODEL.LICENSE because InsightFace's format asks for the name; none "
        "is shipped. Whose faces the model was trained on, and on which terms, its owner must say."
        + " The detector is another's, on its own terms."
        * ("detection" in manifest["tasks"]),
    ]
    return "\n\n".join(parts) + "\n"


def _calibration(thresholds: Thresholds) -> str:
    known = thresholds.calibration
    if known is None:
        return f"Nothing makes probabilities of its cosines: {thresholds.source}."
    return (
        f"log-odds(cosine) = {known.scale:.6g} (2 ((cosine + 1) / 2)^{known.t:g} - 1) "
        f"{known.bias:+.6g}, at even odds: {thresholds.source}."
    )


def _threshold_row(far: str, at: Mapping[str, Any]) -> tuple[str, ...]:
    if at["threshold"] is None:
        return far, at["note"], "", str(at["impostor_pairs"])
    rate = f"{at['tar']:.5f} [{at['tar_low']:.5f}, {at['tar_high']:.5f}]"
    return far, f"{at['threshold']:.6f}", rate, str(at["impostor_pairs"])


def _figures(figures: Sequence[Figure]) -> str:
    return _table(("figure", "value"), [(each.label, str(each)) for each in figures])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text of others, such as a file's name, in one cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
