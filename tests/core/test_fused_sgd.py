"""The step that forward makes on the class centers is the optimizer's own."""

import copy
import inspect

import pytest
import torch
from packaging.version import Version

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.compat import TORCH
from sf2_plugin.engine.memory import nothing_kept

from ..devices import device_of, grid, needs, runnable

STEPS = [
    (backend, *case)
    for backend in ("chunked", "triton")
    for case in grid(
        backend,
        ["opensphere", "wespeaker"],
        [0.0, 0.9],
        [0.0, 5e-4],
        [SphereFace2, PartialFCSphereFace2],
    )
]


def batches(count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(12, 16, generator=generator),
            torch.randint(50, (12,), generator=generator),
        )


def sgd(head, **kwargs):
    return torch.optim.SGD(head.parameters(), **{"lr": 0.1, "momentum": 0.9, **kwargs})


def train(head, optimizer, steps=4):
    """Gradients of the embeddings, step by step, with a learning rate that falls."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    gradients = []
    for x, labels in batches(steps):
        x, labels = x.to(head.weight.device).requires_grad_(), labels.to(head.weight.device)
        optimizer.zero_grad()
        head(x, labels).backward()
        optimizer.step()
        schedule.step()
        gradients.append(x.grad)
    return gradients


@pytest.mark.parametrize(("backend", "preset", "momentum", "weight_decay", "kind"), STEPS)
def test_equals_the_optimizers_step(backend, preset, momentum, weight_decay, kind):
    head = kind(50, 16, preset=preset, backend=runnable(backend), chunk_size=19)
    head.to(device_of(backend))
    fused = copy.deepcopy(head)
    optimizer, fused_optimizer = (
        sgd(h, momentum=momentum, weight_decay=weight_decay) for h in (head, fused)
    )
    fused.fuse_sgd(fused_optimizer)
    expected, actual = train(head, optimizer), train(fused, fused_optimizer)
    assert fused.weight.grad is None
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(fused.weight, head.weight)
    torch.testing.assert_close(fused.bias, head.bias)
    if momentum:  # Without, older optimizers hold states of nothing.
        torch.testing.assert_close(fused_optimizer.state_dict(), optimizer.state_dict())


def test_a_checkpoint_goes_on_without_the_fusion():
    head = SphereFace2(50, 16)
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    train(head, optimizer)
    resumed = SphereFace2(50, 16)
    resumed.load_state_dict(head.state_dict())
    resumed_optimizer = sgd(resumed)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(head, optimizer)
    train(resumed, resumed_optimizer)
    torch.testing.assert_close(resumed.weight, head.weight)


@needs(hasattr(torch.amp, "GradScaler"), "2.3")
def test_a_loss_scaler_changes_nothing():
    head = SphereFace2(50, 16)
    plain = copy.deepcopy(head)
    optimizer, plain_optimizer = sgd(head), sgd(plain)
    head.fuse_sgd(optimizer)
    train(plain, plain_optimizer, steps=1)
    scaler = torch.amp.GradScaler("cpu")
    ((x, labels),) = batches(1)
    scaler.scale(head(x, labels)).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(head.weight, plain.weight)
    torch.testing.assert_close(head.bias, plain.bias)


@needs(hasattr(torch.amp, "GradScaler"), "2.3")
@pytest.mark.parametrize("kind", [SphereFace2, PartialFCSphereFace2])
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
def test_a_step_that_a_loss_scaler_skips_moves_nothing(kind, preset):
    """Overflows in the backbone, known after forward, in some steps and not in others."""
    heads = [kind(50, 16, preset=preset)]
    heads.append(copy.deepcopy(heads[0]))
    optimizers = [sgd(head, weight_decay=5e-4) for head in heads]
    heads[0].fuse_sgd(optimizers[0])
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in heads]
    backbones = [torch.nn.Linear(16, 16) for _ in heads]
    backbones[1].load_state_dict(backbones[0].state_dict())
    overflow = [False, True, False, True, True, False]
    for backbone, optimizer in zip(backbones, optimizers, strict=True):
        optimizer.add_param_group({"params": backbone.parameters()})
        overflows = iter(overflow)
        backbone.bias.register_hook(
            lambda gradient, which=overflows: gradient * float("inf") if next(which) else gradient
        )
    for x, labels in batches(len(overflow)):
        for head, backbone, optimizer, scaler in zip(
            heads, backbones, optimizers, scalers, strict=True
        ):
            optimizer.zero_grad()
            scaler.scale(head(backbone(x), labels)).backward()
            scaler.step(optimizer)
            scaler.update()
        torch.testing.assert_close(heads[0].weight, heads[1].weight)
        torch.testing.assert_close(backbones[0].weight, backbones[1].weight)
    assert heads[0].weight.grad is None
    states = [
        optimizer.state[head.weight] for optimizer, head in zip(optimizers, heads, strict=True)
    ]
    torch.testing.assert_close(*states)


@pytest.mark.skipif(
    "fused" not in inspect.signature(torch.optim.SGD).parameters, reason="from torch 2.3 on"
)
def test_an_optimizer_that_skips_by_itself_is_obeyed():
    head, backbone = SphereFace2(50, 16), torch.nn.Linear(16, 16)
    backbone.bias.register_hook(lambda gradient: gradient * float("inf"))
    optimizer = sgd(head, fused=True)
    optimizer.add_param_group({"params": backbone.parameters()})
    head.fuse_sgd(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    ((x, labels),) = batches(1)
    scaler.scale(head(backbone(x), labels)).backward()
    before = head.weight.detach().clone()
    scaler.step(optimizer)
    torch.testing.assert_close(head.weight.detach(), before)


def test_a_loss_scaler_that_comes_later_is_refused():
    head = SphereFace2(50, 16)
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    train(head, optimizer, steps=2)
    ((x, labels),) = batches(1)
    with pytest.raises(RuntimeError, match="fuse_sgd must see in backward the loss itself"):
        (1024 * head(x, labels)).backward()
    head.fuse_sgd(optimizer)
    (1024 * head(x, labels)).backward()


def test_no_step_without_gradients_or_in_evaluation_or_on_frozen_centers():
    head = SphereFace2(50, 16)
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    ((x, labels),) = batches(1)
    with torch.no_grad():
        head(x, labels)
        before = head.weight.clone()
        head(x, labels)
    head.eval()(x, labels)
    torch.testing.assert_close(head.weight, before)
    head.weight.requires_grad_(False)
    head.train()(x, labels)
    torch.testing.assert_close(head.weight, before)
    head.weight.requires_grad_()
    head(x, labels).backward()
    optimizer.step()
    assert not torch.allclose(head.weight, before)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_a_batch_that_is_not_finite_leaves_the_class_centers_as_they_are(backend):
    head = SphereFace2(50, 16, backend=runnable(backend)).to(device_of(backend))
    before = head.weight.detach().clone()
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    ((x, labels),) = batches(1)
    x[3] = float("inf")
    device = device_of(backend)
    loss = head(x.to(device), labels.to(device))
    assert torch.isnan(loss)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(head.weight.detach(), before)


def test_the_gradient_of_the_class_centers_never_exists():
    head = SphereFace2(20_000, 32, chunk_size=512)
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    x, labels = torch.randn(64, 32), torch.randint(20_000, (64,))
    head(x, labels).backward()
    optimizer.step()  # Makes the momentum's buffer.
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        nothing_kept(),
        torch.profiler.profile(profile_memory=True, activities=activities) as profile,
    ):
        head(x, labels).backward()
    events = profile.profiler.kineto_results.events()
    assert max(e.nbytes() for e in events if e.name() == "[memory]") < head.weight.nbytes / 4


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (
            lambda head: torch.optim.AdamW(head.parameters()),
            TypeError,
            r"must be a torch.optim.SGD, got AdamW",
        ),
        (
            lambda head: torch.optim.SGD([head.bias], lr=0.1),
            ValueError,
            "must hold the class centers",
        ),
        (
            lambda head: sgd(head, nesterov=True),
            ValueError,
            "nesterov must be off to fuse SGD, got True",
        ),
        (
            lambda head: sgd(head, dampening=0.1),
            ValueError,
            "dampening must be off to fuse SGD, got 0.1",
        ),
        (
            lambda head: sgd(head, maximize=True),
            ValueError,
            "maximize must be off to fuse SGD, got True",
        ),
    ],
)
def test_what_cannot_be_fused_is_refused(optimizer, error, message):
    head = SphereFace2(50, 16)
    with pytest.raises(error, match=message):
        head.fuse_sgd(optimizer(head))


def test_the_reference_makes_no_step():
    head = SphereFace2(50, 16, backend="reference")
    with pytest.raises(ValueError, match="must be one of the sweep to fuse SGD, got 'reference'"):
        head.fuse_sgd(sgd(head))


def test_it_says_so_once_where_the_optimizer_makes_no_step_between(caplog):
    head = SphereFace2(50, 16)
    optimizer = sgd(head)
    head.fuse_sgd(optimizer)
    train(head, optimizer)
    copied = copy.deepcopy(head)  # Of which its optimizer does not know.
    assert not caplog.messages
    for x, labels in batches(4):
        head(x, labels).backward()
        copied(x, labels)
    (message,) = caplog.messages
    assert "the optimizer made no step between them" in message


def test_the_learning_rate_may_be_a_tensor():
    head = SphereFace2(50, 16)
    fused = copy.deepcopy(head)
    optimizer, fused_optimizer = sgd(head), sgd(fused, lr=torch.tensor(0.1))
    fused.fuse_sgd(fused_optimizer)
    train(head, optimizer)
    train(fused, fused_optimizer)
    torch.testing.assert_close(fused.weight, head.weight)


@needs(Version("2.4") <= TORCH, "2.4")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_it_keeps_the_momentum_that_it_began():
    head = SphereFace2(50, 16)
    fused = copy.deepcopy(head)
    optimizer, fused_optimizer = sgd(head), sgd(fused)
    fused.fuse_sgd(fused_optimizer)
    fused.compile(backend="eager")
    for _ in range(2):  # Again after an optimizer's state that has no momentum.
        for each in (optimizer, fused_optimizer):
            each.load_state_dict({**each.state_dict(), "state": {}})
        train(head, optimizer)
        train(fused, fused_optimizer)
        torch.testing.assert_close(fused.weight, head.weight)
