"""Checkpoints of sharded heads: resharded byte for byte, resumed on other ranks, imported."""

import filecmp
import json
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2, Recipe
from sf2_plugin.cli import main
from sf2_plugin.shards import (
    check_marks,
    claim,
    file_name,
    import_shards,
    is_claimed,
    load_centers,
    read_shards,
    reshard,
    write_shards,
)

from ..parity import CHECKPOINT, relative_error
from ..ranks import on_ranks

SIZE = 6


def same_files(folder, other):
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [path.name for path in sorted(other.iterdir())]
    return all(filecmp.cmp(folder / name, other / name, shallow=False) for name in names)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 13])
def test_arcface_torch_shards_there_and_back_byte_for_byte(tmp_path, world_size):
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    write_shards(read_shards(CHECKPOINT).checkpoints, here)  # Each torch packs in its own way.
    write_shards(reshard(read_shards(here), world_size), there)
    write_shards(reshard(read_shards(there), 2), back)
    assert len(list(there.iterdir())) == world_size
    assert same_files(here, back)


def test_arcface_torch_shards_hold_the_same_rows():
    shards = read_shards(CHECKPOINT)
    whole = next(reshard(shards, 1))
    first, second = shards.checkpoints
    weight = torch.cat([rank["state_dict_softmax_fc"]["weight"] for rank in (first, second)])
    momentum = torch.cat(
        [rank["state_optimizer"]["state"][1]["momentum_buffer"] for rank in (first, second)]
    )
    assert torch.equal(whole["state_dict_softmax_fc"]["weight"], weight)
    assert torch.equal(whole["state_optimizer"]["state"][1]["momentum_buffer"], momentum)
    for rank, checkpoint in enumerate(reshard(shards, 3)):
        rows = slice(4 * rank, 4 * rank + 4)
        assert torch.equal(checkpoint["state_dict_softmax_fc"]["weight"], weight[rows])
        # The backbone belongs to its rank; a new rank takes the first one's.
        backbone = (first, second, first)[rank]["state_dict_backbone"]["weight"]
        assert torch.equal(checkpoint["state_dict_backbone"]["weight"], backbone)


class Training:
    """A model, a head and SGD, as arcface_torch wires them, and its checkpoints."""

    def __init__(self):
        torch.manual_seed(1)
        self.backbone = nn.Linear(SIZE, SIZE).double()
        self.head = PartialFCSphereFace2(11, SIZE).double()
        self.model = DistributedDataParallel(self.backbone)
        groups = [{"params": self.model.parameters()}, {"params": self.head.parameters()}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=5e-4)

    def steps(self, numbers):
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        losses = []
        for step in numbers:
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(12, SIZE, generator=generator, dtype=torch.float64)
            labels = torch.randint(11, (12,), generator=generator)
            mine = slice(rank, None, world_size)
            loss = self.head(self.model(x[mine]), labels[mine])
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def save(self, folder, step):
        checkpoint = {
            "epoch": 1,
            "global_step": step,
            "state_dict_backbone": self.backbone.state_dict(),
            "state_dict_softmax_fc": self.head.state_dict(),
            "state_optimizer": self.optimizer.state_dict(),
        }
        torch.save(checkpoint, folder / file_name(distributed.get_rank()))

    def resume(self, folder):
        checkpoint = torch.load(folder / file_name(distributed.get_rank()), weights_only=True)
        self.backbone.load_state_dict(checkpoint["state_dict_backbone"])
        self.head.load_state_dict(checkpoint["state_dict_softmax_fc"])
        self.optimizer.load_state_dict(checkpoint["state_optimizer"])


def train_through(rank, folder):
    training = Training()
    training.steps(range(3))
    training.save(folder, step=3)
    return training.steps(range(3, 5)), training.head.weight.data, training.head.bias.data


def train_on(rank, folder):
    training = Training()
    training.resume(folder)
    return training.steps(range(3, 5)), training.head.weight.data, training.head.bias.data


def test_three_ranks_go_on_where_two_stopped(tmp_path):
    (tmp_path / "two").mkdir()
    expected = on_ranks(train_through, 2, tmp_path / "two")
    shards = read_shards(tmp_path / "two")
    assert shards.describe()["optimizer"] == ["momentum_buffer"]
    write_shards(reshard(shards, 3), tmp_path / "three")
    actual = on_ranks(train_on, 3, tmp_path / "three")
    assert actual[0][0] == pytest.approx(expected[0][0], rel=1e-9)
    weights = [torch.cat([weight for _, weight, _ in ranks]) for ranks in (actual, expected)]
    assert relative_error(*weights) < 1e-9
    for _, _, bias in actual:
        assert relative_error(bias, expected[0][2]) < 1e-9


def checkpoints(optimizer="sgd", world_size=2, head=None, recorded=True):
    """What ranks would save, without any: a backbone and shards of random centers.

    The bare host records no number of ranks.
    """
    generator = torch.Generator().manual_seed(0)
    saved = []
    for rank in range(world_size):
        rows = 7 // world_size + (rank < 7 % world_size)
        weight = nn.Parameter(torch.randn(rows, 4, generator=generator))
        bias = nn.Parameter(torch.full((1,), -3.0))
        backbone = nn.BatchNorm1d(4)
        backbone.running_mean += rank
        names = dict(weight=weight, bias=bias) if head is None else head(weight)
        groups = [{"params": backbone.parameters()}, {"params": list(names.values())}]
        if optimizer == "sgd":
            trainer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        else:
            trainer = torch.optim.AdamW(groups, lr=0.1)
        parameters = [p for group in trainer.param_groups for p in group["params"]]
        sum(p.square().sum() for p in parameters).backward()
        trainer.step()
        record = {"world_size": world_size} if recorded else {}
        saved.append(
            {
                **record,
                "epoch": 2,
                "global_step": 20,
                "state_dict_backbone": backbone.state_dict(),
                "state_dict_softmax_fc": OrderedDict((k, v.data) for k, v in names.items()),
                "state_optimizer": trainer.state_dict(),
            }
        )
    return saved


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_this_head_with_either_optimizer_there_and_back(tmp_path, optimizer, recorded):
    write_shards(checkpoints(optimizer, recorded=recorded), tmp_path / "a")
    write_shards(reshard(read_shards(tmp_path / "a"), 1), tmp_path / "b")
    write_shards(reshard(read_shards(tmp_path / "b"), 2), tmp_path / "c")
    assert same_files(tmp_path / "a", tmp_path / "c")
    figures = read_shards(tmp_path / "b").describe()
    assert figures["head"] == "SphereFace2"
    assert figures["ranks_recorded"] == (1 if recorded else None)
    expected = {"sgd": ["momentum_buffer"], "adamw": ["exp_avg", "exp_avg_sq"]}
    assert figures["optimizer"] == expected[optimizer]


def partial_fc_v2(weight):
    return dict(weight=weight)


def test_arcface_torch_import_resumes_with_this_head(tmp_path):
    write_shards(checkpoints(head=partial_fc_v2, recorded=False), tmp_path / "arcface")
    assert read_shards(tmp_path / "arcface").describe()["head"] == "PartialFC_V2"
    shards = import_shards(tmp_path / "arcface")
    figures = shards.describe()
    assert (figures["head"], figures["bias"]) == ("SphereFace2", None)
    assert figures["ranks_recorded"] == 2
    write_shards(reshard(shards, 1), tmp_path / "imported")
    checkpoint = read_shards(tmp_path / "imported").checkpoints[0]
    head, backbone = PartialFCSphereFace2(7, 4, lam=0.9, scale=64), nn.BatchNorm1d(4)
    groups = [{"params": backbone.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    backbone.load_state_dict(checkpoint["state_dict_backbone"])
    head.load_state_dict(checkpoint["state_dict_softmax_fc"])
    optimizer.load_state_dict(checkpoint["state_optimizer"])
    assert head.bias.item() == pytest.approx(Recipe(lam=0.9, scale=64).initial_bias(7))
    assert set(optimizer.state) == set(backbone.parameters())  # The head's momentum is dropped.
    head(torch.randn(3, 4), torch.tensor([0, 6, 2])).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("content", "bias"),
    [
        (lambda w: {"backbone": {}, "head": {"w": w, "b": torch.tensor([-2.0])}}, -2.0),
        (lambda w: {"step": 5, "model": {"backbone": {}, "head": {"w": w}}}, None),
        (lambda w: {"projection.weight": w, "projection.bias": torch.tensor([[-1.5]])}, -1.5),
        (lambda w: {"front.conv": torch.zeros(1), "projection.weight": w}, None),
        (lambda w: {"state_dict": {"module.projection.weight": w}}, None),
        (lambda w: {"_orig_mod.module.head.norm_product.weight": w}, None),
        (lambda w: {"meta": {"cfg": "num_subcenters=1"}, "head.norm_product.weight": w}, None),
        (
            lambda w: {
                "ema_state_dict": {"module.head.loss_module.weight": torch.zeros(7, 4)},
                "state_dict": {
                    "head.loss_module.weight": w,
                    "head.loss_module.bias": torch.tensor([-3.0]),
                },
            },
            -3.0,
        ),
        (lambda w: {"W": w.T.contiguous()}, None),
        (lambda w: {"state_dict": {"loss_fn.W": w.T.contiguous()}}, None),
        (lambda w: {"kernel": w.T.contiguous()}, None),
        (lambda w: {"module.kernel": w.T.contiguous()}, None),
        (lambda w: {"weight": w}, None),
        (lambda w: {"module.weight": w, "module.cos_m": torch.tensor(0.9)}, None),
    ],
)
def test_other_checkpoints_give_their_centers(tmp_path, content, bias):
    weight = torch.randn(7, 4)
    torch.save(content(weight), tmp_path / "model.pt")
    write_shards(reshard(import_shards(tmp_path / "model.pt"), 3), tmp_path / "shards")
    head = PartialFCSphereFace2(7, 4, margin=0.2)
    load_centers(head, tmp_path / "shards")
    assert torch.equal(head.weight, weight)
    fresh = Recipe(margin=0.2).initial_bias(7)
    assert head.bias.item() == pytest.approx(fresh if bias is None else bias)


def test_a_file_of_safetensors_gives_its_centers(tmp_path):
    files = pytest.importorskip("safetensors.torch")
    weight = torch.randn(7, 4)
    named = {"model.head.norm_product.weight": weight, "model.backbone.weight": torch.ones(2)}
    files.save_file(named, tmp_path / "model.safetensors")
    shards = import_shards(tmp_path / "model.safetensors")
    assert torch.equal(shards.rows(("state_dict_softmax_fc", "weight"), range(7)), weight)


@pytest.mark.parametrize("name", ["rank_{}_softmax_weight.pt", "rank:{}_softmax_weight.pt"])
def test_the_first_partial_fc_gives_its_ranks_centers(tmp_path, name):
    weight = torch.randn(7, 4)
    for rank, rows in enumerate(weight.split([3, 2, 2])):
        torch.save(rows.clone(), tmp_path / name.format(rank))
        momentum = name.replace("weight", "weight_mom").format(rank)
        torch.save(torch.ones_like(rows), tmp_path / momentum)
    shards = import_shards(tmp_path)
    assert torch.equal(shards.rows(("state_dict_softmax_fc", "weight"), range(7)), weight)
    assert (len(shards.checkpoints), shards.describe()["optimizer"]) == (3, [])
    (tmp_path / name.format(1)).unlink()
    with pytest.raises(ValueError, match=r"has no softmax_weight\.pt of rank 1"):
        import_shards(tmp_path)


def test_what_is_imported_together_is_a_set_of_its_own(tmp_path):
    write_shards(checkpoints(head=partial_fc_v2), tmp_path / "a")
    marks = [import_shards(tmp_path / "a").checkpoints[0]["saved_together"] for _ in range(2)]
    assert marks[0] != marks[1]


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        ({"W": torch.zeros(4, 7, 3)}, None, "model.pt, W: sub-centers, several for each class"),
        (
            {
                "meta": {"cfg": "head=dict(num_subcenters=3)"},
                "head.norm_product.weight": torch.ones(21, 4),
            },
            None,
            "sub-centers, 3 for each class, are held in \\(21, 4\\)",
        ),
        (
            {"projection.weight": torch.zeros(21, 4)},
            7,
            "sub-centers, 3 for each of 7 classes: this head has one center a class",
        ),
        ({"projection.weight": torch.zeros(21, 4)}, 8, "holds 21 classes, and 8 are wanted"),
        ({"a.W": torch.zeros(2, 3), "b.W": torch.zeros(2, 3)}, None, "several class centers"),
        ({"kernel": torch.zeros(3)}, None, "class centers must be a matrix, got \\(3,\\)"),
    ],
)
def test_sub_centers_and_what_is_no_center_are_refused(tmp_path, content, classes, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        import_shards(tmp_path / "model.pt", classes)


def test_centers_of_another_shape_are_refused(tmp_path):
    write_shards(checkpoints(), tmp_path / "a")
    with pytest.raises(ValueError, match="holds 7 classes of size 4, and the head has 8 of size 4"):
        load_centers(PartialFCSphereFace2(8, 4), tmp_path / "a")


def cut_short(folder):
    path = folder / file_name(1)
    path.write_bytes(path.read_bytes()[:-100])


def remove_first(folder):
    (folder / file_name(0)).unlink()


def remove_last(folder):
    (folder / file_name(1)).unlink()


def other_number(folder):
    path = folder / file_name(1)
    torch.save({**torch.load(path), "world_size": 3}, path)


def no_number(folder):
    path = folder / file_name(0)
    torch.save({**torch.load(path), "world_size": "2"}, path)


def other_step(folder):
    path = folder / file_name(1)
    torch.save({**torch.load(path), "global_step": 19}, path)


def other_bias(folder):
    path = folder / file_name(1)
    checkpoint = torch.load(path)
    checkpoint["state_dict_softmax_fc"]["bias"] += 1
    torch.save(checkpoint, path)


def swapped(folder):
    first, second = (folder / file_name(rank) for rank in (0, 1))
    first.rename(folder / "kept")
    second.rename(first)
    (folder / "kept").rename(second)


def no_centers(folder):
    torch.save({"epoch": 2, "global_step": 20}, folder / file_name(1))


class Evil:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def code(folder):
    torch.save(Evil(), folder / file_name(1))


def changed(change):
    """Rank 1's checkpoint with something else in it."""

    def damage(folder):
        path = folder / file_name(1)
        content = torch.load(path)
        change(content)
        torch.save(content, path)

    return damage


def head_of(checkpoint):
    return checkpoint["state_dict_softmax_fc"]


def optimizer_of(checkpoint):
    return checkpoint["state_optimizer"]


def no_optimizer(folder):
    path = folder / file_name(1)
    torch.save({**torch.load(path), "state_optimizer": {}}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_optimizer, "checkpoint_gpu_1.pt holds an optimizer's state that is not torch's"),
        (cut_short, "checkpoint_gpu_1.pt: not readable as a checkpoint"),
        (code, "checkpoint_gpu_1.pt: it holds print, which is refused"),
        (remove_first, "checkpoint_gpu_0.pt is missing"),
        (remove_last, "checkpoint_gpu_1.pt is missing: there are [0]"),
        (other_number, "checkpoint_gpu_1.pt was saved at world_size 3 and"),
        (no_number, "checkpoint_gpu_0.pt holds world_size '2', which is no number of ranks"),
        (other_step, "checkpoint_gpu_1.pt was saved at global_step 19 and"),
        (other_bias, "were saved from different heads"),
        (swapped, "checkpoint_gpu_0.pt holds 3 classes, and rank 0 of 2 with 7 classes"),
        (no_centers, "checkpoint_gpu_1.pt has no class centers"),
        (
            changed(lambda c: head_of(c).update(weight=torch.randn(3, 5))),
            "class centers of size 5 and 4",
        ),
        (
            changed(lambda c: head_of(c).update(weight=head_of(c)["weight"].double())),
            "class centers in torch.float64 and torch.float32",
        ),
        (changed(lambda c: head_of(c).update(weight=torch.ones(3, 4).long())), "no class centers"),
        (changed(lambda c: head_of(c).pop("bias")), "were saved from different heads"),
        (changed(lambda c: head_of(c).update(bias=None)), "with a bias that is not one number"),
        (changed(lambda c: c.update(state_dict_softmax_fc=5)), "has no class centers"),
        (changed(lambda c: c.pop("state_dict_backbone")), "state_dict_backbone in one of them"),
        (changed(lambda c: c.update(epoch="two")), "holds epoch 'two', which is no whole number"),
        (changed(lambda c: c.update(saved_together="0" * 16)), "was saved at saved_together 0000"),
        (changed(lambda c: c.update(saved_together=7)), "'saved_together' that is no mark: '7'"),
        (
            changed(lambda c: optimizer_of(c)["param_groups"][0].update(lr=0.2)),
            "other values in 'state_optimizer'",
        ),
        (
            changed(lambda c: optimizer_of(c)["state"][3]["momentum_buffer"].add_(1)),
            "other values in 'state_optimizer'",
        ),
        (
            changed(lambda c: optimizer_of(c)["state"][2].update(momentum_buffer=torch.ones(9, 4))),
            "other optimizers' states of the class centers",
        ),
        (changed(lambda c: optimizer_of(c).update(state=[])), "state that is not torch's"),
        (changed(lambda c: optimizer_of(c).update(param_groups=[[]])), "state that is not torch's"),
        (changed(lambda c: c.update(ranks_left_out={5: {(): 1}})), "'ranks_left_out' that do not"),
        (changed(lambda c: c.update(ranks_left_out=7)), "'ranks_left_out' that do not fit"),
    ],
)
def test_damage_is_refused_by_name_and_writes_nothing(tmp_path, capsys, damage, message):
    write_shards(checkpoints(), tmp_path / "a")
    damage(tmp_path / "a")
    out = tmp_path / "b"
    assert main(["shards", "reshard", str(tmp_path / "a"), "--ranks", "1", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "code from a checkpoint ran" not in printed.out
    assert not out.exists()


def test_what_a_rank_has_of_its_own_survives_resharding(tmp_path):
    saved = checkpoints()
    saved[1]["own"] = saved[0]["own"] = {"list": [1, 2], "tuple": (1, [2]), "keys": {"a": 1}}
    saved[1]["own"] = {"list": [1, 2, 3], "tuple": (1, [3]), "keys": {"b": 1}}
    write_shards(saved, tmp_path / "a")
    write_shards(reshard(read_shards(tmp_path / "a"), 1), tmp_path / "b")
    write_shards(reshard(read_shards(tmp_path / "b"), 2), tmp_path / "c")
    assert read_shards(tmp_path / "c").checkpoints[1]["own"] == saved[1]["own"]


def test_a_second_job_in_a_folder_is_told_so_and_a_killed_one_is_not_in_the_way(tmp_path):
    lock = tmp_path / ".lock"
    holding = f"""
from sf2_plugin.shards import claim
print(claim({str(lock)!r}), claim({str(lock)!r}), flush=True)
input()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "True True\n"
        with pytest.raises(ValueError, match=rf"in use by another job, process {first.pid} on "):
            claim(lock)
        assert not is_claimed(lock)
    finally:
        first.kill()
        first.communicate()
    assert claim(lock)
    assert is_claimed(lock)


def test_files_that_were_not_saved_together_are_named():
    check_marks({"a.pth": "1" * 16, "a.shards": "1" * 16})
    with pytest.raises(
        ValueError, match=f"together: a.pth bears {'1' * 16}, a.shards bears no mark"
    ):
        check_marks({"a.pth": "1" * 16, "a.shards": None})


def test_the_files_of_an_older_run_with_more_ranks_are_left_alone(tmp_path):
    folder = tmp_path / "a"
    write_shards(checkpoints(), folder)
    (folder / file_name(2)).write_text("of an older run")
    assert read_shards(folder).describe()["ranks"] == 2


def test_a_checkpoint_of_the_bare_host_says_that_its_end_may_be_missing(tmp_path, capsys):
    for recorded in (True, False):
        folder = str(tmp_path / str(recorded))
        write_shards(checkpoints(recorded=recorded), folder)
        assert main(["shards", "show", folder]) == 0
        assert ("number of ranks: not recorded" in capsys.readouterr().out) != recorded


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield checkpoints()[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_shards(failing(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ranks", "given", "expected"), [(2, [], 2), (2, ["--ranks", "1"], 1)])
def test_an_import_keeps_the_number_of_ranks(tmp_path, ranks, given, expected):
    write_shards(checkpoints(head=partial_fc_v2, world_size=ranks), tmp_path / "a")
    out = tmp_path / "b"
    assert main(["shards", "import", str(tmp_path / "a"), *given, "--out", str(out)]) == 0
    assert read_shards(out).describe()["ranks"] == expected


def test_an_import_of_a_file_is_one_rank(tmp_path):
    torch.save({"projection.weight": torch.randn(7, 4)}, tmp_path / "model.pt")
    out = tmp_path / "b"
    assert main(["shards", "import", str(tmp_path / "model.pt"), "--out", str(out)]) == 0
    assert read_shards(out).describe()["ranks"] == 1


def test_a_step_is_shown_to_its_last_digit(tmp_path, capsys):
    saved = [{**checkpoint, "global_step": 1234567} for checkpoint in checkpoints()]
    write_shards(saved, tmp_path / "a")
    assert main(["shards", "show", str(tmp_path / "a")]) == 0
    assert "global step: 1234567\n" in capsys.readouterr().out


def test_a_file_from_before_torch_1_6_is_read(tmp_path):
    content = {"projection.weight": torch.randn(7, 4)}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert import_shards(tmp_path / "model.pt").num_classes == 7


def test_the_commands(tmp_path, capsys):
    write_shards(checkpoints(head=partial_fc_v2), tmp_path / "a")
    imported = str(tmp_path / "b")
    assert main(["shards", "import", str(tmp_path / "a"), "--ranks", "3", "--out", imported]) == 0
    assert "checkpoint_gpu_2.pt: classes 5..6" in capsys.readouterr().out
    assert main(["shards", "show", imported, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["ranks"], figures["classes"], figures["global_step"]) == (3, 7, 20)
    assert figures["shards"][1] == {
        "file": "checkpoint_gpu_1.pt",
        "first_class": 3,
        "classes": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "nowhere has no checkpoint_gpu_0.pt"),
        (["reshard", "a", "--ranks", "2", "--out", "a"], "a already exists"),
        (["reshard", "a", "--ranks", "0", "--out", "b"], "must be a whole number of at least 1"),
        (["import", "model.pt", "--out", "b"], "model.pt holds no class centers"),
        (["import", "tensor.pt", "--out", "b"], "tensor.pt holds no class centers"),
        (
            ["import", "vector.pt", "--out", "b"],
            "vector.pt, head.w: class centers must be a matrix, got (2,)",
        ),
        (["import", "biases.pt", "--out", "b"], "biases.pt has class centers with a bias that is"),
    ],
)
def test_bad_commands_end_with_status_2_and_one_line(
    tmp_path, monkeypatch, capsys, arguments, message
):
    write_shards(checkpoints(), tmp_path / "a")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "model.pt")
    torch.save({"model": torch.zeros(2)}, tmp_path / "tensor.pt")
    torch.save({"head": {"w": torch.zeros(2)}}, tmp_path / "vector.pt")
    torch.save({"head": {"w": torch.zeros(2, 4), "b": torch.zeros(2)}}, tmp_path / "biases.pt")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["shards", *arguments])
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
