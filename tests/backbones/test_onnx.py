"""ONNX files as a contract: however a network takes its faces, its embeddings are the same."""

import warnings

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnxruntime]"')
pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[onnx]"')

import onnx
from onnx import TensorProto, helper, numpy_helper

from sf2_plugin.backbones import open_backbone

SIZE = 8
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3 * SIZE * SIZE, 6)).astype(np.float32)
FACES = list(RNG.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8))
#: The network's own: RGB, (x - 127.5) / 127.5, (batch, 3, 8, 8).
PLANES = (np.stack(FACES).transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
EXPECTED = PLANES.reshape(5, -1) @ WEIGHTS

f32 = np.float32
HALF = {"m": f32(127.5)}
TWO_STEPS = [("Sub", "x m", "s"), ("Div", "s m", "p")]
SWAP = np.array([2, 1, 0], np.int64)


def network(
    path,
    before=(),
    constants=None,
    *,
    input_type=TensorProto.FLOAT,
    shape=("N", 3, SIZE, SIZE),
    after=(),
    outputs=(("e", ["N", 6]),),
    more_inputs=(),
    weights=WEIGHTS,
):
    """Saves: `before`, which ends in "p", then Flatten and MatMul, which end in "e", then `after`.

    Nodes are (operator, inputs, outputs, attributes).
    """
    layers = [("Flatten", "p" if before else "x", "f"), ("MatMul", "f w", "e")]
    nodes = [
        helper.make_node(op, inputs.split(","), results.split(), **dict(*attributes))
        if "," in inputs
        else helper.make_node(op, inputs.split(), results.split(), **dict(*attributes))
        for op, inputs, results, *attributes in [*before, *layers, *after]
    ]
    tensors = {"w": weights, **(constants or {})}
    element = TensorProto.FLOAT16 if weights.dtype == np.float16 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "face",
        [helper.make_tensor_value_info("x", input_type, shape), *more_inputs],
        [helper.make_tensor_value_info(name, element, dims) for name, dims in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_a_graph_that_says_nothing_is_fed_as_insightface_does(tmp_path):
    backbone = open_backbone(network(tmp_path / "m.onnx"))
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)
    assert backbone.inputs == {
        "input": "x: float32 (N, 3, 8, 8)",
        "values": "(x - 127.5) / 127.5, assumed, as InsightFace's package does",
        "channels": "RGB, assumed",
        "output": "e: 6 numbers, the only one",
    }


per_channel = {"m": np.full((1, 3, 1, 1), 127.5, f32)}
batch_norm = {
    **{"one": np.ones(3, f32), "nil": np.zeros(3, f32)},
    **{"mu": np.full(3, 127.5, f32), "va": np.full(3, 127.5**2, f32)},
}
NORMALISED = {
    "Sub, Div": (TWO_STEPS, HALF),
    "Sub, Mul": (
        [("Sub", "x m", "s"), ("Mul", "s k", "p")],
        {**HALF, "k": f32(1 / 127.5)},
    ),
    "Mul, Add": (
        [("Mul", "x k", "s"), ("Add", "s b", "p")],
        {"k": f32(1 / 127.5), "b": f32(-1)},
    ),
    "constant on the left": (
        [("Mul", "k x", "s"), ("Add", "b s", "p")],
        {"k": f32(1 / 127.5), "b": f32(-1)},
    ),
    "Div by 255, Sub, Div": (
        [("Div", "x c", "d"), ("Sub", "d h", "s"), ("Div", "s h", "p")],
        {"c": f32(255), "h": f32(0.5)},
    ),
    "a constant for each channel": (TWO_STEPS, per_channel),
    "Constant nodes": (
        [
            ("Constant", "", "m", {"value": numpy_helper.from_array(f32(127.5))}),
            *TWO_STEPS,
        ],
        {},
    ),
    "constants that are computed": (
        [("Mul", "h c", "m"), *TWO_STEPS],
        {"h": f32(0.5), "c": f32(255)},
    ),
    "BatchNormalization": ([("BatchNormalization", "x one nil mu va", "p")], batch_norm),
    "Conv of one pixel": (
        [("Conv", "x k b", "p")],
        {"k": (np.eye(3, dtype=f32) / f32(127.5))[..., None, None], "b": np.full(3, -1, f32)},
    ),
    "behind Identity": ([("Identity", "x", "g"), ("Sub", "g m", "s"), TWO_STEPS[1]], HALF),
    "behind Cast": (
        [("Cast", "x", "g", {"to": TensorProto.FLOAT}), ("Sub", "g m", "s"), TWO_STEPS[1]],
        HALF,
    ),
    "behind Resize": (
        [("Resize", "x,,k", "g", {"mode": "linear"}), ("Sub", "g m", "s"), TWO_STEPS[1]],
        {**HALF, "k": np.ones(4, f32)},
    ),
    "behind Resize to the size of the input": (
        [
            ("Shape", "x", "n"),
            ("Resize", "x,,,n", "g", {"mode": "nearest"}),
            ("Sub", "g m", "s"),
            TWO_STEPS[1],
        ],
        HALF,
    ),
    "behind Gather in order": (
        [("Gather", "x i", "g", {"axis": 1}), ("Sub", "g m", "s"), TWO_STEPS[1]],
        {**HALF, "i": SWAP[::-1].copy()},
    ),
    "behind Split and Concat": (
        [
            ("Split", "x", "r g b", {"axis": 1}),
            ("Concat", "r g b", "a", {"axis": 1}),
            ("Sub", "a m", "s"),
            TWO_STEPS[1],
        ],
        HALF,
    ),
    "each channel by itself": (
        [
            ("Split", "x", "r g b", {"axis": 1}),
            *[("Sub", f"{c} m", f"{c}s") for c in "rgb"],
            ("Concat", "rs gs bs", "s", {"axis": 1}),
            TWO_STEPS[1],
        ],
        HALF,
    ),
    "two Transposes": (
        [
            ("Transpose", "x", "t", {"perm": [0, 2, 3, 1]}),
            ("Sub", "t m", "s"),
            ("Div", "s m", "d"),
            ("Transpose", "d", "p", {"perm": [0, 3, 1, 2]}),
        ],
        HALF,
    ),
    "behind Reshape": (
        [("Reshape", "x rows", "g"), ("Sub", "g m", "s"), TWO_STEPS[1]],
        {**HALF, "rows": np.array([0, 3, -1])},
    ),
    "for 0..1": ([("Sub", "x h", "s"), ("Div", "s h", "p")], {"h": f32(0.5)}),
    "for 0..1, times two": (
        [("Mul", "x k", "s"), ("Add", "s b", "p")],
        {"k": f32(2), "b": f32(-1)},
    ),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_normalisation_inside_gives_what_it_gives_outside(tmp_path, name):
    before, constants = NORMALISED[name]
    backbone = open_backbone(network(tmp_path / "m.onnx", before, constants))
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-3, atol=1e-3)
    assert backbone.inputs["values"].endswith("by the graph, which normalises")


@pytest.mark.parametrize("imagenet", [False, True])
@pytest.mark.parametrize("scale", [1, 255])
def test_imagenets_means_tell_range_and_order(tmp_path, imagenet, scale):
    """A graph in BGR that has ImageNet's means in that order, for 0..1 and for 0..255."""
    mean, std = np.array([0.406, 0.456, 0.485]), np.array([0.225, 0.224, 0.229])
    constants = {
        "m": (mean * scale).astype(f32).reshape(3, 1, 1),
        "k": (std * scale).astype(f32).reshape(3, 1, 1),
    }
    if not imagenet:
        constants["m"] = f32(0.5 * scale)
    path = network(tmp_path / "m.onnx", [("Sub", "x m", "s"), ("Div", "s k", "p")], constants)
    backbone = open_backbone(path)
    planes = np.stack(FACES).transpose(0, 3, 1, 2) / 255
    if imagenet:
        planes = planes[:, ::-1]
    middle = mean.reshape(3, 1, 1) if imagenet else 0.5
    planes = (planes - middle) / std.reshape(3, 1, 1)
    expected = planes.reshape(5, -1) @ WEIGHTS
    np.testing.assert_allclose(backbone.embed(FACES), expected, rtol=1e-3, atol=1e-3)
    assert backbone.inputs["channels"] == (
        "BGR, by ImageNet's means in the graph" if imagenet else "RGB, assumed"
    )


SWAPPED = {
    "Gather": [("Gather", "x i", "p", {"axis": 1})],
    "Slice backwards": [("Slice", "x from to axis step", "p")],
    "Split and Concat": [
        ("Split", "x", "b g r", {"axis": 1}),
        ("Concat", "r g b", "p", {"axis": 1}),
    ],
    "Slices and Concat": [
        *[("Slice", f"x {k} {k + 1} axis", f"c{k}") for k in range(3)],
        ("Concat", "c2 c1 c0", "p", {"axis": 1}),
    ],
    "Conv": [("Conv", "x turn", "p")],
}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", SWAPPED)
def test_a_graph_that_swaps_channels_takes_bgr(tmp_path, name, normalised):
    constants = {
        "i": SWAP,
        **{"from": np.array([2]), "to": np.array([-9]), "axis": np.array([1])},
        "step": np.array([-1]),
        **{str(k): np.array([k]) for k in range(4)},
        "turn": np.eye(3, dtype=f32)[::-1, :, None, None].copy(),
        "x127": f32(127.5),
    }
    before = [*SWAPPED[name]]
    if normalised:
        op, inputs, _, *attributes = before[-1]
        before[-1] = (op, inputs, "bgr", *attributes)
        before += [("Sub", "bgr x127", "s"), ("Div", "s x127", "p")]
    backbone = open_backbone(network(tmp_path / "m.onnx", before, constants))
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-3, atol=1e-3)
    assert backbone.inputs["channels"] == "BGR, the graph swaps it"


@pytest.mark.parametrize(
    ("input_type", "dtype"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT32, "int32"),
        (TensorProto.INT64, "int64"),
        (TensorProto.UINT16, "uint16"),
    ],
)
def test_every_dtype_of_the_input(tmp_path, input_type, dtype):
    cast = ("Cast", "x", "g", {"to": TensorProto.FLOAT})
    before = [cast, ("Sub", "g m", "s"), TWO_STEPS[1]]
    path = network(tmp_path / "m.onnx", before, HALF, input_type=input_type)
    backbone = open_backbone(path)
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-3, atol=1e-3)
    assert backbone.inputs["input"].startswith(f"x: {dtype} ")


def test_half_precision_throughout(tmp_path):
    half = WEIGHTS.astype(np.float16)
    path = network(tmp_path / "m.onnx", input_type=TensorProto.FLOAT16, weights=half)
    embedded = open_backbone(path).embed(FACES)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, EXPECTED, rtol=0.02, atol=0.1)


def test_bytes_without_arithmetic_are_the_images_own(tmp_path):
    cast = [("Cast", "x", "p", {"to": TensorProto.FLOAT})]
    path = network(tmp_path / "m.onnx", cast, input_type=TensorProto.UINT8)
    backbone = open_backbone(path)
    expected = np.stack(FACES).transpose(0, 3, 1, 2).reshape(5, -1) @ WEIGHTS
    np.testing.assert_allclose(backbone.embed(FACES), expected, rtol=1e-4, atol=0.01)
    assert backbone.inputs["values"] == "x, by the dtype"


def test_int8_has_no_convention_and_may_be_told_one(tmp_path):
    cast = [("Cast", "x", "p", {"to": TensorProto.FLOAT})]
    path = network(tmp_path / "m.onnx", cast, input_type=TensorProto.INT8)
    with pytest.raises(ValueError, match=r"m\.onnx: it takes int8, .*--input-mean and --input-std"):
        open_backbone(path)
    embedded = open_backbone(path, mean=128, std=1).embed(FACES)
    expected = (np.stack(FACES).transpose(0, 3, 1, 2).reshape(5, -1) - 128.0) @ WEIGHTS
    np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match=r"it takes int8; with this mean and std faces are"):
        open_backbone(path, mean=0, std=1).embed(FACES)


@pytest.mark.parametrize("open_size", [False, True])
def test_channels_last(tmp_path, open_size):
    turn = [("Transpose", "x", "p", {"perm": [0, 3, 1, 2]})]
    if open_size:
        turn[0] = ("Transpose", "x", "t", {"perm": [0, 3, 1, 2]})
        turn.append(("Resize", "t,,,n", "p", {"mode": "nearest"}))
    shape = ("N", "H", "W", 3) if open_size else ("N", SIZE, SIZE, 3)
    constants = {"n": np.array([1, 3, SIZE, SIZE])}
    backbone = open_backbone(network(tmp_path / "m.onnx", turn, constants, shape=shape))
    if open_size:
        assert "112, 112, 3), 112x112 assumed" in backbone.inputs["input"]
        return
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)
    assert backbone.inputs["input"] == "x: float32 (N, 8, 8, 3)"


def test_a_face_that_is_not_square(tmp_path):
    weights = RNG.normal(size=(3 * 6 * 10, 6)).astype(f32)
    path = network(tmp_path / "m.onnx", shape=("N", 3, 6, 10), weights=weights)
    backbone = open_backbone(path)
    face = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
    expected = (face.transpose(2, 0, 1).reshape(1, -1).astype(f32) / 127.5 - 1) @ weights
    np.testing.assert_allclose(backbone.embed([face]), expected, rtol=1e-4, atol=1e-4)
    assert backbone.embed(FACES).shape == (5, 6)


OUTPUTS = {
    "norm first": ([("ReduceL2", "e", "q", {"axes": [1]})], [("q", ["N", 1]), ("e", ["N", 6])]),
    "quality without a second dimension": (
        [("ReduceMean", "e", "q", {"axes": [1], "keepdims": 0})],
        [("q", ["N"]), ("e", ["N", 6])],
    ),
    "a map of features first": (
        [("Identity", "x", "q")],
        [("q", ["N", 3, SIZE, SIZE]), ("e", ["N", 6])],
    ),
    "feature behind an undeclared shape": (
        [("ReduceL2", "e", "q", {"axes": [1]})],
        [("q", None), ("e", None)],
    ),
    "(N, D, 1, 1)": (
        [("ReduceL2", "e", "q", {"axes": [1]}), ("Reshape", "e four", "e4")],
        [("q", ["N", 1]), ("e4", ["N", 6, 1, 1])],
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_output_is_the_one_of_many_numbers(tmp_path, name):
    after, outputs = OUTPUTS[name]
    constants = {"four": np.array([-1, 6, 1, 1])}
    path = network(tmp_path / "m.onnx", (), constants, after=after, outputs=outputs)
    backbone = open_backbone(path)
    np.testing.assert_allclose(backbone.embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)
    assert backbone.inputs["output"].endswith("6 numbers, by its shape")


def test_landmarks_and_logits_are_not_taken_for_an_embedding(tmp_path):
    wide = {"a": RNG.normal(size=(6, 10)).astype(f32), "b": RNG.normal(size=(6, 512)).astype(f32)}
    path = network(
        tmp_path / "m.onnx",
        (),
        wide,
        after=[("MatMul", "e a", "kps"), ("MatMul", "e b", "feat")],
        outputs=[("kps", ["N", 10]), ("feat", ["N", 512])],
    )
    backbone = open_backbone(path)
    assert backbone.embed(FACES).shape == (5, 512)
    assert open_backbone(path, output="kps").embed(FACES).shape == (5, 10)
    with pytest.raises(ValueError, match=r"has no output 'fc1', but kps \(N, 10\), feat"):
        open_backbone(path, output="fc1")


def test_two_outputs_that_may_be_embeddings_are_said(tmp_path):
    path = network(
        tmp_path / "m.onnx",
        after=[("Neg", "e", "n")],
        outputs=[("n", ["N", 6]), ("e", ["N", 6])],
    )
    assert open_backbone(path).inputs["output"] == "n: 6 numbers, assumed, and not e"
    embedded = open_backbone(path, output="e").embed(FACES)
    np.testing.assert_allclose(embedded, EXPECTED, rtol=1e-4, atol=1e-4)


def test_no_output_of_many_numbers(tmp_path):
    quality = [("ReduceL2", "e", "q", {"axes": [1]})]
    path = network(tmp_path / "m.onnx", after=quality, outputs=[("q", ["N", 1])])
    with pytest.raises(ValueError, match=r"m\.onnx: it has q \(N, 1\); an output of \(batch, D\)"):
        open_backbone(path)


def test_what_is_given_settles_it(tmp_path):
    path = network(tmp_path / "m.onnx", TWO_STEPS, HALF)
    backbone = open_backbone(path, mean=[1, 2, 3], std=4, channels="bgr")
    planes = np.stack(FACES).transpose(0, 3, 1, 2)[:, ::-1].astype(np.float64)
    planes = (planes - np.array([1, 2, 3]).reshape(3, 1, 1)) / 4
    expected = ((planes - 127.5) / 127.5).reshape(5, -1) @ WEIGHTS
    np.testing.assert_allclose(backbone.embed(FACES), expected, rtol=1e-4, atol=1e-3)
    assert backbone.inputs["values"] == "(x - (1, 2, 3)) / 4, given"
    assert backbone.inputs["channels"] == "BGR, given"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mean=1), "belong together"),
        (dict(mean=1, std=0), "std must not be 0"),
        (dict(mean=[1, 2], std=1), "mean must be a finite number or three"),
        (dict(mean=1, std=float("nan")), "std must be a finite number or three"),
        (dict(channels="gbr"), "channels must be rgb or bgr, got 'gbr'"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        open_backbone(network(tmp_path / "m.onnx"), **options)


def test_what_cannot_be_told_is_assumed_with_a_warning(tmp_path):
    path = network(tmp_path / "m.onnx", [("Sub", "x m", "p")], {"m": f32(0.3)})
    with pytest.warns(UserWarning, match=r"m\.onnx: .*does not tell the range.*-1\.\.1 is assumed"):
        backbone = open_backbone(path)
    assert backbone.inputs["values"].endswith("assumed, as InsightFace's package does")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_backbone(path, mean=0, std=1, channels="rgb")


@pytest.mark.parametrize("batch", [1, 2, 3, "N", None])
def test_every_batch_dimension(tmp_path, batch):
    path = network(tmp_path / "m.onnx", shape=(batch, 3, SIZE, SIZE), outputs=[("e", [batch, 6])])
    np.testing.assert_allclose(open_backbone(path).embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [[1, -1], [1, 6]])
def test_a_batch_that_is_declared_open_and_is_not(tmp_path, rows):
    """Old exporters, and those who patch the declared shape, leave a Reshape to one face."""
    constants = {"rows": np.array(rows)}
    path = network(
        tmp_path / "m.onnx",
        (),
        constants,
        after=[("Reshape", "e rows", "o")],
        outputs=[("o", ["N", 6])],
    )
    np.testing.assert_allclose(open_backbone(path).embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)


def test_a_second_input_is_named_unless_it_has_a_default(tmp_path):
    second = helper.make_tensor_value_info("k", TensorProto.FLOAT, [])
    before, constants = [("Mul", "x k", "p")], {"k": f32(1)}
    path = network(tmp_path / "m.onnx", before, constants, more_inputs=[second])
    np.testing.assert_allclose(open_backbone(path).embed(FACES), EXPECTED, rtol=1e-4, atol=1e-4)
    path = network(tmp_path / "two.onnx", before, more_inputs=[second])
    with pytest.raises(
        ValueError, match=r"two\.onnx: it takes x \(N, 3, 8, 8\), k \(\).* k has no"
    ):
        open_backbone(path)


@pytest.mark.parametrize(
    "shape",
    [("N", 1, SIZE, SIZE), ("N", 4, SIZE, SIZE), (3, SIZE, SIZE), ("N", 3 * SIZE * SIZE), None],
)
def test_inputs_that_are_no_faces(tmp_path, shape):
    flat = [("Identity", "x", "p")]
    path = network(tmp_path / "m.onnx", flat, shape=shape)
    with pytest.raises(ValueError, match=r"m\.onnx: (it takes .* is wanted|not readable as ONNX)"):
        open_backbone(path)


def test_a_graph_that_fails_when_it_is_run(tmp_path, capfd):
    path = network(tmp_path / "m.onnx", shape=("N", 3, "H", "W"))
    with pytest.raises(ValueError, match=r"m\.onnx: it cannot be run on \(1, 3, 112, 112\)"):
        open_backbone(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname"])
def test_weights_outside_the_models_folder_are_not_read(tmp_path, location):
    path = network(tmp_path / "m.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"m\.onnx: not readable as ONNX: .*outside its folder"):
        open_backbone(path)


def test_options_of_onnx_are_refused_for_other_files(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(ValueError, match=r"m\.pt is no ONNX file"):
        open_backbone(tmp_path / "m.pt", channels="bgr")
