"""A step that is not finite is left out: training goes on as if its batch had not been there."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.finite_steps import PATIENCE, FiniteSteps

from ..ranks import on_ranks

CLASSES = 6

#: It stores no centers in the forward pass, so that a step left out leaves every bit as it was.
PRESET = "wespeaker"


def batches(bad=()):
    generator = torch.Generator().manual_seed(2)
    for step in range(6):
        images = torch.randn(8, 4, generator=generator)
        if step in bad:
            images[5, 1] = torch.nan
        yield images, torch.randint(CLASSES, (8,), generator=generator)


def training(head, wrap=lambda network: network):
    """A step of training, what it trains, and the network's own module."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    backbone = wrap(network)
    optimizer = torch.optim.SGD(
        [*network.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=1e-3
    )

    def step(images, labels):
        optimizer.zero_grad()
        head(backbone(images), labels).backward()
        optimizer.step()

    return step, optimizer, network


def state_of(network, head, optimizer):
    moving = [state["momentum_buffer"] for state in optimizer.state.values()]
    return [*network.state_dict().values(), *head.state_dict().values(), *moving]


@pytest.mark.parametrize("bad", [(0,), (2, 3), (5,)])
def test_training_is_that_without_the_bad_batches(bad, caplog):
    ends = []
    for skips in (True, False):
        torch.manual_seed(1)
        head = SphereFace2(CLASSES, 4, preset=PRESET)
        step, optimizer, network = training(head)
        if skips:
            steps = FiniteSteps(network, head, "image {}".format)
            optimizer.register_step_pre_hook(steps.before_step)
        for number, (images, labels) in enumerate(batches(bad if skips else ())):
            if skips or number not in bad:
                step(images, labels)
        ends.append(state_of(network, head, optimizer))
    for left, right in zip(*ends, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(bad)
    assert "a step is left out, as gradients are not finite: 8 of 8 embeddings on rank 0" in told[0]
    assert "row 0, label" in told[0]
    assert ", image 0; " in told[0]


def test_without_it_all_centers_are_lost():
    head = SphereFace2(CLASSES, 4)
    step, _, _ = training(head)
    for images, labels in batches(bad=(2,)):
        step(images, labels)
    assert head.weight.isnan().all()
    assert head.bias.isnan().all()


def test_training_ends_where_no_step_is_finite_any_more():
    head = SphereFace2(CLASSES, 4)
    step, optimizer, network = training(head)
    optimizer.register_step_pre_hook(FiniteSteps(network, head).before_step)
    batch = torch.full((8, 4), torch.nan), torch.zeros(8).long()
    for _ in range(PATIENCE - 1):
        step(*batch)
    with pytest.raises(ValueError, match=f"{PATIENCE} steps in a row were left out"):
        step(*batch)


def test_a_fused_step_is_made_before_anybody_knows():
    head = SphereFace2(CLASSES, 4)
    step, optimizer, network = training(head)
    head.fuse_sgd(optimizer)
    optimizer.register_step_pre_hook(FiniteSteps(network, head).before_step)
    with pytest.raises(ValueError, match="leave fuse_sgd out"):
        step(*next(batches()))


def train_on_rank(rank, sharded, skips):
    torch.manual_seed(3)
    head = inner = (PartialFCSphereFace2 if sharded else SphereFace2)(CLASSES, 4, preset=PRESET)
    if not sharded:
        head = DistributedDataParallel(head)
    step, optimizer, network = training(head, DistributedDataParallel)
    if skips:
        optimizer.register_step_pre_hook(FiniteSteps(network, inner).before_step)
    bad = (1, 4) if rank == 1 and skips else ()
    for number, (images, labels) in enumerate(batches(bad)):
        if skips or number not in (1, 4):
            # On rank 1, the NaN's row among them.
            step(images[rank::2], labels[rank::2])
    return state_of(network, head, optimizer)


def refuse_on_rank(rank):
    head = SphereFace2(CLASSES, 4, check_finite=True)
    embeddings = torch.full((3, 4), torch.inf if rank == 1 else 1.0, requires_grad=True)
    try:
        head(embeddings, torch.zeros(3).long())
    except ValueError as error:
        return str(error)


def all_on_rank(rank):
    trained = [
        [train_on_rank(rank, sharded, skips) for skips in (True, False)]
        for sharded in (True, False)
    ]
    return trained, refuse_on_rank(rank)


@pytest.fixture(scope="module")
def ranks():
    return on_ranks(all_on_rank, 2)


def test_ranks_leave_out_a_step_together(ranks):
    for trained, _ in ranks:
        for with_bad, without in trained:
            for one, other in zip(with_bad, without, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_check_finite_ends_all_ranks_with_one_sentence(ranks):
    (_, first), (_, second) = ranks
    assert first == second
    assert first.startswith("rank 1 could not take its batch: embeddings must be finite, got NaN")
