"""Where the figures of `sf2 eval` go: a table or JSON on the terminal, and a page."""

import argparse
import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..atomic import writable
from ..backbones import file_digest
from ..report.page import Section, write_page
from ..report.sections import inputs_text, provenance_section
from ..terminal import json_text, say
from .models import Model


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
        models: Sequence[Model],
        files: Iterable[Path | None] = (),
    ) -> None:
        """Print `figures` or `text`; write `sections`, made for this alone, to the page.

        Args:
            models: whose figures they are.
            files: what else was read, for the page to name; folders and None are passed over.
        """
        inputs = {model.name: model.inputs for model in models if model.inputs}
        if inputs:
            figures = {**figures, "inputs": inputs}
            text = "\n\n".join([text, *map(inputs_text, inputs, inputs.values())])
        # A page that cannot be drawn costs nobody the figures, nor a closed pipe the page.
        try:
            say(json_text(figures) if self.json else text)
        finally:
            if self.html:
                write_page(self.html, title, [*sections(), _provenance(models, files)])


def _provenance(models: Sequence[Model], files: Iterable[Path | None]) -> Section:
    now = datetime.datetime.now(datetime.timezone.utc)
    return provenance_section(
        f"Made on {now:%Y-%m-%d at %H:%M} UTC by sf2-plugin {__version__}.",
        {model.name: model.provenance() for model in models},
        {str(file): file_digest(file) for file in files if file and file.is_file()},
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page that holds it all")


def read_output(arguments: argparse.Namespace, inputs: Iterable[Path | None]) -> Output:
    """What the arguments want, of a command that reads the files and folders `inputs`."""
    if arguments.html:
        check_outputs([arguments.html], inputs)
    return Output(arguments.json, arguments.html)


def check_outputs(paths: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Refuse, before the work, what cannot be written, or is another or an input by any name."""
    written: dict[Path, Path] = {}
    for path in paths:
        if (other := written.setdefault(writable(path), path)) is not path:
            raise ValueError(f"{path} is to be written twice, as {other} too")
    for target in filter(Path.exists, written):
        for given in filter(None, inputs):
            for file in given.rglob("*") if given.is_dir() else [given]:
                if file.exists() and os.path.samefile(target, file):
                    raise ValueError(f"{written[target]} is not replaced: it is read, as {file}")
