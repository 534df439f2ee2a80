"""Fine-tuning under MMEngine: ArcFace's checkpoints, centers from means, a frozen backbone."""

import logging
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')

import sf2_plugin.integrations.mmpretrain  # noqa: F401
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModule, MMDistributedDataParallel
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.functional import normalize

from ..ranks import on_ranks

NUM_CLASSES, SIZE, PEOPLE = 7, 6, 5
CENTERS = "head.norm_product.weight"


class Network(BaseModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, SIZE), nn.BatchNorm1d(SIZE), nn.PReLU())

    def forward(self, inputs):
        return (self.layers(torch.stack(list(inputs))),)


class Vectors(torch.utils.data.Dataset):
    """Of the first PEOPLE classes; the others have no faces."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(18, 8, generator=generator)
        self.labels = torch.arange(18) % PEOPLE

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, i):
        sample = DataSample().set_gt_label(self.labels[i : i + 1])
        return {"inputs": self.vectors[i], "data_samples": sample}


def build_model(head="SphereFace2ClsHead", **kwargs):
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    config = dict(type=head, num_classes=NUM_CLASSES, in_channels=SIZE, **kwargs)
    return MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=Network(),
            data_preprocessor=BaseDataPreprocessor(),
            head=config,
        )
    )


def runner_of(folder, model, epochs, *hooks, **kwargs):
    return Runner(
        model,
        work_dir=str(folder),
        experiment_name=f"{folder.parent.name}_{folder.name}",  # One log each, within a second too.
        train_dataloader=dict(
            batch_size=4, dataset=Vectors(), sampler=dict(type="DefaultSampler", shuffle=True)
        ),
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.1),
            clip_grad=dict(max_norm=5.0),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        custom_hooks=list(hooks),
        randomness=dict(seed=0),
        log_level="INFO",
        **kwargs,
    )


class Look(Hook):
    """What the first iteration, and each later epoch, begins with."""

    priority = "LOWEST"

    def __init__(self):
        self.parameters, self.epochs = {}, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.parameters:
            self.parameters = copied(runner.model.named_parameters())

    def after_train_epoch(self, runner):
        self.epochs.append(copied(runner.model.state_dict().items()))


def log_of(folder):
    return "".join(path.read_text() for path in sorted(folder.rglob("*.log")))


def copied(state):
    return {name: value.detach().clone() for name, value in state}


@pytest.mark.parametrize("way", ["load_from", "init_cfg"])
@pytest.mark.parametrize("partial_fc", [False, True])
def test_a_run_of_arcface_goes_on_with_sphereface2(tmp_path, partial_fc, way):
    runner_of(tmp_path / "arcface", build_model("ArcFaceClsHead"), 1).train()
    path = str(tmp_path / "arcface" / "epoch_1.pth")
    trained = torch.load(path)["state_dict"]

    pretrained = dict(type="Pretrained", checkpoint=path)
    options = dict(load_from=path) if way == "load_from" else {}
    model = build_model(partial_fc=partial_fc)
    fresh = model.head.loss_module.bias.item()
    if way == "init_cfg":
        model.init_cfg = pretrained
    look = Look()
    runner_of(tmp_path / way, model, 1, look, **options).train()
    assert torch.equal(look.parameters["head.loss_module.weight"], trained[CENTERS])
    assert look.parameters["head.loss_module.bias"].item() == pytest.approx(fresh)
    for name, parameter in look.parameters.items():
        assert name.startswith("head.") or torch.equal(parameter, trained[name])
    log = log_of(tmp_path / way)
    assert (
        "takes 7 class centers of size 6 from ArcFaceClsHead (head.norm_product.weight); its bias "
        f"starts at {fresh:.4f}"
    ) in log
    assert "start afresh" not in log


def test_sub_centers_are_no_class_centers(tmp_path, caplog):
    state = build_model("ArcFaceClsHead", num_subcenters=3).state_dict()
    model = build_model()
    fresh = copied(model.head.named_parameters())
    with caplog.at_level(logging.WARNING, logger="sf2_plugin"):
        load_state_dict(model, state)
    assert "neither class centers nor bias are taken" in caplog.text
    assert "it has centers (21, 6)" in caplog.text
    for name, parameter in model.head.named_parameters():
        assert torch.equal(parameter, fresh[name])


@pytest.mark.parametrize("prefix", ["", "head."])
def test_heads_states_by_any_prefix(prefix):
    arcface, model = build_model("ArcFaceClsHead"), build_model()
    own, theirs = (m.head if not prefix else m for m in (model, arcface))
    with torch.no_grad():
        model.head.loss_module.bias += 5
    own.load_state_dict(theirs.state_dict())  # Strict: nothing is missing and nothing left over.
    assert torch.equal(model.head.loss_module.weight, arcface.head.norm_product.weight)
    fresh = build_model().head.loss_module.bias.item()
    assert model.head.loss_module.bias.item() == pytest.approx(fresh)


def means(model):
    """By an obvious loop."""
    model.eval()
    faces, centers = Vectors(), {}
    for person in range(PEOPLE):
        rows = faces.vectors[faces.labels == person]
        centers[person] = normalize(normalize(model.backbone(rows)[0]).mean(0), dim=0)
    model.train()
    return centers


@pytest.mark.parametrize("partial_fc", [False, True])
def test_centers_start_from_means_and_a_resumed_run_keeps_its_own(tmp_path, partial_fc):
    model = build_model(partial_fc=partial_fc)
    with torch.no_grad():
        expected = means(model)
        fresh = model.head.loss_module.weight.clone()
    look = Look()
    runner_of(tmp_path / "means", model, 1, HOOKS.build(dict(type="ClassMeansHook")), look).train()
    weight = look.parameters["head.loss_module.weight"]
    for label in range(NUM_CLASSES):
        torch.testing.assert_close(weight[label], expected.get(label, fresh[label]))
    assert "5 of 7 class centers are the means of their faces, the bias is" in log_of(tmp_path)

    hook, look = HOOKS.build(dict(type="ClassMeansHook", batch_size=3)), Look()
    saved = model.head.loss_module.weight.detach().clone()
    path = str(tmp_path / "means" / "epoch_1.pth")
    runner = runner_of(
        tmp_path / "more",
        build_model(partial_fc=partial_fc),
        2,
        hook,
        look,
        load_from=path,
        resume=True,
    )
    runner.train()
    assert torch.equal(look.parameters["head.loss_module.weight"], saved)


@pytest.mark.parametrize("head", ["ArcFaceClsHead", "SphereFace2ClsHead"])
def test_the_head_alone_trains_for_some_epochs(tmp_path, head):
    hook, look = HOOKS.build(dict(type="FreezeBackboneHook", epochs=2)), Look()
    model = build_model(head)
    model.backbone.layers[2].weight.requires_grad_(False)  # Frozen for good, by the config.
    start = copied(model.state_dict().items())
    runner_of(tmp_path / "run", model, 3, hook, look).train()
    *frozen, thawed = look.epochs
    for name, value in start.items():
        stands = [torch.equal(value, epoch[name]) for epoch in frozen]
        assert all(stands) if name.startswith("backbone.") else not any(stands), name
        for_good = name.startswith("backbone.layers.2")
        assert torch.equal(value, thawed[name]) == for_good, name
    assert "The head trains alone until iteration 10; frozen are" in log_of(tmp_path)
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    assert [name for name, trains in trainable.items() if not trains] == [
        "backbone.layers.2.weight"
    ]

    resumed, look = build_model(head), Look()
    path = str(tmp_path / "run" / "epoch_1.pth")
    hook = HOOKS.build(dict(type="FreezeBackboneHook", epochs=2))
    runner_of(tmp_path / "on", resumed, 3, hook, look, load_from=path, resume=True).train()
    for name, value in start.items():
        if name.startswith("backbone.") and not name.startswith("backbone.layers.2"):
            frozen, thawed = (torch.equal(value, epoch[name]) for epoch in look.epochs)
            assert frozen, name
            assert not thawed, name


def train_by_hand(rank):
    """Two ranks with DDP, as MMEngine wraps a model: two steps frozen, two not."""
    bare = build_model()
    model = MMDistributedDataParallel(bare, find_unused_parameters=True)
    faces = Vectors()
    hook = HOOKS.build(dict(type="FreezeBackboneHook", epochs=1))
    runner = SimpleNamespace(
        model=model, iter=0, train_dataloader=[0, 1], logger=logging.getLogger("quiet")
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    hook.before_train(runner)
    states = [copied(bare.state_dict().items())]
    for step in range(4):
        runner.iter = step
        model.train()
        hook.before_train_iter(runner, 0)
        data = pseudo_collate([faces[i] for i in range(rank + 2 * step, rank + 2 * step + 8, 2)])
        loss = model(**bare.data_preprocessor(data, True), mode="loss")["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        states.append(copied(bare.state_dict().items()))
    return states


def test_two_ranks_freeze_and_go_on_alike():
    ranks = on_ranks(train_by_hand, 2)
    for name, start in ranks[0][0].items():
        learned = "running" not in name and "num_batches" not in name
        for mine, other in zip(*ranks, strict=True):
            assert not learned or torch.equal(mine[name], other[name]), name
        stands = [torch.equal(start, state[name]) for state in ranks[0][1:]]
        assert stands == ([True, True, False, False] if "backbone" in name else [False] * 4), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="FreezeBackboneHook", epochs=0), "epochs must be a whole number of at least 1"),
        (dict(type="ClassMeansHook", batch_size=1.5), "batch_size must be a whole number"),
    ],
)
def test_arguments_that_cannot_be_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(config)


def refused_by_ddp(rank):
    runner = SimpleNamespace(model=MMDistributedDataParallel(build_model()))
    try:
        HOOKS.build(dict(type="FreezeBackboneHook", epochs=1)).before_train(runner)
    except ValueError as error:
        return str(error)


def test_models_that_cannot_be_are_refused(tmp_path):
    (said,) = on_ranks(refused_by_ddp, 1)
    assert said.startswith(
        "FreezeBackboneHook must have find_unused_parameters = True in the config"
    )
    hook = HOOKS.build(dict(type="FreezeBackboneHook", epochs=1))
    with pytest.raises(ValueError, match=r"must find a part called head .* got fc"):
        hook.before_train(SimpleNamespace(model=nn.ModuleDict(dict(fc=nn.Linear(1, 1)))))
    hook = HOOKS.build(dict(type="ClassMeansHook"))
    with pytest.raises(ValueError, match="must find one SphereFace2 head in the model, got 0"):
        hook.before_train(SimpleNamespace(model=build_model("ArcFaceClsHead"), iter=0))
