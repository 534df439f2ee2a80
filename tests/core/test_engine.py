"""Every backend against the definition, over shapes, dtypes, margins and chunk sizes."""

import math
from importlib.util import find_spec

import pytest
import torch

from sf2_plugin import PRESETS, Recipe, sphereface2_loss
from sf2_plugin.definition import unit
from sf2_plugin.engine import AUTO, BACKENDS
from sf2_plugin.engine.backends import pointwise_of
from sf2_plugin.engine.sweep import (
    SMALLEST_CHUNK,
    default_chunk_size,
    float16_boost,
    whole_waves,
)
from sf2_plugin.margins import MARGIN_TYPES

from ..devices import device_of, grid, runnable
from ..parity import relative_error

MARGINS = list(MARGIN_TYPES)
#: Backends of the sweep.
SWEPT = [name for name, backend in BACKENDS.items() if backend.pointwise]
SHAPES = [(1, 2, 1), (2, 3, 2), (3, 17, 1), (7, 100, 5), (33, 257, 64), (300, 1000, 16)]
SHAPES += [(64, 5000, 128), (5, 999, 512)]
# Off a GPU, Triton's kernels are interpreted, slowly.
TRITON_SHAPES = [(1, 2, 1), (3, 17, 1), (7, 100, 5), (33, 70, 40), (130, 40, 3)]
# And more slowly where cosines are theirs too.
FUSED_SHAPES = [(1, 2, 1), (66, 90, 67)]
SHAPES_OF = dict.fromkeys(SWEPT, SHAPES) | {"triton": TRITON_SHAPES, "fused": FUSED_SHAPES}
WIDEST = {name: (torch.float32, 1e-5) for name in SWEPT} | {"chunked": (torch.float64, 1e-10)}


def swept(names, *axes):
    """Parametrises a test over backends and the axes, of which the shapes are the backend's own."""
    cases = [
        (name, *case)
        for name in SWEPT
        for case in grid(name, *(axis[name] if axis is SHAPES_OF else axis for axis in axes))
    ]
    return pytest.mark.parametrize(("backend", *names), cases, ids=str, indirect=["backend"])


@pytest.fixture(params=SWEPT)
def backend(request):
    """A backend of the sweep; the test skips where it cannot run."""
    return runnable(request.param)


def inputs(batch_size, num_classes, size, dtype=torch.float32, seed=0):
    """Faces near their centers, hard impostors among them, a tenth of them of no known identity."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_classes, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (batch_size,), generator=generator)
    x = unit(weight)[labels] * 2 + torch.randn(
        batch_size, size, generator=generator, dtype=torch.float64
    )
    labels[::10] = -1
    return x.to(dtype), weight.to(dtype), labels


def answers(backend, x, weight, labels, recipe, *, bias=-4.0, upstream=1.0, **kwargs):
    """Loss, all gradients, and the class centers as the call left them, on a CPU."""
    device = device_of(backend) if x.device.type == "cpu" else x.device
    x, weight = (t.detach().to(device, copy=True).requires_grad_() for t in (x, weight))
    labels = labels.to(device)
    bias = torch.full((1,), bias, dtype=weight.dtype, device=weight.device, requires_grad=True)
    loss = sphereface2_loss(x, weight, labels, bias, recipe, backend=backend, **kwargs)
    (loss * upstream).backward()
    answer = {
        "loss": loss,
        "embeddings": x.grad,
        "weight": weight.grad,
        "bias": bias.grad,
        "stored weight": weight,
    }
    return {name: tensor.detach().cpu() for name, tensor in answer.items()}


def assert_agree(actual, expected, tolerance):
    # In one dimension a direction cannot turn: its gradient is zero but for the rounding of
    # terms as large as the loss.
    flat = expected["embeddings"].shape[-1] == 1 if "embeddings" in expected else False
    floor = expected["loss"].abs().item() if flat else 0.0
    for name, value in expected.items():
        error = relative_error(actual[name], value, floor)
        assert error < tolerance, f"{name} differs by {error:.2e}"


@pytest.mark.parametrize("bias", [-4.0, 10.0, 46.0, 500.0])
def test_a_steep_logit_is_a_finite_loss(backend, bias):
    """Every face on every center at a large scale, as where training has collapsed."""
    recipe = Recipe(scale=64.0, margin=0.5)
    x, weight, labels = torch.ones(4, 8), torch.ones(17, 8), torch.tensor([0, 3, 16, -1])
    expected = answers("reference", x, weight, labels, recipe, bias=bias)
    actual = answers(backend, x, weight, labels, recipe, bias=bias)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logit", [20.0, 41.0, 80.0, 83.0, 84.0])
def test_float64_loses_no_digit_where_a_logit_becomes_steep(logit):
    recipe = Recipe(scale=64.0, margin=0.5)
    x, weight = torch.ones(4, 8, dtype=torch.float64), torch.ones(17, 8, dtype=torch.float64)
    weight[9:] *= -1  # Whose logits are far below.
    given = x, weight, torch.tensor([0, 3, 16, -1]), recipe
    bias = logit - recipe.scale * (1 + recipe.margin)
    expected, actual = (answers(name, *given, bias=bias) for name in ("reference", "chunked"))
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


def test_every_backend_serves_every_margin_type(backend):
    parts = pointwise_of(backend)
    missing = set(MARGIN_TYPES) - set(parts.margin_types)
    assert not missing, f"{parts.__module__} lacks the margin types {sorted(missing)}"
    unknown = set(parts.margin_types) - set(MARGIN_TYPES)
    assert not unknown, f"{parts.__module__} serves {sorted(unknown)}, which margins.py lacks"


def test_every_backend_is_its_own_and_an_unknown_name_is_refused():
    loaded = [pointwise_of(name) for name in SWEPT if name == "chunked" or find_spec("triton")]
    assert len(set(loaded)) == len(loaded)
    assert set(AUTO) <= set(SWEPT)
    for name in ("reference", "fastest"):
        with pytest.raises(ValueError, match=f"sweep must be one of .*, got '{name}'"):
            pointwise_of(name)


def test_a_margin_type_that_a_backend_lacks_is_refused_by_it(backend, monkeypatch):
    monkeypatch.setattr(pointwise_of(backend), "margin_types", ("C",))
    with pytest.raises(
        ValueError, match=r"margin_type for .*Pointwise must be one of 'C', got 'A'"
    ):
        answers(backend, *inputs(3, 5, 2), Recipe(margin_type="A"))


@swept(("shape", "preset", "margin_type"), SHAPES_OF, PRESETS, MARGINS)
def test_agrees_with_reference_in_float32(backend, shape, preset, margin_type):
    recipe = Recipe.from_preset(preset, margin_type=margin_type)
    x, weight, labels = inputs(*shape)
    expected = answers("reference", x, weight, labels, recipe)
    chunk_sizes = (1 + shape[1] // 2, 1 + shape[1] // 7, None, shape[1] - 1, shape[1] + 3)
    for chunk_size in chunk_sizes if backend == "chunked" else chunk_sizes[:1]:
        actual = answers(backend, x, weight, labels, recipe, chunk_size=chunk_size)
        assert_agree(actual, expected, 1e-5)


@swept(
    ("shape", "gradient", "weight_norm", "margin_type"),
    SHAPES_OF,
    ["detached", "exact"],
    ["in_place", "in_graph"],
    MARGINS,
)
def test_agrees_with_reference_in_its_widest_dtype(
    backend, shape, gradient, weight_norm, margin_type
):
    dtype, tolerance = WIDEST[backend]
    recipe = Recipe.from_preset(
        margin_type=margin_type,
        gradient=gradient,
        weight_norm=weight_norm,
        interclass_filtering_threshold=0.4,
    )
    x, weight, labels = inputs(*shape, dtype=dtype)
    expected = answers("reference", x, weight, labels, recipe)
    actual = answers(backend, x, weight, labels, recipe, chunk_size=1 + shape[1] // 3)
    assert_agree(actual, expected, tolerance)


@swept(
    ("t", "margin_type", "gradient"),
    [1.0, 2.0, 2.5, 7.0],
    [m for m in MARGINS if not MARGIN_TYPES[m].whole_t],
    ["detached", "exact"],
)
def test_every_exponent(backend, t, margin_type, gradient):
    dtype, tolerance = WIDEST[backend]
    recipe = Recipe.from_preset(t=t, margin_type=margin_type, gradient=gradient)
    x, weight, labels = inputs(20, 50, 2, dtype=dtype)
    expected = answers("reference", x, weight, labels, recipe)
    assert_agree(answers(backend, x, weight, labels, recipe, chunk_size=27), expected, tolerance)


@pytest.mark.parametrize("bias", [-200.0, -20.0, 0.0, 20.0, 60.0])
def test_logits_far_from_zero_keep_their_precision(backend, bias):
    # At -200 a negative's loss underflows; at 60 it is the logit itself.
    recipe = Recipe()
    x, weight, labels = inputs(33, 100, 64)
    exact = answers("reference", x.double(), weight.double(), labels, recipe, bias=bias)
    actual = answers(backend, x, weight, labels, recipe, bias=bias)
    assert_agree(actual, exact, 1e-5)


@swept(("dtype", "preset"), [torch.bfloat16, torch.float16], PRESETS)
def test_half_precision_inputs_are_summed_in_float32(backend, dtype, preset):
    recipe = Recipe.from_preset(preset)
    x, weight, labels = inputs(16, 140, 128, dtype=dtype)
    # The same rounded numbers, multiplied exactly.
    exact = answers("reference", x.double(), weight.double(), labels, recipe)
    actual = answers(backend, x, weight, labels, recipe)
    assert actual["loss"].dtype == torch.float32
    assert actual["embeddings"].dtype == actual["weight"].dtype == dtype
    # What is left is the rounding of stored centers and of the gradients' own dtype.
    assert relative_error(actual["loss"], exact["loss"]) < 4 * torch.finfo(dtype).eps
    for name in ("embeddings", "weight", "bias"):
        assert relative_error(actual[name], exact[name]) < 8 * torch.finfo(dtype).eps


def test_half_embeddings_against_float32_centers(backend):
    recipe = Recipe()
    x, weight, labels = inputs(16, 99, 32)
    x = x.bfloat16()
    expected = answers("reference", x, weight, labels, recipe)
    actual = answers(backend, x, weight, labels, recipe)
    assert actual["weight"].dtype == torch.float32
    assert_agree(
        {k: actual[k] for k in ("loss", "weight")},
        {k: expected[k] for k in ("loss", "weight")},
        1e-5,
    )


@pytest.mark.parametrize("upstream", [0.0, 0.5, 65536.0])
def test_the_incoming_gradient_scales_everything(upstream):
    recipe = Recipe()
    x, weight, labels = inputs(16, 99, 32)
    expected = answers("reference", x, weight, labels, recipe, upstream=upstream)
    assert_agree(answers("chunked", x, weight, labels, recipe, upstream=upstream), expected, 1e-5)


def test_backward_twice_through_a_retained_graph():
    x, weight, labels = inputs(16, 99, 32)
    x.requires_grad_()
    weight.requires_grad_()
    loss = sphereface2_loss(x, weight, labels, torch.zeros(1), Recipe())
    first = torch.autograd.grad(3 * loss, (x, weight), retain_graph=True)
    second = torch.autograd.grad(5 * loss, (x, weight))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a * 5, b * 3)


def test_a_second_derivative_is_refused():
    x, weight, labels = inputs(4, 9, 8)
    x.requires_grad_()
    loss = sphereface2_loss(x, weight, labels, torch.zeros(1), Recipe())
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("frozen", ["embeddings", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    x, weight, labels = inputs(16, 99, 32)
    tensors = {"embeddings": x, "weight": weight, "bias": torch.tensor([-4.0])}
    expected = answers("chunked", x, weight, labels, Recipe())
    for name, tensor in tensors.items():
        tensor.requires_grad_(name != frozen)
    sphereface2_loss(x, weight, labels, tensors["bias"], Recipe()).backward()
    for name, tensor in tensors.items():
        if name == frozen:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, expected[name])


def test_without_gradients_only_the_loss_is_computed():
    x, weight, labels = inputs(16, 99, 32)
    weight.requires_grad_()
    expected = answers("chunked", x, weight, labels, Recipe())["loss"]
    with torch.no_grad():
        loss = sphereface2_loss(x, weight, labels, torch.tensor([-4.0]), Recipe())
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("preset", PRESETS)
def test_an_empty_batch_has_loss_zero_and_gradients_of_zeros(backend, preset):
    recipe = Recipe.from_preset(preset)
    x, weight, labels = torch.empty(0, 8), torch.randn(9, 8), torch.empty(0, dtype=torch.long)
    answer = answers(backend, x, weight, labels, recipe)
    assert answer["loss"].item() == 0
    assert answer["embeddings"].shape == (0, 8)
    assert torch.equal(answer["weight"], torch.zeros(9, 8))
    assert answer["bias"].item() == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_one_class_has_only_positives(backend, preset):
    dtype, tolerance = WIDEST[backend]
    recipe = Recipe.from_preset(preset)
    x, weight, _ = inputs(5, 1, 8, dtype=dtype)
    labels = torch.zeros(5, dtype=torch.long)
    expected = answers("reference", x, weight, labels, recipe)
    assert_agree(answers(backend, x, weight, labels, recipe), expected, tolerance)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("preset", PRESETS)
def test_zero_rows_have_finite_gradients(backend, preset):
    x, weight, labels = inputs(5, 9, 8)
    x[0] = 0
    weight[3] = 0
    answer = answers(backend, x, weight, labels, Recipe.from_preset(preset))
    assert all(torch.isfinite(value).all() for value in answer.values())


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("margin_type", MARGINS)
def test_faces_on_their_own_and_on_opposite_centers(backend, margin_type):
    weight = torch.eye(4)
    x = torch.cat([weight, -weight])
    labels = torch.arange(4).repeat(2)
    recipe = Recipe.from_preset("wespeaker", margin_type=margin_type)
    answer = answers(backend, x, weight, labels, recipe)
    assert all(torch.isfinite(value).all() for value in answer.values())


def test_a_repeated_call_gives_the_same_bits(backend):
    x, weight, labels = inputs(64, 400, 32)
    first, second = (answers(backend, x, weight, labels, Recipe()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_negative_weight_multiplies_the_negatives(backend):
    x, weight, labels = inputs(16, 99, 32)
    expected = answers("reference", x, weight, labels, Recipe(), negative_weight=2.5)
    actual = answers(backend, x, weight, labels, Recipe(), negative_weight=2.5)
    # The bias' gradient is a small difference of large sums.
    assert_agree(actual, expected, 5e-5)


def test_labels_may_lie_apart_in_memory(backend):
    x, weight, labels = inputs(16, 99, 32)
    apart = labels.repeat_interleave(2)[::2]
    expected = answers("reference", x, weight, labels, Recipe())
    assert_agree(answers(backend, x, weight, apart, Recipe()), expected, 1e-5)


@pytest.mark.parametrize("size", [1, 512, 4096])
@pytest.mark.parametrize("batch_size", [0, 1, 64, 1024, 100_000])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_chunk_stays_small_whatever_the_batch(device, batch_size, size):
    chunk = default_chunk_size(batch_size, 10**7, size, torch.device(device))
    assert SMALLEST_CHUNK <= chunk <= 10**7
    if chunk > SMALLEST_CHUNK:
        assert 4 * chunk * batch_size <= 2**27
        if device == "cuda":  # Where a chunk of class centers is copied too.
            assert 4 * chunk * size <= 2**27
    assert default_chunk_size(batch_size, 7, size, torch.device(device)) == 7


@pytest.mark.parametrize("processors", [78, 108, 132, 148])
@pytest.mark.parametrize(("batch_size", "size"), [(64, 512), (256, 512), (1024, 512), (4096, 128)])
def test_a_chunk_fills_whole_waves(batch_size, size, processors):
    def waiting(chunk):
        """Share of the time that multiprocessors wait for others, counted tile by tile."""
        work = taken = 0
        for width, depth in ((batch_size, size), (size, batch_size)):
            tiles = math.ceil(chunk / 128) * math.ceil(width / 256)
            loads = [len(range(first, tiles, processors)) * depth for first in range(processors)]
            work, taken = work + sum(loads), taken + max(loads) * processors
        return 1 - work / taken

    wanted = 48 * 2**20 // (4 * max(batch_size, size))
    chunk = whole_waves(wanted, batch_size, size, processors)
    assert 2 / 3 - 0.01 < chunk / wanted < 4 / 3 + 0.01
    near = range(wanted * 2 // 3 // 128 + 1, wanted * 4 // 3 // 128)
    assert waiting(chunk) <= min(waiting(128 * bands) for bands in near) + 1e-9


def test_the_chunk_of_an_h100_fills_four_waves_and_two():
    assert whole_waves(12_800, 1024, 512, 132) == 132 * 128


def test_slopes_in_float16_are_boosted_as_far_as_there_is_room():
    assert float16_boost(Recipe(), 1.0) == 1024
    for negative_weight in (70.0, 1e3, 1e7):
        recipe = Recipe(gradient="exact")
        steepest = (1 - recipe.lam) * negative_weight * recipe.t
        boost = float16_boost(recipe, negative_weight)
        assert 65504 / 2 < boost * steepest <= 65504
        assert math.frexp(boost)[0] == 0.5  # A power of two, which rounds nothing.
