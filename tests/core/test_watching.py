"""Figures of a head are means over faces and classes, by loops, and change nothing."""

import copy

import pytest
import torch

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.watching import SAMPLED_CLASSES, HeadWatch

from ..ranks import on_ranks

CLASSES, FACES, SIZE = 7, 12, 5


def batch():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(FACES) % CLASSES
    labels[3] = -1  # Somebody unknown, to whom every class is another.
    return torch.randn(FACES, SIZE, generator=generator), labels


def expected(embeddings, labels, head):
    positive, negative = [], []
    for face, label in zip(embeddings, labels.tolist(), strict=True):
        for j, center in enumerate(head.weight):
            cosine = torch.cosine_similarity(face, center, dim=0).item()
            (positive if j == label else negative).append(cosine)
    means = {"positive_cosine": positive, "negative_cosine": negative}
    figures = {name: sum(of) / len(of) for name, of in means.items()}
    return pytest.approx(figures | {"bias": head.bias.item()}, abs=1e-6)


def test_figures_are_those_of_loops_over_faces_and_classes():
    embeddings, labels = batch()
    head = SphereFace2(CLASSES, SIZE)
    head.watch = HeadWatch()
    head(embeddings, labels)
    assert head.watch.figures() == {}  # None was due.
    head.watch.due = True
    head(embeddings, labels)
    head(embeddings * 2, labels)
    assert head.watch.figures() == expected(embeddings, labels, head)
    assert head.watch.figures() == {}


def test_of_many_classes_a_sample_tells():
    classes = 20 * SAMPLED_CLASSES
    head = SphereFace2(classes, SIZE)
    # Half of the classes lie in one direction and half in the other, but for a tenth.
    head.weight.data[:] = torch.where(torch.arange(classes) % 10 < 6, 1.0, -1.0)[:, None]
    head.watch = HeadWatch()
    head.watch.due = True
    head(torch.ones(64, SIZE), torch.full((64,), -1))
    figures = head.watch.figures()
    assert figures["negative_cosine"] == pytest.approx(0.2, abs=0.25)
    assert "positive_cosine" not in figures


def test_watching_changes_neither_loss_nor_what_training_draws():
    embeddings, labels = batch()
    head = PartialFCSphereFace2(2000, SIZE, sample_rate=0.3)
    watched = copy.deepcopy(head)
    watched.watch = HeadWatch()
    watched.watch.due = True
    answers = []
    for each in (head, watched):
        torch.manual_seed(5)
        answers.append((each(embeddings, labels).item(), torch.rand(1).item()))
    assert answers[0] == answers[1]
    assert copy.deepcopy(watched).watch is None


def watch_shard(rank, centers, due_everywhere):
    embeddings, labels = batch()
    head = PartialFCSphereFace2(CLASSES, SIZE)
    first, last = head.classes.start, head.classes.stop
    head.weight.data[:] = centers[first:last]
    head.watch = HeadWatch()
    head.watch.due = due_everywhere or rank == 0
    share = slice(0, 4) if rank == 0 else slice(4, FACES)
    try:
        head(embeddings[share], labels[share])
    except ValueError as error:
        return str(error)
    return head.watch.figures()


def test_ranks_of_a_sharded_head_have_the_figures_of_one():
    embeddings, labels = batch()
    head = SphereFace2(CLASSES, SIZE)
    centers = head.weight.detach()
    first, second = on_ranks(watch_shard, 2, centers, True)
    assert first == second == expected(embeddings, labels, head)
    told = on_ranks(watch_shard, 2, centers, False)
    assert (
        told == ["watch.due must be equal on all ranks, got True on rank 0 and False on rank 1"] * 2
    )
