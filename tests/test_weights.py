"""Weights are found wherever trainers put them, or one line says at once what is in the way."""

import copy
import json
import struct
import sys

import pytest
import torch
from torch import nn

from sf2_plugin.weights import find_weights, load_checkpoint


def network(width=4, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, 4, 3))
    net.add_module("bn1", nn.BatchNorm2d(4))
    net.add_module("features", nn.BatchNorm1d(width))
    return net


NET = network()
STATE = NET.state_dict()
PREFIXES = [
    *("", "module.", "_orig_mod.", "backbone.", "model.", "net.", "network.", "encoder."),
    *("module._orig_mod.", "_orig_mod.module.", "model.backbone.", "module.model.net."),
    "_fsdp_wrapped_module.",
]
CONTAINERS = [
    *((), ("state_dict",), ("model",), ("state_dict_backbone",), ("network",), ("net",)),
    *(("ema_state_dict",), ("model_state_dict",), ("model", "state_dict"), ("weights",)),
]


def checkpoint(containers=(), prefix="", state=STATE):
    content = {prefix + key: tensor for key, tensor in state.items()}
    for name in reversed(containers):
        content = {name: content, "epoch": 3, "lr": 0.1}
    return content


def check(content, path="model.pt"):
    found = find_weights(content, network(seed=1), "a tiny", path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("containers", CONTAINERS, ids=".".join)
def test_every_place_and_prefix(tmp_path, containers, prefix):
    torch.save(checkpoint(containers, prefix), tmp_path / "model.pt")
    check(load_checkpoint(tmp_path / "model.pt"))


def test_wrappers_inside_names():
    """A part of the network that was compiled or wrapped by itself."""
    check({key.replace("conv1.", "conv1._orig_mod."): tensor for key, tensor in STATE.items()})


def test_a_lightning_checkpoint():
    state = checkpoint(prefix="backbone.") | {"head.weight": torch.ones(9, 4)}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}
    content = {"epoch": 1, "pytorch-lightning_version": "2.5", "state_dict": state}
    check(content | {"optimizer_states": [optimizer], "hyper_parameters": {"lr": 0.1}})


def test_the_trained_weights_are_taken_before_their_average():
    other = {key: tensor + 1 for key, tensor in STATE.items()}
    for name in ("ema_state_dict", "state_dict_ema", "model_ema", "teacher", "swa_model"):
        check({name: checkpoint(state=other), "state_dict": checkpoint()})
        check({"model": checkpoint(), name: checkpoint(prefix="module.", state=other)})


def test_one_network_twice_is_the_same_or_refused():
    check({"model": checkpoint(), "state_dict": checkpoint(prefix="module.")})
    other = {key: tensor + 1 for key, tensor in STATE.items()}
    content = {"student": checkpoint(), "judge": checkpoint(state=other)}
    with pytest.raises(ValueError, match=r"m\.pt: a tiny is in it 2 times, under student\., judge"):
        find_weights(content, NET, "a tiny", "m.pt")


def test_counters_of_batches_may_be_missing():
    state = {key: tensor for key, tensor in STATE.items() if "num_batches" not in key}
    assert find_weights(state, NET, "a tiny", "m.pt").keys() == state.keys()


def without(name):
    return {key: tensor for key, tensor in STATE.items() if key != name}


LARGER = network(8).state_dict()
WRONG = {
    "a tensor missing": (
        without("bn1.bias"),
        "not a tiny: 1 of 10 tensors are missing, as bn1.bias",
    ),
    "another shape": (LARGER, "not a tiny: features.weight is (8,), not (4,)"),
    "more layers": (
        STATE | {"conv1.extra.weight": torch.ones(1)},
        "not a tiny: 1 tensors too many, as conv1.extra.weight",
    ),
    "another network": (
        {"module.stem.weight": torch.ones(1)},
        "not a tiny: nothing in it is called conv1.weight, but module.stem.weight",
    ),
    "a history": ({"epoch": 3, "log": [1, 2]}, 'no weights in it, but ["epoch", "log"]'),
    "a list": ([1, 2], "no weights in it, but a list"),
    "nothing": ({}, "no weights in it, but []"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_in_the_way_is_said_at_once(name):
    content, message = WRONG[name]
    with pytest.raises(ValueError, match=r"^m\.pt: ") as error:
        find_weights(copy.deepcopy(content), NET, "a tiny", "m.pt")
    assert message in str(error.value)[:100]


def test_a_whole_module_is_refused_by_name(tmp_path):
    for content in (NET, {"model": NET}):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(ValueError, match="which is refused") as error:
            load_checkpoint(tmp_path / "m.pt")
        told = str(error.value).removeprefix(str(tmp_path))[:60]
        assert told == "/m.pt: it holds torch.nn.modules.container.Sequential, which"


def safetensors_file(path, tensors):
    """By the format's own words: a length, a header in JSON, the numbers."""
    header, content = {}, b""
    for name, tensor in tensors.items():
        data = tensor.contiguous().numpy().tobytes()
        dtype = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        ends = [len(content), len(content) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": ends}
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_safetensors(tmp_path, name):
    pytest.importorskip("safetensors", reason='needs pip install "sf2-plugin[safetensors]"')
    safetensors_file(tmp_path / name, checkpoint(prefix="backbone."))
    check(load_checkpoint(tmp_path / name))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="not readable as safetensors"):
        load_checkpoint(tmp_path / name)


def test_safetensors_without_the_package_names_the_extra(tmp_path, monkeypatch):
    safetensors_file(tmp_path / "m.safetensors", STATE)
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"m\.safetensors is of safetensors: pip install .*\[saf"):
        load_checkpoint(tmp_path / "m.safetensors")
