"""Class centers from the means of their faces: against a loop, alone and over ranks."""

import pytest
import torch

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.class_means import start_from_means
from sf2_plugin.definition import sphereface2

from ..ranks import on_ranks

#: Class 5 has no faces, and -1 is nobody.
LABELS = torch.tensor([0, 1, 2, 3, 4, 6, 0, 1, 1, -1, 3, 6, 6])
NUM_CLASSES, SIZE = 7, 4


def faces():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(LABELS), SIZE, generator=generator, dtype=torch.float64)
    return embeddings * torch.arange(1, len(LABELS) + 1)[:, None], LABELS


def build(kind, **kwargs):
    torch.manual_seed(1)
    return kind(NUM_CLASSES, SIZE, **kwargs).double()


def expected(start):
    """By an obvious loop."""
    embeddings, labels = faces()
    centers = start.clone()
    for label in set(labels.tolist()) - {-1}:
        mean = sum(x / x.norm() for x, y in zip(embeddings, labels, strict=True) if y == label)
        centers[label] = mean / mean.norm()
    return centers


def batches(rank, world_size, size=2):
    """A rank's share; later ranks have fewer and larger batches."""
    embeddings, labels = (rows[rank::world_size] for rows in faces())
    for start in range(0, len(labels), size + rank):
        yield embeddings[start : start + size + rank], labels[start : start + size + rank]


def assert_of_least_loss(bias, centers, recipe):
    embeddings, labels = faces()
    fitted, lower, higher = (
        sphereface2(embeddings, centers, labels, bias + step, recipe) for step in (0, -0.01, 0.01)
    )
    assert fitted < lower
    assert fitted < higher


@pytest.mark.parametrize("kind", [SphereFace2, PartialFCSphereFace2])
@pytest.mark.parametrize("preset", ["opensphere", "wespeaker", "uniface"])
def test_centers_are_the_means_of_unit_embeddings(kind, preset):
    head = build(kind, preset=preset)
    start = head.weight.detach().clone()
    assert start_from_means(head, batches(0, 1)) == 6
    torch.testing.assert_close(head.weight.detach(), expected(start))
    assert_of_least_loss(head.bias.detach(), head.weight.detach(), head.recipe)
    assert head.weight.requires_grad


def test_without_a_known_face_the_bias_is_that_of_a_fresh_head():
    for some in ([], [(torch.randn(3, SIZE), torch.full((3,), -1))]):
        head = build(SphereFace2)
        fresh = head.bias.item()
        with torch.no_grad():
            head.bias += 3
        assert start_from_means(head, some) == 0
        assert head.bias.item() == pytest.approx(fresh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_embeddings_of_any_dtype(dtype):
    head = SphereFace2(NUM_CLASSES, SIZE)
    start = head.weight.detach().double()
    start_from_means(head, [(x.to(dtype), y) for x, y in batches(0, 1)])
    assert head.weight.dtype == torch.float32
    torch.testing.assert_close(
        head.weight.detach().double(), expected(start), rtol=0, atol=10 * torch.finfo(dtype).eps
    )


def means_of_rank(rank, world_size):
    answers = {}
    for kind in (SphereFace2, PartialFCSphereFace2):
        head = build(kind)
        held = head.classes if kind is PartialFCSphereFace2 else range(NUM_CLASSES)
        start, found = (
            head.weight.detach().clone(),
            start_from_means(head, batches(rank, world_size)),
        )
        answers[kind.__name__] = held, start, found, head.weight.detach(), head.bias.detach()

    def damaged():
        yield from batches(rank, world_size, size=1)
        if rank == 1:
            raise OSError("no such image")

    def not_finite():
        for x, y in batches(rank, world_size):
            yield (x / 0 if rank == 1 else x), y

    for name, some in {"damaged": damaged(), "not finite": not_finite(), "none": []}.items():
        try:
            answers[name] = start_from_means(build(PartialFCSphereFace2), some)
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}"
    return answers


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_make_what_one_process_makes(world_size):
    ranks = on_ranks(means_of_rank, world_size, world_size)
    for name in ("SphereFace2", "PartialFCSphereFace2"):
        starts = torch.zeros(NUM_CLASSES, SIZE, dtype=torch.float64)
        centers = torch.zeros_like(starts)
        for answers in ranks:
            held, start, found, mine, bias = answers[name]
            starts[held.start : held.stop] = start
            centers[held.start : held.stop] = mine
            assert found == 6
            assert torch.equal(bias, ranks[0][name][4])
        torch.testing.assert_close(centers, expected(starts))
        assert_of_least_loss(bias, centers, build(SphereFace2).recipe)
    for answers in ranks:
        assert torch.equal(answers["SphereFace2"][3], ranks[0]["SphereFace2"][3])
        assert answers["damaged"] == "OSError: rank 1 could not embed faces: no such image"
        assert answers["not finite"].startswith(
            "ValueError: rank 1 could not embed faces: embeddings must be finite, got NaN"
        )
        assert answers["none"] == 0


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(2, 3), [0, 1], r"embeddings must have shape \(batch, 4\), got \(2, 3\)"),
        (torch.ones(2, 4), [0, 7], r"labels must be -1 \(no known identity\) or in 0..6, got"),
        (torch.ones(2, 4), [0], r"labels must have shape \(2,\)"),
    ],
)
def test_faces_that_do_not_fit_are_refused(embeddings, labels, message):
    head = build(SphereFace2)
    before = head.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        start_from_means(head, [(embeddings, torch.tensor(labels))])
    assert torch.equal(head.weight, before)
