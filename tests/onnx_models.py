"""A small model in ONNX, to embed faces with."""

import numpy as np
import pytest


def onnx_file(path, *, normalises, batch="batch", size=8):
    """A linear layer on the pixels; its weights are returned, (3 size size, 4)."""
    onnx = pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
    pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnx]"')
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3 * size * size, 4)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w")]
    nodes, face = [], "face"
    if normalises:
        constants += [
            numpy_helper.from_array(np.float32(value), name)
            for name, value in (("mean", 127.5), ("scale", 0.0078125))
        ]
        nodes += [
            helper.make_node("Sub", ["face", "mean"], ["centred"]),
            helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        ]
        face = "scaled"
    nodes += [
        helper.make_node("Flatten", [face], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "face",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 4])],
        constants,
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(path))
    return weights
