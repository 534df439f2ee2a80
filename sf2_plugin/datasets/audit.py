"""Which labels look wrong: each face under its label, against faces under labels drawn at random.

A one-vs-all head has one scale, t and bias for all classes, so that it says of any face and any
class center whether they are one person's: log-odds(cosine) = scale g(cosine; t) + bias. The
evidence for a label is the log-odds of its own center less those of the nearest other one. Centers
are the mean directions of a person's embeddings, for each face without itself: the centers that a
head has learned from wrong labels have learned these too.

Under a label drawn at random a face has the evidence that a wrong label gives it. If a share w of
the labels is wrong, then P(wrong | evidence) = w f_random(evidence) / f(evidence), with f the
density of the labels as they are: the local false discovery rate (Efron et al., JASA 2001). The
ratio of densities is fitted as one that falls with the evidence. The share is estimated from the
labels with less evidence than the median of random ones, of which hardly any is right (Storey, JRSS
B 2002). A model that was trained on the wrong labels has drawn the faces to them, and finds fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import Calibration
from ..evaluation.calibration import g
from ..evaluation.input_checks import Bools, Floats, Ids, as_embeddings
from ..evaluation.vectors import unit
from ..progress import Progress
from ..requirements import require

#: The loss's own, for models without a head of this kind; the order of the labels needs no more.
DEFAULT_T = 3.0
_DRAWS = 5
#: Cosines at once.
_BLOCK = 1 << 24


@dataclass(frozen=True, eq=False)
class LabelAudit:
    """How the labels of faces look, image by image.

    Attributes:
        wrong: (images,) probability that the label is wrong; NaN for a person's only image.
        own: (images,) cosine to the mean of the person's other images; NaN as well.
        other: (images,) the highest cosine to another person.
        nearest: (images,) that person.
        share: of all labels, how many are wrong, by estimate.
    """

    wrong: Floats
    own: Floats
    other: Floats
    nearest: Ids
    share: float

    @property
    def judged(self) -> Bools:
        return np.isfinite(self.wrong)

    def listed(self, probability: float = 0.5) -> Ids:
        """Images whose labels are wrong with at least this probability, the worst first."""
        chosen = np.flatnonzero(self.wrong >= probability)  # Never of NaN.
        evidence = self.own[chosen] - self.other[chosen]
        return chosen[np.lexsort((evidence, -self.wrong[chosen]))]

    def as_dict(self, probability: float) -> dict[str, Any]:
        chosen = self.wrong[self.listed(probability)]
        judged = int(self.judged.sum())
        return {
            "images": len(self.wrong),
            "judged": judged,
            "wrong_share": self.share,
            "listed": len(chosen),
            "expected_precision": float(chosen.mean()) if len(chosen) else None,
        }


def audit_labels(
    embeddings: NDArray[np.floating],
    labels: Ids,
    calibration: Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> LabelAudit:
    """Judge the labels of images by their embeddings.

    Args:
        embeddings: (images, D), by any model.
        labels: (images,) people, 0 to C - 1.
        calibration: the head's; of it, t alone decides the order.

    The time is that of a product (images, D) (D, C), the memory that of the embeddings.

    Raises:
        ValueError: no person, or no two, of more than one image.
        ImportError: scikit-learn is not installed.
    """
    sklearn = require("sklearn.isotonic", "eval", purpose="an audit needs scikit-learn")
    embeddings, labels = as_embeddings(embeddings), np.asarray(labels)
    t = calibration.t if calibration else DEFAULT_T
    count = len(labels)
    held = np.bincount(labels)
    judged = held[labels] > 1
    if np.count_nonzero(held) < 2 or not judged.any():
        raise ValueError(
            f"{np.count_nonzero(held)} people, {np.count_nonzero(held > 1)} of them with more than "
            "one image: there is nothing to compare a label with"
        )
    rng = np.random.default_rng(0)
    drawn = np.stack([labels, *(rng.permutation(labels) for _ in range(_DRAWS))], axis=1)
    sums = np.zeros((len(held), embeddings.shape[1]))
    step = max(_BLOCK // max(len(held), embeddings.shape[1]), 1)
    blocks = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    for block in blocks:
        np.add.at(sums, labels[block], unit(embeddings[block]))
    centers = unit(sums)

    cosines, others = np.empty(drawn.shape), np.empty(drawn.shape)
    nearest = np.empty(count, np.int64)
    for block in blocks:
        faces, own = unit(embeddings[block]), labels[block]
        rows = np.arange(len(faces))
        table = faces @ centers.T
        without = unit(sums[own] - faces)
        table[rows, own] = np.where(judged[block], np.einsum("ij,ij->i", faces, without), -1)
        cosines[block] = np.take_along_axis(table, drawn[block], axis=1)
        first = table.argmax(axis=1)
        highest = table[rows, first]
        table[rows, first] = -2
        second = table.argmax(axis=1)
        # The highest but that of the label itself.
        is_first = drawn[block] == first[:, None]
        others[block] = np.where(is_first, table[rows, second][:, None], highest[:, None])
        nearest[block] = np.where(is_first[:, 0], second, first)
        if progress:
            progress(block.stop, count)

    evidence = g(cosines, t) - g(others, t)
    stated = evidence[judged, 0]
    random = evidence[:, 1:][judged[:, None] & (drawn[:, 1:] != labels[:, None])]
    if not len(random):
        raise ValueError("all labels are of one person but a few: there is none to draw at random")
    share = min(float(2 * np.mean(stated < np.median(random))), 1.0)

    # Among as many of either kind, the share of random ones falls with the evidence.
    both = np.concatenate([stated, random])
    is_random = np.repeat([0.0, 1.0], [len(stated), len(random)])
    weight = np.repeat([1 / len(stated), 1 / len(random)], [len(stated), len(random)])
    order = np.argsort(both, kind="stable")
    fitted = np.empty(len(both))
    fitted[order] = sklearn.isotonic_regression(
        is_random[order], sample_weight=weight[order], increasing=False
    )
    odds = fitted[: len(stated)] / np.maximum(1 - fitted[: len(stated)], 1e-12)
    wrong, own_cosine = np.full(count, np.nan), np.full(count, np.nan)
    wrong[judged] = np.minimum(share * odds, 1)
    own_cosine[judged] = cosines[judged, 0]
    return LabelAudit(wrong, own_cosine, others[:, 0], nearest, share)
