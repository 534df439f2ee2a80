"""Makes the numbers of `tests/data/parity` again, by running the projects' own code on its inputs.

    python -m tests.parity.record --opensphere DIR --wespeaker DIR --arcface-torch DIR --uniface DIR

Each DIR is a checkout (README.md of that folder names the commits). The largest difference from
the numbers that are there is printed for every case. A file whose numbers all agree is left as it
is; another is written anew, and the exit status is 1. --out writes all of them to another folder.
"""

import argparse
import ast
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from sf2_plugin.bench.peers import load_file

from ..ranks import on_ranks
from . import CHECKPOINT, FOLDER

Case = dict[str, np.ndarray]

#: Relative to the largest value of an array: float64, summed in another order.
TOLERANCE = 1e-12
#: The checkpoint is of float32 training.
CHECKPOINT_TOLERANCE = 1e-5


class Missing(Exception):
    """What the checkout that was given does not have."""


def first_file(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise Missing(f"{folder} must be a checkout with {' or '.join(names)}")


def trained(loss: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Case:
    loss.backward()
    answers = {"loss": loss, "grad_x": x.grad, "grad_w": weight.grad, "grad_bias": bias.grad}
    return {name: value.detach().numpy() for name, value in answers.items()}


def set_parameters(module: nn.Module, **values: np.ndarray) -> None:
    for name, value in values.items():
        parameter = getattr(module, name)
        parameter.data = torch.tensor(value, dtype=torch.float64).reshape(parameter.shape)


def opensphere(folder: Path, case: Case) -> Case:
    """The branch OpenSphere_v0 has the margins C, A and M; main has C alone."""
    file = first_file(folder, "model/head/sphereface2.py", "opensphere/module/head/sphereface2.py")
    head, (classes, size), margin_type = load_file(file), case["w"].shape, str(case["margin_type"])
    options: dict[str, Any] = {k: float(case[k]) for k in ("alpha", "r", "m", "t", "lw")}
    with_types = file.parts[-3] == "model"
    if with_types:
        options["magn_type"] = margin_type
    elif margin_type != "C":
        raise Missing(f"margin {margin_type} is in the branch OpenSphere_v0 alone")
    module = head.SphereFace2(size, classes, **options)
    bias_init = module.b.item()
    set_parameters(module, w=case["w"].T if with_types else case["w"], b=case["bias"])
    x = torch.tensor(case["x"], requires_grad=True)
    answers = trained(module(x, torch.tensor(case["y"])), x, module.w, module.b)
    grad_w = answers["grad_w"].T if with_types else answers["grad_w"]
    bias = {"bias_init": np.float64(bias_init), "grad_bias": answers["grad_bias"][0]}
    return {**answers, **bias, "grad_w": grad_w}


def wespeaker(folder: Path, case: Case) -> Case:
    head, (classes, size) = (
        load_file(first_file(folder, "wespeaker/models/projections.py")),
        case["w"].shape,
    )
    module = head.SphereFace2(
        size,
        classes,
        scale=float(case["r"]),
        margin=float(case["m"]),
        lanbuda=float(case["lam"]),
        t=int(case["t"]),
        margin_type=str(case["margin_type"]),
    )
    set_parameters(module, weight=case["w"], bias=case["bias"])
    x = torch.tensor(case["x"], requires_grad=True)
    _, loss = module(x, torch.tensor(case["y"]))
    answers = trained(loss, x, module.weight, module.bias)
    return {**answers, "grad_bias": answers["grad_bias"][0, 0]}


def uniface(folder: Path, case: Case) -> Case:
    head, (classes, size) = load_file(first_file(folder, "head.py")), case["w"].shape
    options = {k: float(case[k]) for k in ("m", "s", "l", "r")}
    module = head.Unified_Cross_Entropy_Loss(size, classes, **options)
    bias_init = module.bias.item()
    set_parameters(module, weight=case["w"], bias=case["bias"])
    x = torch.tensor(case["x"], requires_grad=True)
    loss = module(x, torch.tensor(case["y"]), torch.arange(classes))
    answers = trained(loss, x, module.weight, module.bias)
    return {**answers, "bias_init": np.float64(bias_init)}


def arcface_torch_verification(folder: Path, case: Case) -> Case:
    """`calculate_roc`, on embeddings normalised as its caller does."""
    from sklearn.preprocessing import normalize

    # The module imports mxnet for what is not called here; few environments have it.
    with patch.dict(sys.modules, {name: ModuleType(name) for name in ("mxnet", "mxnet.ndarray")}):
        sys.modules["mxnet"].ndarray = sys.modules["mxnet.ndarray"]  # type: ignore[attr-defined]
        module = load_file(first_file(folder, "eval/verification.py"))
    embeddings = normalize(case["embeddings"].astype(np.float64))
    thresholds = np.arange(0, 4, 0.01)
    tpr, fpr, accuracy = module.calculate_roc(
        thresholds, embeddings[0::2], embeddings[1::2], case["issame"]
    )
    return {"tpr": tpr, "fpr": fpr, "accuracy": accuracy}


def arcface_torch_ijb(folder: Path, case: Case) -> Case:
    """The functions of `eval_ijbc.py`, a script that cannot be imported, and the lines below."""
    import sklearn.preprocessing
    from sklearn.metrics import auc, roc_curve

    script = first_file(folder, "eval_ijbc.py")
    functions = ("image2template_feature", "verification")
    tree = ast.parse(script.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in functions]
    names: dict[str, Any] = {"np": np, "sklearn": sklearn, "print": lambda *_: None}
    exec(compile(tree, str(script), "exec"), names)
    template_features, unique_templates = names["image2template_feature"](
        case["features"], case["templates"], case["medias"]
    )
    score = names["verification"](template_features, unique_templates, case["p1"], case["p2"])
    fpr, tpr, _ = roc_curve(case["label"], score)
    fpr_down, tpr_down = np.flipud(fpr), np.flipud(tpr)  # The largest TPR of those at an FPR.
    nearest = [np.argmin(np.abs(fpr_down - target)) for target in case["far_targets"]]
    return {
        "template_features": template_features,
        "unique_templates": unique_templates,
        "score": score,
        "auc": np.float64(auc(fpr, tpr)),
        "tar": tpr_down[nearest],
    }


def train_arcface_torch(rank: int, folder: Path, out: Path) -> None:
    """Three steps of PartialFC_V2 and a backbone, and the checkpoint that train_v2.py saves."""
    losses = load_file(first_file(folder, "losses.py"))
    partial_fc = load_file(first_file(folder, "partial_fc_v2.py"))
    warnings.simplefilter("ignore")  # Of what newer versions of torch deprecate.
    torch.manual_seed(rank)
    backbone = nn.Linear(6, 8, bias=False)
    head = partial_fc.PartialFC_V2(losses.CombinedMarginLoss(64, 1, 0, 0.4), 8, 11)
    optimizer = torch.optim.SGD(
        [{"params": backbone.parameters()}, {"params": head.parameters()}],
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
    )
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, 10)
    # It moves what it makes to a GPU by name.
    with patch.object(Tensor, "cuda", lambda tensor, *args, **kwargs: tensor):
        for _ in range(3):
            head(backbone(torch.randn(4, 6)), torch.randint(11, (4,))).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    checkpoint = {
        "epoch": 1,
        "global_step": 3,
        "state_dict_backbone": backbone.state_dict(),
        "state_dict_softmax_fc": head.state_dict(),
        "state_optimizer": optimizer.state_dict(),
        "state_lr_scheduler": scheduler.state_dict(),
    }
    torch.save(checkpoint, out / f"checkpoint_gpu_{rank}.pt")


def difference(actual: Any, expected: Any) -> float:
    """The largest difference, relative to the largest value; infinite between shapes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return np.inf
    scale = max(np.abs(expected).max(initial=0), np.finfo(np.float64).tiny)
    return float(np.abs(actual - expected).max(initial=0) / scale)


def record_archive(file: str, answer: dict[str, Callable[[Case], Case]], out: Path | None) -> bool:
    """Whether all cases of `file` that `answer` can answer, by the name's beginning, agree."""
    with np.load(FOLDER / file) as archive:
        arrays = {key: archive[key] for key in archive}
    agree = True
    for name in dict.fromkeys(key.split("/")[0] for key in arrays):
        of_kind = answer.get(name.rsplit("_", 1)[0])
        if of_kind is None:
            continue
        case = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(name + "/")}
        try:
            answers = of_kind(case)
        except Missing as missing:
            print(f"{name}: not run, {missing}")
            continue
        worst = np.max([difference(value, case[key]) for key, value in answers.items()])
        print(f"{name}: {', '.join(answers)} differ by {worst:.1e} at most")
        agree &= worst <= TOLERANCE
        arrays.update({f"{name}/{key}": np.asarray(value) for key, value in answers.items()})
    if out is not None or not agree:
        np.savez_compressed((out or FOLDER) / file, **arrays)
    return agree


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a checkpoint, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value.values() for t in tensors(v)] if isinstance(value, dict) else []


def record_checkpoint(folder: Path, out: Path | None) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        on_ranks(train_arcface_torch, 2, folder, Path(scratch))
        differences = []
        files = sorted(Path(scratch).iterdir())
        for file in files:
            made = tensors(torch.load(file, weights_only=True))
            known = CHECKPOINT / file.name
            there = tensors(torch.load(known, weights_only=True)) if known.is_file() else []
            differences += [difference(a, b) for a, b in zip(made, there, strict=False)]
            differences += [np.inf] * (len(made) != len(there))
        worst = np.max(differences)
        print(f"{CHECKPOINT.name}: {len(files)} checkpoints differ by {worst:.1e} at most")
        agree = worst <= CHECKPOINT_TOLERANCE
        if out is not None or not agree:
            target = (out or FOLDER) / CHECKPOINT.name
            target.mkdir(parents=True, exist_ok=True)
            for file in files:
                (target / file.name).write_bytes(file.read_bytes())
    return agree


#: Of every project, the file of its cases and what answers each, by the beginning of their names.
HEADS = {"opensphere": opensphere, "wespeaker": wespeaker}
EVALUATION = {"verification": arcface_torch_verification, "ijb": arcface_torch_ijb}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("opensphere", "wespeaker", "arcface-torch", "uniface"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help="a checkout")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write here, whatever differs")
    options = parser.parse_args(arguments)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    given = {name: folder for name, folder in vars(options).items() if folder is not None}
    torch.set_default_dtype(torch.float64)
    heads = {name: partial(run, given[name]) for name, run in HEADS.items() if name in given}
    agree = record_archive("heads.npz", heads, options.out)
    if options.uniface is not None:
        agree &= record_archive(
            "uniface.npz", {"uniface": partial(uniface, options.uniface)}, options.out
        )
    torch.set_default_dtype(torch.float32)
    if options.arcface_torch is not None:
        host = options.arcface_torch
        protocols = {name: partial(run, host) for name, run in EVALUATION.items()}
        agree &= record_archive("eval.npz", protocols, options.out)
        agree &= record_checkpoint(host, options.out)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
