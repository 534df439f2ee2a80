"""The definition against numbers from the authors' code and against obvious loops."""

import math

import pytest
import torch

from sf2_plugin import PRESETS, Recipe, sphereface2_loss
from sf2_plugin.margins import MARGIN_TYPES, g, phi_negative, phi_positive

from ..parity import HEAD_CASES, UNIFACE_CASES, load_head_case, load_uniface_case, relative_error


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("name", HEAD_CASES)
def test_answers_what_other_implementations_answer(name, backend):
    case = load_head_case(name)
    loss = sphereface2_loss(
        case.embeddings, case.weight, case.labels, case.bias, case.recipe, backend=backend
    )
    loss.backward()
    assert relative_error(loss, case.expected["loss"]) < 1e-9
    assert relative_error(case.embeddings.grad, case.expected["grad_x"]) < 1e-9
    assert relative_error(case.weight.grad, case.expected["grad_w"]) < 1e-9
    assert relative_error(case.bias.grad, case.expected["grad_bias"]) < 1e-9
    if "bias_init" in case.expected:
        initial = torch.tensor(case.recipe.initial_bias(len(case.weight)), dtype=torch.float64)
        assert relative_error(initial, case.expected["bias_init"]) < 1e-9


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("name", UNIFACE_CASES)
def test_answers_what_unifaces_code_answers(name, backend):
    """Cases whose logits their code clamps (`clamped`) are of another function, and left out."""
    case, negative_weight = load_uniface_case(name)
    # Their bias is on the other side; their r is a share of classes, 1 in the preset.
    initial = case.recipe.initial_bias(len(case.weight))
    theirs = -case.expected["bias_init"] + case.expected["r"].log()
    assert initial + case.recipe.scale * case.recipe.margin == pytest.approx(theirs.item())
    if case.expected["clamped"]:
        return
    loss = sphereface2_loss(
        case.embeddings,
        case.weight,
        case.labels,
        case.bias,
        case.recipe,
        backend=backend,
        negative_weight=negative_weight,
    )
    loss.backward()
    assert relative_error(loss, case.expected["loss"]) < 1e-9
    assert relative_error(case.embeddings.grad, case.expected["grad_x"]) < 1e-9
    assert relative_error(case.weight.grad, case.expected["grad_w"]) < 1e-9
    assert relative_error(case.bias.grad, -case.expected["grad_bias"]) < 1e-9  # Their sign.


def loss_by_loops(x, w, labels, bias, recipe, negative_weight=1.0):
    """The sum of section 3 of the paper, one logarithm at a time."""
    r, m, t = recipe.scale, recipe.margin, recipe.t

    def adjusted(cosine):
        return 2 * ((cosine + 1) / 2) ** t - 1

    total = 0.0
    for i, label in enumerate(labels):
        for j, center in enumerate(w):
            z = sum(a * b for a, b in zip(x[i], center, strict=True))
            z /= math.dist(x[i], [0] * len(x[i])) * math.dist(center, [0] * len(center))
            theta = math.acos(max(-1.0, min(1.0, z)))
            if j == label:
                if recipe.margin_type == "C":
                    phi = adjusted(z) - m
                elif recipe.margin_type == "A":
                    phi = adjusted(math.cos(min(theta + m, math.pi)))
                elif recipe.margin_type == "M":
                    phi = adjusted(math.cos(min(m * theta, math.pi)))
                elif recipe.margin_type == "A2":
                    turned = math.cos(theta + m) if theta + m < math.pi else z - 1 + math.cos(m)
                    phi = adjusted(turned)
                else:
                    raise NotImplementedError(f"the loops lack phi+ of {recipe.margin_type!r}")
                total += recipe.lam * math.log1p(math.exp(-(r * phi + bias)))
            else:
                if 0 < recipe.interclass_filtering_threshold < z:
                    continue
                if recipe.margin_type == "C":
                    phi = adjusted(z) + m
                elif recipe.margin_type in ("A", "M"):
                    phi = adjusted(z)
                elif recipe.margin_type == "A2":
                    phi = adjusted(math.cos(theta - m))
                else:
                    raise NotImplementedError(f"the loops lack phi- of {recipe.margin_type!r}")
                loss = math.log1p(math.exp(r * phi + bias))
                total += (1 - recipe.lam) * negative_weight * loss
    return recipe.loss_weight / r / len(x) * total


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("margin_type", "margin"), [*((name, None) for name in MARGIN_TYPES), ("C", 0.0), ("A2", 1.2)]
)
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_equals_the_obvious_loops(preset, margin_type, margin, threshold, backend):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    w[0] = -x[0]  # An own class at the far pole, where margins turn.
    labels = torch.tensor([0, 4, -1, 8, 4, 2])
    recipe = Recipe.from_preset(
        preset, margin_type=margin_type, margin=margin, interclass_filtering_threshold=threshold
    )
    expected = loss_by_loops(x.tolist(), w.tolist(), labels.tolist(), -1.5, recipe)
    bias = torch.tensor([-1.5], dtype=torch.float64)
    loss = sphereface2_loss(x, w, labels, bias, recipe, backend=backend)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_g_maps_the_ends_to_themselves_and_a_right_angle_to_the_paper_value():
    z = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert g(z, 3.0).tolist() == pytest.approx([-1.0, -0.75, 1.0])
    assert torch.equal(g(z, 1.0), z)


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
def test_no_margin_leaves_g(margin_type):
    margin = 0.0 if MARGIN_TYPES[margin_type].allows(0.0) else 1.0
    z = torch.linspace(-1, 1, 41, dtype=torch.float64)
    torch.testing.assert_close(phi_positive(z, margin_type, margin, 3.0), g(z, 3.0))
    torch.testing.assert_close(phi_negative(z, margin_type, margin, 3.0), g(z, 3.0))


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
def test_phi_positive_never_rises_with_the_angle(margin_type):
    z = torch.linspace(1, -1, 2001, dtype=torch.float64)
    margin = MARGIN_TYPES[margin_type].default
    assert (phi_positive(z, margin_type, margin, 3.0).diff() <= 0).all()


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
@pytest.mark.parametrize("num_classes", [2, 3, 10, 100_000])
def test_initial_bias_minimises_the_loss_at_right_angles(margin_type, num_classes):
    recipe = Recipe.from_preset(margin_type=margin_type, scale=8.0)
    # Orthogonal faces and centers: every angle is a right angle, and C is only a number.
    zero = torch.zeros((), dtype=torch.float64)
    a_y = recipe.scale * phi_positive(zero, margin_type, recipe.margin, recipe.t)
    a_i = recipe.scale * phi_negative(zero, margin_type, recipe.margin, recipe.t)
    b = torch.tensor(recipe.initial_bias(num_classes), dtype=torch.float64)
    slope = -recipe.lam * torch.sigmoid(-(a_y + b))
    slope += (1 - recipe.lam) * (num_classes - 1) * torch.sigmoid(a_i + b)
    assert slope.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
def test_exact_gradient_passes_gradcheck(margin_type):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([-0.3], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 6, -1, 3])
    recipe = Recipe.from_preset("wespeaker", margin_type=margin_type, scale=4.0)
    for backend in ("reference", "chunked"):
        assert torch.autograd.gradcheck(
            lambda x, w, b, backend=backend: sphereface2_loss(
                x, w, labels, b, recipe, backend=backend, chunk_size=3
            ),
            (x, w, bias),
        )
