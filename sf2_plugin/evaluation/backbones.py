"""Backbones from files: whatever turns a face into an embedding, behind one method.

NAME.onnx   run by onnxruntime, as InsightFace's pip package runs it
else        a file of torch: a checkpoint of MMPretrain where a config lies inside, else a backbone
            of arcface_torch, with its network's name and the host's folder
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
from ..torch_files import load_torch_file
from ._checks import Pixels
from .calibration import Calibration
from .digest import file_digest


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
        path: `.onnx`; else a torch file: a checkpoint of MMPretrain where it holds a config, and a
            backbone of arcface_torch where it does not.
        network: for the latter, the network's name in arcface_torch (r50, mbf, ...).
        arcface_torch: for the latter, its folder, whose `backbones.get_model` builds the network.

    Raises:
        ValueError: the file is neither, arcface_torch has no such network, or one of the two
            options is missing.
        FileNotFoundError: there is no such file.
        ImportError: onnxruntime or MMPretrain is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    if path.suffix == ".onnx":
        return OnnxBackbone(path)
    if _holds_mmengines_own(path):
        from ..integrations import mmpretrain  # noqa: F401 - Lets them be read.
    content = load_torch_file(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a dict of weights is wanted")
    meta = content.get("meta")
    if isinstance(meta, dict) and "cfg" in meta:
        from ..integrations.mmpretrain.backbone import MMPretrainBackbone

        return MMPretrainBackbone(path, content)
    if network is None:
        raise ValueError(
            f"{path} is no checkpoint of MMPretrain, which holds weights and a config; for a "
            "backbone of arcface_torch, name its network and the folder of arcface_torch"
        )
    if arcface_torch is None:
        raise ValueError(f"network {network} needs the folder of arcface_torch to build it")
    return ArcfaceTorchBackbone(path, content, network, arcface_torch)


def _holds_mmengines_own(path: Path) -> bool:
    """Whether a torch file holds what MMEngine puts beside weights: its log history, arrays."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # Whoever reads the file says what is wrong with it.
        return False
    return any(name.startswith(("mmengine.", "numpy.")) for name in names)


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


class ArcfaceTorchBackbone:
    """`model.pt` of arcface_torch, in the host's own network and with its own arithmetic.

    The host's folder is code that the caller chose to run.
    """

    calibration: Calibration | None = None

    def __init__(
        self, path: Path, content: dict[str, Any], network: str, arcface_torch: str | Path
    ) -> None:
        weights = content.get("state_dict_backbone", content)
        widths = [
            len(tensor)
            for key, tensor in weights.items()
            if key.split(".")[0] == "features" and getattr(tensor, "ndim", 0) == 1
        ]
        options = {"num_features": widths[-1]} if widths else {}
        get_model = _arcface_torch_backbones(arcface_torch).get_model
        try:
            self.network = get_model(network, fp16=False, **options)
        except ValueError as error:  # The host's own says nothing.
            raise ValueError(
                f"{arcface_torch} has no network {network!r}: r50, mbf or another of its "
                "backbones/__init__.py is wanted"
            ) from error
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
