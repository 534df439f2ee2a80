"""Where the figures of `sf2 eval` go: a table or JSON on the terminal, and a page."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import writable
from ..report.page import Section, write_page
from ..report.sections import inputs_section, inputs_text
from ..terminal import json_text, say


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
        # A page that cannot be drawn costs nobody the figures, nor a closed pipe the page.
        try:
            say(json_text(figures) if self.json else text)
        finally:
            if self.html:
                ends = [inputs_section(inputs)] if inputs else []
                write_page(self.html, title, [*sections(), *ends])


def add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page that holds it all")


def read_output(arguments: argparse.Namespace, inputs: Iterable[Path | None]) -> Output:
    """What the arguments want, of a command that reads the files and folders `inputs`."""
    if arguments.html:
        check_output(arguments.html, inputs)
    return Output(arguments.json, arguments.html)


def check_output(path: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse, before the work, what cannot be written, or is one of the inputs by any name."""
    target = writable(path)
    if not target.exists():
        return
    for given in filter(None, inputs):
        for file in given.rglob("*") if given.is_dir() else [given]:
            if file.exists() and os.path.samefile(target, file):
                raise ValueError(f"{path} is not replaced: it is read, as {file}")
