"""Small checkpoints of both hosts, and a detector's shape in ONNX."""

import numpy as np
import pytest
import torch

#: A host of arcface_torch's shape: `backbones.get_model`, a network that is told by its name.
HOST = """
import torch
def get_model(name, fp16, num_features=512):
    if name != "tiny":
        raise ValueError()
    net = torch.nn.Sequential()
    net.add_module("layer", torch.nn.Conv2d(3, 4, 7, stride=7))
    net.add_module("act", torch.nn.PReLU(4))
    net.add_module("flat", torch.nn.Flatten())
    net.add_module("fc", torch.nn.Linear(4 * 16 * 16, num_features))
    net.add_module("features", torch.nn.BatchNorm1d(num_features))
    return net
"""


def arcface_checkpoint(folder):
    """`model.pt` and the host's folder, both in `folder`."""
    (folder / "host" / "backbones").mkdir(parents=True)
    (folder / "host" / "backbones" / "__init__.py").write_text(HOST)
    namespace: dict = {}
    exec(HOST, namespace)
    torch.manual_seed(0)
    network = namespace["get_model"]("tiny", False, 16)
    torch.save(network.state_dict(), folder / "model.pt")
    return folder / "model.pt", folder / "host"


def mmpretrain_checkpoint(path, pipeline, preprocessor, retriever=False, bias=-3.0):
    """A residual network of 64 numbers, with its config inside; in a retriever if asked for."""
    pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')
    import sf2_plugin.integrations.mmpretrain  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    init_default_scope("mmpretrain")
    model = dict(
        type="ImageClassifier",
        backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="SphereFace2ClsHead", num_classes=5, in_channels=64),
    )
    if retriever:
        model["type"] = "ImageToImageRetriever"
        model["image_encoder"] = [model.pop("backbone"), model.pop("neck")]
        model["prototype"] = torch.zeros(1, 1)
    torch.manual_seed(0)
    state = MODELS.build(model).state_dict()
    state["head.loss_module.bias"] = torch.tensor([bias])
    model.pop("prototype", None)
    config = f"model = {model!r}\ndata_preprocessor = {preprocessor!r}\n"
    config += f"test_pipeline = {[*pipeline, dict(type='PackInputs')]!r}\n"
    torch.save({"meta": {"cfg": config, "epoch": 3}, "state_dict": state}, path)
    return path


def detector(path, outputs=9, channels=3, dtype=1, weights_beside=False):
    """An ONNX file with a detector's inputs and outputs, which finds nothing."""
    onnx = pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, values = [], [], []
    strides, anchors = ((8, 16, 32), 2) if outputs in (6, 9) else ((8, 16, 32, 64, 128), 1)
    for place in range(outputs):
        component = place // len(strides)
        side = 128 // strides[place % len(strides)]
        shape = (side * side * anchors, (1, 4, 10)[min(component, 2)])
        constants.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"zeros{place}"))
        nodes.append(helper.make_node("Add", [f"zeros{place}", "mean"], [f"out{place}"]))
        values.append(helper.make_tensor_value_info(f"out{place}", TensorProto.FLOAT, shape))
    constants.append(numpy_helper.from_array(np.float32(0), "nothing"))
    nodes.insert(0, helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT))
    nodes.insert(1, helper.make_node("ReduceMean", ["numbers"], ["brightness"], keepdims=0))
    nodes.insert(2, helper.make_node("Mul", ["brightness", "nothing"], ["mean"]))
    image = helper.make_tensor_value_info("image", dtype, [1, channels, 128, 128])
    graph = helper.make_graph(nodes, "detector", [image], values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    outside = dict(save_as_external_data=True, size_threshold=0, location="weights.bin")
    onnx.save(model, str(path), **(outside if weights_beside else {}))
    return path
