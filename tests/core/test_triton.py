"""Triton's kernels one by one, and when they are chosen."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version

from sf2_plugin import Recipe, SphereFace2
from sf2_plugin.definition import softplus, unit
from sf2_plugin.engine import backends, resolve_backend
from sf2_plugin.margins import MARGIN_TYPES, phi_negative, phi_positive

from ..devices import CPU, device_of
from ..parity import relative_error

if backends.unfit_triton():
    pytest.skip(backends.unfit_triton(), allow_module_level=True)
import triton

ROOT = Path(__file__).parents[2]
DEVICE = device_of("triton")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BIAS = -4.0


def vectors(count, seed):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def labels_of(faces, classes):
    return (torch.arange(faces, device=DEVICE) * 7) % (classes + 1) - 1


def kernels(recipe, dtype=torch.float32, faces=33, classes=70, **kwargs):
    return backends.pointwise_of("triton")(
        vectors(faces, seed=0).to(dtype),
        vectors(classes, seed=1),
        labels_of(faces, classes),
        torch.tensor([BIAS], device=DEVICE),
        recipe,
        chunk_size=classes,
        **{"negative_weight": 1.0, "boost": 1.0, **kwargs},
    )


def terms_by_definition(z, recipe, start):
    """Sum of the logits' terms, its slope by the bias and (times 1/scale) by the cosines `z`."""
    z = z.double().requires_grad_()
    bias = torch.tensor(BIAS, dtype=torch.float64, device=DEVICE, requires_grad=True)
    phi_p = phi_positive(z, recipe.margin_type, recipe.margin, recipe.t)
    phi_n = phi_negative(z, recipe.margin_type, recipe.margin, recipe.t)
    if recipe.gradient == "detached":
        phi_p, phi_n = (z + (phi - z).detach() for phi in (phi_p, phi_n))
    own = labels_of(z.shape[1], 70) == torch.arange(start, start + len(z), device=DEVICE)[:, None]
    positive = recipe.lam * softplus(-(recipe.scale * phi_p + bias))
    negative = (1 - recipe.lam) * softplus(recipe.scale * phi_n + bias)
    total = torch.where(own, positive, negative).sum()
    total.backward()
    return total, bias.grad, z.grad / recipe.scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gradient", ["detached", "exact"])
@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
def test_slopes_and_sums_are_those_of_the_definition(margin_type, gradient, dtype):
    recipe = Recipe.from_preset(margin_type=margin_type, gradient=gradient)
    boost = 1024.0 if dtype == torch.float16 else 1.0
    parts = kernels(recipe, dtype, boost=boost)
    z = unit(vectors(70, seed=1)) @ unit(vectors(33, seed=0)).T
    expected = [terms_by_definition(z[:41], recipe, 0), terms_by_definition(z[41:], recipe, 41)]
    for chunk, start, (_, _, slopes) in zip((z[:41], z[41:]), (0, 41), expected, strict=True):
        actual = parts.slopes_(chunk.clone(), start)
        assert actual.dtype == dtype
        assert relative_error(actual / boost, slopes) < max(torch.finfo(dtype).eps, 3e-6)
    loss, logit_slope = parts.totals()
    assert relative_error(loss, expected[0][0] + expected[1][0]) < 1e-6
    assert relative_error(logit_slope, expected[0][1] + expected[1][1]) < 3e-6


def test_slopes_in_float16_stay_finite_and_small_ones_alive():
    recipe = Recipe(gradient="exact")
    z = torch.linspace(-1, 1, 70 * 33, device=DEVICE).view(70, 33)
    heavy = kernels(recipe, torch.float16, boost=1024.0, negative_weight=1e6).slopes_(z.clone(), 0)
    assert torch.isfinite(heavy).all()
    assert heavy.max() == torch.finfo(torch.float16).max
    # e^-16, the push of an easy negative, would round to zero.
    recipe = Recipe(scale=4.0, margin=0.0)
    easy = torch.full((70, 33), -1.0, device=DEVICE)
    parts = kernels(recipe, torch.float16, boost=1024.0)
    parts.bias = torch.tensor([-12.0], device=DEVICE)
    assert (parts.slopes_(easy, 0) != 0).all()


def test_a_cosine_that_is_not_a_number_shows():
    z = torch.zeros(70, 33, device=DEVICE)
    z[3, 4] = float("nan")
    parts = kernels(Recipe(margin_type="A2", gradient="exact"))
    slopes = parts.slopes_(z, 0)
    assert torch.isnan(slopes[3, 4])
    assert torch.isnan(slopes).sum() == 1
    assert torch.isnan(parts.totals()[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weight_norm", ["in_place", "in_graph"])
def test_rows_are_normalised_and_their_gradient_is_projected(weight_norm, dtype):
    parts = kernels(Recipe(weight_norm=weight_norm), dtype)
    rows = vectors(70, seed=1).requires_grad_()
    with torch.no_grad():
        rows[5] = 0
    expected = unit(rows)
    gradient = vectors(70, seed=2)
    expected.backward(gradient)

    given = rows.detach().clone()
    actual, lengths = parts.unit_rows_(given)
    assert actual.dtype == dtype
    assert relative_error(actual, expected) <= torch.finfo(dtype).eps
    stored = expected if weight_norm == "in_place" else rows
    torch.testing.assert_close(given, stored.detach())
    if weight_norm == "in_graph":
        parts.project_rows_(gradient, given, lengths)
        torch.testing.assert_close(gradient, rows.grad)


def test_class_centers_must_be_contiguous():
    head = SphereFace2(9, 6, backend="triton")
    head.weight.data = torch.randn(6, 9).T
    head.to(DEVICE)
    with pytest.raises(ValueError, match="weight must be contiguous in memory"):
        head(torch.randn(3, 6, device=DEVICE), torch.arange(3, device=DEVICE))


@pytest.mark.skipif(
    DEVICE.type == "cpu"
    and Version(triton.__version__) < Version("3.8")
    and Version(np.__version__) >= Version("2.4"),
    reason="Triton's interpreter before 3.8 has no loop of a tensor's length with numpy 2.4",
)
def test_scaling_leaves_alone_what_a_factor_of_one_scales():
    scale_ = backends.pointwise_of("triton").scale_
    values = vectors(333, seed=0)
    for factor in (1.0, 0.5, 65536.0, 0.0):
        scaled = scale_(values.clone(), torch.tensor(factor, device=DEVICE))
        assert torch.equal(scaled, values * factor)


COMPILE = """
import itertools, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from sf2_plugin.engine import pointwise_triton as kernels
from sf2_plugin.margins import MARGIN_TYPES

def check(kernel, constants, **types):
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in constants.items()}
    compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", int(sys.argv[1]), 32))

floats = ["stretch", "t", "steepness", "shift", "own_shift", "margin", "cos_m", "sin_m"]
floats += ["positive_weight", "negative_weight", "threshold", "largest"]
floats = dict.fromkeys(floats, "fp32")
integers = dict.fromkeys(["start", "num_classes", "num_faces"], "i32")
sums = {"losses": "*fp64", "logit_slopes": "*fp64"}
given = {"z_chunk": "*fp32", "labels": "*i64", "bias": "*fp32", **sums, **integers, **floats}
# A margin type with one of the two; on the next capability with the other.
halves = itertools.cycle([(3, "*fp32"), (0, "*bf16")][:: 1 if sys.argv[1] == "90" else -1])
for margin_type, (whole_t, half) in zip(MARGIN_TYPES, halves):
    constants = {"MARGIN_TYPE": margin_type, "WHOLE_T": whole_t, "EXACT": True, "FILTER": True}
    constants["CLAMP"] = half != "*fp32"
    check(kernels._slopes, {**constants, "CLASSES": 32, "FACES": 128}, slopes=half, **given)
shape = {"count": "i32", "size": "i32"}
tile = {"HEIGHT": 4, "WIDTH": 512}
for in_place, half in itertools.product([True, False], ["*fp32", "*fp16"]):
    rows = {"rows": "*fp32", "unit": half, "lengths": "*fp32", **shape}
    check(kernels._unit_rows, {"IN_PLACE": in_place, **tile}, **rows)
check(kernels._project_rows, tile, gradient="*fp32", rows="*fp32", lengths="*fp32", **shape)
for momentum_buffer in ({}, {"momentum_buffer": "*fp32"}):
    absent = {} if momentum_buffer else {"momentum_buffer": None}
    steps = dict.fromkeys(["lr", "momentum", "weight_decay"], "fp32")
    rows = {"rows": "*fp32", "gradient": "*fp32", "count": "i32", **momentum_buffer, **steps}
    check(kernels._step_rows, {"TILE": 2048, **absent}, **rows)
check(kernels._scale, {"TILE": 2048}, tensor="*fp32", factor="*fp32", count="i64")
"""


@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.3"), reason="the compiler's calls are Triton 3.3's"
)
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_gpu(capability, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.3"), reason="the compiler's calls are Triton 3.3's"
)
def test_the_fused_kernel_multiplies_on_matrix_units_and_spills_nothing(tmp_path):
    """Every setting, with the recipe that takes most registers."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.compiled", "--json"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["products"] for row in rows] == ["bfloat16", "tf32", "tf32x3"]
    for row in rows:
        assert row["matrix"] > 0
        assert (row["stack"], row["spills"]) == (0, 0)


@pytest.fixture
def log(caplog):
    """A log of choices, of which none has been made yet."""
    backends._report.cache_clear()
    caplog.set_level(logging.INFO, "sf2_plugin")
    return caplog


def test_a_cpu_takes_the_torch_backend_and_says_so_once(log):
    for _ in range(2):
        assert resolve_backend("auto", CPU) == "chunked"
    assert log.messages == [
        "SphereFace2's backend is 'chunked': Triton's kernels need a CUDA device, "
        "and the embeddings are on cpu"
    ]


@pytest.mark.parametrize(
    ("capability", "installed", "dtype", "backend", "why"),
    [
        ((9, 0), True, torch.bfloat16, "triton", "nothing stands against it"),
        ((8, 0), True, torch.float32, "triton", "nothing stands against it"),
        ((7, 5), True, torch.float32, "chunked", "need compute capability 8.0, and cuda:0 has 7.5"),
        ((9, 0), False, torch.float32, "chunked", "Triton is not installed"),
        ((9, 0), True, torch.float64, "chunked", "the embeddings are float64"),
    ],
)
def test_a_gpu_takes_triton_where_it_can(
    monkeypatch, log, capability, installed, dtype, backend, why
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    looks = (lambda: None) if installed else backends.unfit_triton.__wrapped__
    monkeypatch.setattr(backends, "unfit_triton", looks)
    assert resolve_backend("auto", torch.device("cuda:0"), dtype) == backend
    (message,) = log.messages
    assert why in message


def test_triton_where_it_cannot_run_is_refused(monkeypatch):
    head = SphereFace2(9, 6, backend="triton")
    with pytest.raises(ValueError, match=r"cannot run: .* embeddings are float64; take 'chunked'"):
        head.double()(torch.randn(3, 6).double(), torch.arange(3))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="need a CUDA device, and the embeddings are on cpu"):
        head.float()(torch.randn(3, 6), torch.arange(3))
