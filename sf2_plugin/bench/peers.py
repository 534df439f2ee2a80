"""Other projects' heads, run as their authors ship them.

A checkout's head is loaded from its own file, without the framework around it and without writing
to the checkout; a package is imported.
"""

import importlib
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from ..patching import replaced
from ..requirements import require


class Head(NamedTuple):
    """A module, whose parameters are to be trained, and how to get a batch's loss from it."""

    module: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]


def parse_peers(arguments: Sequence[str]) -> dict[str, Path | None]:
    """Peers by name from arguments ``NAME`` (an installed package) or ``NAME=PATH`` (a checkout).

    Raises:
        ValueError: an unknown name, or a path missing or too many.
        FileNotFoundError: the path holds no such checkout.
        ImportError: the package is not installed.
    """
    peers: dict[str, Path | None] = {}
    for argument in arguments:
        name, given, path = argument.partition("=")
        if name in CHECKOUTS:
            if not path:
                raise ValueError(f"peer {name} is a checkout: give --peer {name}=PATH")
            peers[name] = _find(name, Path(path))
        elif name in PACKAGES:
            if given:
                raise ValueError(f"peer {name} is an installed package: give --peer {name} alone")
            _import(name)
            peers[name] = None
        else:
            known = ", ".join([*CHECKOUTS, *PACKAGES])
            raise ValueError(f"peer must be one of {known}, got {name!r}")
    return peers


class Shape(NamedTuple):
    num_classes: int
    size: int
    sample_rate: float = 1.0


@contextmanager
def built_peer(name: str, path: Path | None, shape: Shape, device: torch.device) -> Iterator[Head]:
    """A head of `parse_peers`; those of arcface_torch alone sample their classes."""
    with warnings.catch_warnings(), _process_group(name, device), _products(name):
        # What other projects' code uses that has gone out of fashion is not this one's to report.
        warnings.simplefilter("ignore")
        with torch.device(device):
            if path is None:
                head = PACKAGES[name].build(_import(name), shape)
            else:
                head = CHECKOUTS[name].build(path, shape)
        head.module.to(device)
        yield head


def _opensphere(file: Path, shape: Shape) -> Head:
    module = load_file(file).SphereFace2(feat_dim=shape.size, subj_num=shape.num_classes)
    return Head(module, module)


def _wespeaker(file: Path, shape: Shape) -> Head:
    module = load_file(file).SphereFace2(shape.size, shape.num_classes)
    return Head(module, lambda x, labels: module(x, labels)[1])


def _arcface_torch(file: Path, shape: Shape, fp16: bool = False) -> Head:
    cosface = load_file(file.with_name("losses.py")).CombinedMarginLoss(64, 1, 0, 0.4)
    num_classes, size, sample_rate = shape
    module = load_file(file).PartialFC_V2(cosface, size, num_classes, sample_rate, fp16)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        if x.is_cuda:
            return module(x, labels)
        # It moves what it makes to a GPU by name.
        with replaced(Tensor, "cuda", lambda tensor, *args, **kwargs: tensor):
            return module(x, labels)

    return Head(module, loss)


def _cosface_loss(package: ModuleType, shape: Shape) -> Head:
    module = package.CosFaceLoss(shape.num_classes, shape.size)
    return Head(module, module)


def _arcface_cls_head(package: ModuleType, shape: Shape) -> Head:
    module = package.ArcFaceClsHead(shape.num_classes, shape.size)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        return module.loss_module(module((x,), labels), labels, avg_factor=len(x))

    return Head(module, loss)


class Checkout(NamedTuple):
    files: Sequence[str]  #: Where below the path given the head may lie.
    build: Callable[[Path, Shape], Head]


class Package(NamedTuple):
    module: str
    extra: str  #: Of this package, which installs it.
    build: Callable[[ModuleType, Shape], Head]


ARCFACE_TORCH_FILES = ["partial_fc_v2.py", "recognition/arcface_torch/partial_fc_v2.py"]
CHECKOUTS = {
    "opensphere": Checkout(["opensphere/module/head/sphereface2.py"], _opensphere),
    "wespeaker": Checkout(["wespeaker/models/projections.py"], _wespeaker),
    "arcface_torch": Checkout(ARCFACE_TORCH_FILES, _arcface_torch),
    # Its float16 switch, which its train_v2.py leaves off and which has no effect on a CPU.
    "arcface_torch_fp16": Checkout(ARCFACE_TORCH_FILES, partial(_arcface_torch, fp16=True)),
    # As shipped, where the user allows TF32; see `_products`.
    "arcface_torch_tf32": Checkout(ARCFACE_TORCH_FILES, _arcface_torch),
}
PACKAGES = {
    "pytorch-metric-learning": Package("pytorch_metric_learning.losses", "bench", _cosface_loss),
    "mmpretrain": Package("mmpretrain.models.heads", "hosts", _arcface_cls_head),
}


def _find(name: str, path: Path) -> Path:
    for file in CHECKOUTS[name].files:
        if (path / file).is_file():
            return path / file
    raise FileNotFoundError(f"peer {name}: no {CHECKOUTS[name].files[0]} under {path}")


def _import(name: str) -> ModuleType:
    package = PACKAGES[name]
    return require(package.module, package.extra, purpose=f"peer {name} is not installed")


_serial = itertools.count()


def load_file(file: Path) -> Any:
    """A module from its file, beside whose neighbours it finds its relative imports."""
    package = ModuleType(f"_sf2_peer_{next(_serial)}")
    package.__path__ = [str(file.parent)]
    sys.modules[package.__name__] = package
    with replaced(sys, "dont_write_bytecode", True):
        return importlib.import_module(f"{package.__name__}.{file.stem}")


@contextmanager
def _process_group(name: str, device: torch.device) -> Iterator[None]:
    """A process group of one, which PartialFC_V2 needs."""
    if not name.startswith("arcface_torch") or distributed.is_initialized():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def _products(name: str) -> Iterator[None]:
    """TF32 allowed for the peer that is named for it, and for no other."""
    if not name.endswith("_tf32"):
        yield
        return
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32 = before
