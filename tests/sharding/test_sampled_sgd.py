"""A step fused below a sample rate of 1: the rows it leaves alone lose nothing by it."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import distributed

from sf2_plugin import PartialFCSphereFace2, sampling
from sf2_plugin.engine import missed
from sf2_plugin.patching import replaced
from sf2_plugin.shards import HEAD, OPTIMIZER, file_name, read_shards, reshard, write_shards

from ..devices import device_of, needs, runnable
from ..parity import relative_error
from ..ranks import on_ranks

CLASSES, SIZE = 200, 8
RATE = 0.05


def a_head(**kwargs):
    torch.manual_seed(1)
    kwargs = {"sample_rate": RATE, **kwargs}
    return PartialFCSphereFace2(CLASSES, SIZE, **kwargs).double()


def sgd(head, **kwargs):
    """Two groups, of which the centers' has numbers of its own."""
    groups = [{"params": [head.bias]}, {"params": [head.weight], "momentum": 0.9, **kwargs}]
    return torch.optim.SGD(groups, lr=0.1, weight_decay=5e-4)


def batch(step, classes=CLASSES):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, SIZE, generator=generator, dtype=torch.float64)
    return x, torch.randint(-1, classes, (6,), generator=generator)


def train(head, optimizer, steps, change=lambda group, step: None):
    """Losses, step by step; the draws go by the step."""
    losses = []
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(step / 300)) * min(1, (step + 1) / 50)
            change(group, step)
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = head(*batch(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def pair(missed_steps="made_up", **kwargs):
    """The same head and its optimizer twice, the second one's step fused."""
    head = a_head(**kwargs)
    fused = copy.deepcopy(head)
    optimizers = sgd(head), sgd(fused)
    fused.fuse_sgd(optimizers[1], missed_steps=missed_steps)
    return head, optimizers[0], fused, optimizers[1]


def momentum_of(optimizer, head):
    return optimizer.state[head.weight]["momentum_buffer"]


def assert_same_state(head, optimizer, fused, fused_optimizer, tolerance=1e-9):
    state = fused.state_dict()
    assert relative_error(state["weight"], head.weight) < tolerance
    assert relative_error(state["bias"], head.bias) < tolerance
    momentum = fused_optimizer.state_dict()["state"][1]["momentum_buffer"]
    assert relative_error(momentum, momentum_of(optimizer, head)) < tolerance


def test_a_thousand_steps_are_the_optimizers():
    head, optimizer, fused, fused_optimizer = pair()
    expected = train(head, optimizer, range(1050))
    assert train(fused, fused_optimizer, range(1050)) == pytest.approx(expected, rel=1e-8)
    assert fused.weight.grad is None
    assert not torch.allclose(fused.weight, head.weight, atol=1e-6)  # Until somebody asks.
    assert_same_state(head, optimizer, fused, fused_optimizer, 1e-8)


@pytest.mark.parametrize("rate", [0, 0.3])
@pytest.mark.parametrize("weighting", ["unbiased", "none"])
@pytest.mark.parametrize(("preset", "longest"), [("opensphere", 1024), ("wespeaker", 5)])
def test_numbers_that_change_on_the_way_are_those_of_the_time(
    rate, weighting, preset, longest, monkeypatch
):
    monkeypatch.setattr(missed, "LONGEST", longest)
    monkeypatch.setattr(missed, "BLOCK", 7 * SIZE)

    def change(group, step):
        group["momentum"] = (0.0, 0.9, 0.5, 0.0, 0.9)[step // 10]
        group["weight_decay"] = (5e-4, 0.0, 0.1)[step % 3]

    head, optimizer, fused, fused_optimizer = pair(
        sample_rate=rate, negative_weighting=weighting, preset=preset
    )
    expected = train(head, optimizer, range(50), change)
    assert train(fused, fused_optimizer, range(50), change) == pytest.approx(expected, rel=1e-9)
    assert_same_state(head, optimizer, fused, fused_optimizer)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_float32_and_both_backends(backend):
    head, optimizer, fused, fused_optimizer = pair(backend=runnable(backend), chunk_size=19)
    device = device_of(backend)
    for each in (head, fused):
        each.float().to(device)
    for step in range(4):
        x, labels = batch(step)
        for each, its_optimizer in ((head, optimizer), (fused, fused_optimizer)):
            torch.manual_seed(step)
            its_optimizer.zero_grad()
            each(x.float().to(device), labels.to(device)).backward()
            its_optimizer.step()
    assert_same_state(head, optimizer, fused, fused_optimizer, 1e-5)


def test_rows_that_are_not_sampled_are_not_touched():
    head = a_head()
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    train(head, optimizer, range(20))
    before = head.weight.detach().clone(), momentum_of(optimizer, head).clone()
    train(head, optimizer, [20])
    same = [
        (old == new).all(dim=1)
        for old, new in zip(before, (head.weight, momentum_of(optimizer, head)), strict=True)
    ]
    assert torch.equal(*same)
    most = 6 + math.ceil(RATE * CLASSES)
    assert 0 < (~same[0]).sum() <= most


def test_whoever_looks_finds_what_the_optimizer_would_have_made():
    head, optimizer, fused, fused_optimizer = pair()
    looks = [
        lambda: relative_error(fused.state_dict()["weight"], head.weight),
        lambda: relative_error(copy.deepcopy(fused).weight, head.weight),
        lambda: relative_error(fused.cosine(batch(0)[0]), head.cosine(batch(0)[0])),
        lambda: relative_error(fused.catch_up() or fused.weight, head.weight),
        lambda: relative_error(
            fused_optimizer.state_dict()["state"][1]["momentum_buffer"],
            momentum_of(optimizer, head),
        ),
    ]
    for count, look in enumerate(looks):
        steps = range(12 * count, 12 * count + 12)
        train(head, optimizer, steps)
        train(fused, fused_optimizer, steps)
        assert relative_error(fused.weight, head.weight) > 1e-6
        assert look() < 1e-9


@pytest.mark.parametrize("attribute", ["training", "sample_rate"])
def test_a_dense_step_between_finds_all_rows_up_to_date(attribute):
    """The optimizer's own step in evaluation mode, the fused one at a sample rate of 1."""
    head, optimizer, fused, fused_optimizer = pair()
    for steps, value in ((range(10), None), (range(10, 12), 1.0), (range(12, 20), None)):
        for each in (head, fused):
            if attribute == "training":
                each.train(value is None)
            else:
                each.sample_rate = value or RATE
        train(head, optimizer, steps)
        train(fused, fused_optimizer, steps)
        fused.zero_grad()
    assert_same_state(head, optimizer, fused, fused_optimizer)


@pytest.mark.parametrize("optimizer_first", [False, True])
def test_a_state_that_is_loaded_owes_nothing_to_the_steps_before(optimizer_first):
    head, optimizer, fused, fused_optimizer = pair()
    train(head, optimizer, range(10))
    states = copy.deepcopy((head.state_dict(), optimizer.state_dict()))
    train(fused, fused_optimizer, range(100, 130))
    if optimizer_first:
        fused_optimizer.load_state_dict(states[1])
    fused.load_state_dict(states[0])
    if not optimizer_first:
        fused_optimizer.load_state_dict(states[1])
    train(head, optimizer, range(10, 20))
    train(fused, fused_optimizer, range(10, 20))
    assert_same_state(head, optimizer, fused, fused_optimizer)


def test_centers_that_are_drawn_anew_owe_nothing_either():
    head = a_head()
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    train(head, optimizer, range(10))
    head.reset_parameters()
    drawn = head.weight.detach().clone()
    assert torch.equal(head.state_dict()["weight"], drawn)


def test_what_is_skipped_moves_nothing():
    """Against an obvious loop: SGD on the rows that have a gradient, and on no other."""
    head, _, fused, fused_optimizer = pair(missed_steps="skipped", preset="wespeaker")
    moving = torch.zeros_like(head.weight)
    for step in range(60):
        train(fused, fused_optimizer, [step])
        numbers = fused_optimizer.param_groups[1]
        torch.manual_seed(step)
        head.zero_grad()
        head(*batch(step)).backward()
        rows = head.weight.grad.any(dim=1).nonzero().squeeze(1)
        with torch.no_grad():
            change = head.weight.grad[rows] + numbers["weight_decay"] * head.weight[rows]
            moving[rows] = numbers["momentum"] * moving[rows] + change
            head.weight[rows] -= numbers["lr"] * moving[rows]
            head.bias.copy_(fused.bias)
    assert relative_error(fused.state_dict()["weight"], head.weight) < 1e-9
    assert relative_error(momentum_of(fused_optimizer, fused), moving) < 1e-9


@needs(hasattr(torch.amp, "GradScaler"), "2.3")
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
def test_a_step_that_a_loss_scaler_skips_moves_nothing(preset):
    head, optimizer, fused, fused_optimizer = pair(preset=preset)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in range(2)]
    backbones = [torch.nn.Linear(SIZE, SIZE).double() for _ in range(2)]
    backbones[1].load_state_dict(backbones[0].state_dict())
    for step in range(30):
        for each, its_optimizer, scaler, backbone in zip(
            (head, fused), (optimizer, fused_optimizer), scalers, backbones, strict=True
        ):
            if step == 0:
                its_optimizer.add_param_group({"params": backbone.parameters()})
            torch.manual_seed(step)
            x, labels = batch(step)
            its_optimizer.zero_grad()
            scaler.scale(each(backbone(x), labels)).backward()
            if step % 7 == 3:
                backbone.bias.grad.fill_(math.inf)
            scaler.step(its_optimizer)
            scaler.update()
    assert_same_state(head, optimizer, fused, fused_optimizer)
    assert relative_error(backbones[1].weight, backbones[0].weight) < 1e-9


@needs(hasattr(torch.library, "custom_op"), "2.4")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_around_it():
    head, optimizer, fused, fused_optimizer = pair()
    expected = train(head, optimizer, range(5))
    actual = train(torch.compile(fused, backend="eager"), fused_optimizer, range(5))
    assert actual == pytest.approx(expected, rel=1e-9)
    assert_same_state(head, optimizer, fused, fused_optimizer)


def test_another_word_for_missed_steps_is_refused():
    head = a_head()
    with pytest.raises(
        ValueError, match="missed_steps must be one of 'made_up', 'skipped', got 'no'"
    ):
        head.fuse_sgd(sgd(head), missed_steps="no")


class Training:
    """The head on its rank, and SGD; labels, faces and sampled classes are those of one process."""

    def __init__(self, fuse):
        torch.manual_seed(1)
        self.head = PartialFCSphereFace2(
            CLASSES, SIZE, sample_rate=RATE, negative_weighting="none"
        ).double()
        self.optimizer = torch.optim.SGD(
            self.head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        if fuse:
            self.head.fuse_sgd(self.optimizer)

    def steps(self, steps):
        mine = slice(distributed.get_rank(), None, distributed.get_world_size())
        for step in steps:
            x, labels = batch(step)
            self.optimizer.zero_grad()
            with replaced(sampling, "draw", partial(self.draw, step)):
                self.head(x[mine], labels[mine]).backward()
            self.optimizer.step()

    def draw(self, step, absent, size):
        generator = torch.Generator().manual_seed(1000 + step)
        drawn = torch.rand(CLASSES, generator=generator) < RATE
        return absent[drawn[absent + self.head.classes.start]]

    def checkpoint(self):
        return {HEAD: self.head.state_dict(), OPTIMIZER: self.optimizer.state_dict()}

    def resume(self, checkpoint):
        self.head.load_state_dict(checkpoint[HEAD])
        self.optimizer.load_state_dict(checkpoint[OPTIMIZER])


def train_and_save(rank, folder):
    training = Training(fuse=True)
    training.steps(range(25))
    torch.save(training.checkpoint(), folder / file_name(rank))


def resume_and_train(rank, folder):
    training = Training(fuse=True)
    training.resume(torch.load(folder / file_name(rank), weights_only=True))
    training.steps(range(25, 50))
    return training.checkpoint()


def train_densely(rank):
    training = Training(fuse=False)
    training.steps(range(50))
    return training.checkpoint()


def test_three_ranks_go_on_where_two_stopped(tmp_path):
    (tmp_path / "two").mkdir()
    on_ranks(train_and_save, 2, tmp_path / "two")
    write_shards(reshard(read_shards(tmp_path / "two"), 3), tmp_path / "three")
    actual = on_ranks(resume_and_train, 3, tmp_path / "three")
    (expected,) = on_ranks(train_densely, 1)
    weight = torch.cat([checkpoint[HEAD]["weight"] for checkpoint in actual])
    assert relative_error(weight, expected[HEAD]["weight"]) < 1e-9
    momentum = [checkpoint[OPTIMIZER]["state"][0]["momentum_buffer"] for checkpoint in actual]
    assert (
        relative_error(torch.cat(momentum), expected[OPTIMIZER]["state"][0]["momentum_buffer"])
        < 1e-9
    )
