"""Makes `docs/benchmarks.md` and its plots from the JSON files in `docs/benchmarks/`::

python benchmarks/report.py
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sf2_plugin.atomic import atomic_file

DOCS = Path(__file__).parents[1] / "docs"
ERRORS = ("loss", "embeddings", "class centers", "bias")
HEAD = """\
# Benchmarks

Made by `python benchmarks/report.py` from the files in [`benchmarks/`](benchmarks), each of which
`benchmarks/suite.py` measured on one machine (`make bench`; with an NVIDIA GPU, `make bench-gpu`).

A step is forward and backward. The **floor** is the time of its three matrix products alone, into
memory that is there already, on the same shapes, dtype and threads: the least of multiplying all
classes at once and chunk by chunk. On a CPU, floor, head and peer
run by turns in the same rounds, within which "x this head" compares; on a GPU each runs alone.
**Extra memory** is the peak above
embeddings, class centers and their gradients. Other projects' heads run as their authors ship them:
those of arcface_torch and mmpretrain switch autocast off and multiply in float32 whatever the title
says, but for arcface_torch_fp16, which multiplies in float16; arcface_torch_tf32 is the same code
with TF32 allowed.
"""
NO_GPU = """
No file here was measured on a GPU. The backends of Triton's kernels are tested in its interpreter
and compiled for GPUs ([what they become there](gpu.md)); nothing is claimed about their speed.
"""


def section(name: str, figures: dict[str, Any]) -> str:
    machine, versions = figures["machine"], figures["versions"]
    place = machine["gpu"] or f"{machine['processor']}, {figures['threads']} threads"
    lines = [
        f"## {place}",
        f"{machine['system']}; Python {versions['python']}, torch {versions['torch']}, "
        f"Triton {versions['triton']}; commit {figures['commit']}. [All figures]({name}.json).",
        *(f"Not measured: {said}." for said in figures.get("unmeasured", ())),
        *map(head_table, figures["heads"]),
    ]
    if figures["growth"]:
        lines.append(f"![Time and memory of a step by number of classes]({name}.png)")
    for title, said, rows in (backends(figures), chunks(figures), training(figures)):
        if rows:
            lines += [title, said, markdown(list(rows[0]), (row.values() for row in rows))]
    lines += [
        "### Precision",
        "Largest error relative to the largest value in float64, 64 faces, 5,000 classes, "
        "128 dimensions.",
        markdown(
            ["backend", "products", "preset", *ERRORS],
            (
                (row["backend"], row["products"], row["preset"], *(f"{row[e]:.1e}" for e in ERRORS))
                for row in figures["precision"]
            ),
        ),
    ]
    return "\n\n".join(lines)


#: A title, what it is, and rows of cells by their columns' names.
Table = tuple[str, str, list[dict[str, Any]]]


def training(figures: dict[str, Any]) -> Table:
    rows = [
        {
            "batch": row["batch"],
            "classes": f"{row['classes']:,}",
            "SGD": "fused" if row["fused"] else "optimizer's",
            "ms": number(row["ms"]),
            "extra MiB": number(row["extra_mb"]),
        }
        for row in figures["training"]
    ]
    said = (
        "Forward, backward and SGD with momentum, the optimizer's or fused into the sweep "
        "(`fuse_sgd`); memory above class centers and momentum."
    )
    return "### A training step", said, rows


def backends(figures: dict[str, Any]) -> Table:
    rows = [
        {
            "batch": row["batch"],
            "classes": f"{row['classes']:,}",
            "dtype": row["dtype"],
            "backend": row["backend"],
            "ms": number(row["head_ms"]),
            "x floor": number(row["ratio"]),
            "extra MiB": number(row["peak_extra_mb"]),
        }
        for row in figures.get("backends", ())
    ]
    return "### Backends", "The same step with each backend.", rows


def chunks(figures: dict[str, Any]) -> Table:
    rows = [
        {
            "backend": row["backend"],
            "classes a chunk": f"{row['chunk_size']:,}",
            "ms": number(row["ms"]),
            "until launched, ms": number(row["host_ms"]),
        }
        for row in figures.get("chunks", ())
    ]
    shape = "Batch {batch}, {classes:,} classes, {dtype}: the step, and what the host takes of it."
    return "### Chunks", shape.format(**figures["chunks"][0]) if rows else "", rows


def head_table(figures: dict[str, Any]) -> str:
    sampled = f", {figures['sample_rate']:.0%} sampled" if figures["sample_rate"] < 1 else ""
    title = (
        f"### Batch {figures['batch']}, {figures['classes']:,} classes, {figures['dim']} "
        f"dimensions, {figures['dtype']}{sampled}"
    )
    rows = [["floor", number(figures["floor_ms"]), "1.00", "", ""]]
    for name, row in {"this head": {**figures, "speedup": 1.0}, **figures["peers"]}.items():
        values = (row["head_ms"], row["ratio"], row["peak_extra_mb"], row["speedup"])
        rows.append([name, *map(number, values)])
    return f"{title}\n\n" + markdown(["", "ms", "x floor", "extra MiB", "x this head"], rows)


def number(value: float | None) -> str:
    if value is None:
        return "out of memory"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def markdown(header: list[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def plot(figures: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds and extra memory of a step by number of classes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    classes = [f["classes"] for f in figures]
    series = {"this head": figures}
    for name in figures[0]["peers"]:
        series[name] = [f["peers"][name] for f in figures]
    drawn, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    time.plot(classes, [f["floor_ms"] for f in figures], "k--", label="floor")
    for name, rows in series.items():
        time.plot(classes, [r["head_ms"] for r in rows], "o-", label=name)
        memory.plot(classes, [r["peak_extra_mb"] for r in rows], "o-", label=name)
    for axes, title in ((time, "ms"), (memory, "extra MiB")):
        axes.set(xscale="log", yscale="log", xlabel="classes", title=title)
        axes.grid(alpha=0.3)
    time.legend()
    drawn.suptitle(f"batch {figures[0]['batch']}, 512 dimensions, {figures[0]['dtype']}")
    drawn.savefig(path, dpi=110)
    pyplot.close(drawn)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("::")[0]).parse_args()
    sections, gpus = [], 0
    for file in sorted((DOCS / "benchmarks").glob("*.json")):
        figures = json.loads(file.read_text())
        if figures["growth"]:
            plot(figures["growth"], file.with_suffix(".png"))
        sections.append(section(f"benchmarks/{file.stem}", figures))
        gpus += figures["device"] == "cuda"
    page = HEAD + ("" if gpus else NO_GPU) + "\n" + "\n\n".join(sections) + "\n"
    with atomic_file(DOCS / "benchmarks.md", "w") as file:
        file.write(page)


if __name__ == "__main__":
    main()
