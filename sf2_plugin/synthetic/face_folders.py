"""Data sets of synthetic faces, laid out as real ones are."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_folder
from ..data import encode_jpeg, write_pair_bin
from ..progress import Progress
from .drawing import draw_face


def write_synthetic_faces(
    out: str | Path,
    *,
    train_identities: int = 400,
    images_per_identity: int = 20,
    val_identities: int = 150,
    val_images_per_identity: int = 8,
    pairs_per_fold: int = 400,
    folds: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
    processes: int = 1,
) -> Path:
    """Draw a data set: `train/PERSON/*.jpg`, `val/PERSON/*.jpg`, `val_pairs.txt` and `val.bin`.

    Nobody is in both train and val. The folds of the pairs follow each other, each with its genuine
    pairs first and as many impostor pairs after them; no pair occurs twice.

    Args:
        out: a folder that is new or empty; it appears whole or not at all.
        progress: called as progress(images drawn, images in all) after each image.
        processes: that draw; with several, the caller's script must be one that can be imported
            (``if __name__ == "__main__"``).

    Raises:
        ValueError: a count that is not positive, an odd `pairs_per_fold`, more pairs than the val
            images make, or an `out` with something in it.
    """
    counts = {
        "train_identities": train_identities,
        "images_per_identity": images_per_identity,
        "val_identities": val_identities,
        "val_images_per_identity": val_images_per_identity,
        "pairs_per_fold": pairs_per_fold,
        "folds": folds,
    }
    for name, count in (*counts.items(), ("processes", processes)):
        if count < 1:
            raise ValueError(f"{name} is {count}; a positive number is wanted")
    if seed < 0:
        raise ValueError(f"seed is {seed}; a number from 0 up is wanted")
    pairs, issame = _verification_pairs(
        val_identities, val_images_per_identity, pairs_per_fold, folds, seed
    )
    keys = [
        (identity, image, seed)
        for identity in range(train_identities + val_identities)
        for image in range(
            images_per_identity if identity < train_identities else val_images_per_identity
        )
    ]
    with atomic_folder(out) as folder, _mapping(processes) as mapped:
        encoded: dict[str, bytes] = {}
        drawn = zip(keys, mapped(_drawn, keys), strict=True)
        for count, ((identity, image, _), jpeg) in enumerate(drawn, start=1):
            training = identity < train_identities
            person = folder / ("train" if training else "val") / f"person_{identity:05d}"
            path = person / f"{image:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
            if not training:
                encoded[f"{person.name}/{path.name}"] = jpeg
            if progress:
                progress(count, len(keys))
        names = [
            f"person_{train_identities + identity:05d}/{image:03d}.jpg"
            for identity, image in pairs.reshape(-1, 2)
        ]
        lines = [
            f"{first} {second} {int(same)}\n"
            for first, second, same in zip(names[::2], names[1::2], issame, strict=True)
        ]
        (folder / "val_pairs.txt").write_text("".join(lines))
        write_pair_bin(folder / "val.bin", [encoded[name] for name in names], issame)
    return Path(out)


def _drawn(key: tuple[int, int, int]) -> bytes:
    return encode_jpeg(draw_face(*key))


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterable[bytes]]]:
    """`map`, by that many processes."""
    if processes == 1:
        yield map
        return
    # A process that has threads, as torch's, cannot be forked safely.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield functools.partial(pool.map, chunksize=16)


def _verification_pairs(
    identities: int, images: int, pairs_per_fold: int, folds: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs (N, 2, 2) of (identity, image), fold after fold, and issame (N,)."""
    half, odd = divmod(pairs_per_fold, 2)
    if odd:
        raise ValueError(f"pairs_per_fold is {pairs_per_fold}; half of them are genuine, so even")
    wanted = half * folds
    within = np.array(list(itertools.combinations(range(images), 2))).reshape(-1, 2)
    between = np.array(list(itertools.combinations(range(identities), 2))).reshape(-1, 2)
    genuine_count, impostor_count = identities * len(within), len(between) * images**2
    if wanted > min(genuine_count, impostor_count):
        raise ValueError(
            f"{identities} val identities of {images} images make {genuine_count} genuine and "
            f"{impostor_count} impostor pairs; {wanted} of each are wanted"
        )
    rng = np.random.default_rng([seed, 2])
    person, pair = np.divmod(rng.choice(genuine_count, wanted, replace=False), len(within))
    genuine = np.stack([np.stack([person, person], axis=1), within[pair]], axis=2)
    people, shots = np.divmod(rng.choice(impostor_count, wanted, replace=False), images**2)
    impostor = np.stack([between[people], np.stack(np.divmod(shots, images), axis=1)], axis=2)
    halves = (genuine.reshape(folds, half, 2, 2), impostor.reshape(folds, half, 2, 2))
    pairs = np.concatenate(halves, axis=1).reshape(-1, 2, 2)
    issame = np.tile(np.repeat([True, False], half), folds)
    return pairs, issame
