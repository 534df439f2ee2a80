"""Presets and their overrides."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch

from sf2_plugin import PRESETS, Recipe
from sf2_plugin.definition import sphereface2
from sf2_plugin.margins import MARGIN_TYPES


def test_the_default_is_the_authors_recipe():
    assert Recipe() == Recipe.from_preset("opensphere")
    recipe = Recipe()
    assert (recipe.margin_type, recipe.lam, recipe.scale, recipe.margin, recipe.t) == (
        ("C", 0.7, 40, 0.4, 3)
    )
    assert (recipe.loss_weight, recipe.gradient, recipe.weight_norm) == (50, "detached", "in_place")


def test_wespeaker_weighs_the_loss_by_its_scale():
    recipe = Recipe.from_preset("wespeaker")
    assert (recipe.scale, recipe.margin, recipe.loss_weight) == (32, 0.2, 32)
    assert (recipe.gradient, recipe.weight_norm, recipe.bias) == ("exact", "in_graph", 0)
    assert Recipe.from_preset("wespeaker", scale=20.0).loss_weight == 20
    assert Recipe.from_preset("wespeaker", scale=20.0, loss_weight=3.0).loss_weight == 3


def test_a_margin_type_brings_its_own_margin():
    assert Recipe.from_preset(margin_type="A").margin == 0.5
    assert Recipe.from_preset(margin_type="M").margin == 1.7
    assert Recipe.from_preset("wespeaker", margin_type="A2").margin == 0.15
    assert Recipe.from_preset("wespeaker", margin_type="C").margin == 0.2
    assert Recipe.from_preset(margin_type="A", margin=0.1).margin == 0.1


def test_the_margin_types_of_the_presets_keep_the_presets_margin():
    for preset, values in PRESETS.items():
        for name, margin in MARGIN_TYPES.items():
            expected = values["margin"] if name == values["margin_type"] else margin.default
            recipe = Recipe.from_preset(preset, margin_type=name)
            assert recipe.margin == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_written_in_full(preset):
    fields = {field.name for field in dataclasses.fields(Recipe)}
    missing, unknown = fields - set(PRESETS[preset]), set(PRESETS[preset]) - fields
    assert not missing, f"preset {preset!r} leaves out {sorted(missing)}"
    assert not unknown, f"preset {preset!r} names {sorted(unknown)}, which Recipe lacks"


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_packing_loses_nothing_but_the_initial_bias(preset, margin_type):
    recipe = Recipe.from_preset(preset, margin_type=margin_type, scale=23.5, lam=0.123456789)
    unpacked = Recipe.unpack(*recipe.pack())
    assert dataclasses.replace(unpacked, bias=recipe.bias) == recipe


def test_a_copied_recipe_packs_its_own_numbers():
    recipe = dataclasses.replace(copy.deepcopy(Recipe()), margin=0.25)
    assert Recipe.unpack(*pickle.loads(pickle.dumps(recipe)).pack()).margin == 0.25


def test_uniface_starts_where_its_negatives_add_up_to_a_tenth():
    recipe = Recipe.from_preset("uniface")
    assert (recipe.margin_type, recipe.t, recipe.margin, recipe.scale) == ("C", 1, 0.2, 64)
    assert (recipe.lam, recipe.loss_weight) == (0.5, 128)
    assert (recipe.gradient, recipe.weight_norm) == ("exact", "in_graph")
    for num_classes in (1, 50, 10**6):
        logit = recipe.scale * recipe.margin + recipe.initial_bias(num_classes)
        assert num_classes * math.exp(logit) == pytest.approx(0.1)


def test_the_initial_bias_is_a_number_or_a_rule():
    assert Recipe(bias=3).initial_bias(10) == 3
    assert Recipe(bias="closed_form").initial_bias(10) == Recipe().initial_bias(10)
    with pytest.raises(ValueError, match="bias must be one of 'closed_form', 'uniface', got 'no'"):
        Recipe(bias="no")
    with pytest.raises(ValueError, match="bias must be a number that is finite, got inf"):
        Recipe(bias=math.inf)


def test_none_keeps_the_preset_value():
    assert Recipe.from_preset(lam=None, t=None) == Recipe()


def test_recipes_and_presets_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().margin = 1.0
    with pytest.raises(TypeError):
        PRESETS["opensphere"]["lam"] = 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_factor_on_the_loss_is_lost_where_the_gradient_is_clipped(preset):
    """It scales all gradients alike, and a norm that a host clips to hides it from the backbone."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(8, 6), torch.arange(8)
    gradients = []
    for factor in (1.0, 5.0):
        recipe = Recipe.from_preset(preset)
        recipe = dataclasses.replace(recipe, loss_weight=20 * factor * recipe.loss_weight)
        backbone = torch.nn.Linear(6, 4, bias=False)
        torch.nn.init.eye_(backbone.weight)
        centers = torch.eye(20, 4).requires_grad_()
        bias = torch.zeros(1, requires_grad=True)
        sphereface2(backbone(inputs), centers, labels, bias, recipe).backward()
        norm = torch.nn.utils.clip_grad_norm_(backbone.parameters(), 5.0)
        assert norm > 5
        gradients.append((backbone.weight.grad, centers.grad, bias.grad))
    (once, once_centers, once_bias), (clipped, centers_grad, bias_grad) = gradients
    assert torch.allclose(once, clipped, rtol=1e-4, atol=1e-6)
    assert torch.allclose(5 * once_centers, centers_grad, rtol=1e-4)
    assert torch.allclose(5 * once_bias, bias_grad, rtol=1e-4)
