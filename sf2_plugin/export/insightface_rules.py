"""What InsightFace's package takes.

By its own code, release 2.1: `model_zoo/model_zoo.py`, `model_zoo/scrfd.py` and
`utils/face_align.py`.
"""

from pathlib import Path

from ..requirements import onnx_libraries

#: Shapes that its router gives to other tasks.
_OTHER_TASKS = {96: "attributes", 192: "landmarks"}
#: Far beyond any aligned face; a network's memory grows with the square.
_LARGEST = 1120
#: Outputs of a detector that finds five landmarks, by which faces are aligned.
_WITH_LANDMARKS = (9, 15)


def check_size(size: int) -> None:
    """Refuse a size of aligned crops that the package does not cut, or routes elsewhere.

    Raises:
        ValueError: with the reason.
    """
    if size > _LARGEST:
        raise ValueError(f"size must be at most {_LARGEST}, got {size}")
    if size in _OTHER_TASKS:
        reason = f"takes {size}x{size} for a model of {_OTHER_TASKS[size]}"
    elif size < 112:
        reason = "routes no model below 112x112 to recognition"
    elif size % 112 and size % 128:
        reason = "cuts faces to multiples of 112 or 128 only"
    else:
        return
    raise ValueError(f"size must be a multiple of 112, got {size}: insightface {reason}")


def check_detector(path: Path) -> None:
    """Refuse a file that the package does not take for a detector of faces with landmarks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such detector, with the reason.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no detector {path}")
    onnx, onnxruntime = onnx_libraries()
    try:
        model = onnx.load(str(path), load_external_data=False)
        outside = any(tensor.external_data for tensor in model.graph.initializer)
        session = None if outside else onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )  # fmt: skip
    except Exception as error:  # both fail on damaged files in ways of their own
        reason = str(error).partition("\n")[0][:300]
        raise ValueError(f"{path}: not readable as a detector in ONNX: {reason}") from None
    if session is None:
        raise ValueError(f"{path}: its weights lie in another file; a detector is one file")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        taken = ", ".join(str(each.shape) for each in inputs)
        raise ValueError(f"{path}: a detector takes (1, 3, height, width), and this {taken}")
    if inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        raise ValueError(f"{path}: a detector takes float32 or uint8, and this {inputs[0].type}")
    if len(outputs) not in _WITH_LANDMARKS:
        raise ValueError(
            f"{path}: insightface takes a model of 9 or 15 outputs (scores, boxes and landmarks of "
            f"3 or 5 strides) for a detector that can align faces, and this has {len(outputs)}"
        )
