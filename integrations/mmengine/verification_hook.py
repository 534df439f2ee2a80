"""Verification of several pair sets while a model trains."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.dist import all_reduce_params, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from torch import nn

from sf2_plugin.distributed import from_all_ranks, on_all_ranks
from sf2_plugin.evaluation import PairReport
from sf2_plugin.evaluation.pairs import FAR_TARGETS, check_pairs

from .dataset_embedding import embed_faces
from .datasets import FacePairDataset
from .listeners import check_monitored, monitored, tell_checkpoints, tell_now
from .metrics import pair_figures, verify_faces
from .model_parts import bare_model
from .rules import ORIGIN


@HOOKS.register_module(force=True)
class FaceVerificationHook(Hook):
    """Verifies pair sets every N iterations and sends the figures to log and visualizer.

    Works with any head: it takes what the model's neck (``extract_feat``) and its head's
    ``pre_logits`` give. Ranks share the work. In TensorBoard, a set's figures appear as
    ``verification/NAME/accuracy`` and so on; see `FaceVerification` for their meaning.

    **Of which weights.** Those that a checkpoint's ``state_dict`` holds: under `EMAHook` the
    averaged ones. The weights that are trained, which it saves too, are then verified as well, as
    ``NAME/accuracy_origin`` and so on, the names that MMPretrain's own `EMAHook` gives. Ranks'
    buffers are averaged first, as MMEngine does before it validates.

    **Who hears of them.** The message hub, as ``val/NAME/accuracy``; and by ``NAME/accuracy``
    ``CheckpointHook(save_best=...)``, `EarlyStoppingHook` and `ReduceOnPlateauLR`, which need no
    ``rule``. Where the config has a validation loop, they hear of them together with its metrics;
    where it has none, after every verification. A name that there will not be is refused before
    training.

    Args:
        pair_sets: configs of `FacePairDataset`, whose ``type`` may be left out.
        interval: verify every this many iterations, and after the last one.
        before_training: verify the untrained model too.
        batch_size: images at a time on each rank.
        folds: see `FaceVerification`.
        far_targets: see `FaceVerification`.

    Attributes:
        reports: the last verification, by pair set, on rank 0.

    Example:
        >>> custom_hooks = [
        ...     dict(type="FaceVerificationHook", interval=2000, pair_sets=[
        ...         dict(ann_file="data/lfw.bin", pipeline=test_pipeline),
        ...         dict(ann_file="data/cfp_fp.bin", pipeline=test_pipeline)])]
    """

    #: After EMAHook has averaged and LoggerHook has logged, before schedulers and checkpoints.
    priority = 65

    def __init__(
        self,
        pair_sets: Sequence[dict[str, Any]],
        interval: int = 1000,
        before_training: bool = False,
        batch_size: int = 128,
        folds: int = 10,
        far_targets: Sequence[float] = FAR_TARGETS,
    ) -> None:
        if not pair_sets:
            raise ValueError("pair_sets must name at least one pair set, got none")
        if interval < 1:
            raise ValueError(f"interval must be a number of iterations, at least 1, got {interval}")
        self.pair_sets = [{"type": "FacePairDataset", **pair_set} for pair_set in pair_sets]
        self.interval = interval
        self.before_training = before_training
        self.batch_size = batch_size
        self.folds = folds
        self.far_targets = tuple(far_targets)
        self.datasets: list[FacePairDataset] = []
        self.reports: dict[str, PairReport] = {}
        self.to_come: dict[str, float] = {}
        self.verified: tuple[int, dict[str, float]] | None = None
        self.untold: dict[str, float] | None = None

    def before_train(self, runner: Runner) -> None:
        with on_all_ranks("open pair sets"):
            self.datasets = [DATASETS.build(dict(pair_set)) for pair_set in self.pair_sets]
            for dataset in self.datasets:  # Refused before training, not in its middle.
                dataset.full_init()
                name, issame = dataset.metainfo["name"], dataset.metainfo["issame"]
                check_pairs(name, issame, self.folds, self.far_targets)
            names = [dataset.metainfo["name"] for dataset in self.datasets]
            if len(set(names)) < len(names):
                raise ValueError(f"pair_sets must differ in name, got {', '.join(names)}")
        self.to_come = self._figures_to_come(runner)
        check_monitored(runner, self.to_come, names)
        self.verified = self.untold = None
        if self.before_training and runner.iter == 0:
            self.verify(runner, step=0)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        step = runner.iter + 1
        if step == runner.max_iters or self.every_n_train_iters(runner, self.interval):
            self.verify(runner, step)
            if runner.val_loop is None:
                self.untold = self.verified and self.verified[1]
                tell_now(runner, self.untold or {})

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._tell_checkpoints(runner)

    def after_train(self, runner: Runner) -> None:
        self._tell_checkpoints(runner)

    def _tell_checkpoints(self, runner: Runner) -> None:
        if self.untold:
            figures, self.untold = self.untold, None
            tell_checkpoints(runner, figures)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """The figures join the metrics of a validation; verified anew where somebody waits."""
        if metrics is None or not self.datasets:
            return
        fresh = self.verified is not None and self.verified[0] == runner.iter
        awaited = {key for keys in monitored(runner).values() for key in keys}
        if not fresh and not awaited.isdisjoint(self.to_come):
            self.verify(runner, runner.iter)
            fresh = True
        if fresh and self.verified:
            metrics.update(self.verified[1])

    def verify(self, runner: Runner, step: int) -> None:
        """Verify every pair set with the model as it is after `step` iterations."""
        gathered: dict[str, float] = {}
        for suffix, model in _models(runner):
            all_reduce_params(model.buffers(), op="mean")
            for dataset in self.datasets:
                gathered |= self._verify(runner, step, dataset, model, suffix)
        for key, value in gathered.items():
            runner.message_hub.update_scalar(f"val/{key}", value)
        runner.visualizer.add_scalars(
            {f"verification/{key}": value for key, value in gathered.items()}, step=step
        )
        self.verified = step, gathered

    def _verify(
        self, runner: Runner, step: int, dataset: FacePairDataset, model: nn.Module, suffix: str
    ) -> dict[str, float]:
        """The figures, on every rank."""
        name = dataset.metainfo["name"]
        embeddings = embed_faces(model, dataset, self.batch_size)
        figures: dict[str, float] = {}
        with on_all_ranks(f"verify pair set {name}"):
            if is_main_process():
                report = verify_faces(embeddings, dataset.metainfo, self.folds, self.far_targets)
                self.reports[name + suffix] = report
                figures = _with_suffix(pair_figures(report, name), suffix)
                shown = "  ".join(f"{figure}: {value:.4f}" for figure, value in figures.items())
                runner.logger.info(f"Verification after {step} iterations  {shown}")
        return from_all_ranks(figures)[0]

    def _figures_to_come(self, runner: Runner) -> dict[str, float]:
        """The figures that each verification will give, of no meaning as yet."""
        figures: dict[str, float] = {}
        rng = np.random.default_rng(0)
        for suffix, _ in _models(runner):
            for dataset in self.datasets:
                meta, views = dataset.metainfo, rng.normal(size=(len(dataset), 2))
                report = verify_faces(views, meta, self.folds, self.far_targets)
                figures |= _with_suffix(pair_figures(report, meta["name"]), suffix)
        return figures


def _models(runner: Runner) -> Iterator[tuple[str, nn.Module]]:
    """The models whose weights a checkpoint holds, each with what its figures' names end in."""
    averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    for model in averaged:
        yield "", model
    yield ORIGIN if averaged else "", bare_model(runner)


def _with_suffix(figures: dict[str, float], suffix: str) -> dict[str, float]:
    return {f"{name}{suffix}": value for name, value in figures.items()}
