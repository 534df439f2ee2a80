"""Steps that are not finite, left out while MMEngine trains."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from sf2_plugin.finite_steps import FiniteSteps

from .model_parts import bare_model, head_of
from .optimizer_places import optimizers


@HOOKS.register_module(force=True)
class SkipNotFiniteHook(Hook):
    """Leaves out steps with NaN or infinity in a gradient, and logs of which images.

    On all ranks or on none; see `sf2_plugin.finite_steps`, also for what it costs.

    Example:
        >>> custom_hooks = [dict(type="SkipNotFiniteHook")]
    """

    def before_train(self, runner: Runner) -> None:
        model = bare_model(runner)
        self.batch: Any = None
        steps = FiniteSteps(model, head_of(model, "SkipNotFiniteHook"), self._path)
        for wrapper, _ in optimizers(runner):
            wrapper.optimizer.register_step_pre_hook(steps.before_step)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, **kwargs: Any
    ) -> None:
        self.batch = data_batch

    def _path(self, row: int) -> str:
        """The image of the batch's row, where the pipeline keeps its path."""
        samples = self.batch.get("data_samples") if isinstance(self.batch, dict) else None
        sample = samples[row] if isinstance(samples, (list, tuple)) else None
        return str(getattr(sample, "img_path", "its path is not in the batch"))
