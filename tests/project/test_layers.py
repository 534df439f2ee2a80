"""The picture of the package: which room may import which. An import never runs up a floor."""

import ast
from pathlib import Path

import pytest

import sf2_plugin

ROOT = Path(__file__).parents[2]

#: From the ground up; a room imports from the floors below its own, and from nothing else. Deferred
#: imports, and those for type checkers alone, count as well.
FLOORS = (
    (
        "atomic",
        "compat",
        "findings",
        "interruption",
        "patching",
        "progress",
        "requirements",
    ),
    ("checks", "ending", "reading", "terminal"),
    ("unpickling",),
    ("margins", "options", "torch_files"),
    ("data", "recipe", "weights"),
    ("definition", "evaluation", "margin_schedule", "synthetic"),
    ("backbones", "datasets", "deploy", "distributed", "engine", "report"),
    ("agreement", "export", "finite_steps", "fused", "watching", "wrappers"),
    ("head", "sampling"),
    ("partial_fc",),
    ("bench", "class_means", "registry", "shards"),
    ("integrations",),
    (
        "integrations.arcface_torch",
        "integrations.mmengine",
        "integrations.pytorch_metric_learning",
    ),
    ("integrations.mmpretrain",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules():
    """Every module of the package by name, and its file."""
    for folder, prefix in ((ROOT / "sf2_plugin", ""), (ROOT / "integrations", "integrations.")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = prefix + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name.rstrip("."), path


MODULES = dict(modules())


def room_of(module):
    """A file at the top or a folder there; in the adapters, a host's folder."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "integrations" else parts[:1])


def imported(module, path):
    """The package's modules that a module imports, wherever in it."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".") if module else []
                up = node.level - is_package
                base = ".".join(["sf2_plugin", *above[: len(above) - up], *base.split(".")])
            names = [f"{base.rstrip('.')}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "sf2_plugin":
                found = resolved(name.split(".")[1:])
                if found:
                    yield found, node.lineno


def resolved(parts):
    """The module that `sf2_plugin.PARTS` lies in; None for the package's own `__version__`."""
    if parts and parts[0] in sf2_plugin._MODULES:
        return sf2_plugin._MODULES[parts[0]]
    while parts and ".".join(parts) not in MODULES:
        parts = parts[:-1]
    return ".".join(parts) or None


def test_every_room_has_a_floor():
    lacking = {room_of(module) for module in MODULES if module} - set(FLOOR_OF)
    assert not lacking, f"FLOORS lacks {lacking}"


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_run_down(module):
    room = room_of(module)
    for target, line in imported(module, MODULES[module]):
        if room_of(target) != room:
            assert FLOOR_OF[room_of(target)] < FLOOR_OF[room], (
                f"{MODULES[module]}:{line}: {room} is on floor {FLOOR_OF[room]} and imports "
                f"{target} from floor {FLOOR_OF[room_of(target)]}"
            )


def test_no_circle_within_a_room():
    arrows = {
        module: {target for target, _ in imported(module, path) if target != module}
        for module, path in MODULES.items()
        if module
    }
    done: set[str] = set()

    def visit(module, way):
        assert module not in way, f"a circle of imports: {' -> '.join([*way, module])}"
        if module in done:
            return
        for target in arrows[module]:
            # A package's own file gathers its parts, which may ask it for nothing.
            visit(target, [*way, module])
        done.add(module)

    for module in arrows:
        visit(module, [])
