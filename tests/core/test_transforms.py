"""torch.func, forward-mode derivatives, and values that change under torch.compile."""

import dataclasses
import itertools

import pytest
import torch
from packaging.version import Version
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jvp, vmap

from sf2_plugin import PRESETS, PartialFCSphereFace2, Recipe, SphereFace2, sphereface2_loss
from sf2_plugin.compat import TORCH

from ..devices import needs


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 3, -1, 10, 3, 7])


def head_of(kind=SphereFace2, **kwargs):
    torch.manual_seed(0)
    head = kind(11, 8, **kwargs).double()
    if head.recipe.weight_norm == "in_graph":
        head.weight.data *= 1.5
    return head


def by_autograd(head, x, labels):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(head(x, labels), [*head.parameters(), x])


@pytest.mark.parametrize("kind", [SphereFace2, PartialFCSphereFace2])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("preset", PRESETS)
def test_grad_is_that_of_autograd_and_stores_nothing(batch, preset, backend, kind):
    head = head_of(kind, preset=preset, backend=backend)
    weights = {name: p.detach().clone() for name, p in head.named_parameters()}
    weights["weight"] *= 2
    given = weights["weight"].clone()

    def loss(weights, x):
        return functional_call(head, weights, (x, batch[1]))

    gradients = grad(loss, argnums=(0, 1))(weights, batch[0])
    assert torch.equal(weights["weight"], given)
    with torch.no_grad():
        # Centers stored at length one first, whose gradient is then the same.
        head.weight.copy_(given if preset != "opensphere" else given / given.norm(dim=1)[:, None])
    expected = by_autograd(head, *batch)
    actual = [gradients[0]["weight"], gradients[0]["bias"], gradients[1]]
    torch.testing.assert_close(actual, list(expected))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_vmap_gives_each_faces_gradient(batch, backend, threshold):
    head = head_of(backend=backend, interclass_filtering_threshold=threshold)
    weights = {name: p.detach() for name, p in head.named_parameters()}

    def loss(weights, face, label):
        return functional_call(head, weights, (face[None], label[None]))

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, *batch)
    for i, (face, label) in enumerate(zip(*batch, strict=True)):
        expected = by_autograd(head, face[None], label[None])
        torch.testing.assert_close(each["weight"][i], expected[0])
        torch.testing.assert_close(each["bias"][i], expected[1])


def test_bad_values_are_refused_under_vmap_too(batch):
    head = head_of(check_finite=True)
    x, labels = batch[0].clone(), batch[1].clone()
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 6 rows, the first of them row 2"):
        vmap(lambda face, label: head(face[None], label[None]))(x, labels)
    labels[3] = 11
    with pytest.raises(ValueError, match=r"in 0..10, got labels from -1 to 11"):
        vmap(lambda face, label: head(face[None], label[None]))(batch[0], labels)


def test_derivatives_along_a_direction_are_those_of_the_gradient(batch):
    head = head_of(preset="wespeaker")
    x, labels = batch
    direction = torch.randn_like(x)
    expected = (by_autograd(head, x, labels)[-1] * direction).sum()
    loss, along = jvp(lambda x: head(x, labels), (x,), (direction,))
    torch.testing.assert_close(along, expected)
    torch.testing.assert_close(loss, head(x, labels))
    with forward_ad.dual_level():
        dual = head(forward_ad.make_dual(x, direction), labels)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)


def test_second_derivatives_under_transforms(batch):
    head = head_of(preset="wespeaker")
    actual = hessian(lambda x: head(x, batch[1]))(batch[0])
    reference = head_of(preset="wespeaker", backend="reference")
    expected = torch.autograd.functional.hessian(lambda x: reference(x, batch[1]), batch[0])
    torch.testing.assert_close(actual, expected)


def test_a_fused_step_has_no_place_in_a_transform(batch):
    head = head_of()
    head.fuse_sgd(torch.optim.SGD(head.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"must be one of the sweep to fuse SGD, .* torch.func"):
        grad(lambda x: head(x, batch[1]))(batch[0])


@pytest.mark.parametrize("preset", PRESETS)
def test_several_forward_passes_before_one_backward_pass(batch, preset):
    def gradients(backend):
        head = head_of(preset=preset, backend=backend)
        x = batch[0].clone().requires_grad_()
        (head(x, batch[1]) + head(x * 2 + 1, batch[1]) + head(x, batch[1])).backward()
        return [head.weight.grad, head.bias.grad, x.grad]

    torch.testing.assert_close(gradients("reference"), gradients("chunked"))


def compiled(function):
    """It, compiled, and the count of its compilations."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, backend=counter, fullgraph=True), counter


@needs(Version("2.11") <= TORCH, "2.11")
@pytest.mark.parametrize("preset", PRESETS)
def test_hyperparameters_change_without_another_compilation(batch, preset):
    head = head_of(preset=preset)
    run, counter = compiled(head)
    for step in range(20):
        margin, lam = 0.02 * step, 0.3 + 0.02 * step
        head.recipe = dataclasses.replace(head.recipe, margin=margin, lam=lam, scale=20.0 + step)
        torch.testing.assert_close(run(*batch), head(*batch))
    assert counter.frame_count == 1


@needs(Version("2.11") <= TORCH, "2.11")
def test_the_functional_form_is_compiled_once_for_all_numbers(batch):
    head = head_of()
    run, counter = compiled(sphereface2_loss)
    for step, name in enumerate(itertools.chain(*[["margin", "t", "loss_weight", "scale"]] * 5)):
        recipe = dataclasses.replace(Recipe(), **{name: 1.0 + step / 10})
        arguments = batch[0], head.weight, batch[1], head.bias, recipe
        torch.testing.assert_close(run(*arguments), sphereface2_loss(*arguments))
    assert counter.frame_count == 1


@needs(Version("2.11") <= TORCH, "2.11")
def test_a_learning_rate_that_is_a_tensor_changes_without_another_compilation(batch):
    heads = [head_of(), head_of()]
    for head, rate in zip(heads, (torch.tensor(0.1), 0.1), strict=True):
        head.optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9)
        head.fuse_sgd(head.optimizer)
    run, counter = compiled(heads[0])
    for step in range(12):
        heads[0].optimizer.param_groups[0]["lr"].fill_(0.1 + 0.01 * step)
        heads[1].optimizer.param_groups[0]["lr"] = 0.1 + 0.01 * step
        losses = run(*batch), heads[1](*batch)
        torch.testing.assert_close(*losses)
        for head, loss in zip(heads, losses, strict=True):
            loss.backward()
            head.optimizer.step()
            head.optimizer.zero_grad()
        if step == 1:  # By now the optimizer has its state.
            compilations = counter.frame_count
    torch.testing.assert_close(heads[0].weight, heads[1].weight)
    assert counter.frame_count == compilations
