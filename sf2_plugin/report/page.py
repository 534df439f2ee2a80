"""A self-contained HTML page: no script, nothing to load, light and dark, narrow and wide."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
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
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 96rem;
  font: 16px/1.5 system-ui, sans-serif; background: var(--page); color: var(--text); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 60rem; }
dl { margin: .5rem 0; columns: 28rem; column-gap: 3rem; }
dt { font-weight: 500; break-after: avoid; }
dd { margin: 0 0 .4rem 1.5rem; break-inside: avoid; }
h1, h2, h3, p, dt, dd, th, td, figcaption, .face span { unicode-bidi: isolate; }
.tables { display: flex; flex-wrap: wrap; column-gap: 3rem; }
.tables > .grid { flex: 0 1 36rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .9rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 500; padding-left: 0;
  position: sticky; left: 0; background: var(--page); }
thead th { font-weight: 650; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
svg text { font-family: system-ui, sans-serif !important; }
figcaption { font-size: .9rem; margin-bottom: .4rem; }
.faces { display: grid; gap: .75rem; grid-template-columns:
  repeat(auto-fill, minmax(min(100%, calc(var(--faces) * 8.5rem)), 1fr)); }
.faces figure { padding: .4rem; background: var(--soft); }
.faces figure > div { display: grid; gap: .25rem;
  grid-template-columns: repeat(var(--faces), 1fr); }
.faces img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover;
  border-top: .3rem solid var(--role, transparent); }
.faces figcaption, .face span { text-align: center; font-size: .82rem; overflow-wrap: anywhere; }
.faces figcaption { margin: .25rem 0 0; }
.face span { display: block; }
.face b { color: var(--role); }
.searched { --role: #2f81d6; } .found { --role: #d64560; } .right { --role: #12a07a; }
"""


@dataclass(frozen=True)
class Face:
    """A face on the page.

    Attributes:
        pixels: uint8 (H, W, 3), RGB.
        name: whose it is, or its file's.
        role: "searched", "found" or "right", where several faces stand for different things.
    """

    pixels: Pixels
    name: str
    role: str = ""


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


def side_by_side(tables: Sequence[str]) -> str:
    return '<div class="tables">\n' + "\n".join(tables) + "\n</div>"


def definitions(words: Mapping[str, str]) -> str:
    """Words, each with what it means."""
    lines = [f"<dt>{_text(word)}</dt><dd>{_text(means)}</dd>" for word, means in words.items()]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def face_rows(rows: Sequence[tuple[Sequence[Face], str]]) -> str:
    """Faces that belong side by side, the same number in each row, and the row's caption."""
    figures = [
        f"<figure><div>{''.join(map(_face, faces))}</div>"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for faces, caption in rows
    ]
    count = len(rows[0][0]) if rows else 1
    return f'<div class="faces" style="--faces: {count}">\n' + "\n".join(figures) + "\n</div>"


def _face(face: Face) -> str:
    role = f"<b>{_text(face.role)}</b> " if face.role else ""
    return (
        f'<div class="face {_text(face.role)}">{_image(face.pixels)}'
        f"<span>{role}{_text(face.name)}</span></div>"
    )


def _image(pixels: Pixels) -> str:
    image = pillow().fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_FACE_SIZE, _FACE_SIZE))
    encoded = base64.b64encode(encode_jpeg(np.asarray(image), quality=88)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{encoded}">'
