"""Where the figures of `sf2 eval` go: a table or JSON on the terminal, and a page."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..report.page import Section, write_page
from ..report.sections import inputs_section, inputs_text


@dataclass(frozen=True)
class Output:
    """What is wanted: figures as JSON instead of a table, and a page, or None."""

    json: bool = False
    html: Path | None = None

    def write(
        self,
        title: str,
        figures: Mapping[str, Any],
        text: str,
        sections: Callable[[], Sequence[Section]],
        inputs: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Print `figures` or `text`; write `sections`, made for this alone, to the page.

        `inputs` says by model how faces were given to it; nothing of saved embeddings.
        """
        inputs = {model: given for model, given in inputs.items() if given}
        if inputs:
            figures = {**figures, "inputs": inputs}
            text = "\n\n".join([text, *map(inputs_text, inputs, inputs.values())])
        # In this order: a page that cannot be drawn costs nobody the figures.
        print(json.dumps(figures, indent=2) if self.json else text, flush=True)
        if self.html:
            ends = [inputs_section(inputs)] if inputs else []
            write_page(self.html, title, [*sections(), *ends])


def add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_argument(
        "--html", type=_page_path, metavar="FILE", help="write a page that holds it all"
    )


def read_output(arguments: argparse.Namespace) -> Output:
    return Output(arguments.json, arguments.html)


def _page_path(text: str) -> Path:
    """Argument type: refused before the work, not after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
