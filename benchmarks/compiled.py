"""What the kernels become on a GPU, counted without one: a table from their machine code::

TRITON_INTERPRET=0 python -m benchmarks.compiled

Triton's compiler and NVIDIA's assembler come with Triton's wheel; from 3.3 on, the calls are these.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sf2_plugin.engine import pointwise_fused, pointwise_triton
from sf2_plugin.engine.pointwise_fused import EXACT_PARTS, SETTINGS

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
#: Matrix instructions: those of compute capability 9.0, and those before.
MATRIX = ("HGMMA", "HMMA")
NUMBERS = ("stretch", "t", "steepness", "shift", "own_shift", "margin", "cos_m", "sin_m")
NUMBERS += ("positive_weight", "negative_weight", "threshold", "largest")
TYPES = {
    **dict.fromkeys(NUMBERS, "fp32"),
    **dict.fromkeys(("start", "num_classes", "num_faces", "next_classes"), "i32"),
    "labels": "*i64",
    **dict.fromkeys(("bias", "z_chunk", "next_rows", "next_lengths"), "*fp32"),
    **dict.fromkeys(("losses", "logit_slopes"), "*fp64"),
}
#: The usual recipe, and the one that takes most: the authors', and the two-sided margin's.
RECIPES: dict[str, dict[str, Any]] = {
    "C, detached": dict(MARGIN_TYPE="C", EXACT=False, FILTER=False),
    "A2, exact, filter": dict(MARGIN_TYPE="A2", EXACT=True, FILTER=True),
}


def compiled(
    kernel: Any, capability: int, constants: dict[str, Any], options: dict[str, int], factors: str
) -> dict[str, Any]:
    """Registers, stack and instructions of a kernel whose factors have Triton's type `factors`."""
    names = kernel.arg_names
    types = {**dict.fromkeys(("w", "x", "next_unit", "slopes"), factors), **TYPES}
    aligned = [name for name in names if types.get(name, "").startswith("*")] + ["num_faces"]
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types[name] for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        code = _output("nvdisasm", "-c", file.name)
        usage = _output("cuobjdump", "--dump-resource-usage", file.name)
    found = re.findall(
        r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9][A-Z0-9_]*)|^(\.L_x_\d+):", code, re.M
    )
    kinds = Counter(kind for kind, _ in found)
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", usage)[0]
    return {
        "registers": int(registers),
        "stack": int(stack),
        "spills": kinds["LDL"] + kinds["STL"],
        "matrix": sum(kinds[kind] for kind in MATRIX),
        "shared": made.metadata.shared,
        "plain": _plain_way(found),
    }


def _plain_way(found: list[tuple[str, str]]) -> int:
    """Instructions of all blocks but the careful way's, which adds up over a tile's classes too.

    That takes several times the shuffles (SHFL) of the plain way's few sums.
    """
    blocks: list[Counter[str]] = [Counter()]
    for kind, label in found:
        if label:
            blocks.append(Counter())
        else:
            blocks[-1][kind] += 1
    return sum(block.total() for block in blocks if block["SHFL"] < 40)


def _output(tool: str, *arguments: str) -> str:
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rows(hardest_only: bool) -> Iterator[dict[str, Any]]:
    recipes = dict(list(RECIPES.items())[-1:]) if hardest_only else RECIPES
    for capability, settings in SETTINGS.items():
        for size, setting in settings.items() if capability != (0, 0) else ():
            for precision in ("tf32",) if size == 2 else ("tf32", "tf32x3"):
                for name, recipe in recipes.items():
                    factors = "*bf16" if size == 2 else "*fp32"
                    parts = setting.parts * (EXACT_PARTS if recipe["EXACT"] else 1)
                    constants = dict(
                        **recipe,
                        WHOLE_T=3,
                        CLAMP=False,
                        CLASSES=setting.classes,
                        FACES=setting.faces // parts,
                        HEIGHT=4,
                        WIDTH=512,
                        SIZE=512,
                        DEPTH=setting.depth,
                        IN_PLACE=True,
                        PARTS=parts,
                        PRECISION=precision,
                    )
                    options = dict(
                        num_warps=setting.warps,
                        num_stages=setting.stages,
                        maxnreg=setting.registers,
                    )
                    number = 10 * capability[0] + capability[1]
                    yield {
                        "kernel": "fused",
                        "capability": number,
                        "products": "bfloat16" if size == 2 else precision,
                        "recipe": name,
                        "tile": f"{setting.classes}x{setting.faces}",
                        **compiled(pointwise_fused._fused, number, constants, options, factors),
                        "elements": setting.classes * setting.faces // (32 * setting.warps),
                    }
    if hardest_only:
        return
    width = 128
    for name, recipe in recipes.items():
        constants = dict(**recipe, WHOLE_T=3, CLAMP=False, FACES=width)
        constants["CLASSES"] = pointwise_triton.SLOPES_TILE // width
        yield {
            "kernel": "slopes",
            "capability": 90,
            "products": "bfloat16",
            "recipe": name,
            "tile": f"{constants['CLASSES']}x{width}",
            **compiled(pointwise_triton._slopes, 90, constants, {}, "*bf16"),
            "elements": pointwise_triton.SLOPES_TILE // 128,
        }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("::")[0])
    parser.add_argument("--json", action="store_true", help="lines of JSON, of the hardest recipe")
    arguments = parser.parse_args(argv)
    columns = ("kernel", "capability", "products", "recipe", "tile", "registers", "stack", "spills")
    columns += ("matrix", "shared")
    if not arguments.json:
        print("| " + " | ".join([*columns, "instructions an element"]) + " |")
        print("| " + " | ".join(["---"] * (len(columns) + 1)) + " |")
    for row in rows(hardest_only=arguments.json):
        if arguments.json:
            print(json.dumps(row), flush=True)
        else:
            each = f"{row['plain'] / row['elements']:.1f}"
            print("| " + " | ".join([*(str(row[c]) for c in columns), each]) + " |", flush=True)


if __name__ == "__main__":
    main()
