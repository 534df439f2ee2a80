"""Heads by name, the project's own and third parties'."""

from importlib.metadata import EntryPoint

import pytest
from torch import nn

from sf2_plugin import SphereFace2, available_heads, build_head, register_head, registry


class ThirdParty(nn.Module):
    def __init__(self, num_classes, embedding_size, temperature=1.0):
        super().__init__()
        self.arguments = (num_classes, embedding_size, temperature)


@pytest.fixture
def heads(monkeypatch):
    """The registry, restored afterwards."""
    monkeypatch.setattr(registry, "_heads", dict(registry._heads))


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


def test_an_unknown_head_is_refused_with_the_known_ones():
    known = ", ".join(map(repr, available_heads()))
    with pytest.raises(ValueError, match=f"no head is called 'softmax'; there are {known}"):
        build_head("softmax", 10, 4)
