"""Embeddings of many images: in batches, with flip test, cached on disk part by part.

A part is a run of about a thousand images. Its file is named by a hash of everything that decides
the embeddings in it: the model's file, the settings, and each image's bytes. What was interrupted
therefore goes on where it stopped, and what changed is embedded anew.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_file
from ..data.alignment import align_face
from ..data.arrays import read_arrays
from ..data.images import decode_image
from ..evaluation.input_checks import Pixels
from ..progress import Progress
from .protocol import Backbone

BATCH_SIZE = 128
_PART_IMAGES = 1024
#: Part of every key; to be raised when the same files would give other embeddings.
_VERSION = "sf2 embeddings 2"


def default_cache() -> Path:
    """`sf2-plugin/embeddings` in the user's cache folder."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sf2-plugin/embeddings"
    )


def embed_images(
    backbone: Backbone,
    images: Sequence[bytes | Path],
    *,
    names: Sequence[str] | None = None,
    landmarks: NDArray[np.floating] | None = None,
    flip_test: bool = True,
    batch_size: int = BATCH_SIZE,
    cache: Path | None = None,
    model_digest: str = "",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed images, each once.

    Args:
        images: N images, encoded or as paths.
        names: what errors call them; by default their paths, and of bytes their numbers.
        landmarks: (N, 5, 2) x and y in pixels, to align each face by; None for faces cut already.
        flip_test: add the embedding of the mirrored image.
        batch_size: views at a time; with flip test an image has two.
        cache: folder of cached parts; None caches nothing, and one that cannot be written is said
            in a warning.
        model_digest: `file_digest` of the backbone's file, for the cache.
        progress: called as progress(images done, images in all) after each part.

    Returns:
        (N, D), of any length. Besides it, the memory is that of one part's encoded images, and of
        one decoded.

    Raises:
        ValueError: no images, an image that cannot be decoded (by name), landmarks or a batch size
            that do not fit.
    """
    if not len(images):
        raise ValueError("there are no images to embed")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if landmarks is not None and np.shape(landmarks) != (len(images), 5, 2):
        raise ValueError(
            f"landmarks must be ({len(images)}, 5, 2), five for each image, "
            f"not {np.shape(landmarks)}"
        )
    images_a_batch = max(batch_size // (2 if flip_test else 1), 1)
    images_a_part = images_a_batch * max(_PART_IMAGES // images_a_batch, 1)
    writable = cache is not None and _is_writable(cache)
    settings = f"{_VERSION}|{model_digest}|{backbone.settings}|{flip_test}|{batch_size}"

    embeddings: NDArray[np.float32] | None = None
    for start in range(0, len(images), images_a_part):
        part = range(start, min(start + images_a_part, len(images)))
        read = [
            _read(
                images[i],
                names[i] if names else _name(images[i], i),
                None if landmarks is None else landmarks[i],
            )
            for i in part
        ]
        path = cache and cache / f"{_part_key(settings, read)}.npy"
        embedded = _load_part(path, len(part)) if path else None
        if embedded is None:
            embedded = np.concatenate(
                [
                    _embed_batch(backbone, read[first : first + images_a_batch], flip_test)
                    for first in range(0, len(part), images_a_batch)
                ]
            )
            if path and writable:
                writable = _store(path, embedded)
        if embeddings is None:
            embeddings = np.empty((len(images), embedded.shape[1]), np.float32)
        embeddings[start : part.stop] = embedded
        if progress:
            progress(part.stop, len(images))
    assert embeddings is not None
    return embeddings


class _Image(NamedTuple):
    name: str
    encoded: bytes
    landmarks: NDArray[np.float32] | None


def _name(image: bytes | Path, place: int) -> str:
    return f"image {place}" if isinstance(image, bytes) else str(image)


def _read(image: bytes | Path, name: str, landmarks: NDArray[np.floating] | None) -> _Image:
    points = None if landmarks is None else np.asarray(landmarks, np.float32)
    encoded = image if isinstance(image, bytes) else Path(image).read_bytes()
    return _Image(name, encoded, points)


def _embed_batch(
    backbone: Backbone, images: Sequence[_Image], flip_test: bool
) -> NDArray[np.float32]:
    embedded = backbone.embed(_views(images, flip_test))
    return embedded.reshape(len(images), -1, embedded.shape[1]).sum(axis=1)


def _views(images: Sequence[_Image], flip_test: bool) -> Iterator[Pixels]:
    """Each face as it is asked for, and with flip test its mirror image after it."""
    for name, encoded, landmarks in images:
        face = decode_image(encoded, name, whole=landmarks is not None)
        if landmarks is not None:
            face = align_face(face, landmarks)
        yield face
        if flip_test:
            yield face[:, ::-1]


def _part_key(settings: str, images: Sequence[_Image]) -> str:
    key = hashlib.sha256(settings.encode())
    for image in images:
        key.update(hashlib.sha256(image.encoded).digest())
    for image in images:
        if image.landmarks is not None:
            key.update(image.landmarks.tobytes())
    return key.hexdigest()


def _is_writable(cache: Path) -> bool:
    """Try to write to the cache before the work, not after it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return True
    except OSError as error:
        _warn_of(cache, error)
        return False


def _store(path: Path, embedded: NDArray[np.float32]) -> bool:
    """Store a part, and say whether that worked: a full disk costs nobody the embeddings."""
    try:
        with atomic_file(path) as file:
            np.save(file, embedded)
        return True
    except OSError as error:
        _warn_of(path.parent, error)
        return False


def _warn_of(cache: Path, error: OSError) -> None:
    warnings.warn(
        f"the cache {cache} cannot be written ({error.strerror or error}): embeddings will not be "
        "kept; --cache names another folder, --no-cache none",
        stacklevel=2,
    )


def _load_part(path: Path, images: int) -> NDArray[np.float32] | None:
    """A cached part; None where there is none, or one that is damaged."""
    try:
        part = read_arrays(path)["embeddings"]
    except (OSError, ValueError, KeyError):
        return None
    return part if part.ndim == 2 and len(part) == images and part.dtype == np.float32 else None
