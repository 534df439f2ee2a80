"""One line for whoever lacks a library: what brings it, and overwrites nothing that is there."""

import importlib
from importlib import metadata
from typing import Any

#: An extra that brings what exists under several names, which install over each other -> a name
#: under which it is there -> what completes that. No advice may exchange the one that is there.
COMPLETED_BY = {
    "hosts": {
        "onedl-mmpretrain": 'pip install "onedl-mmpretrain[mminstall]"',
        "onedl-mmengine": "pip install onedl-mmengine",
        "mmcv": "reinstall the mmcv that is built for this torch, or exchange it for mmcv-lite",
    },
    "onnxruntime": {
        name: f"reinstall {name} for the GPU and driver of this machine"
        for name in ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    },
}


def require(module: str, *extras: str, purpose: str = "") -> Any:
    """`module`, imported; or say what brings it: extras, or what completes the one that is there.

    The extras of `COMPLETED_BY` are for an environment that has none of their names. The error says
    the `purpose`, as "an audit needs scikit-learn", or else what failed.

    Raises:
        ImportError: `module`, or something it needs, is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = "pip install " + " ".join(f'"sf2-plugin[{extra}]"' for extra in extras)
        for extra in extras:
            completed_by = COMPLETED_BY.get(extra, {}).items()
            wanted = next((how for name, how in completed_by if version(name)), wanted)
        told = purpose or f"{module} cannot be imported ({error})"
        raise ImportError(f"{told}: {wanted}") from error


def onnx_libraries() -> tuple[Any, Any]:
    """`onnx` and `onnxruntime`.

    Raises:
        ImportError: one of them is missing.
    """
    return require("onnx", "onnx"), require("onnxruntime", "onnxruntime")


def version(distribution: str) -> str | None:
    """The version that is installed of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(*distributions: str) -> str | None:
    """The first of several that install the same module: its name and version, or None."""
    return next((f"{name} {found}" for name in distributions if (found := version(name))), None)
