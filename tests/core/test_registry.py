"""Heads by name, the project's own and third parties'."""

import dataclasses
import inspect
from importlib.metadata import EntryPoint

import pytest
from torch import nn

from sf2_plugin import Recipe, SphereFace2, available_heads, build_head, register_head, registry


class ThirdParty(nn.Module):
    def __init__(self, num_classes, embedding_size, temperature=1.0):
        super().__init__()
        self.arguments = (num_classes, embedding_size, temperature)


@pytest.fixture
def heads(monkeypatch):
    """The registry with this project's heads alone, restored afterwards."""
    own = {
        name: entry
        for name, entry in registry._heads.items()
        if entry.builder.__module__.startswith("sf2_plugin.")
    }
    monkeypatch.setattr(registry, "_heads", own)


def test_builds_sphereface2_with_its_hyperparameters():
    head = build_head("sphereface2", 10, 4, margin=0.3)
    assert isinstance(head, SphereFace2)
    assert head.recipe.margin == 0.3


@pytest.mark.usefixtures("heads")
def test_registers_a_head_once():
    register_head("mine")(ThirdParty)
    register_head("mine")(ThirdParty)
    assert build_head("mine", 10, 4, temperature=2.0).arguments == (10, 4, 2.0)
    with pytest.raises(ValueError, match="a head named 'mine' is registered already"):
        register_head("mine")(SphereFace2)


@pytest.mark.usefixtures("heads")
def test_finds_heads_that_other_packages_install(monkeypatch):
    point = EntryPoint("theirs", f"{__name__}:ThirdParty", registry.ENTRY_POINT_GROUP)

    def entry_points(group, name=None):
        assert group == "sf2_plugin.heads"
        return [point] if name in (None, "theirs") else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert available_heads() == ["partial_fc_sphereface2", "sphereface2", "theirs"]
    assert build_head("theirs", 3, 2).arguments == (3, 2, 1.0)


def points(monkeypatch, *given):
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group, name=None: [point for point in given if name in (None, point.name)],
    )


def point(name, value):
    return EntryPoint(name, value, registry.ENTRY_POINT_GROUP)


@pytest.mark.usefixtures("heads")
def test_a_broken_package_is_named_and_harms_no_other_head(monkeypatch):
    points(
        monkeypatch,
        point("gone", "no_such_module:Head"),
        point("number", f"{__name__}:NUMBER"),
        point("theirs", f"{__name__}:ThirdParty"),
        point("twice", f"{__name__}:ThirdParty"),
        point("twice", f"{__name__}:points"),
        point("again", f"{__name__}:ThirdParty"),
        point("again", f"{__name__}:ThirdParty"),
    )
    assert "gone" in available_heads()
    assert isinstance(build_head("theirs", 3, 2), ThirdParty)
    assert isinstance(build_head("again", 3, 2), ThirdParty)
    for name, kind, message in (
        (
            "gone",
            ImportError,
            "head 'gone' of .* cannot be loaded from no_such_module:Head: Module",
        ),
        ("number", ImportError, "head 'number' of .* must be a class or function, got .* = 7"),
        ("twice", ValueError, "head 'twice' must come from one package, got .* and .*: uninstall"),
    ):
        with pytest.raises(kind, match=message):
            build_head(name, 3, 2)


NUMBER = 7


@pytest.mark.usefixtures("heads")
def test_a_reloaded_module_takes_the_place_of_its_head():
    for temperature in (1.0, 2.0):

        @register_head("reloaded")
        class Reloaded(ThirdParty):
            default = temperature

    assert build_head("reloaded", 3, 2).default == 2.0


def test_an_entry_says_what_its_head_takes():
    for name in ("sphereface2", "partial_fc_sphereface2"):
        entry = registry.head_entry(name)
        named = {field.name for field in dataclasses.fields(Recipe)}
        for owner in entry.builder.mro():
            if "__init__" in vars(owner) and issubclass(owner, SphereFace2):
                parameters = inspect.signature(owner.__init__).parameters.values()
                named |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert entry.takes == named
    assert registry.HeadEntry.of(ThirdParty).takes is None
    assert registry.HeadEntry.of(ThirdParty, takes=["temperature"]).takes == {"temperature"}


def test_an_unknown_head_is_refused_with_the_known_ones():
    known = ", ".join(map(repr, available_heads()))
    with pytest.raises(ValueError, match=f"no head is called 'softmax'; there are {known}"):
        build_head("softmax", 10, 4)
