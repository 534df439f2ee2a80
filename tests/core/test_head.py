"""The module: construction, errors, mixed precision, compilation, saving."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from packaging.version import Version

from sf2_plugin import PRESETS, PartialFCSphereFace2, Recipe, SphereFace2, sphereface2_loss
from sf2_plugin.compat import TORCH
from sf2_plugin.engine.memory import nothing_kept
from sf2_plugin.margins import g

from ..devices import needs
from ..parity import relative_error


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(12, 16, generator=generator)
    return embeddings, torch.randint(50, (12,), generator=generator)


def test_starts_with_unit_centers_and_the_recipe_bias():
    head = SphereFace2(50, 16)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(50))
    assert head.bias.item() == pytest.approx(head.recipe.initial_bias(50))
    assert SphereFace2(50, 16, preset="wespeaker").bias.item() == 0


def test_state_dict_holds_centers_and_bias_only():
    head = SphereFace2(50, 16)
    assert {name: tuple(v.shape) for name, v in head.state_dict().items()} == {
        "weight": (50, 16),
        "bias": (1,),
    }


def test_in_place_stores_unit_centers_and_in_graph_leaves_them(batch):
    for weight_norm, stored in (("in_place", 1.0), ("in_graph", 3.0)):
        head = SphereFace2(50, 16, weight_norm=weight_norm)
        with torch.no_grad():
            head.weight *= 3
        head(*batch).backward()
        torch.testing.assert_close(head.weight.norm(dim=1), torch.full((50,), stored))


def test_cosine_logits_and_probability_agree_with_the_definition(batch):
    head = SphereFace2(50, 16)
    with torch.no_grad():
        head.weight *= 3
    x = batch[0]
    cosine = torch.nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head.cosine(x), cosine)
    logits = head.recipe.scale * g(cosine, head.recipe.t) + head.bias
    torch.testing.assert_close(head.logits(x), logits, rtol=1e-4, atol=1e-4)
    probability = head.verification_probability(cosine)
    torch.testing.assert_close(probability, torch.sigmoid(logits), rtol=1e-4, atol=1e-6)


def test_a_frozen_bias_stays(batch):
    head = SphereFace2(50, 16, learn_bias=False)
    before = head.bias.item()
    head(*batch).backward()
    assert head.bias.grad is None
    assert head.bias.item() == before


def test_training_lowers_the_loss_and_finds_the_classes():
    torch.manual_seed(0)
    x, labels = torch.randn(40, 16), torch.arange(40) % 10
    x.requires_grad_()
    head = SphereFace2(10, 16)
    optimizer = torch.optim.SGD([x, *head.parameters()], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(100):
        loss = head(x, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert (head.cosine(x).argmax(dim=1) == labels).all()


def test_replacing_the_recipe_changes_the_margin(batch):
    head = SphereFace2(50, 16)
    before = head(*batch)
    head.recipe = dataclasses.replace(head.recipe, margin=0.0)
    assert head(*batch) < before


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_stays_float32(batch, preset, dtype):
    if dtype == torch.float16 and Version("2.4") > TORCH:
        pytest.skip("needs torch 2.4")
    head = SphereFace2(50, 16, preset=preset)
    expected = head(*batch)
    with torch.autocast("cpu", dtype=dtype):
        loss = head(*batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert relative_error(loss, expected) < 0.05
    assert torch.isfinite(head.weight.grad).all()


@needs(hasattr(torch.amp, "GradScaler"), "2.3")
def test_with_a_grad_scaler_the_step_is_that_without(batch):
    plain = SphereFace2(50, 16)
    scaled = copy.deepcopy(plain)
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.1) for head in (plain, scaled)]
    plain(*batch).backward()
    optimizers[0].step()

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scaler.scale(scaled(*batch)).backward()
    scaler.step(optimizers[1])
    torch.testing.assert_close(scaled.weight, plain.weight)
    torch.testing.assert_close(scaled.bias, plain.bias)


@needs(hasattr(torch.library, "custom_op"), "2.4")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("preset", PRESETS)
def test_compiles_into_one_graph(batch, preset):
    x, labels = batch
    head = SphereFace2(50, 16, preset=preset)
    compiled = copy.deepcopy(head)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for model in (head, run):
        x = x.detach().requires_grad_()
        (2 * model(x, labels)).backward()
        if model is head:
            expected = x.grad
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(compiled.weight.grad, head.weight.grad)
    torch.testing.assert_close(compiled.weight, head.weight)
    torch.testing.assert_close(compiled.bias.grad, head.bias.grad)


@needs(hasattr(torch.library, "opcheck"), "2.4")
@pytest.mark.parametrize(
    ("weight_norm", "sgd"),
    [("in_place", None), ("in_graph", None), ("in_place", [0.1, 0.9, 0.0])],
)
def test_the_operators_pass_opcheck(batch, weight_norm, sgd):
    x, labels = batch
    recipe = Recipe(weight_norm=weight_norm)
    head = SphereFace2(50, 16, weight_norm=weight_norm)
    x = torch.nn.functional.normalize(x)
    arguments = [x, head.weight.detach().clone(), labels, head.bias.detach()]
    buffer = torch.zeros_like(head.weight) if sgd else None
    step = torch.tensor(sgd, dtype=torch.float64) if sgd else None
    arguments += [*recipe.pack(), torch.float32, 1.0, 7, "chunked", step, buffer, True, not sgd]
    name = "sweep_and_store" if sgd or weight_norm == "in_place" else "sweep"
    sweep = getattr(torch.ops.sf2_plugin, name).default
    torch.library.opcheck(sweep, tuple(arguments))
    if sgd:
        return

    loss, *gradients = sweep(*arguments)
    inputs = [x.clone().requires_grad_(), head.weight, head.bias, loss, *gradients, "chunked"]
    torch.library.opcheck(torch.ops.sf2_plugin.attach.default, tuple(inputs))


def test_extra_memory_of_a_step_does_not_grow_with_the_classes():
    # 20,000 classes: all cosines would take 5 MB, the centers take 2.5 MB.
    head = SphereFace2(20_000, 32, chunk_size=512)
    x, labels = torch.randn(64, 32, requires_grad=True), torch.randint(20_000, (64,))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        nothing_kept(),
        torch.profiler.profile(profile_memory=True, activities=activities) as profile,
    ):
        head(x, labels).backward()
    allocated = [
        event.nbytes()
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.nbytes() > 0
    ]
    largest = sorted(allocated)[-2:]
    assert largest[1] == head.weight.numel() * 4  # The gradient, once.
    assert largest[0] < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(preset="softmax"),
            "preset must be one of 'opensphere', .*, got 'softmax'",
        ),
        (dict(margin_type="B"), "margin_type must be one of 'C', 'A', 'M', 'A2', got 'B'"),
        (dict(backend="cuda"), "backend must be one of 'auto', 'reference', 'chunked', 'triton'"),
        (dict(lam=1.0), "lam must be a number between 0 and 1, both excluded, got 1.0"),
        (dict(lam=0.0), "lam must be"),
        (dict(scale=0), "scale must be a number above 0, got 0"),
        (dict(scale=float("nan")), "scale must be"),
        (dict(margin=-0.1), "margin must be a number at least 0 for margin_type 'C', got -0.1"),
        (dict(margin="big"), "margin must be a number"),
        (dict(margin=0.5, margin_type="M"), "at least 1 for margin_type 'M', got 0.5"),
        (dict(margin=3.2, margin_type="A"), "pi for margin_type 'A', got 3.2"),
        (dict(t=0.5), "t must be a number at least 1"),
        (dict(t=2.5, margin_type="A2"), "t must be a whole number for margin_type 'A2', got 2.5"),
        (dict(loss_weight=-1), "loss_weight must be"),
        (dict(gradient="true"), "gradient must be one of 'detached', 'exact', got 'true'"),
        (dict(weight_norm="none"), "weight_norm must be one of"),
        (dict(interclass_filtering_threshold=1.5), "between 0 .off. and 1, got 1.5"),
        (dict(num_classes=0), "num_classes must be a whole number of at least 1, got 0"),
        (dict(embedding_size=2.0), "embedding_size must be a whole number"),
        (dict(chunk_size=0), "chunk_size must be a whole number"),
    ],
)
def test_bad_hyperparameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SphereFace2(**{"num_classes": 50, "embedding_size": 16, **arguments})


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (torch.zeros(2, 8), torch.zeros(2).long(), ValueError, r"\(batch, 16\), got \(2, 8\)"),
        (torch.zeros(16), torch.zeros(1).long(), ValueError, r"\(batch, 16\), got \(16,\)"),
        (torch.zeros(2, 16).long(), torch.zeros(2).long(), TypeError, "embeddings must be float"),
        (torch.zeros(2, 16), torch.zeros(3).long(), ValueError, r"labels must have shape \(2,\)"),
        (torch.zeros(2, 16), torch.zeros(2, 1).long(), ValueError, r"got \(2, 1\)"),
        (torch.zeros(2, 16), torch.zeros(2), TypeError, "labels must be integers, got torch.float"),
        (torch.zeros(2, 16), torch.zeros(2).bool(), TypeError, "must be integers, got torch.bool"),
        (torch.zeros(2, 16), torch.tensor([0, 50]), ValueError, r"0..49, got labels from 0 to 50"),
        (torch.zeros(2, 16), torch.tensor([-2, 0]), ValueError, r"got labels from -2 to 0"),
        (
            torch.zeros(2, 16, device="meta"),
            torch.zeros(2).long(),
            ValueError,
            "must be on cpu, where the class centers are, got meta",
        ),
    ],
)
def test_bad_batches_are_refused(backend, embeddings, labels, error, message):
    head = SphereFace2(50, 16, backend=backend)
    with pytest.raises(error, match=message):
        head(embeddings, labels)


@pytest.mark.parametrize(
    ("weight", "bias", "error", "message"),
    [
        (torch.zeros(7), torch.zeros(1), ValueError, r"weight must have .* size\), got \(7,\)"),
        (torch.zeros(7, 2, 3), torch.zeros(1), ValueError, r"got \(7, 2, 3\)"),
        (torch.zeros(7, 3).long(), torch.zeros(1), TypeError, "weight must be floating point, got"),
        (torch.zeros(7, 3), torch.zeros(7), ValueError, r"bias must have shape \(1,\), got \(7,\)"),
        (torch.zeros(7, 3), torch.zeros(()), ValueError, r"bias must have shape \(1,\), got \(\)"),
        (torch.zeros(7, 3), torch.zeros(1).int(), TypeError, "bias must be floating point, got"),
    ],
)
def test_class_centers_and_a_bias_that_do_not_fit_are_refused(weight, bias, error, message):
    with pytest.raises(error, match=message):
        sphereface2_loss(torch.zeros(2, 3), weight, torch.tensor([0, 1]), bias, Recipe())


def test_not_finite_embeddings_are_named_on_request_and_show_in_the_loss_otherwise(batch):
    x, labels = batch
    x[3, 5] = float("inf")
    x[7] = float("nan")
    with pytest.raises(ValueError, match="in 2 of 12 rows, the first of them row 3"):
        SphereFace2(50, 16, check_finite=True)(x, labels)
    assert torch.isnan(SphereFace2(50, 16)(x, labels))


def test_labels_of_any_integer_type(batch):
    x, labels = batch
    head = SphereFace2(50, 16)
    expected = head(x, labels)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        torch.testing.assert_close(head(x, labels.to(dtype)), expected)


def test_the_functional_form_is_what_the_module_computes(batch):
    head = SphereFace2(50, 16, margin=0.3)
    expected = sphereface2_loss(batch[0], head.weight, batch[1], head.bias, head.recipe)
    torch.testing.assert_close(head(*batch), expected)


def test_it_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        head = SphereFace2(11, 4)
    assert head.weight.is_meta


def test_numbers_may_be_numpys():
    count = np.array([4, 10]).max() + 1
    head = SphereFace2(count, np.int32(4), margin=np.float32(0.5), t=3, chunk_size=np.int64(5))
    plain = SphereFace2(11, 4, margin=0.5, chunk_size=5)
    assert head.extra_repr() == plain.extra_repr()
    plain.load_state_dict(head.state_dict())
    x, labels = torch.randn(3, 4), torch.arange(3)
    assert head(x, labels) == plain(x, labels)
    assert type(head.num_classes) is int


def test_cosines_of_another_dtype():
    head = SphereFace2(5, 4)
    x = torch.randn(3, 4)
    for dtype in (torch.float64, torch.bfloat16):
        cosine = head.cosine(x.to(dtype))
        assert cosine.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(cosine.float(), head.cosine(x.to(dtype).float()))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_the_head_takes_every_hyperparameter(name):
    value = {"t": 4.0, "margin_type": "A", "gradient": "exact", "weight_norm": "in_graph"}.get(
        name, 0.3
    )
    head = SphereFace2(11, 4, **{name: value})
    assert getattr(head.recipe, name) == value
    assert name in SphereFace2.takes


def test_the_initial_bias_may_be_given():
    assert SphereFace2(11, 4, bias=-7.5).bias.item() == -7.5


def test_what_is_no_hyperparameter_is_refused_by_name():
    with pytest.raises(TypeError, match=r"margin_type, lam, scale.*got temperature"):
        SphereFace2(11, 4, temperature=1.0)


WIDTHS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("weight_norm", ["in_place", "in_graph"])
@pytest.mark.parametrize("embeddings", WIDTHS)
@pytest.mark.parametrize("centers", WIDTHS)
def test_every_dtype_of_embeddings_meets_every_dtype_of_the_head(
    batch, centers, embeddings, weight_norm, backend
):
    head = SphereFace2(50, 16, weight_norm=weight_norm, backend=backend).to(centers)
    x = batch[0].to(embeddings).requires_grad_()
    exact = SphereFace2(50, 16, weight_norm=weight_norm, backend="reference").double()
    exact.load_state_dict(head.state_dict())
    expected_x = x.detach().double().requires_grad_()
    expected = exact(expected_x, batch[1])
    expected.backward()
    loss = head(x, batch[1])
    loss.backward()
    widest = torch.promote_types(torch.promote_types(embeddings, centers), torch.float32)
    assert (loss.dtype, x.grad.dtype) == (widest, embeddings)
    assert (head.weight.grad.dtype, head.bias.grad.dtype) == (centers, centers)
    narrowest = max(torch.finfo(embeddings).eps, torch.finfo(centers).eps)
    tolerance = max(8 * narrowest, 1e-9)
    assert relative_error(loss, expected) < tolerance
    assert relative_error(x.grad, expected_x.grad) < tolerance
    assert relative_error(head.weight.grad, exact.weight.grad) < tolerance
    assert relative_error(head.bias.grad, exact.bias.grad) < tolerance


KINDS = [SphereFace2, PartialFCSphereFace2]


class Model(torch.nn.Module):
    def __init__(self, kind, num_classes, embedding_size=16):
        super().__init__()
        self.head = kind(num_classes, embedding_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_classes", "embedding_size"), [(6, 16), (5000, 16), (50, 8)])
def test_a_bias_is_not_taken_without_its_centers(kind, num_classes, embedding_size, caplog):
    state = Model(kind, num_classes, embedding_size).state_dict()
    state["head.bias"].fill_(13.8)
    model = Model(kind, 50)
    own = model.head.bias.item()
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.weight"):
        model.load_state_dict(state, strict=False)
    # A host drops what does not fit, and loads the rest.
    del state["head.weight"]
    model.load_state_dict(state, strict=False)
    assert model.head.bias.item() == own
    assert "neither class centers nor bias are taken" in caplog.messages[0]
    assert (
        f"it has centers {(num_classes, embedding_size)} where head holds (50, 16)"
        in (caplog.messages[0])
    )
    assert "it has no class centers where head holds (50, 16)" in caplog.messages[1]
    assert state["head.bias"].item() == pytest.approx(13.8)  # The state is the caller's.


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_comes_with_its_centers(kind, caplog):
    state = Model(kind, 50).state_dict()
    state["head.bias"].fill_(13.8)
    model = Model(kind, 50)
    model.load_state_dict(state)
    assert model.head.bias.item() == pytest.approx(13.8)
    torch.testing.assert_close(model.head.weight.detach(), state["head.weight"])
    assert not caplog.messages


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_called_as_pytorch_metric_learning_calls_losses(kind, batch):
    head = kind(50, 16)
    expected = head(*batch)
    for loss in (
        head(*batch, None),
        head(*batch, None, None, None),
        head(*batch, indices_tuple=None, ref_emb=None, ref_labels=None),
    ):
        torch.testing.assert_close(loss, expected)
    mined = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(ValueError, match=r"indices_tuple must be None, .*, got tuple"):
        head(*batch, mined)
    with pytest.raises(ValueError, match=r"ref_emb must be None, .*, got Tensor"):
        head(*batch, ref_emb=batch[0])


def test_copies_of_data_parallel_are_refused_where_they_would_be_stored(batch):
    for weight_norm in ("in_place", "in_graph"):
        head = SphereFace2(50, 16, weight_norm=weight_norm)
        head._is_replica = True  # As torch.nn.parallel.replicate says.
        if weight_norm == "in_graph":
            assert torch.isfinite(head(*batch))
            continue
        with pytest.raises(RuntimeError, match=r"must not be a copy, got .*DataParallel"):
            head(*batch)


@needs(Version("2.5") <= TORCH, "2.5")
def test_centers_of_a_dtensor_are_refused_by_name(one_rank, batch):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    head = SphereFace2(50, 16)
    mesh = init_device_mesh("cpu", (1,))
    shards = distribute_tensor(head.weight.detach(), mesh, [Shard(0)])
    head.weight = torch.nn.Parameter(shards)
    with pytest.raises(RuntimeError, match="weight must be whole in forward, got a DTensor"):
        head(*batch)


@needs(Version("2.7") <= TORCH, "2.7")  # Before, fully_shard is for GPUs alone.
def test_centers_that_fully_shard_cuts_by_columns_are_refused(one_rank, batch):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    head = SphereFace2(50, 16)
    columns = lambda p: Shard(p.ndim - 1)  # noqa: E731
    fully_shard(head, mesh=init_device_mesh("cpu", (1,)), shard_placement_fn=columns)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    head(*batch).backward()
    with pytest.raises(RuntimeError, match="must be sharded by rows"):
        optimizer.step()
