"""Is the switch from a softmax loss to SphereFace2 worth it? A study of many small runs.

    python -m benchmarks.accuracy --faces DIR [--test NAME=DIR ...] [--arcface-torch DIR] [--quick]
    python -m benchmarks.accuracy_report

`--faces` is a folder with `train/PERSON/*.jpg` and pairs of other people (`val_pairs.txt` with
`val/`, or `val.bin`); each `--test` is one more folder with pairs. Without `--faces` all are drawn:
`--people N` of them, of whom the part "sampling" asks.
Every run writes one JSON file when it ends and is never made twice, so that the study may be
stopped, and goes on where it was. `PARTS` lists what is asked, in the order in which it runs.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.face_training import LOSSES, Faces, Run, decode_faces, find_pairs, train
from sf2_plugin.atomic import atomic_file
from sf2_plugin.bench.environment import environment
from sf2_plugin.options import count
from sf2_plugin.progress import progress_bar
from sf2_plugin.synthetic import write_synthetic_faces

#: The search, the same for each loss: the rate, then the margin, then the scale, each as factors on
#: what is best so far, which the first values are what the loss is shipped with.
RATES = (0.1, 0.033, 0.01, 0.3)
MARGINS = (0.5, 1.5, 2.0)
SCALES = (0.5, 0.25, 0.125, 2.0)
#: What the search may go by, of the figures over all pairs of the people held out.
AREA, STRICT = "auc", "tar@0.01"
#: Those compared where all would be too many, and those whose order is in doubt for longest.
COMPARED = ("arcface", "cosface", "sf2-C")
IN_DOUBT = ("arcface-mm", *COMPARED)


@dataclass(frozen=True)
class Study:
    """What is asked of which losses, and what the runs that are there have answered."""

    result: Callable[[Run], dict[str, Any] | None]
    losses: tuple[str, ...]
    epochs: int
    seeds: int
    quick: bool

    def having(self, *losses: str) -> list[str]:
        """Those of `losses` that this study has."""
        return [loss for loss in losses if loss in self.losses]

    def of_each(self, run: Callable[..., Run]) -> list[Run]:
        """`run` of each loss and seed; of the losses in `IN_DOUBT` with twice the seeds."""
        doubted = range(self.seeds, self.seeds if self.quick else 2 * self.seeds)
        return [run(loss, seed=seed) for seed in range(self.seeds) for loss in self.losses] + [
            run(loss, seed=seed) for seed in doubted for loss in self.having(*IN_DOUBT)
        ]

    def best(self, candidates: Sequence[Run], by: str) -> Run:
        return max(candidates, key=lambda run: self.figure(run, by))

    def figure(self, run: Run, by: str) -> float:
        """`AREA` or `STRICT` of a run of the search; a loss of NaN has 0."""
        result = self.result(run)
        return result.get("development", {}).get(by, 0.0) if result else 0.0

    def tuned(self, loss: str, by: str = AREA, **values: Any) -> Run:
        """A loss with what the search found for it."""
        found = self.best(self.searched(loss, by)[-1], by)
        return dataclasses.replace(found, choosing=False, **values)

    def shipped(self, loss: str, **values: Any) -> Run:
        return Run(loss, epochs=self.epochs, **values)

    def has_searched(self, loss: str, by: str) -> bool:
        """Whether the last stage that there is has all its results."""
        return all(self.result(run) for run in self.searched(loss, by)[-1])

    def searched(self, loss: str, by: str) -> list[list[Run]]:
        """The search's stages as far as its results go; each holds the last one's best."""
        start = Run(loss, epochs=self.epochs, choosing=True)
        stages = [[dataclasses.replace(start, lr=rate) for rate in RATES]]
        shipped = LOSSES[loss]
        if shipped.margin is None or self.quick:
            return stages
        for field, factors in (("margin", MARGINS), ("scale", SCALES)):
            if any(self.result(run) is None for run in stages[-1]):
                break
            best = self.best(stages[-1], by)
            values = [times(loss, field, factor) for factor in factors]
            stages.append([best, *(dataclasses.replace(best, **{field: v}) for v in values)])
        return stages


def times(loss: str, field: str, factor: float) -> float:
    shipped = getattr(LOSSES[loss], field)
    if loss == "sf2-M" and field == "margin":  # A factor on the angle, of which 1 is no margin.
        return round(1 + factor * (shipped - 1), 4)
    return round(factor * shipped, 4)


# What is asked. A part yields lists of runs; what the next list holds may depend on the last one's.

Stages = Iterator[list[Run]]


def search(study: Study, by: str = AREA) -> Stages:
    for stage in range(3):
        stages = [study.searched(loss, by) for loss in study.losses]
        yield [run for of in stages if len(of) > stage for run in of[stage]]


def clean(study: Study, by: str = AREA) -> Stages:
    yield study.of_each(partial(study.tuned, by=by))


def as_shipped(study: Study) -> Stages:
    yield study.of_each(study.shipped)


#: Shares of labels that are wrong.
NOISE = (0.2, 0.4, 0.6)
#: What a training set may lack. Epochs as factors, so that all make about as many steps.
SCARCE: dict[str, dict[str, Any]] = {
    "a tenth of the people": {"share": 0.1, "epochs": 3},
    "a third of the people": {"share": 1 / 3, "epochs": 3},
    "a long tail": {"tail": 0.9, "epochs": 1.5},
}
#: What might help SphereFace2 there.
REMEDIES: dict[str, dict[str, Any]] = {
    "centers at means": {"loop": (("fitted_bias", 1.0), ("mean_centers", 1.0))},
    "lambda 0.5": {"options": (("lam", 0.5),)},
    "lambda 0.9": {"options": (("lam", 0.9),)},
    "loss weight 10": {"options": (("loss_weight", 10.0),)},
}


def noise(study: Study, by: str = AREA) -> Stages:
    yield [
        study.tuned(loss, by, seed=seed, noise=share)
        for seed in range(study.seeds)
        for share in NOISE
        for loss in study.having(*COMPARED)
    ]


def scarce(study: Study, by: str = AREA) -> Stages:
    for seed in range(study.seeds):
        for change in SCARCE.values():
            values = change | {"seed": seed, "epochs": round(change["epochs"] * study.epochs)}
            runs = [study.tuned(loss, by, **values) for loss in study.having(*COMPARED)]
            ours = study.tuned("sf2-C", by, **values)
            yield runs + [dataclasses.replace(ours, **remedy) for remedy in REMEDIES.values()]


#: What is changed of SphereFace2 as it is shipped, for so many epochs.
DYNAMICS_EPOCHS = 2
_AT_ONCE = ("rate_warmup", 0.0)
DYNAMICS: dict[str, dict[str, Any]] = {
    "rate 0.1 after an epoch's warm-up": {},
    "rate 0.1 at once": {"loop": (_AT_ONCE,)},
    "at once, rate 0.01": {"loop": (_AT_ONCE,), "lr": 0.01},
    "at once, bias frozen": {"loop": (_AT_ONCE,), "options": (("learn_bias", False),)},
    "at once, bias at a hundredth of the rate": {"loop": (_AT_ONCE, ("bias_rate", 0.01))},
    "at once, bias starts 5 lower": {"loop": (_AT_ONCE, ("bias_shift", -5.0))},
    "at once, bias starts 5 higher": {"loop": (_AT_ONCE, ("bias_shift", 5.0))},
    "at once, centers without momentum": {"loop": (_AT_ONCE, ("centers_momentum", 0.0))},
    "at once, centers start at people's means": {"loop": (_AT_ONCE, ("mean_centers", 1.0))},
    "at once, centers normalised in the graph": {
        "loop": (_AT_ONCE,),
        "options": (("weight_norm", "in_graph"),),
    },
    "at once, loss weight 10": {"loop": (_AT_ONCE,), "options": (("loss_weight", 10.0),)},
    "at once, loss weight grows over 100 steps": {"loop": (_AT_ONCE, ("weight_warmup", 100.0))},
    "at once, gradient clipped whole": {"loop": (_AT_ONCE, ("clip_all", 1.0))},
    "bias at a hundredth, and a warm-up": {"loop": (("bias_rate", 0.01),)},
}


def dynamics(study: Study) -> Stages:
    yield [
        dataclasses.replace(study.shipped("sf2-C", **change), epochs=DYNAMICS_EPOCHS)
        for change in DYNAMICS.values()
    ]


#: How SphereFace2 may start, as shipped but for it.
STARTS: dict[str, tuple[tuple[str, float], ...]] = {
    "closed-form bias, random centers": (),
    "bias fitted to the first faces": (("fitted_bias", 1.0),),
    "centers at people's means": (("mean_centers", 1.0),),
    "centers at people's means, bias fitted": (("fitted_bias", 1.0), ("mean_centers", 1.0)),
}


def starts(study: Study) -> Stages:
    yield [
        study.shipped("sf2-C", seed=seed, loop=loop)
        for seed in range(study.seeds)
        for loop in STARTS.values()
    ]


def on_pixels(study: Study) -> Stages:
    """The searched hyperparameters, with the other backbone."""
    yield [
        study.tuned(loss, seed=seed, backbone="pixels", epochs=2 * study.epochs)
        for seed in range(min(study.seeds, 3))
        for loss in study.having(*COMPARED)
    ]


#: The scale as factors on what is shipped.
SCALED = (1.0, 0.5, 0.25, 0.125)


def scales(study: Study) -> Stages:
    yield [
        study.tuned(loss, seed=seed, scale=times(loss, "scale", factor))
        for seed in range(study.seeds)
        for factor in SCALED
        for loss in study.having("arcface", "sf2-C")
    ]


def nobody(study: Study) -> Stages:
    """The people held out of the search are left out, or are faces of nobody."""
    yield [
        study.tuned("sf2-C", seed=seed, people=people)
        for seed in range(study.seeds)
        for people in ("known", "known and nobody")
    ]


#: How SphereFace2 may compute.
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "`fuse_sgd`": {"fused": True},
    "autocast to bfloat16": {"autocast": "bfloat16"},
    "products in bfloat16": {"products": "bfloat16"},
    "products in float16": {"products": "float16"},
}


def precision(study: Study) -> Stages:
    yield [
        study.tuned("sf2-C", seed=seed, **change)
        for seed in range(study.seeds)
        for change in PRECISIONS.values()
    ]


#: How the negatives may be sampled: the loss, and what is changed.
SAMPLED: dict[str, tuple[str, dict[str, Any]]] = {
    "SphereFace2 C, all": ("sf2-C", {}),
    **{
        f"SphereFace2 C, {rate:.0%}{words}": ("sf2-C", {"sample_rate": rate, **change})
        for rate in (0.3, 0.1)
        for words, change in (
            ("", {}),
            (", `fuse_sgd`", {"fused": True}),
            (", each counted once", {"negative_weighting": "none"}),
        )
    },
    **{f"CosFace, {rate:.0%}": ("cosface", {"sample_rate": rate}) for rate in (1.0, 0.3, 0.1)},
}


def sampling(study: Study) -> Stages:
    yield [
        study.shipped(loss, seed=seed, **change)
        for seed in range(study.seeds)
        for loss, change in SAMPLED.values()
        if loss in study.losses
    ]


@dataclass(frozen=True)
class Part:
    question: str
    runs: Callable[[Study], Stages]
    quick: bool = False
    #: The part whose findings it goes by.
    after: str | None = "search"
    #: Whether it is for the many people of `--people`, and for no others.
    many: bool = False


#: In the order in which they run. One threshold for all, and calibration, ask nothing new: the
#: page reads them off the scores of "clean".
PARTS = {
    "search": Part(
        "Which rate, margin and scale suit a loss, on people held out?", search, True, after=None
    ),
    "clean": Part("Which loss verifies strangers best?", clean, True),
    "as shipped": Part("What without a search?", as_shipped, True, after=None),
    "noise": Part("Which loss bears labels that are wrong?", noise),
    "scarce": Part("Which loss does with few people, or with few faces of most?", scarce),
    "strict search": Part(
        "Which suit it by TAR at FAR 0.01?", partial(search, by=STRICT), after=None
    ),
    "strict clean": Part(
        "Which loss verifies best then?", partial(clean, by=STRICT), after="strict search"
    ),
    "strict noise": Part(
        "Which bears wrong labels then?", partial(noise, by=STRICT), after="strict search"
    ),
    "strict scarce": Part(
        "Which does with few faces then?", partial(scarce, by=STRICT), after="strict search"
    ),
    "scales": Part("What does the scale move?", scales),
    "starts": Part("Does a better start train better to the end?", starts, after=None),
    "dynamics": Part(
        "Why does the loss rise at first, and what starts it better?", dynamics, after=None
    ),
    "precision": Part("Does half precision or a fused step cost accuracy?", precision),
    "nobody": Part("Do faces of nobody, label -1, help?", nobody),
    "pixels": Part("Is it the same with a backbone that sees pixels?", on_pixels),
    "sampling": Part("What does sampling the negatives cost?", sampling, after=None, many=True),
}


# Running them.

_faces: Faces


def _start_worker(folder: Path) -> None:
    import warnings

    import torch

    global _faces
    warnings.filterwarnings("ignore", module=r"(mmcv|mmengine|mmpretrain|torch)\b.*")
    torch.set_num_threads(1)
    _faces = Faces.load(folder)


def _make(run: Run, out: Path, checkout: Path | None) -> dict[str, Any]:
    import torch

    result = train(run, _faces, checkout)
    result["environment"] = environment(torch.device("cpu"))
    with atomic_file(out, "w") as file:
        json.dump(result, file)
    return result


def make_runs(
    study: Study,
    parts: Sequence[str],
    path_of: Callable[[Run], Path],
    faces: Path,
    checkout: Path | None,
    jobs: int,
) -> None:
    """Make what `parts` ask for and is not there."""
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(faces,)
    ) as pool:
        for part in parts:
            for stage in PARTS[part].runs(study):
                missing = [run for run in dict.fromkeys(stage) if study.result(run) is None]
                futures = {pool.submit(_make, run, path_of(run), checkout): run for run in missing}
                for done, future in enumerate(as_completed(futures), 1):
                    settings = futures[future].settings()
                    seconds = future.result()["seconds"]
                    stamp = time.strftime("%H:%M:%S")
                    print(
                        f"{stamp} {part} {done}/{len(futures)}: {settings} in {seconds:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def available_losses(checkout: Path | None) -> list[str]:
    """Those whose host is there, which is said of the others."""
    found = []
    for name, loss in LOSSES.items():
        if loss.host == "arcface_torch" and checkout is None:
            print(f"{name} is left out: it needs --arcface-torch DIR", file=sys.stderr)
        elif loss.host == "mmpretrain" and find_spec("mmpretrain") is None:
            print(f'{name} is left out: pip install "sf2-plugin[hosts]"', file=sys.stderr)
        else:
            found.append(name)
    return found


def prepare(arguments: argparse.Namespace) -> Path:
    """The decoded faces, in the folder of the runs."""
    out = arguments.out / "faces"
    if out.exists():
        return out
    faces = arguments.faces
    if faces is None:
        faces = arguments.out / "drawn"
        people = arguments.people
        if not faces.exists():
            write_synthetic_faces(
                faces,
                train_identities=people or 400,
                images_per_identity=3 if people else 10,
                progress=progress_bar("drawing faces"),
                processes=arguments.jobs,
            )
    tests = {(arguments.faces or Path("drawn")).name: find_pairs(faces)}
    for test in arguments.test:
        name, given, folder = test.partition("=")
        if not given or name in tests:
            raise ValueError(f"--test must be NAME=DIR, each name once, got {test!r}")
        tests[name] = find_pairs(Path(folder))
    decode_faces(faces / "train", tests, out, light=arguments.people is not None)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faces", type=Path, metavar="DIR", help="drawn where left out")
    parser.add_argument(
        "--people", type=count, metavar="N", help="draw so many, with three faces each"
    )
    parser.add_argument("--test", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument(
        "--arcface-torch", type=Path, metavar="DIR", help="recognition/arcface_torch"
    )
    parser.add_argument("--out", type=Path, default=Path("accuracy_runs"), metavar="DIR")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), metavar="PART")
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), metavar="LOSS")
    parser.add_argument("--epochs", type=count, default=6)
    parser.add_argument("--seeds", type=count, default=5, help="how many; default %(default)s")
    parser.add_argument("--jobs", type=count, default=2, help="runs side by side, a thread each")
    parser.add_argument(
        "--quick", action="store_true", help="three parts, four losses, the rate alone searched"
    )
    arguments = parser.parse_args(argv)
    checkout = arguments.arcface_torch
    if arguments.people is not None and arguments.faces is not None:
        parser.error("--people must be left out with --faces, which has its own")
    if checkout is not None and not (checkout / "partial_fc_v2.py").is_file():
        parser.error(f"--arcface-torch {checkout} holds no partial_fc_v2.py")

    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        faces = prepare(arguments)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    losses = arguments.losses or available_losses(checkout)
    many = arguments.people is not None
    parts = arguments.parts or [name for name, part in PARTS.items() if part.many == many]
    needed = [name for part in parts for name in (PARTS[part].after, part) if name]
    parts = list(dict.fromkeys(needed))
    if arguments.quick:
        losses = [n for n in losses if n in ("softmax", "arcface-mm", "cosface", "sf2-C")]
        parts = [part for part in parts if PARTS[part].quick]
    fingerprint = Faces.load(faces).fingerprint

    def path_of(run: Run) -> Path:
        return arguments.out / run.name(fingerprint)

    study = Study(
        result=lambda run: _read(path_of(run)),
        losses=tuple(losses),
        epochs=arguments.epochs,
        seeds=arguments.seeds,
        quick=arguments.quick,
    )
    make_runs(study, parts, path_of, faces, checkout, arguments.jobs)


if __name__ == "__main__":
    main()
