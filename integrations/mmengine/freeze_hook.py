"""Epochs in which the head alone trains."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin.checks import require_count

from .model_parts import bare_model, heads_of


@HOOKS.register_module(force=True)
class FreezeBackboneHook(Hook):
    """Trains the head alone for the first epochs, any head: all else of the model stands still.

    Parameters get no gradient, so that no optimizer moves them and no weight decay shrinks them,
    and batch normalisation keeps its statistics. What the config has frozen for good
    (``frozen_stages``) stays so. The optimizer holds all parameters from the beginning, and the
    schedule goes on as it is; a run that resumes goes by its iteration.

    DistributedDataParallel must be told that parameters may have no gradient:
    ``find_unused_parameters = True`` in the config.

    Args:
        epochs: passes over the training data, also under `IterBasedTrainLoop`.

    Raises:
        ValueError: no number of epochs; before training, a model without a head, or in a wrapper
            that waits for all gradients.

    Example:
        >>> load_from = "epoch_15.pth"
        >>> custom_hooks = [dict(type="FreezeBackboneHook", epochs=1)]
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = require_count("epochs", epochs)
        self.parts: list[nn.Module] = []
        self.frozen: list[nn.Parameter] = []

    def before_train(self, runner: Runner) -> None:
        _check_wrapper(runner.model)
        children = dict(bare_model(runner).named_children())
        rest = {name: part for name, part in children.items() if not _is_head(name, part)}
        if len(rest) == len(children):
            raise ValueError(
                "FreezeBackboneHook must find a part called head or one with SphereFace2 in the "
                f"model, got {', '.join(children) or 'no parts'}"
            )
        self.end = self.epochs * len(runner.train_dataloader)
        if runner.iter < self.end:
            self.parts = list(rest.values())
            self.frozen = [p for part in self.parts for p in part.parameters() if p.requires_grad]
            for parameter in self.frozen:
                parameter.requires_grad_(False)
            runner.logger.info(
                f"The head trains alone until iteration {self.end}; frozen are {', '.join(rest)}"
            )

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter >= self.end:
            self._thaw()
        for part in self.parts:
            part.eval()  # Loops and hooks put the whole model into training mode.

    def after_train(self, runner: Runner) -> None:
        self._thaw()

    def _thaw(self) -> None:
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        for part in self.parts:
            part.train()
        self.parts, self.frozen = [], []


def _is_head(name: str, part: nn.Module) -> bool:
    return name == "head" or bool(heads_of(part))


def _check_wrapper(model: nn.Module) -> None:
    if not is_model_wrapper(model):
        return
    name = type(model).__name__
    if not isinstance(model, DistributedDataParallel):
        raise ValueError(
            f"FreezeBackboneHook must have MMDistributedDataParallel or a bare model, got {name}"
        )
    if not model.find_unused_parameters or model.static_graph:
        raise ValueError(
            "FreezeBackboneHook must have find_unused_parameters = True in the config, and no "
            f"static_graph, got {name} with find_unused_parameters="
            f"{model.find_unused_parameters}, static_graph={model.static_graph}"
        )
