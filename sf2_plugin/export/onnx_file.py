"""A network as one ONNX file: any batch, weights inside."""

import contextlib
import copy
import importlib.util
import inspect
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.onnx_graph import INPUT_NOTE
from ..requirements import onnx_libraries

EXPORTERS = ("auto", "current", "legacy")
#: Which onnxruntime runs since 1.14, and both of torch's exporters write.
OPSET = 18
INPUT, OUTPUT = "face", "embedding"


def network_to_onnx(
    network: nn.Module, size: int, *, opset: int = OPSET, fp16: bool = False, exporter: str = "auto"
) -> Any:
    """An `onnx.ModelProto` of a network: input `face` (batch, 3, size, size), float32, and output
    `embedding` (batch, D), float32.

    Args:
        network: (N, 3, size, size) -> (N, D).
        opset: of ONNX.
        fp16: weights and arithmetic in half precision, but for the first and last cast.
        exporter: "current", torch's own since 2.9, which needs onnxscript; "legacy", the one by
            TorchScript; "auto" takes the first where it is there.

    Raises:
        ValueError: the exporter cannot do it, its opset is another, or the file would be too large.
        ImportError: onnx, or for "current" onnxscript, is missing.
    """
    onnx, _ = onnx_libraries()
    network = copy.deepcopy(network).cpu().float().eval()
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shape = tuple(network(example).shape)
    if len(shape) != 2 or shape[0] != 2:
        raise ValueError(f"the network must give (N, D) embeddings, got {shape} for 2 faces")
    exporter = _chosen(exporter)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "network.onnx"
        try:
            _export(network, example, path, opset, exporter)
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:  # Exporters have a hundred ways to fail.
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"torch {torch.__version__} cannot export the network by its {exporter} exporter: "
                f"{type(error).__name__}: {reason}"
            ) from error
    written = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if written != opset:
        raise ValueError(
            f"opset must be one that torch's {exporter} exporter writes, got {opset}: it wrote "
            f"{written}"
        )
    if fp16:
        model = _in_half_precision(model)
    _name(model, size, shape[1])
    return model


def _chosen(exporter: str) -> str:
    if exporter not in EXPORTERS:
        raise ValueError(f"exporter must be one of {', '.join(EXPORTERS)}, got {exporter!r}")
    has_current = "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters
    has_script = importlib.util.find_spec("onnxscript") is not None
    if exporter == "current" and not has_current:
        raise ValueError(f"torch {torch.__version__} has the legacy exporter only")
    if exporter == "current" and not has_script:
        raise ImportError(
            'torch\'s current exporter needs onnxscript: pip install "sf2-plugin[export]"'
        )
    if exporter == "auto":
        return "current" if has_current and has_script else "legacy"
    return exporter


def _export(
    network: nn.Module, example: torch.Tensor, path: Path, opset: int, exporter: str
) -> None:
    options: dict[str, Any]
    if exporter == "current":
        shapes = ({0: torch.export.Dim("batch")},)
        options = dict(dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)
    else:
        options = dict(dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}})
        # torch 2.1 to 2.4 know no other, or call it so by default.
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            options["dynamo"] = False
    torch.onnx.export(
        network,
        (example,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        **options,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print what they do, and whole graphs on errors, some of it from C++.

    They also warn that they will be replaced by each other.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {}
    with open(os.devnull, "wb") as nothing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # Where it is closed.
                kept[descriptor] = os.dup(descriptor)
                os.dup2(nothing.fileno(), descriptor)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield
        finally:
            for descriptor, copy_of_it in kept.items():
                os.dup2(copy_of_it, descriptor)
                os.close(copy_of_it)


def _in_half_precision(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of weights too small for it, which become 0.
        return convert_float_to_float16(model, keep_io_types=True)


def _name(model: Any, size: int, width: int) -> None:
    """Give the graph shapes that readers go by, and names that mislead no reader."""
    graph = model.graph
    _set_shape(graph.input[0], ["batch", 3, size, size])
    _set_shape(graph.output[0], ["batch", width])
    # It takes a file whose first nodes are called Sub and Mul for one that normalises.
    for place, node in enumerate(graph.node):
        node.name = f"sf2/{place}/{node.op_type}"
    note = model.metadata_props.add()
    note.key, note.value = INPUT_NOTE


def _set_shape(value: Any, shape: Sequence[int | str]) -> None:
    dimensions = value.type.tensor_type.shape
    del dimensions.dim[:]
    for length in shape:
        if isinstance(length, int):
            dimensions.dim.add().dim_value = length
        else:
            dimensions.dim.add().dim_param = length
