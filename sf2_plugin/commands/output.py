"""Where the figures of `sf2 eval` go: a table or JSON on the terminal, and a page."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report.page import Section, write_page


def add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the figures as JSON")
    output.add_argument(
        "--html", type=_page_path, metavar="FILE", help="write a page that holds it all"
    )


def _page_path(text: str) -> Path:
    """Argument type: refused before the work, not after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def write_output(
    options: argparse.Namespace,
    title: str,
    figures: Mapping[str, Any],
    text: str,
    sections: Callable[[], Sequence[Section]],
) -> None:
    """Print `figures` or `text`; write `sections`, which are made for this alone, to the page."""
    # In this order: a page that cannot be drawn costs nobody the figures.
    print(json.dumps(figures, indent=2) if options.json else text, flush=True)
    if options.html:
        write_page(options.html, title, sections())
