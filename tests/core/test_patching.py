"""Names exchanged once a key, however often it is asked."""

import types

import pytest

from sf2_plugin import patching


class Owner:
    def method(self):
        return "own"


def around(text):
    return lambda original: lambda self: f"{text} {original(self)}"


TARGET = f"{__name__}.Owner.method"


def test_exchanges_build_on_each_other_and_an_exchange_made_again_adds_nothing(monkeypatch):
    monkeypatch.setattr(Owner, "method", Owner.method)
    monkeypatch.setattr(Owner, patching._RECORD, {}, raising=False)
    patching.replace(TARGET, around("a"), key="first")
    patching.replace(TARGET, around("b"), key="second")
    assert Owner().method() == "b a own"
    old, new = patching.replace(TARGET, around("c"), key="first")
    assert Owner().method() == "b c own"
    assert new is Owner.method is not old


def test_what_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        patching.find("no_such_module.Class.name")
    with pytest.raises(AttributeError, match="NoSuchClass"):
        patching.find(f"{__name__}.NoSuchClass.name")


def test_an_exchange_for_a_while_leaves_nothing():
    module = types.ModuleType("module")
    module.there = 1
    with patching.replaced(module, "there", 2), patching.replaced(Owner, "added", 3):
        assert (module.there, Owner.added) == (2, 3)
    assert module.there == 1
    assert not hasattr(Owner, "added")
