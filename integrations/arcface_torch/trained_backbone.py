"""A backbone that arcface_torch trained, for evaluation."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sf2_plugin.backbones import resized
from sf2_plugin.evaluation import Calibration
from sf2_plugin.evaluation.input_checks import Pixels
from sf2_plugin.weights import find_weights, named_tensors


class ArcfaceTorchBackbone:
    """`model.pt` of arcface_torch, in the host's own network and with its own arithmetic.

    Other trainers' checkpoints of such a network serve as well: see `sf2_plugin.weights`.

    The host's folder is code that the caller chose to run.
    """

    exporter = "sf2_plugin.integrations.arcface_torch.traced_network:exportable"
    calibration: Calibration | None = None
    inputs: dict[str, str] = {  # noqa: RUF012
        "values": "(x - 127.5) / 127.5, RGB, 112x112, as the host trains"
    }

    def __init__(self, path: Path, content: Any, network: str, arcface_torch: str | Path) -> None:
        # The host's networks end in a normalisation of the embedding: features, or a vit's feature.
        widths = [
            len(tensor)
            for key, tensor in named_tensors(content).items()
            if {"features", "feature"} & set(key.split(".")) and tensor.ndim == 1
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
        weights = find_weights(content, self.network, f"the network {network}", path)
        self.network.load_state_dict(weights, strict=False)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)
        self.settings = f"arcface_torch {network}"

    @torch.no_grad()
    def embed(self, faces: Iterable[Pixels]) -> NDArray[np.float32]:
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
