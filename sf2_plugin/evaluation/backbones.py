"""Backbones from files: whatever turns a face into an embedding, behind one method.

NAME.onnx   run by onnxruntime, as InsightFace's pip package runs it
NAME.pth    a checkpoint of MMPretrain, with its config inside
NAME.pt     a backbone of arcface_torch, with the name of its network and the host's folder
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.images import pillow
from ._checks import Pixels
from .calibration import Calibration


class Backbone(Protocol):
    """Faces in, embeddings out."""

    settings: str
    """What, besides the file's content, decides its embeddings."""
    calibration: Calibration | None
    """The head's own, where the file holds the head."""

    def embed(self, faces: Sequence[Pixels]) -> NDArray[np.float32]:
        """(B, D) embeddings, of any length, of B images uint8 (height, width, 3), RGB."""
        ...


def open_backbone(
    path: str | Path, *, network: str | None = None, arcface_torch: str | Path | None = None
) -> Backbone:
    """The backbone in a file; nothing in the file is executed.

    Args:
        path: `.onnx`; else a torch file.
        network: the network's name in arcface_torch (r50, mbf, ...) where the file is its backbone;
            a torch file is taken for a checkpoint of MMPretrain where this is left out.
        arcface_torch: folder of arcface_torch, whose `backbones.get_model` builds the network.

    Raises:
        ValueError: the file is not what it is taken for, or one of the two options is missing.
        FileNotFoundError: there is no such file.
        ImportError: onnxruntime or MMPretrain is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    if path.suffix == ".onnx":
        return OnnxBackbone(path)
    if network is not None:
        if arcface_torch is None:
            raise ValueError(f"network {network} needs the folder of arcface_torch to build it")
        return ArcfaceTorchBackbone(path, network, arcface_torch)
    from ..integrations.mmpretrain.backbone import MMPretrainBackbone

    return MMPretrainBackbone(path)


def load_weights(path: Path) -> dict[str, Any]:
    """The content of a torch file that holds tensors and plain containers alone."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in many ways
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a torch checkpoint: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a dict of weights is wanted")
    return content


def resized(faces: Sequence[Pixels], height: int, width: int) -> NDArray[np.float32]:
    """(B, 3, height, width) in 0..255, RGB; bilinear where an image has another size."""
    batch = np.empty((len(faces), height, width, 3), np.float32)
    for place, face in zip(batch, faces, strict=True):
        if face.shape[:2] != (height, width):
            Image = pillow()
            face = np.asarray(Image.fromarray(face).resize((width, height), Image.BILINEAR))
        place[:] = face
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


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
        self.settings = f"onnx {self.height}x{self.width} normalises={self.normalises}"

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


class ArcfaceTorchBackbone:
    """`model.pt` of arcface_torch, in the host's own network and with its own arithmetic.

    The host's folder is code that the caller chose to run.
    """

    calibration: Calibration | None = None

    def __init__(self, path: Path, network: str, arcface_torch: str | Path) -> None:
        weights = load_weights(path)
        weights = weights.get("state_dict_backbone", weights)
        widths = [
            len(tensor)
            for key, tensor in weights.items()
            if key.split(".")[0] == "features" and getattr(tensor, "ndim", 0) == 1
        ]
        options = {"num_features": widths[-1]} if widths else {}
        self.network = _arcface_torch_backbones(arcface_torch).get_model(
            network, fp16=False, **options
        )
        try:
            self.network.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit the network {network}: {reason}") from None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)
        self.settings = f"arcface_torch {network}"

    @torch.no_grad()
    def embed(self, faces: Sequence[Pixels]) -> NDArray[np.float32]:
        batch = torch.from_numpy(resized(faces, 112, 112)).to(self.device)
        return self.network(((batch / 255) - 0.5) / 0.5).float().cpu().numpy()


def _arcface_torch_backbones(folder: str | Path) -> Any:
    folder = Path(folder).resolve()
    if not (folder / "backbones" / "__init__.py").is_file():
        raise FileNotFoundError(
            f"{folder} has no backbones/: the folder of arcface_torch is wanted"
        )
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("backbones")
    finally:
        sys.path.remove(str(folder))
