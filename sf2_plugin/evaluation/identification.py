"""1:N identification, closed-set and open-set, by the protocol of IJB-B and IJB-C.

Each probe searches the gallery. Searches by people who are in the gallery ("mated") give the
closed-set figures: at which rank the right person comes. Searches by people who are not give the
open-set figures, after NIST (Grother et al., NISTIR 8271) and IJB (Maze et al., ICB 2018):

- FPIR(t): the share of non-mated searches whose best candidate scores at least t;
- TPIR(t): the share of mated searches whose mate scores at least t, whatever its rank.

IJB has two galleries, searched apart: call `identify` for each and average, as the field does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .figures import Figure, Report, rate_figures
from .input_checks import Floats, Ids, as_embeddings, as_ids, as_targets, require_one_kind
from .roc import Roc, TarAtFar
from .vectors import CHUNK_ROWS, merge_ties, tie_tolerance, unit

RANKS = (1, 5, 10)
FPIR_TARGETS = (0.01, 0.1)


@dataclass(frozen=True, eq=False)
class IdentificationReport(Report):
    """What `identify` answers for M mated and U non-mated searches among L identities."""

    identities: int
    """L, people in the gallery."""
    mated: Ids
    """(M,) row of each mated search in `probes`."""
    ranks: Ids
    """(M,) rank of the right person in each mated search, from 1; a tie ranks it behind, and scores
    tie that the embeddings' precision does not tell apart."""
    mates: Ids
    """(M,) row in `gallery` of the right person, of several that which scores best."""
    mate_scores: Floats
    """(M,) cosine with it."""
    rivals: Ids
    """(M,) row in `gallery` of the best candidate who is another person."""
    rival_scores: Floats
    """(M,) cosine with it; -inf where nobody else is enrolled."""
    nonmate_scores: Floats
    """(U,) cosine with the best candidate in each non-mated search."""
    cmc: Floats
    """(L,) share of mated searches with the right person among the best 1, 2 ... L."""
    roc: Roc | None
    """TPIR, as its `tar`, over FPIR, as its `far`; None without non-mated searches."""
    tpir_at_fpir: dict[float, TarAtFar | None]
    """By FPIR target; `tar` is the TPIR and `far` the FPIR. None where there are too few non-mated
    searches, or none at all, to measure such an FPIR."""

    def rank_accuracy(self, rank: int) -> float | None:
        """The share of mated searches with the right person among the best `rank`.

        None where the gallery has no more people than that, so that it could not be missed.
        """
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        return float(self.cmc[rank - 1]) if rank < self.identities else None

    def figures(self) -> list[Figure]:
        return [
            Figure("identities", "identities", self.identities),
            Figure("mated", "mated searches", len(self.ranks)),
            Figure("nonmated", "non-mated searches", len(self.nonmate_scores)),
            *(_rank_figure(rank, self.rank_accuracy(rank)) for rank in RANKS),
            *rate_figures("tpir_at_fpir", "TPIR@FPIR", self.tpir_at_fpir, "non-mated searches"),
        ]


def _rank_figure(rank: int, accuracy: float | None) -> Figure:
    note = "too few identities" if accuracy is None else ""
    return Figure(f"rank_{rank}", f"rank-{rank}", accuracy, note=note)


def identify(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    probes: ArrayLike,
    probe_ids: ArrayLike,
    fpir_targets: Sequence[float] = FPIR_TARGETS,
) -> IdentificationReport:
    """Search each probe in a gallery.

    Args:
        gallery: (G, D), of any length; the cosine is what counts.
        gallery_ids: (G,) who they are, integers of any size or strings. A person enrolled several
            times scores as the best of these.
        probes: (P, D).
        probe_ids: (P,) who they are. Those who are not in the gallery make the open-set figures.
        fpir_targets: the FPIRs at which TPIR is reported.

    Raises:
        ValueError: embeddings that are NaN, infinite or zero; lengths or dimensions that differ;
            no probe's person is in the gallery; an FPIR outside 0..1.
        TypeError: ids of two kinds, integers and strings.
    """
    targets = as_targets(fpir_targets, "fpir_targets")
    gallery, probes = as_embeddings(gallery, "gallery"), as_embeddings(probes, "probes")
    if gallery.shape[1] != probes.shape[1]:
        raise ValueError(
            "gallery and probes must have the same dimensions, "
            f"not {gallery.shape[1]} and {probes.shape[1]}"
        )
    gallery_ids = as_ids(gallery_ids, len(gallery), "gallery_ids", "gallery")
    probe_ids = as_ids(probe_ids, len(probes), "probe_ids", "probes")
    require_one_kind(gallery_ids, probe_ids, "gallery_ids and probe_ids")

    order = np.argsort(gallery_ids, kind="stable")
    people, starts = np.unique(gallery_ids[order], return_index=True)
    mate = np.minimum(np.searchsorted(people, probe_ids), len(people) - 1)
    mated = people[mate] == probe_ids
    if not mated.any():
        raise ValueError(
            f"none of the {len(np.unique(probe_ids))} people in probe_ids is in gallery_ids: "
            "no search can find its mate"
        )

    tolerance = tie_tolerance(gallery, probes)
    columns = unit(gallery[order]).T
    person = np.searchsorted(people, gallery_ids[order])
    mates, rivals, ranks = (np.empty(len(probes), dtype=np.int64) for _ in range(3))
    mate_scores, rival_scores = np.empty(len(probes)), np.empty(len(probes))
    for start in range(0, len(probes), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        similarity = unit(probes[chunk]) @ columns
        right = person == np.where(mated, mate, -1)[chunk, None]
        mates[chunk], mate_scores[chunk] = _best(np.where(right, similarity, -np.inf))
        others = np.where(right, -np.inf, similarity)
        rivals[chunk], rival_scores[chunk] = _best(others)
        if len(people) < len(gallery):
            others = np.maximum.reduceat(others, starts, axis=1)
        ranks[chunk] = 1 + np.count_nonzero(others >= mate_scores[chunk, None] - tolerance, axis=1)

    nonmate_scores = rival_scores[~mated]
    roc = None
    if len(nonmate_scores):
        scores = merge_ties(np.concatenate([mate_scores[mated], nonmate_scores]), tolerance)
        mates_only = np.count_nonzero(mated)
        roc = Roc(np.sort(scores[:mates_only]), np.sort(scores[mates_only:]))
    return IdentificationReport(
        identities=len(people),
        mated=np.flatnonzero(mated),
        ranks=ranks[mated],
        mates=order[mates[mated]],
        mate_scores=mate_scores[mated],
        rivals=order[rivals[mated]],
        rival_scores=rival_scores[mated],
        nonmate_scores=nonmate_scores,
        cmc=np.bincount(ranks[mated], minlength=len(people) + 1)[1:].cumsum() / mated.sum(),
        roc=roc,
        tpir_at_fpir={target: roc.tar_at_far(target) if roc else None for target in targets},
    )


def _best(similarity: Floats) -> tuple[Ids, Floats]:
    """(P,) column of the highest score in each row, and that score."""
    columns = similarity.argmax(axis=1)
    return columns, np.take_along_axis(similarity, columns[:, None], axis=1)[:, 0]
