"""Verification while the host trains: its protocol and its log lines, and EER and TAR@FAR."""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from sf2_plugin.backbones import embed_images, resized
from sf2_plugin.data import PairSet, read_pairs
from sf2_plugin.distributed import on_all_ranks
from sf2_plugin.evaluation import Calibration, PairReport, verify_pairs
from sf2_plugin.evaluation.input_checks import Pixels
from sf2_plugin.evaluation.pairs import check_pairs

from .host import host_config


def callback_verification(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for CallBackVerification, `original`: itself where the host's own loss runs and
    mxnet, which it needs, is there."""

    def build(*args: Any, **kwargs: Any) -> Any:
        hosts_own = host_config().get("loss") is None and "mxnet" in sys.modules
        return (original if hosts_own else CallBackVerification)(*args, **kwargs)

    return build


class CallBackVerification:
    """Verifies the pair sets `rec_prefix`/NAME.bin on rank 0 when it is called.

    Args:
        val_targets: names of pair sets; those without a file are left out.
        rec_prefix: folder of the files.
        summary_writer: TensorBoard's, or None.
        image_size: (height, width) that faces are given in.
        wandb_logger: wandb's run, or None.

    Raises:
        ValueError: a damaged file, or one that cannot be verified, such as pairs of one kind only
            in one of the ten folds.
    """

    def __init__(
        self,
        val_targets: list[str],
        rec_prefix: str,
        summary_writer: Any = None,
        image_size: tuple[int, int] = (112, 112),
        wandb_logger: Any = None,
    ) -> None:
        self.summary_writer = summary_writer
        self.image_size = image_size
        self.wandb_logger = wandb_logger
        self.pair_sets: list[PairSet] = []
        with on_all_ranks("verify"):
            if distributed.get_rank() == 0:
                self._read(val_targets, rec_prefix)
        self.highest = [0.0] * len(self.pair_sets)

    def _read(self, val_targets: list[str], rec_prefix: str) -> None:
        for name in val_targets:
            path = Path(rec_prefix, f"{name}.bin")
            if path.exists():
                pairs = read_pairs(path)
                check_pairs(name, pairs.issame)
                self.pair_sets.append(pairs)
            else:
                logging.info("[%s] is not verified: there is no %s", name, path)

    def __call__(self, num_update: int, backbone: nn.Module) -> None:
        """Verify on rank 0, while the others wait, and fail with it if it fails."""
        if num_update == 0:
            return
        with on_all_ranks("verify"):
            backbone.eval()
            for place, pairs in enumerate(self.pair_sets):
                embeddings, norm = embed_pairs(backbone, pairs, self.image_size)
                report = verify_pairs(embeddings, pairs.issame)
                self._write(place, num_update, report, norm)
            backbone.train()

    def _write(self, place: int, step: int, report: PairReport, norm: float) -> None:
        name = self.pair_sets[place].name
        # The host's accuracy, with the best threshold on its grid of squared distances; and beside
        # it the exact one, which every other host of this project prints.
        assert report.grid_accuracy is not None
        accuracy, deviation = float(report.grid_accuracy.mean()), float(report.grid_accuracy.std())
        self.highest[place] = max(self.highest[place], accuracy)
        figures = {
            figure.label: figure.value
            for figure in report.logged()
            if not figure.name.startswith(("accuracy_", "grid_"))
        }
        figures["Accuracy-Exact"] = report.accuracy_mean
        for line in (
            f"XNorm: {norm:f}",
            f"Accuracy-Flip: {accuracy:1.5f}+-{deviation:1.5f}",
            "  ".join(f"{figure}: {value:1.5f}" for figure, value in figures.items()),
            f"Accuracy-Highest: {self.highest[place]:1.5f}",
        ):
            logging.info("[%s][%d]%s", name, step, line)
        if self.summary_writer:
            self.summary_writer.add_scalar(name, accuracy, step)
            for figure, value in figures.items():
                self.summary_writer.add_scalar(f"{name}/{figure}", value, step)
        if self.wandb_logger:
            logged = {"val-Acc2": accuracy, **figures}
            self.wandb_logger.log({f"Acc/{key} {name}": value for key, value in logged.items()})


class _InTraining:
    """The network as it is now, and the norms of what it embedded."""

    settings = ""
    calibration: Calibration | None = None
    inputs: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, network: nn.Module, image_size: tuple[int, int]) -> None:
        self.network = getattr(network, "module", network)
        self.image_size = image_size
        self.device = next(network.parameters()).device
        self.norms: list[Tensor] = []

    @torch.no_grad()
    def embed(self, faces: Iterable[Pixels]) -> NDArray[np.float32]:
        images = torch.from_numpy(resized(faces, *self.image_size)).to(self.device)
        embeddings = self.network(images / 127.5 - 1).float().cpu()
        self.norms.append(embeddings.norm(dim=1))
        return embeddings.numpy()


def embed_pairs(
    network: nn.Module, pairs: PairSet, image_size: tuple[int, int]
) -> tuple[NDArray[np.float32], float]:
    """Embeddings (2N, D), each image's and its mirror image's added, and the mean of all norms."""
    backbone = _InTraining(network, image_size)
    embeddings = pairs.embeddings(partial(embed_images, backbone))
    norms = torch.cat(backbone.norms).view(-1, 2).mean(dim=1).numpy()
    return embeddings, float(norms[pairs.distinct()[1]].mean())
