"""A self-contained HTML page: no script, nothing to load, light and dark, narrow and wide."""

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..atomic import atomic_file
from ..data.images import encode_jpeg, pillow
from ..evaluation.input_checks import Pixels
from ..terminal import printable

_FACE_SIZE = 112

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2128; --line: #8885; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --text: #dfe4ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 78rem;
  font: 16px/1.5 system-ui, sans-serif; background: var(--page); color: var(--text); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
h1, h2, h3, p, th, td, figcaption { unicode-bidi: isolate; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .9rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 500; padding-left: 0;
  position: sticky; left: 0; background: var(--page); }
thead th { font-weight: 650; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
svg text { font-family: system-ui, sans-serif !important; }
figcaption { font-size: .9rem; margin-bottom: .4rem; }
.faces { display: flex; flex-wrap: wrap; gap: .75rem; }
.faces figure { padding: .4rem; background: var(--soft); width: min-content; }
.faces div { display: flex; }
.faces img { width: 5rem; height: 5rem; object-fit: cover; }
.faces figcaption { text-align: center; font-size: .82rem; margin: .25rem 0 0;
  overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it as HTML."""

    title: str
    body: str


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> None:
    """Write the page to `path`; it appears whole or not at all."""
    parts = [f"<h2>{_text(section.title)}</h2>\n{section.body}" for section in sections]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{_text(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )
    with atomic_file(os.fspath(path), "wb") as file:
        file.write(page.encode())


def _text(text: str) -> str:
    """Text as HTML: literal, and of no effect on what stands around it."""
    return html.escape(printable(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; the first of each row is its heading."""
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def heading(text: str) -> str:
    return f"<h3>{_text(text)}</h3>"


def drawings(captioned: Sequence[tuple[str, str]]) -> str:
    """SVG drawings side by side, each with its caption."""
    figures = [
        f"<figure><figcaption>{_text(caption)}</figcaption>\n{svg}</figure>"
        for caption, svg in captioned
    ]
    return '<div class="grid">\n' + "\n".join(figures) + "\n</div>"


def face_rows(rows: Sequence[tuple[Sequence[Pixels], str]]) -> str:
    """Images uint8 (H, W, 3), RGB, that belong side by side, with a caption for each such row."""
    figures = [
        f"<figure><div>{''.join(map(_image, faces))}</div>"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for faces, caption in rows
    ]
    return '<div class="faces">\n' + "\n".join(figures) + "\n</div>"


def _image(pixels: Pixels) -> str:
    image = pillow().fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_FACE_SIZE, _FACE_SIZE))
    encoded = base64.b64encode(encode_jpeg(np.asarray(image), quality=88)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{encoded}">'
