"""What the words of a report mean, for a reader who does not verify faces for a living."""

import re
from collections.abc import Iterable

#: By a figure's label without its number: `TAR@FAR` of `TAR@FAR=0.001`, `rank-N` of `rank-5`.
WORDS = {
    "pairs": "Two images each, of which the model says how alike they are: the score, for "
    "embeddings their cosine, from -1 to 1.",
    "genuine pairs": "Pairs of one person.",
    "impostor pairs": "Pairs of two people. A false accept rate rests on them: with N of them, "
    "none below 1/N can be measured, and one of 30/N is known to a third of itself.",
    "accuracy": "Share of pairs decided rightly by one threshold, which is chosen on nine tenths "
    "of the pairs and tried on the last tenth, ten times over.",
    "accuracy std": "How much that share varies from tenth to tenth.",
    "EER": "Equal error rate: the share of errors at the threshold where impostors are accepted "
    "as often as genuine pairs are rejected. Lower is better.",
    "TAR@FAR": "True accept rate at a false accept rate: the share of genuine pairs that pass at "
    "the threshold which lets in no more than this share of impostors. In brackets the 95 % "
    "interval.",
    "TAR@nearest FAR": "The same by the habit of InsightFace's tables: at the point of the curve "
    "whose false accept rate is nearest, even where too few pairs are behind it.",
    "AUC": "Area under the ROC: the probability that a genuine pair scores above an impostor pair.",
    "threshold": "The score from which on a pair counts as one person; the mean over the folds.",
    "grid accuracy": "Accuracy as InsightFace's tables have it: thresholds on a fixed grid.",
    "grid accuracy std": "Its variation over the folds.",
    "grid TAR@FAR": "True accept rate as InsightFace's tables have it.",
    "grid TAR std": "Its variation over the folds.",
    "grid FAR": "The false accept rate that was reached there.",
    "templates": "People as sets of images and video frames, pooled to one embedding each.",
    "identities": "People in the gallery, who can be found.",
    "mated searches": "Searches for people who are in the gallery.",
    "non-mated searches": "Searches for people who are not; whoever is found is a false alarm.",
    "rank-N": "Share of mated searches with the right person among the best N.",
    "TPIR@FPIR": "Share of mated searches that find the right person above the threshold at which "
    "no more than this share of non-mated searches finds anybody.",
    "scale": "Steepness of the probability: log-odds = scale * g(cosine) + bias.",
    "t": "Exponent of g(z) = 2 ((z + 1) / 2)^t - 1, which spreads the cosines out.",
    "bias": "Where the probability turns: log-odds = scale * g(cosine) + bias.",
    "refit on pairs": "On so many pairs were scale and bias fitted; before, they are the head's "
    "own, which learned faces against class centers and not faces against faces.",
    "prior": "Share of pairs of one person that probabilities are judged at.",
    "ECE": "Expected calibration error: mean distance between the probability that was said and "
    "the share that came true.",
    "Cllr": "Cost of the probabilities in bits a pair: 0 is perfect, 1 is what always saying one "
    "half costs, more than 1 is harm.",
    "Cllr at best": "The least that any map from these scores to probabilities could cost.",
    "DCF": "Cost of deciding by the probabilities where genuine pairs are rare, over that of "
    "deciding blindly.",
    "DCF's prior": "How rare they are there.",
    "DCF at best": "The least that any threshold on these scores could cost.",
}


def word_of(label: str) -> str:
    """The word that explains a figure's label."""
    return re.sub(r"\d+", "N", label.partition("=")[0])


def words_for(labels: Iterable[str]) -> dict[str, str]:
    """Each label's word once, with what it means; a KeyError for a label without one."""
    return {word: WORDS[word] for word in dict.fromkeys(map(word_of, labels))}
