"""Small models in ONNX, to embed faces with and to find them."""

import numpy as np
import pytest


def onnx_file(path, *, normalises, batch="batch", size=8):
    """A linear layer on the pixels; its weights are returned, (3 size size, 4)."""
    onnx = pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
    pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnxruntime]"')
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


def detector_file(path, faces, size=128):
    """A detector as InsightFace's (SCRFD), that finds the same faces in whatever it is given.

    `faces` are (score, box (4,), landmarks (5, 2)), in pixels of a photo of `size` x `size`.
    """
    onnx = pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
    from onnx import TensorProto, helper, numpy_helper

    nodes, outputs, constants = [], [], []
    kinds = {"score": 1, "box": 4, "landmarks": 10}
    tables = {}
    for stride in (8, 16, 32):
        places = np.stack(np.mgrid[: size // stride, : size // stride][::-1], -1).reshape(-1, 2)
        tables[stride] = np.repeat(places * stride, 2, axis=0)  # Two anchors at each place.
    answers = {
        (kind, stride): np.zeros((len(tables[stride]), width), np.float32)
        for kind, width in kinds.items()
        for stride in tables
    }
    for anchor, (score, box, landmarks) in enumerate(faces):
        x, y = tables[8][anchor]
        answers["score", 8][anchor] = score
        answers["box", 8][anchor] = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / 8
        answers["landmarks", 8][anchor] = ((landmarks - [x, y]) / 8).ravel()
    for (kind, stride), answer in answers.items():
        name = f"{kind}_{stride}"
        constants.append(numpy_helper.from_array(answer, f"{name}_answer"))
        nodes.append(helper.make_node("Add", [f"{name}_answer", "nothing"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, answer.shape))
    constants += [
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one_number"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["photo"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "zero"], ["nothing_yet"]),
        helper.make_node("Reshape", ["nothing_yet", "one_number"], ["nothing"]),
        *nodes,
    ]
    photo = helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 3, size, size])
    graph = helper.make_graph(nodes, "detector", [photo], outputs, constants)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(path))
