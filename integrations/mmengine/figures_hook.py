"""A head's cosines and bias, and the gradient's norm, in MMEngine's log and visualizer."""

from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from sf2_plugin.watching import HeadWatch

from .model_parts import heads_of
from .optimizer_places import optimizers


@HOOKS.register_module(force=True)
class HeadWatchHook(Hook):
    """Logs what training looks like from inside; Runner registers it where there is a head.

    In the iterations that `LoggerHook` logs: ``positive_cosine``, ``negative_cosine`` and ``bias``
    (see `sf2_plugin.watching`), and where MMEngine clips no gradients, which it logs the norm of,
    the same ``grad_norm``: of the gradients of all parameters but sharded class centers.
    """

    priority = "NORMAL"  # Before LoggerHook.

    def before_train(self, runner: Runner) -> None:
        self.intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.heads = heads_of(runner.model)
        for head in self.heads:
            head.watch = HeadWatch()
        self.norm_due = False
        shards = {head.weight for head in self.heads if head.sharded}

        def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            if self.norm_due:
                groups = optimizer.param_groups
                of = [p.grad for g in groups for p in g["params"] if p not in shards]
                norms = [torch.linalg.vector_norm(each.float()) for each in of if each is not None]
                if norms:
                    norm = torch.linalg.vector_norm(torch.stack(norms))
                    runner.message_hub.update_scalar("train/grad_norm", norm.item())
                self.norm_due = False

        for wrapper, _ in optimizers(runner):
            if not getattr(wrapper, "clip_grad_kwargs", None):
                wrapper.optimizer.register_step_pre_hook(before_step)

    def before_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        due = any(self.every_n_inner_iters(batch_idx, each) for each in self.intervals)
        for head in self.heads if due else ():
            assert head.watch is not None
            head.watch.due = True
        self.norm_due = self.norm_due or due

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        for number, head in enumerate(self.heads):
            prefix = f"train/head_{number}_" if len(self.heads) > 1 else "train/"
            for name, value in (head.watch.figures() if head.watch else {}).items():
                runner.message_hub.update_scalar(f"{prefix}{name}", value)
