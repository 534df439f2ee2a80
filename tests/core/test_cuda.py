"""What only a GPU can show: precision of its products, no waiting for the device, same bits."""

import pytest
import torch

from sf2_plugin import PartialFCSphereFace2, Recipe, SphereFace2
from sf2_plugin.definition import unit

from ..devices import CUDA
from ..parity import relative_error
from .test_engine import MARGINS, SWEPT, answers, assert_agree, inputs

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

SHAPES = [(1, 2, 1), (7, 100, 5), (33, 257, 64), (300, 1000, 16), (64, 5000, 128), (5, 999, 512)]


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def cuda_inputs(*shape, dtype=torch.float32):
    return [tensor.to(CUDA) for tensor in inputs(*shape, dtype=dtype)]


def threshold_in_a_gap(x, weight):
    """A threshold near 0.4 which no cosine is so close to that rounding could carry it across."""
    cosines = (unit(x.double()) @ unit(weight.double()).T).flatten()
    near = torch.cat(
        [cosines[(cosines > 0.35) & (cosines < 0.45)], cosines.new_tensor([0.35, 0.45])]
    )
    near = near.sort().values
    widest = near.diff().argmax()
    return (near[widest : widest + 2].sum() / 2).item()


@pytest.mark.parametrize("backend", SWEPT)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
@pytest.mark.parametrize("margin_type", MARGINS)
def test_agrees_with_reference_in_float32(backend, shape, preset, margin_type):
    x, weight, labels = cuda_inputs(*shape)
    recipe = Recipe.from_preset(
        preset,
        margin_type=margin_type,
        interclass_filtering_threshold=threshold_in_a_gap(x, weight),
    )
    expected = answers("reference", x, weight, labels, recipe)
    for chunk_size in (None, 1 + shape[1] // 7):
        actual = answers(backend, x, weight, labels, recipe, chunk_size=chunk_size)
        assert_agree(actual, expected, 1e-5)


@pytest.mark.parametrize("backend", SWEPT)
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 64])
def test_half_precision_products_are_summed_in_float32(backend, preset, dtype, batch):
    recipe = Recipe.from_preset(preset)
    x, weight, labels = cuda_inputs(batch, 5000, 128)
    # Rounded already, so that it is the slopes' rounding and the sums that are looked at.
    x, weight = (unit(t).to(dtype).float() for t in (x, weight))
    head = SphereFace2(5000, 128, preset=preset, backend=backend).to(CUDA)
    head.weight.data.copy_(weight)
    head.bias.data.fill_(-4.0)
    x.requires_grad_()
    with torch.autocast("cuda", dtype=dtype):
        loss = head(x, labels)
    loss.backward()
    expected = answers("reference", x.double(), weight.double(), labels, recipe)
    tolerance = 4 * torch.finfo(dtype).eps
    assert loss.dtype == x.grad.dtype == head.weight.grad.dtype == torch.float32
    assert relative_error(loss.cpu(), expected["loss"]) < tolerance
    assert relative_error(x.grad.cpu(), expected["embeddings"]) < tolerance
    assert relative_error(head.weight.grad.cpu(), expected["weight"]) < tolerance


@pytest.mark.parametrize("backend", SWEPT)
def test_with_a_grad_scaler_float16_never_overflows(backend):
    head = SphereFace2(5000, 128, backend=backend).to(CUDA)
    x, _, labels = cuda_inputs(64, 5000, 128)
    x = (unit(x) * 1000).requires_grad_()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    with torch.autocast("cuda", dtype=torch.float16):
        loss = head(x, labels)
    scaler.scale(loss).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("upstream", [1.0, 0.5, 65536.0])
def test_a_step_does_not_wait_for_the_device(upstream):
    head = SphereFace2(5000, 128, backend="triton").to(CUDA)
    x, _, labels = cuda_inputs(64, 5000, 128)
    x.requires_grad_()
    scale = torch.tensor(upstream, device=CUDA)
    (head(x, labels) * scale).backward()  # Compiles.
    torch.cuda.set_sync_debug_mode("error")
    try:
        (head(x, labels) * scale).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", SWEPT)
def test_a_repeated_call_gives_the_same_bits(backend):
    x, weight, labels = cuda_inputs(64, 5000, 128)
    first, second = (answers(backend, x, weight, labels, Recipe()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", SWEPT)
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_sampled_shard_is_that_of_a_cpu(backend, preset, sparse, monkeypatch):
    """Its `nonzero_static` and `index_copy_` on CUDA; the same classes are drawn on both."""
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch, "randperm", lambda n, device: order[order < n].to(device))
    x, weight, labels = inputs(64, 5000, 128)
    answered = {}
    for device, kind in (("cpu", "chunked"), ("cuda", backend)):
        head = PartialFCSphereFace2(
            5000, 128, preset=preset, backend=kind, sample_rate=0.1, sparse_gradient=sparse
        ).to(device)
        head.weight.data.copy_(weight)
        faces = x.to(device).detach().requires_grad_()
        loss = head(faces, labels.to(device))
        loss.backward()
        gradients = (faces.grad, head.weight.grad.to_dense(), head.bias.grad, head.weight.detach())
        answered[device] = dict(enumerate((loss.detach(), *gradients)))
    for name, expected in answered["cpu"].items():
        assert relative_error(answered["cuda"][name].cpu(), expected) < 1e-5


def test_float16_products_are_summed_in_float32_whatever_torch_is_told(monkeypatch):
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "allow_fp16_accumulation"):
        pytest.skip("needs torch 2.7")
    x, weight, labels = cuda_inputs(64, 5000, 128)
    answered = []
    for allowed in (False, True):
        monkeypatch.setattr(matmul, "allow_fp16_accumulation", allowed)
        head = SphereFace2(5000, 128).to(CUDA)
        head.weight.data.copy_(weight)
        faces = x.detach().requires_grad_()
        with torch.autocast("cuda", dtype=torch.float16):
            head(faces, labels).backward()
        assert matmul.allow_fp16_accumulation == allowed
        answered.append(faces.grad)
    assert torch.equal(*answered)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_into_one_graph():
    head = SphereFace2(5000, 128).to(CUDA)
    x, _, labels = cuda_inputs(64, 5000, 128)
    expected = head(x, labels)
    actual = torch.compile(head, fullgraph=True)(x, labels)
    torch.testing.assert_close(actual, expected)


def test_the_kernels_run_where_the_tensors_are():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU here")
    expected = answers("triton", *cuda_inputs(33, 257, 64), Recipe())
    actual = answers("triton", *(t.to("cuda:1") for t in cuda_inputs(33, 257, 64)), Recipe())
    assert_agree(actual, expected, 1e-6)


def test_more_elements_than_32_bits_can_count():
    from sf2_plugin.engine.pointwise_triton import TritonPointwise

    if torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("needs 6 GiB of free memory")
    values = torch.ones(2**31 + 5, dtype=torch.bfloat16, device=CUDA)
    TritonPointwise.scale_(values, torch.tensor(2.0, device=CUDA))
    assert (values[-10:] == 2).all()
    assert values.sum(dtype=torch.float64) == 2 * len(values)
