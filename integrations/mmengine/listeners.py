"""MMEngine's hooks that wait for figures of validation, told those of `FaceVerificationHook`.

Where a config has a validation loop, its hooks hear of its metrics when it has run, and the figures
of verification join these. Where it has none, nobody would call them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, ParamSchedulerHook
from mmengine.runner import Runner

Figures = Mapping[str, float]


def monitored(runner: Runner) -> dict[str, list[str]]:
    """The figures that somebody waits for, by who it is, in words of the config."""
    waiting: dict[str, list[str]] = {}
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            waiting["CheckpointHook(save_best=...)"] = [k for k in hook.save_best if k != "auto"]
        elif isinstance(hook, EarlyStoppingHook):
            waiting["EarlyStoppingHook(monitor=...)"] = [hook.monitor]
    for scheduler in _schedulers(runner):
        waiting[f"{type(scheduler).__name__}(monitor=...)"] = [scheduler.monitor]
    return waiting


def check_monitored(runner: Runner, known: Figures, pair_sets: list[str]) -> None:
    """Refuse before training what would be waited for in vain.

    Args:
        known: the figures that there will be.
        pair_sets: their names.

    Raises:
        ValueError: somebody waits for another; says for which, and which there are.
    """
    for who, keys in monitored(runner).items():
        for key in keys:
            ours = any(key.startswith(f"{name}/") for name in pair_sets)
            if key not in known and (ours or runner.val_loop is None):
                raise ValueError(
                    f"{who} must name a figure that there will be: {', '.join(known)}; got {key!r}"
                )


def tell_now(runner: Runner, figures: Figures) -> None:
    """Tell whoever stops the training or steps a learning rate."""
    waiting = [
        hook
        for hook in runner.hooks
        if (isinstance(hook, EarlyStoppingHook) and hook.monitor in figures)
        or (isinstance(hook, ParamSchedulerHook) and _schedulers(runner))
    ]
    for hook in waiting:
        hook.after_val_epoch(runner, dict(figures))


def tell_checkpoints(runner: Runner, figures: Figures) -> None:
    """Tell whoever saves the best checkpoint, which holds the model as it is now.

    Between two iterations, when the runner's counters are those of the iterations that are done.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            amid_epoch = hook.by_epoch and runner.iter % len(runner.train_dataloader)
            with _named_by_iteration(hook) if amid_epoch else _as_it_is():
                hook.after_val_epoch(runner, dict(figures))


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _named_by_iteration(hook: Any) -> Iterator[None]:
    """A hook that counts epochs names the best by them, and saves the last one anew with it.

    In the midst of an epoch the first would be misleading, and the second would put other weights
    into the last epoch's checkpoint.
    """
    kept = hook.by_epoch, hook.filename_tmpl, hook.last_ckpt
    hook.by_epoch, hook.filename_tmpl, hook.last_ckpt = False, "iter_{}.pth", None
    try:
        yield
    finally:
        hook.by_epoch, hook.filename_tmpl, hook.last_ckpt = kept


def _schedulers(runner: Runner) -> list[Any]:
    """The schedulers that go by a figure."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = [each for some in schedulers.values() for each in some]
    return [each for each in schedulers if getattr(each, "need_val_args", False)]
