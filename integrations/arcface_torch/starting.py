"""What a fresh run starts from: a trained backbone, class centers."""

import functools
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.class_means import start_from_means
from sf2_plugin.distributed import on_all_ranks, rank_and_world_size
from sf2_plugin.shards import load_centers
from sf2_plugin.weights import find_weights, load_checkpoint

from . import host

#: What ``config.sphereface2 = dict(centers=...)`` names besides a folder.
MEANS = "means"


def with_pretrained(get_model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Around the host's get_model: a fresh run's backbone has the weights of config.pretrained."""

    @functools.wraps(get_model)
    def build(*args: Any, **kwargs: Any) -> nn.Module:
        network = get_model(*args, **kwargs)
        path = host.host_config().get("pretrained")
        if path is not None and not _resumes("config.pretrained"):
            with on_all_ranks("load config.pretrained"):
                load_pretrained(network, path)
        return network

    return build


def load_pretrained(network: nn.Module, path: Any) -> None:
    """Give the host's network the weights of a file, wherever in it they are.

    Raises:
        ValueError: no path, or a file that holds no weights, or those of another network; names the
            layer and both shapes.
    """
    if not isinstance(path, (str, Path)):
        raise ValueError(
            f"config.pretrained must be the path of a backbone's weights, got {path!r}"
        )
    config = host.host_config()
    wanted = "the network {network!r} with embeddings of size {embedding_size}".format(**config)
    try:
        weights = find_weights(load_checkpoint(path), network, wanted, path)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"config.pretrained must name weights of {wanted}, got {error}") from error
    network.load_state_dict(weights, strict=False)
    logging.info("config.pretrained: the backbone starts from the weights of %s", path)


def take_centers(name: str, head: nn.Module, centers: Any) -> None:
    """Start from class centers of a folder, or from the means of their faces, and say so.

    Raises:
        ValueError: another head than this project's, or centers that are neither.
    """
    if not isinstance(head, PartialFCSphereFace2):
        raise ValueError(f"config.{name} names centers, and only sphereface2 takes some")
    if not isinstance(centers, (str, Path)):
        raise ValueError(
            f'centers in config.{name} must be "{MEANS}" or a folder of class centers, '
            f"got {centers!r}"
        )
    if _resumes(f"centers of config.{name}"):
        return
    if centers == MEANS:
        found = take_means(head)
        came = f"{found} of {head.num_classes} class centers are the means of their faces"
        bias = f"the bias is {head.bias.item():.4f}"
    else:
        shards = load_centers(head, centers)
        came = f"{head.num_classes} class centers are taken from {centers}"
        bias = "with its bias" if shards.has_bias else "and the bias that the hyperparameters give"
    logging.info("%s, %s", came, bias)


def take_means(head: PartialFCSphereFace2) -> int:
    """One pass over the faces, shared out over ranks, by the host's backbone as it is now."""
    network, config = host.backbone, host.host_config()
    assert network is not None, "the host builds its backbone before its head"
    rank, world_size = rank_and_world_size()
    dataset: Any = _faces()
    faces = DataLoader(
        dataset,
        config.batch_size,
        sampler=range(rank, len(dataset), world_size),
        num_workers=config.num_workers,
    )
    logging.info("class centers: one pass over %d faces", len(dataset))
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        return start_from_means(
            head,
            (
                (network(images.to(device)), labels.long().flatten().to(device))
                for images, labels in faces
            ),
        )
    finally:
        network.train(training)


def _faces() -> Dataset:
    """What the host trains on, without DALI's loader, which has no dataset."""
    if isinstance(host.loader, DataLoader):
        return host.loader.dataset
    return importlib.import_module("dataset").MXFaceDataset(host.host_config().rec, 0)


def _resumes(what: str) -> bool:
    """Whether this run resumes, and so leaves `what` to its checkpoint."""
    if not host.host_config().get("resume"):
        return False
    logging.info("config.resume: %s was the start of this run, and is not read again", what)
    return True
