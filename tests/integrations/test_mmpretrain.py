"""The MMPretrain adapter: the head alone, and the switch of a config that trains today."""

import copy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')

import sf2_plugin.integrations.mmpretrain  # noqa: F401
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import TIMMBackbone
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from sf2_plugin import SphereFace2
from sf2_plugin.backbones import open_backbone
from sf2_plugin.data import encode_jpeg

from ..conftest import REAL_FACES

IMPORT = "sf2_plugin.integrations.mmpretrain"


@pytest.fixture(autouse=True)
def _scope():
    """MMEngine's scope is global: whatever ran before may have left another."""
    init_default_scope("mmpretrain")


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MODELS.build(dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    features = (torch.randn(6, 8, generator=generator, requires_grad=True),)
    labels = torch.randint(10, (6,), generator=generator)
    return features, [DataSample().set_gt_label(label) for label in labels], labels


def test_the_loss_is_that_of_the_plain_module(head, batch):
    features, samples, labels = batch
    plain = SphereFace2(10, 8)
    plain.load_state_dict(head.loss_module.state_dict())
    assert head.loss(features, samples).keys() == {"loss"}
    torch.testing.assert_close(head.loss(features, samples)["loss"], plain(features[0], labels))


def test_hyperparameters_reach_the_loss():
    config = dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8)
    head = MODELS.build(config | dict(preset="wespeaker", margin=0.3, learn_bias=False))
    assert (head.loss_module.recipe.scale, head.loss_module.recipe.margin) == (32, 0.3)
    assert not head.loss_module.bias.requires_grad


def test_a_whole_arcface_config_is_taken_as_it_is(batch):
    arcface = dict(
        type="ArcFaceClsHead",
        num_classes=10,
        in_channels=8,
        num_subcenters=1,
        scale=30.0,
        margins=0.5,
        easy_margin=False,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
        init_cfg=None,
    )
    MODELS.build(copy.deepcopy(arcface)).loss(*batch[:2])
    head = MODELS.build(arcface | dict(type="SphereFace2ClsHead"))
    head.loss(*batch[:2])["loss"].backward()
    assert head.loss_module.recipe.scale == 30
    assert head.loss_module.recipe.margin == SphereFace2(10, 8).recipe.margin


def test_pre_logits_is_the_last_feature(head):
    features = (torch.zeros(2, 3), torch.ones(2, 8))
    assert head.pre_logits(features) is features[-1]
    torch.testing.assert_close(head(features), head.loss_module.logits(features[-1]))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("margin_type", ["C", "A", "M"])
def test_logits_of_a_target_are_those_that_the_loss_is_made_of(batch, margin_type, shape):
    features, _, labels = batch
    config = dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8)
    head = MODELS.build(config | dict(margin_type=margin_type))
    logits = head(features, labels.reshape(shape))
    recipe, total = head.loss_module.recipe, 0.0
    for row, label in zip(logits, labels, strict=True):
        for j, logit in enumerate(row):
            if j == label:
                total = total + recipe.lam * torch.nn.functional.softplus(-logit)
            else:
                total = total + (1 - recipe.lam) * torch.nn.functional.softplus(logit)
    expected = recipe.loss_weight / recipe.scale * total / len(labels)
    torch.testing.assert_close(head.loss_module(features[0], labels), expected)


@pytest.mark.parametrize(
    ("feats", "message"),
    [
        ((torch.zeros(4, 7),), r"must be \(B, 8\), got \(4, 7\)"),
        ((torch.zeros(4, 8, 1, 1),), r"got \(4, 8, 1, 1\)"),
        (torch.zeros(4, 8), "feats must be a tuple of features"),
    ],
)
def test_features_of_another_form_are_refused(head, feats, message):
    with pytest.raises((TypeError, ValueError), match=message):
        head(feats)
    with pytest.raises((TypeError, ValueError), match=message):
        head.predict(feats)


@pytest.mark.parametrize("topk", [(1, 11), 0, (), (-1,)])
def test_ranks_that_there_are_not_are_refused(topk):
    config = dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8, cal_acc=True)
    with pytest.raises(ValueError, match="topk must be from 1 to num_classes=10"):
        MODELS.build(config | dict(topk=topk))


def test_accuracies_on_request(batch):
    config = dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8)
    head = MODELS.build(config | dict(cal_acc=True, topk=(1, 10)))
    losses = head.loss(*batch[:2])
    assert losses.keys() == {"loss", "accuracy_top-1", "accuracy_top-10"}
    best = head.loss_module.cosine(batch[0][0]).argmax(dim=1)
    expected = 100 * (best == batch[2]).float().mean()
    torch.testing.assert_close(losses["accuracy_top-1"][0].squeeze(), expected)
    assert losses["accuracy_top-10"][0] == 100


def test_one_number_is_a_topk(batch):
    config = dict(type="SphereFace2ClsHead", num_classes=10, in_channels=8, cal_acc=True, topk=5)
    assert "accuracy_top-5" in MODELS.build(config).loss(*batch[:2])


def test_predictions_carry_scores_label_and_embedding(head, batch):
    features, samples, _ = batch
    for given in (samples, None):
        predictions = head.predict(features, given)
        for i, prediction in enumerate(predictions):
            expected = torch.sigmoid(head.loss_module.logits(features[0][i : i + 1]))[0]
            torch.testing.assert_close(prediction.pred_score, expected)
            assert prediction.pred_label.item() == expected.argmax().item()
            torch.testing.assert_close(prediction.embedding, features[0][i])


def test_mixed_labels_are_refused(head, batch):
    features, samples, _ = batch
    samples[0].set_gt_score(torch.full((10,), 0.1))
    with pytest.raises(ValueError, match="one identity a face"):
        head.loss(features, samples)


# A config as somebody has it who trains ArcFace today.
ARCFACE_CONFIG = """
default_scope = "mmpretrain"
data_root = {data_root!r}
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(32, 32)),
    dict(type="PackInputs"),
]
data_preprocessor = dict(mean=[127.5] * 3, std=[128.0] * 3, to_rgb=True)
model = dict(
    type="ImageClassifier",
    backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, out_indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="ArcFaceClsHead",
        num_classes={num_classes},
        in_channels=64,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    drop_last=True,
    dataset=dict(
        type="CustomDataset", data_root=data_root, data_prefix="train", pipeline=train_pipeline
    ),
)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = dict(type="CosineAnnealingLR", T_max=3, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=3)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1))
randomness = dict(seed=0)
log_level = "WARNING"
"""

# What verifying adds to it; the switch itself needs none of this.
VERIFICATION = """
test_dataloader = dict(
    batch_size=64,
    dataset=dict(
        type="FacePairDataset", ann_file={pairs!r}, name="lfw112", pipeline=train_pipeline
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_evaluator = dict(type="FaceVerification")
test_cfg = dict()
"""


class Losses(Hook):
    """Keeps the loss of every iteration."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs["loss"].item())


def start(config_text, work_dir, **changes):
    config = Config.fromstring(config_text, ".py")
    config.merge_from_dict(dict(work_dir=str(work_dir), experiment_name=work_dir.name) | changes)
    runner = Runner.from_cfg(config)
    losses = Losses()
    runner.register_hook(losses)
    return runner, losses


@pytest.fixture
def few_people(face_set, tmp_path):
    """A folder with the first people of the faces."""
    source = face_set / "train"
    root = tmp_path / "faces"
    (root / "train").mkdir(parents=True)
    people = sorted(person for person in source.iterdir() if len(list(person.iterdir())) >= 4)[:20]
    for person in people:
        (root / "train" / person.name).symlink_to(person)
    return root, len(people)


@pytest.mark.parametrize("face_set", ["real" if REAL_FACES.is_dir() else "drawn"], indirect=True)
def test_a_config_switches_by_the_head_type_and_trains_resumes_and_verifies(
    face_set, few_people, tmp_path
):
    root, num_classes = few_people
    arcface = ARCFACE_CONFIG.format(data_root=str(root), num_classes=num_classes)
    runner, arcface_losses = start(arcface, tmp_path / "arcface")
    runner.train()

    switched = arcface.replace("ArcFaceClsHead", "SphereFace2ClsHead")
    switched += f'custom_imports = dict(imports=["{IMPORT}"])\n'
    pairs = str(face_set / "val.bin")
    switched += VERIFICATION.format(pairs=pairs)
    runner, losses = start(switched, tmp_path / "whole")
    runner.train()
    epoch = len(runner.train_dataloader)
    assert len(losses.values) == len(arcface_losses.values) == 3 * epoch
    assert losses.values[-1] < losses.values[0]

    resumed, resumed_losses = start(
        switched,
        tmp_path / "resumed",
        resume=True,
        load_from=str(tmp_path / "whole" / "epoch_1.pth"),
    )
    resumed.train()
    assert resumed_losses.values == losses.values[epoch:]

    figures = runner.test()
    assert 0 < figures["lfw112/accuracy"] < 1
    assert 0 < figures["lfw112/auc"] < 1
    assert figures == resumed.test()


@pytest.mark.parametrize("ema", [False, True])
def test_another_number_of_classes_starts_from_its_own_bias_and_says_so(tmp_path, ema):
    """`load_from` of a checkpoint of other people: the backbone is taken, the head is not."""
    root = tmp_path / "faces" / "train"
    for person in range(3):
        (root / str(person)).mkdir(parents=True)
        for i in range(6):
            (root / str(person) / f"{i}.jpg").write_bytes(encode_jpeg(FACE))
    config = ARCFACE_CONFIG.replace("ArcFaceClsHead", "SphereFace2ClsHead").replace(
        "max_epochs=3", "max_epochs=1"
    )
    config += f'custom_imports = dict(imports=["{IMPORT}"])\n'
    few = config.format(data_root=str(tmp_path / "faces"), num_classes=3)
    runner, _ = start(few, tmp_path / "few")
    runner.train()
    trained = runner.model.backbone.state_dict()

    many = config.format(data_root=str(tmp_path / "faces"), num_classes=700)
    if ema:
        many += 'custom_hooks = [dict(type="EMAHook")]\n'
    path = str(tmp_path / "few" / "epoch_1.pth")
    runner, _ = start(many, tmp_path / "many", load_from=path)
    fresh = runner.model.head.loss_module.weight.clone()
    runner.call_hook("before_run")
    runner.load_or_resume()
    head = runner.model.head.loss_module
    assert head.bias.item() == pytest.approx(SphereFace2(700, 64).bias.item())
    assert torch.equal(head.weight, fresh)
    for key, value in runner.model.backbone.state_dict().items():
        assert torch.equal(value, trained[key])
    (log,) = (tmp_path / "many").rglob("*.log")
    assert "neither class centers nor bias are taken" in log.read_text()


def test_shipped_configs_differ_in_the_head_type_alone():
    folder = Path(__file__).parents[2] / "configs" / "mmpretrain"
    configs = [
        Config.fromfile(folder / f"{name}_resnet18_faces.py").to_dict()
        for name in ("arcface", "sphereface2")
    ]
    assert configs[0]["model"]["head"].pop("type") == "ArcFaceClsHead"
    assert configs[1]["model"]["head"].pop("type") == "SphereFace2ClsHead"
    assert configs[0] == configs[1]


ARCFACE = dict(type="ArcFaceClsHead", num_classes=3, in_channels=8)
VIT = dict(type="VisionTransformer", img_size=32, patch_size=16)
SMALL = dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (dict(type="mmengine.load", file="evil"), "type 'mmengine.load' is not a registered name"),
        (dict(type="sf2_evil"), "type 'sf2_evil' is not a registered name"),
        (dict(type="mmpretrain.sf2_evil.ResNet"), "is not a registered name"),
        (dict(type=["sf2_evil"]), r"type \['sf2_evil'\] is not a registered name"),
        (dict(type="ResNet", depth=18, norm_cfg=[(dict(type="os.abort"),)]), "'os.abort' is not"),
        (dict(type="ResNet", depth=18, _scope_="sf2_evil"), "scope 'sf2_evil' is none of"),
        (dict(type="LinearClsHead", trust_remote_code=True), "trust_remote_code is refused"),
        (dict(type="TIMMBackbone", checkpoint_path="other.pth"), "checkpoint_path is refused"),
        (dict(type="TIMMBackbone", model_name="hf-hub:evil/evil"), "may be fetched"),
        (dict(type="TIMMBackbone", model_name="local-dir:/tmp"), "may be fetched"),
        (dict(type="HuggingFaceClassifier", model_name="evil"), "may read other files"),
        (dict(type="sf2_evil.registry.ResNet", depth=18), "is not a registered name"),
        (dict(type="os.path.join"), "is not a registered name"),
        # What it reads is refused, by whatever argument.
        (ARCFACE | dict(margins="/etc/hosts.txt"), "opens '/etc/hosts.txt', which is refused"),
        (ARCFACE | dict(margins="http://127.0.0.1:9/x.txt"), "which is refused"),
        # Bounds: layers, tensors, sizes.
        (VIT | dict(arch=SMALL | dict(num_layers=1_000_000)), "1000000 is more than any size"),
        (VIT | dict(arch=SMALL | dict(num_layers=2000)), "many more layers than its weights"),
        (VIT | dict(arch=SMALL | dict(feedforward_channels=1e7)), "whose model can be built"),
        (dict(type="LinearNeck", in_channels=2048, out_channels=2048 * 64), "131072 is more than"),
        (dict(type="MobileNetV2", widen_factor=300.0), r"builds a tensor \(\d+, .*, unlike any"),
        (dict(type="CLIPGenerator", tokenizer_path="http://127.0.0.1:9/x.pth"), "asks for another"),
        # Registered, and not as a part of a model.
        (dict(type="Runner"), "whose model can be built"),
        (dict(type="mmengine.Runner"), "whose model can be built"),
    ],
)
def test_a_checkpoints_config_imports_nothing(tmp_path, monkeypatch, part, message):
    (tmp_path / "sf2_evil").mkdir()
    for name in ("__init__", "registry"):
        (tmp_path / "sf2_evil" / f"{name}.py").write_text("raise SystemExit")
    (tmp_path / "Runner.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    config = f"""model = dict(type="ImageClassifier", backbone={part!r})
test_pipeline = [dict(type="PackInputs")]
"""
    torch.save({"meta": {"cfg": config}, "state_dict": {}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=message):
        open_backbone(tmp_path / "evil.pth")


@pytest.mark.parametrize("saved_bias", [-3.0, None])
def test_a_sharded_checkpoint_embeds_and_calibrates_without_the_centers(tmp_path, saved_bias):
    model = dict(
        type="ImageClassifier",
        backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8),
    )
    head = dict(type="SphereFace2ClsHead", num_classes=10**12, in_channels=64, partial_fc=True)
    config = f"""model = {model | dict(head=head)!r}
test_pipeline = [dict(type="PackInputs")]
"""
    state = dict(MODELS.build(model).state_dict())
    if saved_bias is not None:
        state["head.loss_module.bias"] = torch.tensor([saved_bias])
    torch.save({"meta": {"cfg": config}, "state_dict": state}, tmp_path / "epoch_1.pth")
    calibration = open_backbone(tmp_path / "epoch_1.pth").calibration
    assert (calibration and calibration.bias) == saved_bias


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = " + "[" * 100_000 + "]" * 100_000, "."),
        ("model = " + "dict(a=" * 5000 + "1" + ")" * 5000, "."),
        ("x = [" + "1," * 1_500_000 + "]", "characters long, and 2000000 are read"),
        ("model = __import__('os')", "is no literal"),
        ("import os", "more than `name = value`"),
        ("model = dict(type='ImageClassifier')\n", "it has no test_pipeline"),
        ("model = 3\n", "whose config is data"),
    ],
)
def test_a_config_that_is_no_plain_data_is_refused(tmp_path, text, message):
    torch.save({"meta": {"cfg": text}, "state_dict": {}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=message) as caught:
        open_backbone(tmp_path / "evil.pth")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "backbone",
    [
        "dict(type='ResNet', depth=18, num_stages=99)",
        "dict(type='VisionTransformer', arch='b', patch_size=0)",
        "dict(type='ResNet', depth='18')",
        "dict(type='ResNet', depth=18, norm_cfg=3)",
    ],
)
def test_whatever_building_a_network_raises_is_one_line_of_the_file(tmp_path, backbone):
    text = f"model = dict(type='ImageClassifier', backbone={backbone})\n"
    text += "test_pipeline = [dict(type='PackInputs')]\n"
    torch.save({"meta": {"cfg": text}, "state_dict": {}}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: not readable as a checkpoint whose model"):
        open_backbone(tmp_path / "odd.pth")


def test_pipelines_that_make_huge_images_are_refused(tmp_path):
    config = """model = dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=18))
test_pipeline = [dict(type="Resize", scale=(100000, 100000)), dict(type="PackInputs")]
"""
    torch.save({"meta": {"cfg": config}, "state_dict": {}}, tmp_path / "large.pth")
    with pytest.raises(ValueError, match="100000 is more than any size"):
        open_backbone(tmp_path / "large.pth")


RESNET = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, out_indices=(3,))
HEAD = dict(type="SphereFace2ClsHead", num_classes=4, in_channels=64)
FACE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)


def saved(tmp_path, model, config, pipeline='[dict(type="PackInputs")]'):
    """The backbone of a checkpoint, whose config is that text, and the model it was saved of."""
    init_default_scope("mmpretrain")
    built = MODELS.build(copy.deepcopy(model)).eval()
    text = f"model = {config!r}\ntest_pipeline = {pipeline}\n"
    torch.save({"meta": {"cfg": text}, "state_dict": built.state_dict()}, tmp_path / "epoch_1.pth")
    return open_backbone(tmp_path / "epoch_1.pth"), built


def assert_embeds_as(backbone, built):
    items = [{"inputs": torch.from_numpy(FACE[..., ::-1].copy().transpose(2, 0, 1))}]
    with torch.no_grad():
        inputs = built.data_preprocessor(pseudo_collate(items), False)["inputs"]
        expected = built.extract_feat(inputs)[-1]
    np.testing.assert_allclose(backbone.embed([FACE]), expected.numpy(), rtol=1e-5)


def test_a_retriever_with_its_prototypes_and_a_pretrained_start_embeds(tmp_path):
    """As MMPretrain's own config of ArcFace has it: none of its files is asked for."""
    start = dict(type="Pretrained", checkpoint="http://127.0.0.1:9/x.pth", prefix="backbone")
    gallery = dict(batch_size=32, dataset=dict(type="InShop", data_root="nowhere", split="gallery"))
    encoder = [RESNET, dict(type="GlobalAveragePooling")]
    model = dict(type="ImageToImageRetriever", image_encoder=encoder, head=HEAD)
    config = model | dict(
        image_encoder=[RESNET | dict(init_cfg=start), encoder[1]], prototype=gallery
    )
    backbone, built = saved(tmp_path, model | dict(prototype=torch.zeros(1, 64)), config)
    assert_embeds_as(backbone, built)
    assert backbone.calibration.bias == pytest.approx(built.head.loss_module.bias.item())


def test_a_config_of_the_new_style_embeds(tmp_path):
    """Its types are saved as where they are imported from."""
    model = dict(
        type="ImageClassifier",
        backbone=RESNET | dict(norm_cfg=dict(type="BN")),
        neck=dict(type="GlobalAveragePooling"),
        head=HEAD,
    )
    config = dict(
        type="mmpretrain.models.ImageClassifier",
        backbone=RESNET
        | dict(
            type="mmpretrain.models.backbones.ResNet",
            norm_cfg=dict(type="torch.nn.modules.batchnorm.BatchNorm2d"),
        ),
        neck=dict(type="mmpretrain.models.necks.gap.GlobalAveragePooling"),
        head=HEAD | dict(type="sf2_plugin.integrations.mmpretrain.SphereFace2ClsHead"),
    )
    pipeline = """[
    dict(type="mmcv.transforms.loading.LoadImageFromFile"),
    dict(type="mmpretrain.datasets.PackInputs"),
]"""
    assert_embeds_as(*saved(tmp_path, model, config, pipeline))


class TimmStub(torch.nn.Conv2d):
    """A network of timm's, as far as `TIMMBackbone` looks at it."""

    def __init__(self, **arguments):
        assert not arguments["pretrained"]
        assert not arguments["checkpoint_path"]
        super().__init__(3, 64, 32)

    def forward(self, images):
        return super().forward(images)


def test_a_backbone_of_timm_embeds_without_its_pretrained_weights(tmp_path, monkeypatch):
    timm = types.ModuleType("timm")
    timm.create_model = TimmStub
    monkeypatch.setitem(sys.modules, "timm", timm)
    init = TIMMBackbone.__init__  # Where timm is missing, one that says so.
    monkeypatch.setattr(TIMMBackbone, "__init__", getattr(init, "__wrapped__", init))
    backbone = dict(type="TIMMBackbone", model_name="resnet18")
    neck = dict(type="GlobalAveragePooling")
    model = dict(type="ImageClassifier", backbone=backbone, neck=neck, head=HEAD)
    config = model | dict(backbone=backbone | dict(pretrained=True))
    assert_embeds_as(*saved(tmp_path, model, config))


def test_files_are_read_as_ever_once_the_network_is_built(tmp_path):
    saved(
        tmp_path,
        dict(type="ImageClassifier", backbone=RESNET),
        dict(type="ImageClassifier", backbone=RESNET),
    )
    (tmp_path / "notes.txt").write_text("fine")
    assert (tmp_path / "notes.txt").read_text() == "fine"
