"""Presets and their overrides."""

import dataclasses

import pytest

from sf2_plugin import PRESETS, Recipe


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


def test_none_keeps_the_preset_value():
    assert Recipe.from_preset(lam=None, t=None) == Recipe()


def test_recipes_and_presets_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().margin = 1.0
    with pytest.raises(TypeError):
        PRESETS["opensphere"]["lam"] = 0.1
