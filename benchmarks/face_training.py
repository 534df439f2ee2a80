"""One run of the accuracy study: a small backbone, one loss, a few epochs on one thread.

Everything but the loss is the same in every run. What a run is, is a `Run`; what it answers is a
dictionary of plain numbers and lists, with the scores of every test pair.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from benchmarks.rounded_products import rounded_products
from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.atomic import atomic_folder
from sf2_plugin.bench.peers import load_file
from sf2_plugin.data import PairSet, decode_image, read_face_folder, read_pairs
from sf2_plugin.data.images import pillow
from sf2_plugin.patching import replaced

#: Sides of a face as it is decoded, of the cut that is taken of it, and of what is made of that.
STORED, CUT, SIDE = 112, 88, 80
#: Oriented gradients: pixels a cell has on a side, and directions.
CELL, DIRECTIONS = 8, 8
#: Training sees each face in these cuts, (right, down) in pixels, and each turned; tests the first.
SHIFTS = ((0, 0), (-4, 0), (4, 0), (0, -4), (0, 4))
#: Pixels that the convolutions see.
SEEN = 40
HIDDEN, EMBEDDING_SIZE = 512, 128
BATCH, MOMENTUM, WEIGHT_DECAY = 64, 0.9, 5e-4
#: arcface_torch's: of the backbone alone.
CLIP = 5.0
#: The people held out of the training set to choose hyperparameters by, and their images at most.
DEVELOPMENT_SHARE, DEVELOPMENT_IMAGES = 1 / 3, 6


#: What a run may do otherwise: the default, and what it is.
LOOP = {
    "rate_warmup": 1.0,  # Epochs until the rate is reached.
    "weight_warmup": 1.0,  # Steps until the loss has its whole weight.
    "bias_shift": 0.0,  # Added to the initial bias.
    "fitted_bias": 0.0,  # 1: the bias starts where the first faces' loss is least.
    "bias_rate": 1.0,  # The bias' learning rate over the others'.
    "centers_momentum": MOMENTUM,
    "mean_centers": 0.0,  # 1: class centers start at their people's mean embedding.
    "clip_all": 0.0,  # 1: the gradient is clipped whole, as MMEngine does.
}
#: Everyone; without those held out for choosing; or with them as faces of nobody, label -1.
PEOPLE = ("all", "known", "known and nobody")


@dataclass(frozen=True)
class Run:
    """What a run is; two of the same are one. None is what the loss is shipped with."""

    loss: str
    seed: int = 0
    lr: float = 0.1
    margin: float | None = None
    scale: float | None = None
    epochs: int = 6
    #: Of `BACKBONES`.
    backbone: str = "gradients"
    #: Of `PEOPLE`, who is trained on.
    people: str = "all"
    #: Trained on "known" and judged on those held out, to choose hyperparameters by.
    choosing: bool = False
    #: The share of people trained on, drawn by the seed.
    share: float = 1.0
    #: The share of labels replaced by another at random.
    noise: float = 0.0
    #: The share of people, those with the fewest images, who keep one or two of theirs.
    tail: float = 0.0
    #: Under autocast; the head's products are float32 on a CPU all the same.
    autocast: str = "float32"
    #: What the factors of the head's products are rounded to, as on a GPU; SphereFace2's alone.
    products: str = "float32"
    fused: bool = False
    #: Of Partial FC; None for the full head.
    sample_rate: float | None = None
    negative_weighting: str = "unbiased"
    #: More arguments of a SphereFace2 head.
    options: tuple[tuple[str, Any], ...] = ()
    #: Of `LOOP`, what else is done otherwise.
    loop: tuple[tuple[str, float], ...] = ()

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, so that a field added later renames no file."""
        given = dataclasses.asdict(self)
        return {
            field.name: given[field.name]
            for field in dataclasses.fields(self)
            if field.default is dataclasses.MISSING or given[field.name] != field.default
        }

    def name(self, faces: str) -> str:
        """Of its file, for a data set's fingerprint."""
        text = json.dumps([faces, self.settings()], sort_keys=True)
        return f"{self.loss}-{hashlib.sha1(text.encode()).hexdigest()[:12]}.json"


# Faces.


#: What is measured on each face of a test: its mean, the spread of its edges, and how much of it
#: its mirror image leaves.
MEASURES = ("brightness", "sharpness", "symmetry")


@dataclass(frozen=True)
class Test:
    """Faces by backbone with one view each; pairs (P, 2) of them; whether each pair is one person,
    (P,); and `MEASURES` of each face, (N, 3)."""

    seen: dict[str, np.ndarray]
    pairs: np.ndarray
    issame: np.ndarray
    measures: np.ndarray


@dataclass(frozen=True)
class Faces:
    """Faces as the backbones see them, decoded once.

    Attributes:
        seen: by name of `BACKBONES`, (N, views, ...): each training face in its views.
        labels: (N,).
        tests: by name.
    """

    seen: dict[str, np.ndarray]
    labels: np.ndarray
    tests: dict[str, Test]
    fingerprint: str

    @classmethod
    def load(cls, folder: Path) -> "Faces":
        def array(name: str) -> np.ndarray:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        about = json.loads((folder / "about.json").read_text())

        def seen(of: str) -> dict[str, np.ndarray]:
            return {name: array(f"{of}-{name}") for name in about["backbones"]}

        tests = {
            name: Test(
                seen(f"test{i}"),
                *(array(f"test{i}-{of}") for of in ("pairs", "issame", "measures")),
            )
            for i, name in enumerate(about["tests"])
        }
        return cls(seen("train"), array("train-labels"), tests, about["fingerprint"])


def decode_faces(train: Path, tests: dict[str, PairSet], out: Path, *, light: bool = False) -> None:
    """Decode a training folder and pair sets once, into a folder that `Faces.load` opens.

    Args:
        light: for the first backbone alone, and each training face in two views instead of ten.
    """
    people = read_face_folder(train)
    digest = hashlib.sha1()
    backbones = dict(list(BACKBONES.items())[: 1 if light else None])
    with atomic_folder(out) as folder:

        def save(name: str, array: np.ndarray) -> None:
            np.save(folder / f"{name}.npy", array)

        def save_faces(
            name: str, images: Iterable[np.ndarray], shifts: Sequence, turns: int
        ) -> None:
            views = [(*shift, turned) for shift in shifts for turned in range(turns)]
            parts: dict[str, list[np.ndarray]] = {of: [] for of in (*backbones, "measures")}
            waiting = iter(images)
            while some := [_square(image) for image in islice(waiting, 256)]:
                faces = np.stack(some)
                digest.update(faces.tobytes())
                parts["measures"].append(measures(faces))
                for backbone, (_, see) in backbones.items():
                    seen = [see(_cut(faces, *view)) for view in views]
                    parts[backbone].append(np.stack(seen, axis=1))
            for of, arrays in parts.items():
                save(f"{name}-{of}", np.concatenate(arrays))

        shifts = SHIFTS[:1] if light else SHIFTS
        save_faces("train", (decode_image(path) for path, _ in people.samples), shifts, 2)
        save("train-labels", np.array([label for _, label in people.samples]))
        for i, pair_set in enumerate(tests.values()):
            first, inverse = pair_set.distinct()
            images = (pair_set.decode(int(row)) for row in first)
            save_faces(f"test{i}", images, SHIFTS[:1], 1)
            save(f"test{i}-pairs", inverse.reshape(-1, 2))
            save(f"test{i}-issame", pair_set.issame)
        about = {
            "tests": list(tests),
            "backbones": list(backbones),
            "fingerprint": digest.hexdigest()[:12],
        }
        (folder / "about.json").write_text(json.dumps(about))


def _square(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[:2] == (STORED, STORED):
        return pixels
    return np.asarray(pillow().fromarray(pixels).resize((STORED, STORED)))


def _cut(faces: np.ndarray, right: int, down: int, turned: bool) -> Tensor:
    """(B, CUT, CUT, 3) of faces."""
    edge = (STORED - CUT) // 2
    cut = torch.from_numpy(faces)[:, edge + down :][:, :CUT, edge + right :][:, :, :CUT]
    return cut.flip(2) if turned else cut


def measures(faces: np.ndarray) -> np.ndarray:
    """(B, STORED, STORED, 3) uint8 to (B, 3) float32 of `MEASURES`."""
    grey = _cut(faces, 0, 0, False).float().mean(3)
    edges = functional.conv2d(
        grey[:, None], torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    ).flatten(1)
    of_all = grey.flatten(1)
    mirrored = (grey - grey.flip(2)).flatten(1).std(1) / (of_all.std(1) + 1)
    return torch.stack([of_all.mean(1), edges.std(1), -mirrored], 1).numpy()


def oriented_gradients(cut: Tensor) -> np.ndarray:
    """(B, CUT, CUT, 3) uint8 to (B, DIRECTIONS * cells) float16: gradients by cell and direction.

    After Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005; a
    gradient falls into its two nearest directions, and a cell is measured by its neighbourhood.
    """
    grey = cut.float().mean(3)[:, None]
    grey = functional.interpolate(grey, size=(SIDE, SIDE), mode="bilinear")[:, 0]
    right, down = torch.zeros_like(grey), torch.zeros_like(grey)
    right[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    size = (right**2 + down**2).sqrt()
    angle = (torch.atan2(down, right) / math.pi + 1) / 2 * DIRECTIONS
    half = DIRECTIONS / 2
    by_direction = [
        size * functional.relu(1 - ((angle - direction + half) % DIRECTIONS - half).abs())
        for direction in range(DIRECTIONS)
    ]
    cells = functional.avg_pool2d(torch.stack(by_direction, 1), CELL)
    around = functional.avg_pool2d((cells**2).sum(1, keepdim=True), 3, 1, 1).sqrt() + 1
    return (cells / around).sqrt().flatten(1).half().numpy()


def pixels(cut: Tensor) -> np.ndarray:
    """(B, CUT, CUT, 3) uint8 to (B, SEEN, SEEN, 3) uint8."""
    small = functional.interpolate(cut.permute(0, 3, 1, 2).float(), size=(SEEN, SEEN), mode="area")
    return small.round().byte().permute(0, 2, 3, 1).numpy()


def find_pairs(folder: Path) -> PairSet:
    """The pairs of a folder of faces: `val_pairs.txt` (with `val/`) or `val.bin`."""
    for name in ("val_pairs.txt", "val.bin"):
        if (folder / name).is_file():
            return read_pairs(folder / name)
    raise FileNotFoundError(f"{folder} has neither val_pairs.txt nor val.bin to verify with")


def development_people(labels: np.ndarray) -> np.ndarray:
    """The people (of those that `labels` name) held out to choose hyperparameters by."""
    people = np.unique(labels)
    count = round(DEVELOPMENT_SHARE * len(people))
    return np.sort(np.random.default_rng(2022).choice(people, count, replace=False))


@dataclass(frozen=True)
class Training:
    """What a run trains on: rows of the images, their labels (-1 for nobody), and of how many."""

    rows: np.ndarray
    labels: np.ndarray
    classes: int


def training_set(run: Run, labels: np.ndarray) -> Training:
    rng = np.random.default_rng([run.seed, 1])
    held_out = development_people(labels)
    people = np.unique(labels)
    if run.choosing or run.people != "all":
        people = np.setdiff1d(people, held_out)
    if run.share < 1:
        people = np.sort(rng.choice(people, round(run.share * len(people)), replace=False))
    rows = np.flatnonzero(np.isin(labels, people))
    if run.tail:
        rows = np.sort(np.concatenate(list(_tailed(run.tail, labels, people, rng))))
    new = np.searchsorted(people, labels[rows])
    wrong = rng.random(len(rows)) < run.noise
    other = rng.integers(1, len(people), len(rows))
    new = np.where(wrong, (new + other) % len(people), new)
    if run.people == "known and nobody":
        strangers = np.flatnonzero(np.isin(labels, held_out))
        rows = np.concatenate([rows, strangers])
        new = np.concatenate([new, np.full(len(strangers), -1)])
    return Training(rows, new, len(people))


def _tailed(
    tail: float, labels: np.ndarray, people: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Rows of each person's faces: one or two of those with the fewest, all of the others'."""
    rows = [np.flatnonzero(labels == person) for person in people]
    by_count = np.argsort([len(of) for of in rows], kind="stable")
    few = set(by_count[: round(tail * len(people))].tolist())
    for person, of in enumerate(rows):
        yield rng.permutation(of)[: rng.integers(1, 3)] if person in few else of


# The backbones, all to (B, EMBEDDING_SIZE).


def two_layers() -> nn.Module:
    """Of oriented gradients: two layers, 0.5 million parameters."""
    features = DIRECTIONS * (SIDE // CELL) ** 2
    return nn.Sequential(
        nn.BatchNorm1d(features, affine=False),
        nn.Linear(features, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.PReLU(HIDDEN),
        nn.Linear(HIDDEN, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    )


class Block(nn.Module):
    """A residual block that halves the map."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.long = nn.Sequential(
            nn.Conv2d(channels, out, 3, 2, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = nn.Sequential(nn.Conv2d(channels, out, 1, 2, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.long(x) + self.short(x), inplace=True)


class Pixels(nn.Module):
    """(B, SEEN, SEEN, 3) of 0..255 to what convolutions take; a view is channels_last already."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 127.5) / 128).permute(0, 3, 1, 2)


def convolutions() -> nn.Module:
    """Of pixels: five convolutions, 0.15 million parameters; the last map is kept whole."""
    side = math.ceil(SEEN / 4 / 4)
    return nn.Sequential(
        Pixels(),
        nn.Conv2d(3, 32, 5, 4, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        Block(32, 32),
        Block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * side**2, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    ).to(memory_format=torch.channels_last)


#: By name: the network, and what it sees of a cut.
BACKBONES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], np.ndarray]]] = {
    "gradients": (two_layers, oriented_gradients),
    "pixels": (convolutions, pixels),
}


# The losses, each as its host ships it.


@dataclass(frozen=True)
class Loss:
    """A loss: its host, and what it is shipped with; softmax has neither margin nor scale."""

    host: str
    margin: float | None
    scale: float | None
    build: Callable[[Run, int, Path | None], tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]]


def _softmax(run: Run, classes: int, checkout: Path | None) -> Any:
    module = nn.Linear(EMBEDDING_SIZE, classes)
    return module, lambda x, labels: functional.cross_entropy(module(x), labels)


def _mmpretrain(run: Run, classes: int, checkout: Path | None) -> Any:
    from mmpretrain.models.heads import ArcFaceClsHead

    module = ArcFaceClsHead(classes, EMBEDDING_SIZE, scale=_scale(run), margins=float(_margin(run)))
    return module, lambda x, labels: module.loss_module(
        module((x,), labels), labels, avg_factor=len(x)
    )


def _arcface_torch(margins: Callable[[float], tuple[float, float, float]]) -> Any:
    def build(run: Run, classes: int, checkout: Path | None) -> Any:
        if checkout is None:
            raise ValueError(f"loss {run.loss} needs --arcface-torch DIR")
        loss = load_file(checkout / "losses.py").CombinedMarginLoss(
            _scale(run), *margins(_margin(run))
        )
        rate = 1.0 if run.sample_rate is None else run.sample_rate
        partial_fc = load_file(checkout / "partial_fc_v2.py").PartialFC_V2
        module = partial_fc(loss, EMBEDDING_SIZE, classes, rate, False)

        def on_cpu(x: Tensor, labels: Tensor) -> Tensor:
            # It moves what it makes to a GPU by name.
            with replaced(Tensor, "cuda", lambda tensor, *args, **kwargs: tensor):
                return module(x, labels)

        return module, on_cpu

    return build


def _sphereface2(**arguments: Any) -> Any:
    def build(run: Run, classes: int, checkout: Path | None) -> Any:
        values = dict(margin=run.margin, scale=run.scale, **arguments) | dict(run.options)
        if run.sample_rate is None:
            head = SphereFace2(classes, EMBEDDING_SIZE, **values)
        else:
            head = PartialFCSphereFace2(
                classes,
                EMBEDDING_SIZE,
                sample_rate=run.sample_rate,
                negative_weighting=run.negative_weighting,
                **values,
            )
        return head, head

    return build


LOSSES = {
    "softmax": Loss("torch", None, None, _softmax),
    "arcface-mm": Loss("mmpretrain", 0.5, 64, _mmpretrain),
    "arcface": Loss("arcface_torch", 0.5, 64, _arcface_torch(lambda m: (1.0, m, 0.0))),
    "cosface": Loss("arcface_torch", 0.4, 64, _arcface_torch(lambda m: (1.0, 0.0, m))),
    "sf2-C": Loss("sf2_plugin", 0.4, 40, _sphereface2(margin_type="C")),
    "sf2-A": Loss("sf2_plugin", 0.5, 40, _sphereface2(margin_type="A")),
    "sf2-M": Loss("sf2_plugin", 1.7, 40, _sphereface2(margin_type="M")),
    "sf2-A2": Loss("sf2_plugin", 0.15, 40, _sphereface2(margin_type="A2")),
    "uniface": Loss("sf2_plugin", 0.2, 64, _sphereface2(preset="uniface")),
}


def _scale(run: Run) -> float:
    return LOSSES[run.loss].scale if run.scale is None else run.scale


def _margin(run: Run) -> float:
    return LOSSES[run.loss].margin if run.margin is None else run.margin


@contextmanager
def _host_around(run: Run) -> Iterator[None]:
    """A process group of one, which arcface_torch's head needs."""
    if LOSSES[run.loss].host != "arcface_torch":
        yield
        return
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


# Training and testing.


def train(run: Run, faces: Faces, checkout: Path | None = None) -> dict[str, Any]:
    """Train and test one run; its settings, scores and course."""
    with ExitStack() as stack:
        stack.enter_context(_host_around(run))
        if run.products != "float32":
            stack.enter_context(rounded_products(getattr(torch, run.products)))
        return _train(run, faces, checkout)


def _train(run: Run, faces: Faces, checkout: Path | None) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    chosen = training_set(run, faces.labels)
    loop = LOOP | dict(run.loop)
    views = torch.from_numpy(faces.seen[run.backbone][chosen.rows])
    labels = torch.from_numpy(chosen.labels)
    # The backbone and the order of faces depend on the seed alone, whatever the loss draws.
    torch.manual_seed(run.seed)
    backbone = BACKBONES[run.backbone][0]()
    head, loss_of = LOSSES[run.loss].build(run, chosen.classes, checkout)
    generator = torch.Generator().manual_seed(run.seed)
    if loop["mean_centers"]:
        _means_as_centers(backbone, head, views, labels)
    if loop["bias_shift"]:
        head.bias.data += loop["bias_shift"]
    if loop["fitted_bias"]:
        _fit_bias(backbone, head, views, labels)

    steps = max(len(views) // BATCH, 1)
    optimizer = torch.optim.SGD(
        _parameter_groups(backbone, head, run.lr, loop),
        lr=run.lr,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(_rate, run.epochs * steps, loop["rate_warmup"] * steps)
    )
    if run.fused:
        head.fuse_sgd(optimizer)
    autocast = _autocast(run.autocast)
    course: list[dict[str, float]] = []
    for step in range(run.epochs * steps):
        if step % steps == 0:
            order = torch.randperm(len(views), generator=generator)
        batch = order[step % steps * BATCH :][:BATCH]
        view = torch.randint(views.shape[1], (len(batch),), generator=generator)
        with autocast():
            x = backbone(views[batch, view].float())
            loss = loss_of(x, labels[batch])
        if step < 100 or step % 10 == 0 or step == run.epochs * steps - 1:
            course.append(_state(step, loss, head, x, labels[batch]))
        factor = min((step + 1) / loop["weight_warmup"], 1)
        (loss if factor == 1 else loss * factor).backward()
        clipped = [*backbone.parameters(), *head.parameters()]
        norm = nn.utils.clip_grad_norm_(
            clipped if loop["clip_all"] else backbone.parameters(), CLIP
        )
        if course[-1]["step"] == step:
            course[-1]["gradient"] = float(norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    train_cpu = time.process_time() - cpu
    backbone.eval()
    result: dict[str, Any] = {
        "settings": run.settings(),
        "fingerprint": faces.fingerprint,
        "classes": chosen.classes,
        "images": len(views),
        "course": {name: [row.get(name) for row in course] for name in course[-1]},
        "finite": bool(np.isfinite(course[-1]["loss"])),
    }
    if isinstance(head, SphereFace2):
        recipe = head.recipe
        result["head"] = {"scale": recipe.scale, "t": recipe.t, "bias": head.bias.item()}
    if result["finite"]:
        if run.choosing:
            result["development"] = _development(backbone, faces, run.backbone)
        else:
            result["scores"] = {
                name: _scores(backbone, test.seen[run.backbone], test.pairs)
                for name, test in faces.tests.items()
            }
    result["seconds"] = time.perf_counter() - start
    result["cpu_seconds"] = time.process_time() - cpu
    result["train_cpu_seconds"] = train_cpu
    return result


def _autocast(dtype: str) -> Callable[[], AbstractContextManager[Any]]:
    if dtype == "float32":
        return nullcontext
    return partial(torch.autocast, "cpu", getattr(torch, dtype))


def _parameter_groups(
    backbone: nn.Module, head: nn.Module, lr: float, loop: dict[str, float]
) -> list[dict[str, Any]]:
    bias = [p for n, p in head.named_parameters() if n == "bias"]
    centers = [p for n, p in head.named_parameters() if n != "bias"]
    return [
        {"params": list(backbone.parameters())},
        {"params": bias, "lr": lr * loop["bias_rate"]},
        {"params": centers, "momentum": loop["centers_momentum"]},
    ]


def _rate(steps: int, warmup: float, step: int) -> float:
    """Linear from a tenth over the warm-up, then a cosine to nothing."""
    if step < warmup:
        return 0.1 + 0.9 * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _state(step: int, loss: Tensor, head: nn.Module, x: Tensor, labels: Tensor) -> dict[str, float]:
    """The loss, and of SphereFace2 what it is made of."""
    state = {"step": step, "loss": loss.item()}
    if isinstance(head, SphereFace2) and not isinstance(head, PartialFCSphereFace2):
        with torch.no_grad():
            known = labels >= 0
            cosine = head.cosine(x[known])
            own = cosine.gather(1, labels[known][:, None])
            others = (cosine.sum() - own.sum()) / (cosine.numel() - len(own))
            state |= {
                "bias": float(head.bias),
                "own cosine": float(own.mean()),
                "other cosine": float(others),
                "other spread": float(cosine.std()),
            }
    return state


@torch.no_grad()
def _embed(backbone: nn.Module, views: np.ndarray) -> Tensor:
    """Unit embeddings of the first view of each face."""
    whole = torch.from_numpy(views[:, 0].copy())
    return functional.normalize(torch.cat([backbone(part.float()) for part in whole.split(256)]))


def _means_as_centers(backbone: nn.Module, head: Any, views: Tensor, labels: Tensor) -> None:
    """Class centers start at their people's mean embedding, by the untrained backbone."""
    x = _embed(backbone, views.numpy())
    with torch.no_grad():
        sums = torch.zeros_like(head.weight).index_add_(0, labels, x)
        head.weight.copy_(functional.normalize(sums))


@torch.no_grad()
def _fit_bias(backbone: nn.Module, head: Any, views: Tensor, labels: Tensor) -> None:
    """The bias starts where the loss of some faces is least, in which it is convex."""
    some = torch.arange(0, len(views), max(len(views) // 256, 1))
    x = backbone(views[some, 0].float())
    low, high = -200.0, 200.0
    while high - low > 0.01:
        third, losses = (high - low) / 3, []
        for bias in (low + third, high - third):
            head.bias.fill_(bias)
            losses.append(head(x, labels[some]).item())
        low, high = (low, high - third) if losses[0] < losses[1] else (low + third, high)


def _scores(backbone: nn.Module, images: np.ndarray, pairs: np.ndarray) -> list[float]:
    """Cosines of a test's pairs."""
    x = _embed(backbone, images)
    first, second = torch.tensor(pairs).T
    cosines = (x[first] * x[second]).sum(1)
    return [round(value, 5) for value in cosines.tolist()]


def _development(backbone: nn.Module, faces: Faces, name: str) -> dict[str, float]:
    """Over all pairs of the people held out, of a few images each."""
    from sf2_plugin.evaluation.roc import roc_curve

    labels = np.asarray(faces.labels)
    rows = [
        np.flatnonzero(labels == person)[:DEVELOPMENT_IMAGES]
        for person in development_people(labels)
    ]
    of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    x = _embed(backbone, faces.seen[name][np.concatenate(rows)])
    first, second = np.triu_indices(len(x), 1)
    roc = roc_curve((x @ x.T).numpy()[first, second], of[first] == of[second])
    figures = {"auc": roc.auc, "eer": roc.eer}
    for far in (1e-2, 1e-3):
        if measured := roc.tar_at_far(far):
            figures[f"tar@{far:g}"] = measured.tar
    return figures
