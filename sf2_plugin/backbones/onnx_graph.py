"""What an ONNX graph says of the faces it takes: their range, and the order of their channels.

Normalisation is put into a graph in many ways: as arithmetic, as a batch normalisation, behind a
cast, a resize or a change of layout. Rather than knowing them all, the part of the graph before its
first layer is run on its own: on black, on white, and on each channel alone. What comes out tells
what went in. A range is settled where it alone makes the first layer see what first layers see,
such as -1..1; an order where channels are swapped, or have ImageNet's means.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Operators that leave a pixel with its own place or its neighbours' mean: none is a layer.
_BEFORE_LAYERS = (
    *("Cast", "CastLike", "Clip", "Dropout", "Identity", "Max", "Min"),
    *("Add", "BatchNormalization", "Div", "Mul", "Neg", "Sub", "Sum"),
    *("DequantizeLinear", "QuantizeLinear"),
    *("Concat", "Conv", "Gather", "Slice", "Split", "Transpose"),
    *("AveragePool", "Pad", "Resize", "Upsample"),
    *("Expand", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
)

#: What a file of `sf2 export` says of its input; key and value in its metadata.
INPUT_NOTE = ("sf2_plugin.input", "RGB -1..1")
#: Ranges that faces are given in, (lowest, highest).
RANGES = {"0..255": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}
#: Ranges that first layers are trained on; the fourth is ImageNet's normalisation.
_SEEN = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5), (-2.1, 2.4), (0.0, 255.0), (-127.5, 127.5))
_CLOSE, _APART = 0.3, 0.15
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])


@dataclass(frozen=True)
class Preprocessing:
    """What the part before the first layer tells; None for what it leaves open."""

    range: str | None = None
    """One of RANGES."""
    bgr: bool | None = None
    order_by: str = ""
    """What tells the order."""
    unclear: bool = False
    """There is arithmetic, and what it is for cannot be told."""
    range_by: str = "by the graph, which normalises"
    """What tells the range."""


def read_preprocessing(
    model: Any,
    name: str,
    shape: tuple[int, int, int, int],
    dtype: np.dtype,
    run: Callable[[bytes, NDArray], list[NDArray]],
    folder: Path,
) -> Preprocessing:
    """Read it off a graph.

    Args:
        model: an `onnx.ModelProto`, its external tensors left on disk in `folder`.
        name, shape, dtype: the input for faces; 3 is at 1 or 3 of the shape.
        run: outputs of a serialised model for an input.
    """
    if INPUT_NOTE in ((each.key, each.value) for each in model.metadata_props):
        said = "said by the file"
        return Preprocessing("-1..1", bgr=False, order_by=said, range_by=said)
    nodes, ends = _before_the_first_layer(model.graph, name)
    if ends == [name]:
        return Preprocessing()
    if dtype == np.int8:  # It has no room for 0..255, and other ranges no convention.
        return Preprocessing(unclear=True)
    part = _part(model, name, nodes, ends, folder)
    channels = 1 if shape[1] == 3 else 3

    def answer(colour: NDArray) -> NDArray:
        face = np.empty(shape, dtype)
        np.moveaxis(face, channels, -1)[...] = colour
        outputs = run(part, face)
        return np.concatenate([_numbers(output) for output in outputs])

    # An image's bytes can be taken whole only.
    ranges = {"0..255": RANGES["0..255"]} if dtype.kind in "iu" else RANGES
    try:
        answers = {
            key: np.array([answer(np.array(colour)) for colour in _colours(lowest, highest)])
            for key, (lowest, highest) in ranges.items()
        }
    except Exception:  # onnxruntime has a class of its own for each kind
        return Preprocessing(unclear=True)
    return _judge(answers)


def _colours(lowest: float, highest: float) -> list[list[float]]:
    """Black, white, grey, red, green and blue; whole numbers where bytes are."""
    middle = lowest + (highest - lowest) * 0.4
    colours = [[value] * 3 for value in (lowest, highest, middle)]
    return colours + [[highest if c == on else lowest for c in range(3)] for on in range(3)]


def _numbers(output: NDArray) -> NDArray:
    """The channels (K,) in the middle of (batch, K, H, W), or (batch, H, W, K); else all there is.

    At its rim an image may be padded.
    """
    image = output[0].astype(np.float64)
    if image.ndim != 3:
        return image.ravel()
    image = np.moveaxis(image, int(np.argmin(image.shape)), -1)
    return image[image.shape[0] // 2, image.shape[1] // 2]


def _judge(answers: dict[str, NDArray]) -> Preprocessing:
    distances, spreads = {}, {}
    for key, (black, white, grey, *_) in answers.items():
        spread = white - black
        straight = np.abs(grey - black - 0.4 * spread) <= 0.02 * np.abs(spread)
        if np.isfinite(answers[key]).all() and (spread > 0).all() and straight.all():
            near = [
                np.maximum(abs(black - low), abs(white - high)) / (high - low)
                for low, high in _SEEN
            ]
            distances[key] = float(np.min(near, axis=0).mean())
            spreads[key] = float(spread.mean())
    untouched = all(
        np.allclose(black, RANGES[key][0]) and np.allclose(white, RANGES[key][1])
        for key, (black, white, *_) in answers.items()
    )
    if untouched:
        settled = None
    elif len(answers) == 1:
        settled = next(iter(distances), None)
    else:
        settled = _closest(distances) or _of_usual_spread(spreads)
    bgr, order_by = _order(answers, settled)
    return Preprocessing(settled, bgr, order_by, unclear=settled is None and not untouched)


def _closest(distances: dict[str, float]) -> str | None:
    """The range that makes the first layer see what first layers see, where it is the only one."""
    if not distances:
        return None
    best = min(distances, key=distances.__getitem__)
    rest = [distance for key, distance in distances.items() if key != best]
    apart = all(distance > distances[best] + _APART for distance in rest)
    return best if distances[best] < _CLOSE and apart else None


def _of_usual_spread(spreads: dict[str, float]) -> str | None:
    """The range that comes out as wide as any that is usual, where it is the only one."""
    widths = [high - low for low, high in _SEEN]
    usual = [
        key
        for key, spread in spreads.items()
        if any(width / 1.5 < spread < width * 1.5 for width in widths)
    ]
    return usual[0] if len(usual) == 1 else None


def _order(answers: dict[str, NDArray], settled: str | None) -> tuple[bool | None, str]:
    """Whether the input is BGR, and what tells it."""
    key = settled or next(iter(answers))
    black, white, _, *alone = answers[key]
    if not np.isfinite(answers[key]).all():
        return None, ""
    share = np.abs(np.array(alone) - black)  # (input's channels, output's channels)
    total = share.sum(axis=0)
    source = share.argmax(axis=0)
    if (share.max(axis=0) < 0.99 * total).any() or (total == 0).any():
        return None, ""  # The graph mixes channels.
    found, places = np.unique(source, return_index=True)
    if len(found) != 3:
        return None, ""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (-black / (white - black))[places]
    for bgr, mean in ((False, _IMAGENET_MEAN), (True, _IMAGENET_MEAN[::-1])):
        if settled and np.abs(means - mean).max() < 0.012:
            return bgr, "by ImageNet's means in the graph"
    if np.argsort(places).tolist() == [2, 1, 0]:
        return True, "the graph swaps it"
    return None, ""


def _before_the_first_layer(graph: Any, name: str) -> tuple[list[Any], list[str]]:
    """The nodes before the first layer, and the tensors in which they end, in order."""
    constant = {tensor.name for tensor in graph.initializer}
    pixels, shapes = {name}, set()
    nodes: list[Any] = []
    ends: dict[str, None] = {}
    for node in graph.node:
        inputs = [each for each in node.input if each]
        if all(each in constant for each in inputs):
            constant.update(node.output)
            nodes.append(node)
        elif all(each in constant or each in shapes for each in inputs) or (
            node.op_type in ("Shape", "Size") and inputs[0] in pixels
        ):
            shapes.update(node.output)
            nodes.append(node)
        elif _is_before_layers(node, graph) and all(
            each in pixels or each in shapes or each in constant for each in inputs
        ):
            pixels.update(node.output)
            nodes.append(node)
        else:
            ends.update(dict.fromkeys(each for each in inputs if each in pixels))
    ends.update(dict.fromkeys(each.name for each in graph.output if each.name in pixels))
    return nodes, list(ends)


def _is_before_layers(node: Any, graph: Any) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _BEFORE_LAYERS:
        return False
    if node.op_type == "Conv":  # A change of colours, as normalisation is written at times.
        kernel = next((each for each in graph.initializer if each.name == node.input[1]), None)
        return kernel is not None and list(kernel.dims)[2:] == [1, 1] and kernel.dims[0] == 3
    return True


def _part(model: Any, name: str, nodes: list[Any], ends: list[str], folder: Path) -> bytes:
    """The part of the model that gives `ends`, as a model of its own."""
    import onnx

    wanted = set(ends)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    # An output may not be an input, and its type is left to be inferred.
    outputs = [f"{end}/before_the_first_layer" for end in ends]
    copies = [
        onnx.helper.make_node("Identity", [end], [output])
        for end, output in zip(ends, outputs, strict=True)
    ]
    constants = [copy.deepcopy(each) for each in model.graph.initializer if each.name in wanted]
    for tensor in constants:
        if tensor.external_data:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
    part = onnx.helper.make_graph(
        [*reversed(kept), *copies],
        "before the first layer",
        [each for each in model.graph.input if each.name == name],
        [onnx.ValueInfoProto(name=output) for output in outputs],
        constants,
    )
    return onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
