"""SphereFace2Loss among pytorch-metric-learning's own classification losses."""

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import CrossBatchMemory
from pytorch_metric_learning.miners import MultiSimilarityMiner
from pytorch_metric_learning.reducers import (
    DoNothingReducer,
    MeanReducer,
    PerAnchorReducer,
    ThresholdReducer,
)
from pytorch_metric_learning.regularizers import LpRegularizer, RegularFaceRegularizer
from sf2_plugin.integrations.pytorch_metric_learning import SphereFace2Loss

from sf2_plugin import PRESETS, Recipe
from sf2_plugin.definition import sphereface2
from sf2_plugin.margins import MARGIN_TYPES

from ..parity import relative_error

CLASSES, SIZE, BATCH = 7, 5, 6


def batch(dtype=torch.float32):
    torch.manual_seed(0)
    embeddings = torch.randn(BATCH, SIZE, dtype=dtype, requires_grad=True)
    return embeddings, torch.tensor([0, 3, 6, 3, -1, 2])


@pytest.mark.parametrize("margin_type", MARGIN_TYPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_loss_and_gradients_are_those_of_the_definition(preset, margin_type):
    embeddings, labels = batch(torch.float64)
    loss_func = SphereFace2Loss(CLASSES, SIZE, preset=preset, margin_type=margin_type).double()
    recipe = Recipe.from_preset(preset, margin_type=margin_type)
    theirs = [t.detach().clone() for t in (embeddings, loss_func.W.T, loss_func.bias)]
    faces, centers, bias = (t.requires_grad_() for t in theirs)
    assert loss_func.bias.item() == pytest.approx(recipe.initial_bias(CLASSES))
    expected = sphereface2(faces, centers, labels, bias, recipe)
    loss = loss_func(embeddings, labels)
    assert relative_error(loss, expected) < 1e-12
    (3 * loss).backward()
    (3 * expected).backward()
    assert relative_error(embeddings.grad, faces.grad) < 1e-9
    assert relative_error(loss_func.W.grad.T, centers.grad) < 1e-9
    assert relative_error(loss_func.bias.grad, bias.grad) < 1e-9
    assert relative_error(loss_func.W.T, centers) < 1e-12  # at length one, where the recipe says so


def test_training_brings_the_loss_down_and_a_state_is_resumed():
    embeddings, labels = batch()
    embeddings = embeddings.detach()
    loss_func = SphereFace2Loss(num_classes=CLASSES, embedding_size=SIZE)
    optimizer = torch.optim.SGD(loss_func.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(loss_func(embeddings, labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    resumed = SphereFace2Loss(num_classes=CLASSES, embedding_size=SIZE)
    resumed.load_state_dict(loss_func.state_dict())
    assert resumed(embeddings, labels) == loss_func(embeddings, labels)


def test_logits_are_log_odds():
    embeddings, _ = batch()
    loss_func = SphereFace2Loss(CLASSES, SIZE, scale=30.0, t=2.0)
    logits = loss_func.get_logits(embeddings)
    cosine = torch.nn.functional.cosine_similarity(embeddings[:, None], loss_func.W.T[None], dim=2)
    expected = 30 * (2 * ((cosine + 1) / 2) ** 2 - 1) + loss_func.bias
    assert torch.allclose(logits, expected, atol=1e-4)


def test_regularizers_add_to_the_loss():
    embeddings, labels = batch()
    plain = SphereFace2Loss(CLASSES, SIZE)
    both = SphereFace2Loss(
        CLASSES,
        SIZE,
        weight_regularizer=RegularFaceRegularizer(),
        weight_reg_weight=2.0,
        embedding_regularizer=LpRegularizer(),
    )
    both.load_state_dict(plain.state_dict(), strict=False)
    assert both.sub_loss_names() == ["loss", "weight_reg_loss", "embedding_reg_loss"]
    added = both(embeddings, labels) - plain(embeddings, labels)
    expected = 2.0 * RegularFaceRegularizer()(plain.W.T) + embeddings.norm(dim=1).mean()
    assert added.item() == pytest.approx(expected.item(), rel=1e-4)


def test_reducers_that_need_no_face_s_own_loss():
    embeddings, labels = batch()
    mean = SphereFace2Loss(CLASSES, SIZE, reducer=MeanReducer())
    nothing = SphereFace2Loss(CLASSES, SIZE, reducer=DoNothingReducer())
    nothing.load_state_dict(mean.state_dict())
    assert nothing(embeddings, labels)["loss"]["losses"] == mean(embeddings, labels)
    assert SphereFace2Loss(CLASSES, SIZE, distance=CosineSimilarity())(embeddings, labels) > 0


@pytest.mark.parametrize("reducer", [ThresholdReducer(low=0.1), PerAnchorReducer()])
def test_reducers_that_weigh_faces_are_refused(reducer):
    with pytest.raises(ValueError, match=f"must be MeanReducer.*got {type(reducer).__name__}"):
        SphereFace2Loss(CLASSES, SIZE, reducer=reducer)


def test_what_one_pass_cannot_give_is_refused_by_name():
    embeddings, labels = batch()
    labels = labels.clamp(min=0)
    loss_func = SphereFace2Loss(CLASSES, SIZE)
    with pytest.raises(ValueError, match="indices_tuple must be None"):
        loss_func(embeddings, labels, MultiSimilarityMiner()(embeddings, labels))
    with pytest.raises(ValueError, match="ref_emb is not supported"):
        loss_func(embeddings, labels, ref_emb=embeddings.clone(), ref_labels=labels)
    with pytest.raises(Exception, match="CrossBatchMemory not supported for SphereFace2Loss"):
        CrossBatchMemory(loss_func, SIZE)
    with pytest.raises(Exception, match="requires the distance metric to be CosineSimilarity"):
        SphereFace2Loss(CLASSES, SIZE, distance=LpDistance())
