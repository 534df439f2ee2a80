"""A backbone in an ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import Calibration
from ..evaluation.checks import Pixels
from .digest import file_digest
from .protocol import resized


class OnnxBackbone:
    """An ONNX file by InsightFace's convention: RGB, (x - 127.5) / 127.5.

    A model that begins by subtracting or scaling by itself gets 0..255. The input's size is the
    model's, or 112 x 112 where it leaves that open.
    """

    calibration: Calibration | None = None

    def __init__(self, path: Path) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ImportError(f'{error}: pip install "sf2-plugin[onnx]"') from None
        try:
            graph = onnx.load(str(path), load_external_data=False).graph
            self.session = onnxruntime.InferenceSession(
                str(path), providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # both fail on damaged files in ways of their own
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} cannot be read as ONNX: {reason}") from None
        face = self.session.get_inputs()[0]
        if len(face.shape) != 4 or face.shape[1] != 3:
            raise ValueError(f"{path} takes {face.shape}; (batch, 3, height, width) is wanted")
        self.input = face.name
        self.output = self.session.get_outputs()[0].name
        batch, _, *size = face.shape
        self.fixed_batch = batch if isinstance(batch, int) and batch > 0 else None
        self.height, self.width = (n if isinstance(n, int) and n > 0 else 112 for n in size)
        self.normalises = _normalises(graph, self.input)
        # torch's exporter leaves the weights to a file beside the model, NAME.onnx.data.
        weights = [file_digest(path.parent / name) for name in sorted(_external_files(graph))]
        settings = [f"onnx {self.height}x{self.width} normalises={self.normalises}", *weights]
        self.settings = " ".join(settings)

    def embed(self, faces: Sequence[Pixels]) -> NDArray[np.float32]:
        batch = resized(faces, self.height, self.width)
        if not self.normalises:
            batch = (batch - np.float32(127.5)) / np.float32(127.5)
        step = self.fixed_batch or len(batch)
        parts = []
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            missing = step - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            (embedded,) = self.session.run([self.output], {self.input: padded})
            parts.append(embedded.reshape(step, -1)[: len(part)])
        return np.concatenate(parts).astype(np.float32, copy=False)


def _normalises(graph: Any, name: str) -> bool:
    """Whether arithmetic with constants comes before the first layer."""
    while True:
        node = next((node for node in graph.node if name in node.input), None)
        if node is None or node.op_type not in ("Identity", "Cast"):
            return node is not None and node.op_type in ("Sub", "Add", "Mul", "Div")
        name = node.output[0]


def _external_files(graph: Any) -> set[str]:
    """Names, relative to the model's folder, of the files that hold its tensors."""
    return {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
