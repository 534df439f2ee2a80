"""The host without mxnet: its modules imported all the same, its records read by this project."""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sf2_plugin.data import FaceRecords

#: The host's modules that import mxnet.
IMPORTERS = ("dataset", "eval.verification")


class RecordDataset(Dataset):
    """The faces of `train.rec`, mirrored at random, from -1 to 1; stands for MXFaceDataset."""

    def __init__(self, root_dir: str, local_rank: int) -> None:
        from torchvision import transforms  # The host imports it too.

        self.faces = FaceRecords(root_dir)
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, label = self.faces[index]
        return self.transform(pixels), torch.tensor(label)


class _Absent(ModuleType):
    """Takes a module's place while others import it, and fails when they use it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(f"{self.__name__} cannot be imported here; {name} of it is not patched")


def import_without_mxnet() -> None:
    """Import the host's modules that import mxnet."""
    mxnet, ndarray = _Absent("mxnet"), _Absent("mxnet.ndarray")
    mxnet.ndarray = ndarray  # type: ignore[attr-defined]
    sys.modules.update({"mxnet": mxnet, "mxnet.ndarray": ndarray})
    try:
        for module in IMPORTERS:
            importlib.import_module(module)
    finally:
        # Others ask whether mxnet is there by importing it.
        del sys.modules["mxnet"], sys.modules["mxnet.ndarray"]
