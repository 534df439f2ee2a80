"""The sharded head against the head of one process, on real ranks; sampling against none."""

import dataclasses
import itertools

import pytest
import torch
from packaging.version import Version
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import sf2_plugin.distributed
from sf2_plugin import PartialFCSphereFace2, SphereFace2, build_head
from sf2_plugin.agreement import NUMBERS
from sf2_plugin.compat import TORCH
from sf2_plugin.distributed import classes_of_rank, gather

from ..devices import needs
from ..parity import relative_error
from ..ranks import on_ranks

SIZE = 6
WORLD_SIZES = [1, 2, 3]
#: Faces that each of three ranks brings; with fewer ranks, the last takes the rest.
BATCHES = [(4, 4, 4), (5, 2, 3), (1, 0, 6)]
#: Two classes leave one of three ranks without any.
NUM_CLASSES = [11, 7, 2]
RECIPES = [dict(preset="opensphere"), dict(preset="wespeaker", margin_type="A2")]
RECIPES += [dict(backend="reference", interclass_filtering_threshold=0.2)]
CASES = [
    (batch, num_classes, RECIPES[(i + j) % 3])
    for (i, batch), (j, num_classes) in itertools.product(
        enumerate(BATCHES), enumerate(NUM_CLASSES)
    )
]
DRAWS = 200


def double_head(num_classes, **kwargs):
    torch.manual_seed(1)
    return PartialFCSphereFace2(num_classes, SIZE, **kwargs).double()


def whole_head(num_classes, **kwargs):
    """The head of one process, with the centers that the sharded heads start from."""
    head = SphereFace2(num_classes, SIZE, **kwargs).double()
    head.load_state_dict(double_head(num_classes, **kwargs).state_dict())
    return head


def global_batch(batch, num_classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(batch), SIZE, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (sum(batch),), generator=generator)
    labels[::5] = -1
    return x, labels


def of_rank(batch, *tensors):
    """The slices that this rank brings of the global batch."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    sizes = [*batch[: world_size - 1], sum(batch[world_size - 1 :])]
    return [tensor.split(sizes)[rank] for tensor in tensors]


def gradients():
    answers = []
    for batch, num_classes, recipe in CASES:
        head = double_head(num_classes, **recipe)
        x, labels = of_rank(batch, *global_batch(batch, num_classes))
        x.requires_grad_()
        loss = head(x, labels)
        (3 * loss).backward()
        answers.append((loss.detach(), x.grad, head.weight.grad, head.bias.grad, head.weight.data))
    return answers


def backbone():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, SIZE)).double()


#: Batches of five steps, of changing size.
STEPS = [(batch, *global_batch(batch, 11, seed)) for seed, batch in enumerate((BATCHES * 2)[:5])]


def train(model, head, batches):
    parameters = [{"params": model.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    losses = []
    for x, labels in batches:
        loss = head(model(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def five_steps():
    model = DistributedDataParallel(backbone(), broadcast_buffers=False)
    head = double_head(11)
    losses = train(model, head, [of_rank(*step) for step in STEPS])
    return losses, list(model.module.parameters()), head.weight.data, head.bias.data


def sampled_draws(negative_weighting="unbiased"):
    """Loss and gradients of many draws of a head that samples a third of its negatives."""
    head = double_head(23, sample_rate=0.3, negative_weighting=negative_weighting)
    x, labels = of_rank((4, 4, 4), *global_batch((4, 4, 4), 23))
    x.requires_grad_()
    torch.manual_seed(3)
    draws = []
    for _ in range(DRAWS):
        loss = head(x, labels)
        gradients = torch.autograd.grad(loss, (x, head.weight, head.bias))
        draws.append((loss.detach(), *gradients))
    return [torch.stack(draw) for draw in zip(*draws, strict=True)]


def collectives():
    """What a step exchanges, by class count: names and elements."""
    calls, originals = [], {}
    for name in ("all_gather_single", "reduce_scatter_single"):
        originals[sf2_plugin.distributed, name] = getattr(sf2_plugin.distributed, name)
    originals[distributed, "all_reduce"] = distributed.all_reduce
    for (module, name), original in originals.items():

        def record(tensor, *args, name=name, original=original, **kwargs):
            calls.append((name.removesuffix("_single"), tensor.numel()))
            return original(tensor, *args, **kwargs)

        setattr(module, name, record)
    answers = []
    for num_classes in (11, 1100):
        head = double_head(num_classes, sample_rate=0.5)
        x, labels = of_rank((4, 4, 4), *global_batch((4, 4, 4), 11))
        head(x.requires_grad_(), labels).backward()
        answers.append(list(calls))
        calls.clear()
    for (module, name), original in originals.items():
        setattr(module, name, original)
    return answers


def small_head(**kwargs):
    return PartialFCSphereFace2(**{"num_classes": 11, "embedding_size": SIZE, **kwargs})


def with_bias(head, value):
    with torch.no_grad():
        head.bias.fill_(value)
    return head


def fused(head, lr):
    head.fuse_sgd(torch.optim.SGD(head.parameters(), lr=lr))
    return head


#: What the last rank's head is, where the others' is `small_head()`, and what all ranks say.
HEADS = {
    "classes": (lambda: small_head(num_classes=20), "num_classes", 11, 20),
    "margin": (lambda: small_head(margin=0.1), "margin", 0.4, 0.1),
    "gradient": (lambda: small_head(gradient="exact"), "gradient", "'detached'", "'exact'"),
    "threshold": (
        lambda: small_head(interclass_filtering_threshold=0.5),
        "interclass_filtering_threshold",
        0.0,
        0.5,
    ),
    "sampling": (lambda: small_head(sample_rate=0.5), "sample_rate", 1.0, 0.5),
    "weighting": (
        lambda: small_head(negative_weighting="none"),
        "negative_weighting",
        "'unbiased'",
        "'none'",
    ),
    "frozen bias": (lambda: small_head(learn_bias=False), "learn_bias", True, False),
    "double": (
        lambda: small_head().double(),
        "dtype of the class centers",
        "torch.float32",
        "torch.float64",
    ),
    "bias": (lambda: with_bias(small_head(), 2.5), "bias", -3.5, 2.5),
    "fused": (lambda: fused(small_head(), 0.5), "fused SGD", None, (0.5, 0.0, 0.0)),
    "several": (
        lambda: small_head(scale=30, margin=0.3),
        "scale",
        40.0,
        "30.0 on rank {last}; margin must be equal on all ranks, got 0.4 on {others} and 0.3",
    ),
}


def embeddings(rows=2, **kwargs):
    return torch.randn(rows, SIZE, **kwargs)


def labels(*values, **kwargs):
    return torch.tensor(values or (0, 5), **kwargs)


IN_RANGE = "labels must be -1 (no known identity) or in 0..10, got "
COULD_NOT = "rank {last} could not take its batch: "
#: What the last rank brings to a step, where the others bring `embeddings(), labels()`, and what
#: all ranks say.
BATCHES_REFUSED = {
    "label": ((embeddings(), labels(0, 11)), IN_RANGE + "labels from 0 to 11 on rank {last}"),
    "low label": ((embeddings(), labels(-2, 3)), IN_RANGE + "labels from -2 to 3 on rank {last}"),
    "label's type": ((embeddings(), labels(0.0, 1.0)), COULD_NOT + "labels must be integers"),
    "shape": ((torch.randn(2, 9), labels()), COULD_NOT + "embeddings must have shape (batch, 6)"),
    "faces": ((embeddings(3), labels()), COULD_NOT + "labels must have shape (3,)"),
    "device": ((embeddings(device="meta"), labels()), COULD_NOT + "embeddings must be on cpu"),
    "meta": (
        (embeddings(), labels(device="meta")),
        COULD_NOT + "labels must be on cpu",
    ),
    "nothing": ((None, labels()), COULD_NOT + "AttributeError: "),
    "dtype": (
        (embeddings(dtype=torch.bfloat16), labels()),
        "dtype of the embeddings must be equal on all ranks, got torch.float32 on {others} and "
        "torch.bfloat16 on rank {last}",
    ),
    "not finite": (
        (embeddings().index_fill(0, torch.tensor([1]), torch.nan), labels()),
        "embeddings must be finite, got NaN or infinity in 1 of 2 rows on rank {last}",
    ),
}


def said_by(step):
    try:
        step()
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return None


def disagreements():
    """What a rank says where the last one differs; and the loss of the same head afterwards."""
    last = distributed.get_rank() == distributed.get_world_size() - 1
    said = {}
    for name, (differing, *_) in HEADS.items():
        head = (
            differing()
            if last
            else with_bias(small_head(), -3.5)
            if name == "bias"
            else small_head()
        )
        dtype = head.weight.dtype
        said[name] = said_by(lambda head=head, dtype=dtype: head(embeddings(dtype=dtype), labels()))
    head = with_bias(small_head(check_finite=True), 1.0)
    for name, (batch, _) in BATCHES_REFUSED.items():
        given = batch if last else (embeddings(), labels())
        said[name] = said_by(lambda given=given: head(*given))
    meta = dict(device="meta") if last else {}
    elsewhere = small_head().to(**meta) if last else head
    said["all on another device"] = said_by(lambda: elsewhere(embeddings(**meta), labels(**meta)))
    with torch.set_grad_enabled(not last):
        said["gradients off"] = said_by(lambda: head(embeddings(), labels()))
    with torch.autocast("cpu", enabled=last):
        said["autocast"] = said_by(lambda: head(embeddings(), labels()))
    said["cosine"] = said_by(lambda: head.cosine(embeddings()))
    said["logits"] = said_by(lambda: head.logits(embeddings()))
    torch.manual_seed(0)
    said["afterwards"] = head(embeddings(), labels()).item()
    head(torch.randn(2 - 2 * last, SIZE), labels()[: 2 - 2 * last])  # An empty batch is no fault.
    if last:
        head.recipe = dataclasses.replace(head.recipe, margin=0.25)
    said["schedule"] = said_by(lambda: head(embeddings(), labels()))
    return said


def without_gradient():
    """Loss and gradient where the last rank's embeddings need no gradient."""
    head = double_head(11)
    x, labels = of_rank((4, 4, 4), *global_batch((4, 4, 4), 11))
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    x.requires_grad_(rank < world_size - 1)
    loss = head(x, labels)
    loss.backward()
    return loss.item(), head.weight.grad


#: Gradients of three ranks: added one by one to the first, float16 rounds the others away.
HALVES = (2048.0, 1.0, 1.0)


def half_precision():
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    rows = torch.zeros(1, 1, dtype=torch.float16, requires_grad=True)
    (gather(rows, [1] * world_size) * HALVES[rank]).sum().backward()
    return rows.grad


def outside_of_the_group():
    group = distributed.new_group([0])
    if distributed.get_rank() > 0:
        with pytest.raises(ValueError, match=r"process_group does not have rank [12] in it"):
            PartialFCSphereFace2(11, SIZE, process_group=group)


class Whole(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.backbone, self.head = torch.nn.Linear(SIZE, SIZE), head

    def forward(self, x, labels):
        return self.head(self.backbone(x), labels)


def inside_ddp():
    ddp = torch.nn.parallel.DistributedDataParallel
    x, labels = torch.randn(4, SIZE), torch.arange(4)
    whole = Whole(PartialFCSphereFace2(12, SIZE))
    with pytest.raises(RuntimeError, match="must stay out of DistributedDataParallel"):
        ddp(whole)(x, labels)
    ignored = ["head.weight", "head.bias"]
    ddp._set_params_and_buffers_to_ignore_for_model(whole, ignored)
    return ddp(whole)(x, labels).item()


def everything(rank):
    parts = (gradients, five_steps, sampled_draws, collectives)
    parts += (without_gradient, half_precision, outside_of_the_group)
    if distributed.get_world_size() > 1:
        parts += (disagreements, inside_ddp)
    return {part.__name__: part() for part in parts}


@pytest.fixture(scope="module")
def answers():
    """What every rank of a group of so many answers, by name of the part."""
    cache = {}

    def ask(world_size, part):
        if world_size not in cache:
            cache[world_size] = on_ranks(everything, world_size)
        return [answer[part] for answer in cache[world_size]]

    return ask


def test_a_head_inside_ddp_is_refused_unless_ddp_leaves_it_alone(answers):
    first, second = answers(2, "inside_ddp")
    assert first == second


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_loss_and_gradients_are_those_of_one_process(answers, world_size):
    for case, *ranks in zip(CASES, *answers(world_size, "gradients"), strict=True):
        batch, num_classes, recipe = case
        whole = whole_head(num_classes, **recipe)
        x, labels = global_batch(batch, num_classes)
        x.requires_grad_()
        loss = whole(x, labels)
        (3 * loss).backward()
        losses, x_grads, weight_grads, bias_grads, weights = zip(*ranks, strict=True)
        for rank_loss, bias_grad in zip(losses, bias_grads, strict=True):
            assert relative_error(rank_loss, loss) < 1e-9
            assert relative_error(bias_grad, whole.bias.grad) < 1e-9
        # DistributedDataParallel divides by the number of ranks.
        assert relative_error(torch.cat(x_grads) / world_size, x.grad) < 1e-9
        assert relative_error(torch.cat(weight_grads), whole.weight.grad) < 1e-9
        assert relative_error(torch.cat(weights), whole.weight) < 1e-9


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_five_steps_through_ddp_train_what_one_process_trains(answers, world_size):
    ranks = answers(world_size, "five_steps")
    model, whole = backbone(), whole_head(11)
    losses = train(model, whole, [batch for _, *batch in STEPS])
    for rank_losses, parameters, _, bias in ranks:
        assert rank_losses == pytest.approx(losses, rel=1e-9)
        for actual, expected in zip(parameters, model.parameters(), strict=True):
            assert relative_error(actual, expected) < 1e-9
        assert relative_error(bias, whole.bias) < 1e-9
        assert torch.equal(bias, ranks[0][3])
    assert relative_error(torch.cat([weight for _, _, weight, _ in ranks]), whole.weight) < 1e-9


def full_gradients(num_classes):
    whole = whole_head(num_classes)
    x, labels = global_batch((4, 4, 4), num_classes)
    loss = whole(x.requires_grad_(), labels)
    loss.backward()
    return loss.detach(), x.grad, whole.weight.grad, whole.bias.grad


def standard_errors_off(draws, full):
    """How far the mean over draws lies from the full value, in standard errors of that mean."""
    deviation = (draws.mean(dim=0) - full).norm()
    return deviation / (draws.var(dim=0).sum() / len(draws)).sqrt()


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_the_mean_over_draws_is_the_full_loss_and_gradient(answers, world_size):
    loss, x_grad, weight_grad, bias_grad = zip(*answers(world_size, "sampled_draws"), strict=True)
    draws = [loss[0], torch.cat(x_grad, dim=1) / world_size, torch.cat(weight_grad, dim=1)]
    for draw, full in zip([*draws, bias_grad[0]], full_gradients(23), strict=True):
        assert standard_errors_off(draw, full) < 3


def test_without_weighting_the_mean_over_draws_is_another(monkeypatch):
    monkeypatch.setattr(f"{__name__}.of_rank", lambda batch, *tensors: tensors)
    for draw, full in zip(sampled_draws("none"), full_gradients(23), strict=True):
        assert standard_errors_off(draw, full) > 10


@pytest.mark.parametrize("world_size", [2, 3])
@needs(Version("2.4") <= TORCH, "2.4")  # Before, all ranks' sums stand in over gloo.
def test_a_step_exchanges_faces_and_two_scalars_whatever_the_classes(answers, world_size):
    faces = 4 * world_size if world_size == 3 else 16
    for few, many in answers(world_size, "collectives"):
        assert few == many
        assert sorted(few) == sorted(
            [
                ("all_gather", world_size * NUMBERS),  # What ranks agree on.
                ("all_gather", faces * SIZE),
                ("all_gather", faces),
                ("all_reduce", 1),
                ("all_reduce", 1),
                ("reduce_scatter", faces * SIZE // world_size),
            ]
        )


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_that_disagree_all_end_with_the_same_sentence(answers, world_size):
    ranks = answers(world_size, "disagreements")
    last, others = world_size - 1, {2: "rank 0", 3: "ranks 0 and 1"}[world_size]
    expected = {
        name: text.format(last=last, others=others) for name, (_, text) in BATCHES_REFUSED.items()
    }
    for name, (_, what, usual, other) in {
        **HEADS,
        "gradients off": (None, "torch.is_grad_enabled()", True, False),
        "autocast": (None, "autocast", False, "torch.bfloat16"),
        "schedule": (None, "margin", 0.4, 0.25),
    }.items():
        other = str(other).format(last=last, others=others)
        expected[name] = (
            f"{what} must be equal on all ranks, got {usual} on {others} and {other} on rank {last}"
        )
    expected["all on another device"] = f"rank {last} could not take its batch: "
    for said in ranks:
        for name, text in expected.items():
            assert said[name] == ranks[0][name]
            assert said[name].startswith(text)


def test_a_refused_step_leaves_the_next_one_as_it_is(answers):
    first, second = (said["afterwards"] for said in answers(2, "disagreements"))
    assert first == second


def test_cosines_of_some_classes_are_refused(answers):
    for rank, said in enumerate(answers(2, "disagreements")):
        held = ("0..5", "6..10")[rank]
        assert said["cosine"] == said["logits"]
        assert f"must have the centers of all classes, got those of {held}" in said["cosine"]


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_rank_without_gradient_does_not_hang_the_others(answers, world_size):
    loss, _, weight_grad, _ = full_gradients(11)
    losses, weight_grads = zip(*answers(world_size, "without_gradient"), strict=True)
    assert losses == pytest.approx([loss.item()] * world_size)
    assert relative_error(torch.cat(weight_grads), weight_grad) < 1e-9


def test_half_precision_gradients_are_summed_in_float32(answers):
    for gradient in answers(3, "half_precision"):
        assert gradient.dtype == torch.float16
        assert gradient == torch.tensor(3 * sum(HALVES), dtype=torch.float16)


def test_without_torch_distributed_one_process_holds_all_classes():
    sharded, whole = double_head(11), whole_head(11)
    batch = global_batch((4, 4, 4), 11)
    assert sharded.classes == range(11)
    torch.testing.assert_close(sharded(*batch), whole(*batch))


@pytest.mark.parametrize(("num_classes", "world_size"), [(11, 2), (11, 3), (2, 3), (2000, 7)])
def test_ranks_share_out_the_classes_as_arcface_torch_does(num_classes, world_size):
    shares = [classes_of_rank(num_classes, rank, world_size) for rank in range(world_size)]
    assert [c for share in shares for c in share] == list(range(num_classes))
    for rank, share in enumerate(shares):
        more = int(rank < num_classes % world_size)
        assert len(share) == num_classes // world_size + more


@pytest.mark.parametrize("world_size", [2, 3])
def test_fresh_centers_do_not_depend_on_the_number_of_ranks(monkeypatch, world_size):
    torch.manual_seed(5)
    whole = PartialFCSphereFace2(3001, 4).weight
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(3001))
    shards = []
    for rank in range(world_size):
        monkeypatch.setattr(
            "sf2_plugin.partial_fc.rank_and_world_size", lambda group, r=rank: (r, world_size)
        )
        torch.manual_seed(5)
        shards.append(PartialFCSphereFace2(3001, 4).weight)
    assert torch.equal(torch.cat(shards), whole)
    assert not torch.equal(shards[0][:1000], shards[1][:1000])


def test_a_sample_rate_of_zero_leaves_the_classes_of_the_batch():
    head, whole = double_head(23, sample_rate=0), whole_head(23)
    x, labels = global_batch((4, 4, 4), 23)
    present = labels[labels >= 0].unique()
    fewer = SphereFace2(len(present), SIZE).double()
    with torch.no_grad():
        fewer.weight.copy_(whole.weight[present])
        fewer.bias.copy_(whole.bias)
    renamed = torch.where(labels >= 0, torch.searchsorted(present, labels), -1)
    torch.testing.assert_close(head(x, labels), fewer(x, renamed))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_sample_of_all_classes_gives_the_full_loss_and_gradient(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    head = double_head(23, sample_rate=0.999).to(device)
    x, labels = (tensor.to(device) for tensor in global_batch((4, 4, 4), 23))
    loss = head(x.requires_grad_(), labels)
    loss.backward()
    actual = [tensor.cpu() for tensor in (loss, x.grad, head.weight.grad, head.bias.grad)]
    torch.testing.assert_close(actual, list(full_gradients(23)))


@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
def test_plain_sgd_changes_sampled_rows_only_and_sparse_gradients_do_the_same(preset):
    x, labels = global_batch((4, 4, 4), 200)
    weights = []
    for sparse in (False, True):
        head = double_head(200, sample_rate=0.1, preset=preset, sparse_gradient=sparse)
        before = head.weight.detach().clone()
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        torch.manual_seed(4)
        head(x, labels).backward()
        assert head.weight.grad.is_sparse == sparse
        optimizer.step()
        changed = (head.weight != before).any(dim=1)
        present = labels[labels >= 0].unique()
        assert changed[present].all()
        assert changed.sum() <= len(present) + 0.1 * (200 - len(present)) + 1
        weights.append(head.weight.detach())
    torch.testing.assert_close(weights[1], weights[0])


def test_sampled_centers_are_stored_at_length_one_and_the_others_left():
    head = double_head(200, sample_rate=0.1)
    with torch.no_grad():
        head.weight *= 3
    head(*global_batch((4, 4, 4), 200))
    lengths = head.weight.norm(dim=1)
    stored = (lengths - 1).abs() < 1e-12
    assert 12 < stored.sum() < 35
    torch.testing.assert_close(lengths[~stored], torch.full_like(lengths[~stored], 3))


def test_a_seed_repeats_the_draws():
    batch = global_batch((4, 4, 4), 200)
    losses = []
    for seed in (1, 1, 2):
        # Anew: to normalise what is normalised already may move a last digit.
        head = double_head(200, sample_rate=0.1)
        torch.manual_seed(seed)
        losses.append(head(*batch).item())
    assert losses[0] == losses[1] != losses[2]


def test_a_group_that_appears_after_the_head_is_refused(tmp_path):
    head = double_head(11)
    head.world_size = 2
    with pytest.raises(RuntimeError, match="built as rank 0 of 2 and is used as rank 0 of 1"):
        head(*global_batch((4, 4, 4), 11))


def test_it_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        head = PartialFCSphereFace2(11, SIZE)
    assert head.weight.is_meta
    with pytest.raises(RuntimeError, match=r"Missing key.*bias"):  # Which a meta head has not.
        head.load_state_dict({"weight": torch.randn(11, SIZE)}, assign=True)


def test_a_state_without_bias_leaves_the_heads_own():
    head, other = double_head(11, margin=0.2), double_head(11)
    bias = head.bias.item()
    head.load_state_dict({"weight": 2 * other.weight})
    assert torch.equal(head.weight, 2 * other.weight)
    assert head.bias.item() == bias != other.bias.item()


def test_the_registry_builds_it():
    head = build_head("partial_fc_sphereface2", 11, SIZE, sample_rate=0.2, margin=0.3)
    assert isinstance(head, PartialFCSphereFace2)
    assert (head.sample_rate, head.recipe.margin) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(sample_rate=1.5), "sample_rate must be a number from 0 to 1, got 1.5"),
        (dict(sample_rate=-0.1), "sample_rate must be"),
        (dict(sample_rate=True), "sample_rate must be"),
        (dict(sample_rate="all"), "sample_rate must be"),
        (dict(negative_weighting="biased"), "negative_weighting must be one of 'unbiased', 'none'"),
        (dict(num_classes=0), "num_classes must be a whole number of at least 1, got 0"),
        (dict(margin=-1), "margin must be"),
    ],
)
def test_bad_hyperparameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartialFCSphereFace2(**{"num_classes": 11, "embedding_size": SIZE, **arguments})
