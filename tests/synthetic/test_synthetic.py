"""Synthetic faces: reproducible in any order, alike within an identity, hard for raw pixels."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sf2_plugin.data import read_face_folder, read_pairs
from sf2_plugin.synthetic import draw_face, write_synthetic_faces
from sf2_plugin.synthetic.identity import identity_of

SMALL = {
    "train_identities": 3,
    "images_per_identity": 2,
    "val_identities": 6,
    "val_images_per_identity": 4,
    "pairs_per_fold": 6,
    "folds": 5,
    "seed": 3,
}


def test_an_image_depends_on_its_three_numbers_alone():
    keys = [(identity, image, seed) for identity in (0, 7) for image in (0, 5) for seed in (0, 1)]
    images = {key: draw_face(*key) for key in keys}
    assert all(image.shape == (112, 112, 3) for image in images.values())
    assert all(image.dtype == np.uint8 for image in images.values())
    random.seed(0)
    random.shuffle(keys)
    np.random.seed(5)  # noqa: NPY002  # global state must not matter
    identity_of.cache_clear()
    with ThreadPoolExecutor(2) as threads:
        again = list(threads.map(lambda key: draw_face(*key), keys))
    for key, image in zip(keys, again, strict=True):
        assert np.array_equal(image, images[key])
    flat = {image.tobytes() for image in images.values()}
    assert len(flat) == len(keys)


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_numbers_are_refused(key):
    with pytest.raises(ValueError, match="is -1; a number from 0 up"):
        draw_face(*key)


def test_identities_differ_in_every_trait():
    people = [identity_of(i, 0) for i in range(300)]
    for trait in vars(people[0]):
        values = {str(getattr(person, trait)) for person in people}
        assert len(values) > 40, trait
    assert identity_of(3, 0) != identity_of(3, 1)


def test_features_stay_on_the_face():
    """Eyes apart, brows above them, the mouth below the nose and above the chin."""
    for i in range(500):
        person = identity_of(i, 1)
        assert person.eye_x > person.eye_width
        assert person.brow_gap > person.eye_height
        assert person.eye_y < person.nose_y < person.mouth_y - 0.1
        assert person.mouth_y + person.lower_lip < 1.3 * person.face_height
        assert 0 < person.chin < person.jaw < 1.1


def test_data_set_layout(tmp_path):
    calls = []
    out = write_synthetic_faces(
        tmp_path / "new" / "faces", **SMALL, progress=lambda *call: calls.append(call)
    )
    assert out == tmp_path / "new" / "faces"
    assert sorted(path.name for path in out.iterdir()) == [
        "train",
        "val",
        "val.bin",
        "val_pairs.txt",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["faces"]
    assert calls == [(i, 30) for i in range(1, 31)]
    train, val = read_face_folder(out / "train"), read_face_folder(out / "val")
    assert [len(train.samples), len(train.class_names)] == [6, 3]
    assert [len(val.samples), len(val.class_names)] == [24, 6]
    assert not set(train.class_names) & set(val.class_names)


def test_data_set_images_are_those_drawn_alone(tmp_path):
    out = write_synthetic_faces(tmp_path / "faces", **SMALL)
    pairs = read_pairs(out / "val_pairs.txt")
    for i in (0, 7, 31):
        path = pairs.images[i]
        identity, image = int(path.parent.name.removeprefix("person_")), int(path.stem)
        difference = pairs.decode(i).astype(int) - draw_face(identity, image, seed=3)
        assert np.abs(difference).mean() < 8  # JPEG


def test_pairs_are_balanced_folds_without_repeats(tmp_path):
    out = write_synthetic_faces(tmp_path / "faces", **SMALL)
    listed, packed = read_pairs(out / "val_pairs.txt"), read_pairs(out / "val.bin")
    assert listed.issame.tolist() == packed.issame.tolist() == ([True] * 3 + [False] * 3) * 5
    files = [path.read_bytes() for path in listed.images]
    assert files == list(packed.images)
    people = np.array([path.parent.name for path in listed.images]).reshape(-1, 2)
    assert np.array_equal(people[:, 0] == people[:, 1], listed.issame)
    pairs = {frozenset(listed.images[i : i + 2]) for i in range(0, 60, 2)}
    assert len(pairs) == 30
    assert {len(pair) for pair in pairs} == {2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_identities": 0}, "train_identities is 0"),
        ({"folds": -1}, "folds is -1"),
        ({"pairs_per_fold": 7}, "pairs_per_fold is 7"),
        (
            {"pairs_per_fold": 100},
            "6 val identities of 4 images make 36 genuine and 240 impostor pairs; 250",
        ),
        ({"val_identities": 1}, "of 4 images make 6 genuine and 0 impostor pairs"),
        ({"val_images_per_identity": 1}, "of 1 images make 0 genuine and 15 impostor"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_counts_out_of_range(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        write_synthetic_faces(tmp_path / "faces", **{**SMALL, **changed})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        write_synthetic_faces(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="already exists"):
        write_synthetic_faces(tmp_path / "mine.txt", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_several_processes_draw_what_one_does(tmp_path):
    one, two = (
        write_synthetic_faces(tmp_path / str(count), **SMALL, processes=count) for count in (1, 2)
    )
    names = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(names) == 32
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_faces(tmp_path / "faces", **SMALL, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_raw_pixels_hardly_tell_people_apart():
    """The best threshold on the cosine of raw pixels, with the threshold chosen in hindsight."""
    images = np.stack([[draw_face(i, j) for j in range(2)] for i in range(150)])
    pixels = images.reshape(150, 2, -1).astype(np.float32) - 127.5
    pixels /= np.linalg.norm(pixels, axis=2, keepdims=True)
    cosine = pixels[:, 0] @ pixels[:, 1].T
    genuine, impostor = np.diag(cosine), cosine[~np.eye(150, dtype=bool)]
    accuracy = [0.5 * ((genuine >= t).mean() + (impostor < t).mean()) for t in genuine]
    assert 0.5 < max(accuracy) < 0.68
