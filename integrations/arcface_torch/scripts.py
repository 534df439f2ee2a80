"""The host's scripts that do not train: what they lack on today's libraries."""

import builtins
import functools
import importlib
import inspect
import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy

#: Script -> what it imports besides torch and numpy: module -> what pip calls it.
LIBRARIES: dict[str, dict[str, str]] = {
    "torch2onnx.py": {"onnx": "onnx"},
    "inference.py": {"cv2": "opencv-python"},
    "eval_ijbc.py": {
        "matplotlib": "matplotlib",
        "pandas": "pandas",
        "sklearn": "scikit-learn",
        "cv2": "opencv-python",
        "skimage": "scikit-image",
        "prettytable": "prettytable",
    },
    "onnx_ijbc.py": {
        "cv2": "opencv-python",
        "pandas": "pandas",
        "prettytable": "prettytable",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "insightface": "insightface",
    },
}

#: Names that numpy had for Python's own types until 1.24.
NUMPY_NAMES = ("bool", "int", "float", "complex", "object", "str")


def missing_libraries(script: str) -> list[str]:
    """What pip must install for a script, among what it imports."""
    return [
        distribution
        for module, distribution in LIBRARIES.get(script, {}).items()
        if not _imports(module)
    ]


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def restore_numpy_names() -> None:
    for name in NUMPY_NAMES:
        if name not in vars(numpy):
            setattr(numpy, name, getattr(builtins, name))


def stand_in_for_libraries(mxnet_is_missing: bool) -> None:
    """Modules with the few names that the scripts use of libraries that no longer install."""
    if mxnet_is_missing:  # onnx_ijbc.py takes a base class for its images from it.
        _add_module("mxnet.gluon.data", Dataset=object)
    if not _imports("menpo"):  # eval_ijbc.py takes the colours of its curves from it.
        _add_module("menpo.visualize.viewmatplotlib", sample_colours_from_colourmap=_colours)


def _add_module(name: str, **content: Any) -> None:
    path = name.split(".")
    modules = [ModuleType(".".join(path[: i + 1])) for i in range(len(path))]
    for module, inner in pairwise(modules):
        setattr(module, inner.__name__.rpartition(".")[2], inner)
    vars(modules[-1]).update(content)
    sys.modules.update({module.__name__: module for module in modules})


def _colours(count: int, colourmap: str) -> list[Any]:
    pyplot = importlib.import_module("matplotlib.pyplot")
    take = pyplot.get_cmap(colourmap)
    return [take(i / max(count - 1, 1)) for i in range(count)]


def with_old_exporter(export: Any) -> Any:
    """torch.onnx.export as the scripts know it: TorchScript's, where torch has another by now."""
    if "dynamo" not in inspect.signature(export).parameters:
        return export
    return functools.partial(export, dynamo=False)
