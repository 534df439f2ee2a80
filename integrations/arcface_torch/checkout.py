"""Whether a checkout of arcface_torch will run here, found without running any of its code."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import torch

from sf2_plugin.findings import Finding

from .host import LIBRARIES
from .patches import PATCHES, Run

#: File of the host -> name that is exchanged in it or relied on -> its parameters.
NAMES = {
    "train_v2.py": {"main": ["args"]},
    "partial_fc_v2.py": {
        "PartialFC_V2": ["margin_loss", "embedding_size", "num_classes", "sample_rate", "fp16"]
    },
    "losses.py": {"CombinedMarginLoss": ["s", "m1", "m2", "m3", "interclass_filtering_threshold"]},
    "dataset.py": {
        "MXFaceDataset": ["root_dir", "local_rank"],
        "DataLoaderX": ["local_rank"],
        "get_dataloader": ["root_dir", "local_rank", "batch_size"],
    },
    "lr_scheduler.py": {
        "PolynomialLRWarmup": [
            "optimizer",
            "warmup_iters",
            "total_iters",
            "power",
            "last_epoch",
            "verbose",
        ]
    },
    "utils/utils_callbacks.py": {
        "CallBackVerification": [
            "val_targets",
            "rec_prefix",
            "summary_writer",
            "image_size",
            "wandb_logger",
        ],
        "CallBackLogging": ["frequent", "total_step", "batch_size", "start_step", "writer"],
    },
    "utils/utils_config.py": {"get_config": ["config_file"]},
    "utils/utils_distributed_sampler.py": {"sync_random_seed": ["seed", "device"]},
    "utils/utils_logging.py": {"init_logging": ["rank", "models_root"]},
    "eval/verification.py": {},
    "configs/base.py": {},
}

#: Patches of what the host has done before it imports its config with `enable` -> what it wants
#: then.
TOO_LATE = {"mxnet": "an mxnet that can be imported", "cpu": "a GPU"}


def examine(folder: str | Path) -> Iterator[Finding]:
    """What is found of the checkout in `folder`, its libraries and the patches it needs here.

    Raises:
        ValueError: `folder` is not arcface_torch's.
    """
    folder = Path(folder)
    if not (folder / "train_v2.py").is_file():
        raise ValueError(f"{folder} has no train_v2.py: the folder of arcface_torch is wanted")
    for file, names in NAMES.items():
        problem = _problem(folder / file, names)
        yield Finding(file, problem is None, problem or "as expected")
    for library in LIBRARIES:
        yield _library(library)
    run = Run("cuda" if torch.cuda.is_available() else "cpu")
    for patch in PATCHES:
        if patch.needed(run):
            yield Finding(f"patch {patch.name}", True, f"{patch.what} ({', '.join(patch.touches)})")
    command = "python -m sf2_plugin.integrations.arcface_torch train_v2.py configs/NAME"
    yield Finding("command", True, command + (" --device cpu" if run.device == "cpu" else ""))


def switch() -> Finding:
    """Whether what the host imports is here, and which of the two routes to the switch is open."""
    libraries = [_library(name) for name in LIBRARIES]
    missing = [
        f"{finding.name} is needed: {finding.found}" for finding in libraries if not finding.good
    ]
    if missing:
        return Finding("arcface_torch", False, missing[0])
    run = Run("cuda" if torch.cuda.is_available() else "cpu")
    command = "python -m sf2_plugin.integrations.arcface_torch" + " --device cpu" * (
        run.device == "cpu"
    )
    wanted = [
        TOO_LATE[patch.name] for patch in PATCHES if patch.name in TOO_LATE and patch.needed(run)
    ]
    enable = f"its own command wants {' and '.join(wanted)}" if wanted else "or by its own command"
    return Finding("arcface_torch", True, f'config.loss = "sphereface2" by {command}; {enable}')


def _problem(path: Path, names: dict[str, list[str]]) -> str | None:
    if not path.is_file():
        return "is missing"
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        return f"is no Python that can be read: {error}"
    defined = {
        node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for name, parameters in names.items():
        if name not in defined:
            return f"has no {name}: another version of the host than those that are known"
        found = _parameters(defined[name])
        if found[: len(parameters)] != parameters:
            return f"{name} takes ({', '.join(found)}) where ({', '.join(parameters)}) is known"
    return None


def _parameters(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [argument.arg for argument in node.args.args]
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _parameters(part)[1:]
    return []


def _library(name: str) -> Finding:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # A library that does not fit torch or numpy fails in its own way.
        return Finding(name, False, f'{error}: pip install "sf2-plugin[insightface]"')
    return Finding(name, True, getattr(module, "__version__", "there"))
