"""Time and memory of `sf2_plugin.evaluation` at the size of IJB-C, on made-up features.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --arcface-torch /path/to/recognition/arcface_torch --json

With `--arcface-torch`, that folder's own functions answer the same arrays in the same run. Every
measurement is a process of its own, so that its peak memory, arrays and interpreter included, is
not another's.
"""

import argparse
import ast
import contextlib
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, DIMENSIONS = 469_375, 512
GALLERY, PROBES = 3_531, 19_593
GENUINE, PAIRS = 19_557, 15_658_489
FEWER_PAIRS = 1_000_000
SEARCHES, ENROLLED = 20_000, 3_500
PAIR_DIMENSIONS = 128
FEW_FACES, MANY_FACES = 2_000, 20_000

Result = dict[str, Any]


def make_templates(folder: Path) -> Result:
    """Gallery and probe templates of as many people as IJB-C has; some are poor, as there.

    A genuine pair of templates scores about 0.6, a poor one far less; an impostor pair about 0,
    with people who look alike. TAR is about 0.96 at FAR 0.0001, as that of a good backbone.
    """
    rng = np.random.default_rng(0)
    templates = GALLERY + PROBES
    subject = np.concatenate([np.arange(GALLERY), rng.integers(0, GALLERY, PROBES)])
    subject[GALLERY : 2 * GALLERY] = np.arange(GALLERY)
    families = _directions(rng, GALLERY // 4)
    people = _directions(rng, GALLERY) + 0.6 * families[rng.integers(0, len(families), GALLERY)]
    poor = rng.lognormal(-0.7, 0.9, templates)
    centers = people[subject] + (0.3 + poor)[:, None] * _directions(rng, templates)

    # Every template has an image; the rest fall unevenly, as videos do.
    share = rng.lognormal(0, 1.5, templates)
    template = np.concatenate(
        [np.arange(templates), rng.choice(templates, IMAGES - templates, p=share / share.sum())]
    )
    rng.shuffle(template)
    features = np.lib.format.open_memmap(
        folder / "features.npy", "w+", np.float32, (IMAGES, DIMENSIONS)
    )
    for start in range(0, IMAGES, 8192):
        of = template[start : start + 8192]
        noise = rng.normal(0, 1.2 / DIMENSIONS**0.5, (len(of), DIMENSIONS))
        features[start : start + 8192] = rng.gamma(20, 1, (len(of), 1)) * (centers[of] + noise)
    features.flush()
    ids = np.sort(rng.choice(4 * templates, templates, replace=False))  # With gaps.
    np.save(folder / "templates.npy", ids[template])
    np.save(folder / "medias.npy", rng.integers(0, 6, IMAGES))

    genuine = GALLERY + rng.choice(PROBES, GENUINE, replace=False)
    cells = np.unique(rng.integers(0, GALLERY * PROBES, int(1.4 * PAIRS)))
    first, second = cells // PROBES, GALLERY + cells % PROBES
    impostor = np.flatnonzero(first != subject[second])
    impostor = rng.permutation(impostor)[: PAIRS - GENUINE]
    p1 = np.concatenate([subject[genuine], first[impostor]])
    p2 = np.concatenate([genuine, second[impostor]])
    labels = np.arange(PAIRS) < GENUINE
    shuffled = rng.permutation(PAIRS)
    for name, values in (("p1", ids[p1]), ("p2", ids[p2]), ("labels", labels.astype(np.int64))):
        np.save(folder / f"{name}.npy", values[shuffled])
    return {}


def make_pairs(folder: Path) -> Result:
    rng = np.random.default_rng(1)
    issame = rng.random(FEWER_PAIRS) < 0.5
    first = _directions(rng, FEWER_PAIRS, PAIR_DIMENSIONS)
    second = _directions(rng, FEWER_PAIRS, PAIR_DIMENSIONS)
    second += (issame * rng.gamma(8, 0.1, FEWER_PAIRS))[:, None] * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    np.save(
        folder / "embeddings.npy", np.stack([first, second], axis=1).reshape(-1, PAIR_DIMENSIONS)
    )
    np.save(folder / "issame.npy", issame)
    return {}


def verify_templates(folder: Path, pairs: int) -> Result:
    from sf2_plugin.evaluation import verify_templates

    arrays = _load_templates(folder, pairs)
    started = time.perf_counter()
    report = verify_templates(*arrays)
    seconds = time.perf_counter() - started
    tar = {f"{target:g}": report.nearest_tar_at_far[target] for target in (1e-4, 1e-3)}
    return {"seconds": seconds, "auc": report.auc, "tar": tar}


def arcface_templates(folder: Path, pairs: int, host: Path) -> Result:
    import sklearn.preprocessing
    from sklearn.metrics import auc, roc_curve

    host_functions = _definitions(
        host / "eval_ijbc.py",
        {"image2template_feature", "verification"},
        {"np": np, "sklearn": sklearn},
    )
    features, templates, medias, p1, p2, labels = _load_templates(folder, pairs)
    started = time.perf_counter()
    pooled, ids = host_functions["image2template_feature"](features, templates, medias)
    score = host_functions["verification"](pooled, ids, p1, p2)
    # From here on the host has no function; this is what its script does.
    fpr, tpr, _ = roc_curve(labels, score)
    area = auc(fpr, tpr)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    tar = {}
    for target in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        _, nearest = min(zip(abs(fpr - target), range(len(fpr)), strict=True))
        tar[f"{target:g}"] = float(tpr[nearest])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "auc": area, "tar": {k: tar[k] for k in ("0.0001", "0.001")}}


def verify_pairs(folder: Path) -> Result:
    from sf2_plugin.evaluation import verify_pairs

    embeddings, issame = np.load(folder / "embeddings.npy"), np.load(folder / "issame.npy")
    started = time.perf_counter()
    report = verify_pairs(embeddings, issame)
    seconds = time.perf_counter() - started
    assert report.grid_accuracy is not None
    return {"seconds": seconds, "grid_accuracy": float(report.grid_accuracy.mean())}


def arcface_pairs(folder: Path, host: Path) -> Result:
    from sklearn.model_selection import KFold

    host_functions = _definitions(
        host / "eval" / "verification.py",
        {"LFold", "calculate_roc", "calculate_accuracy"},
        {"np": np, "KFold": KFold},
    )
    embeddings, issame = np.load(folder / "embeddings.npy"), np.load(folder / "issame.npy")
    started = time.perf_counter()
    # Not its `evaluate`: the interpolation in `calculate_val` fails with a current SciPy.
    _, _, accuracy = host_functions["calculate_roc"](
        np.arange(0, 4, 0.01), embeddings[0::2], embeddings[1::2], issame
    )
    return {
        "seconds": time.perf_counter() - started,
        "grid_accuracy": float(np.mean(accuracy)),
    }


def identify(folder: Path) -> Result:
    from sf2_plugin.evaluation import identify

    rng = np.random.default_rng(2)
    people = _directions(rng, ENROLLED + ENROLLED // 4)
    who = rng.integers(0, len(people), SEARCHES)
    noise = rng.gamma(6, 0.25, SEARCHES)[:, None] * _directions(rng, SEARCHES)
    gallery = people[:ENROLLED] + 0.4 * _directions(rng, ENROLLED)
    probes = people[who] + noise
    started = time.perf_counter()
    report = identify(gallery, np.arange(ENROLLED), probes, who)
    return {"seconds": time.perf_counter() - started, "rank_1": report.rank_accuracy(1)}


def make_faces(folder: Path) -> Result:
    from sf2_plugin.data import encode_jpeg

    rng = np.random.default_rng(3)
    for i in range(MANY_FACES):
        coarse = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
        (folder / f"{i}.jpg").write_bytes(encode_jpeg(coarse.repeat(8, axis=0).repeat(8, axis=1)))
    return {}


class Projection:
    """A backbone that costs next to nothing, so that what is around it shows."""

    settings = "projection"
    calibration = None

    def __init__(self) -> None:
        self.weight = _directions(np.random.default_rng(4), 14 * 14 * 3)

    def embed(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([face[::8, ::8].ravel() for face in faces]) @ self.weight


def embed(folder: Path, faces: int) -> Result:
    from sf2_plugin.backbones.embedding import embed_images

    paths = [folder / f"{i}.jpg" for i in range(faces)]
    started = time.perf_counter()
    embeddings = embed_images(Projection(), paths)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "embeddings_gib": embeddings.nbytes / 2**30}


def _directions(rng: np.random.Generator, count: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    values = rng.standard_normal((count, dimensions), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _load_templates(folder: Path, pairs: int) -> list[np.ndarray]:
    names = ("features", "templates", "medias", "p1", "p2", "labels")
    arrays = [np.load(folder / f"{name}.npy") for name in names]
    return arrays[:3] + [array[:pairs].copy() for array in arrays[3:]]


def _definitions(path: Path, names: set[str], namespace: dict[str, Any]) -> dict[str, Any]:
    """Named functions and classes of a script, without running the script around them."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree.body = [node for node in tree.body if isinstance(node, kinds) and node.name in names]
    exec(compile(tree, str(path), "exec"), namespace)
    return namespace


def _measured(task: Callable[..., Result], *arguments: Any) -> Result:
    with contextlib.redirect_stdout(io.StringIO()):  # The host prints its progress.
        result = task(*arguments)
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which a process takes over from its parent.
        peak = next(int(s.split()[1]) for s in status.read_text().splitlines() if "VmHWM" in s)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result | {"peak_gib": peak / 2**20}


def run(task: Callable[..., Result], *arguments: Any) -> Result:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, task, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arcface-torch", type=Path, help="folder of InsightFace's arcface_torch")
    parser.add_argument("--folder", type=Path, help="where the arrays (3 GB) go; a temporary one")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    host = arguments.arcface_torch
    if host is not None and not (host / "eval_ijbc.py").is_file():
        parser.error(f"{host} has no eval_ijbc.py")

    results: dict[str, Result] = {}

    def measure(name: str, task: Callable[..., Result], *rest: Any) -> None:
        results[name] = run(task, *rest)
        print(f"{name}: {results[name]}", file=sys.stderr)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        run(make_templates, folder)
        measure("templates, 15.66 M pairs", verify_templates, folder, PAIRS)
        measure("templates, 1 M pairs", verify_templates, folder, FEWER_PAIRS)
        if host:
            measure("arcface_torch, same", arcface_templates, folder, FEWER_PAIRS, host)
        run(make_pairs, folder)
        measure("pairs, 1 M", verify_pairs, folder)
        if host:
            measure("arcface_torch, same pairs", arcface_pairs, folder, host)
        measure("1:N, 20,000 in 3,500", identify, folder)
        run(make_faces, folder)
        for faces in (FEW_FACES, MANY_FACES):
            measure(f"embedding, {faces:,} faces", embed, folder, faces)

    ratios = {}
    if host:
        for ours, theirs in (
            ("templates, 1 M pairs", "arcface_torch, same"),
            ("pairs, 1 M", "arcface_torch, same pairs"),
        ):
            ratios[ours] = results[theirs]["seconds"] / results[ours]["seconds"]
    if arguments.json:
        print(json.dumps({"results": results, "arcface_torch_over_ours": ratios}, indent=2))
        return
    print(f"{'':28}{'seconds':>9}{'peak GiB':>10}  figures")
    for name, result in results.items():
        figures = {k: v for k, v in result.items() if k not in ("seconds", "peak_gib")}
        print(f"{name:28}{result['seconds']:9.2f}{result['peak_gib']:10.2f}  {figures}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.1f} times as fast as arcface_torch")


if __name__ == "__main__":
    main()
