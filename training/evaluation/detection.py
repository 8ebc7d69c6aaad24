"""How easily generated replies are told from people's: the ROC AUC of a simple classifier over both.

TF-IDF of words and word pairs, logistic regression, five folds; 0.5 where they are indistinguishable, 1 where they are
fully separable. It finds out a model that says "That's cool!" to everything, however sensible each reply is. Beside it
the same by length alone: choosing among several candidates may favour short ones. Knows texts and numbers; loads no
model.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dialogue import words_of

FOLDS = 5
FEATURES = 2_000
"""Words and pairs looked at, the most frequent: with a few hundred replies, more would overfit."""
PENALTY = 1.0
"""Of the squared weights, as scikit-learn's C=1."""
STEPS = 25
"""Of Newton's method; it ends when nothing moves, after about seven."""
FEWEST = 20
"""With fewer replies a classifier says nothing."""


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative, ties half (Hanley and McNeil 1982); `scores` (N,)."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):  # ties share a rank
        same = scores == value
        if same.sum() > 1:
            ranks[same] = ranks[same].mean()
    count = int(positive.sum())
    others = len(scores) - count
    return float((ranks[positive].sum() - count * (count + 1) / 2) / max(1, count * others))


def detection_auc(replies: Sequence[str], people: Sequence[str], *, seed: int = 0) -> float | None:
    """The classifier's AUC over replies and people's to the same lines, pair by pair in one fold; None for too few."""
    if len(replies) < FEWEST:
        return None
    fold = np.random.default_rng(seed).permutation(len(replies)) % FOLDS
    folds = np.concatenate([fold, fold])
    texts = [_terms(text) for text in (*replies, *people)]
    made = np.arange(len(texts)) < len(replies)
    scores = np.zeros(len(texts))
    for held in range(FOLDS):
        learn, ask = folds != held, folds == held
        matrix, weights = _vectors(texts, learn)
        scores[ask] = matrix[ask] @ _fitted(matrix[learn], made[learn] * 2.0 - 1.0, weights)
    # Folds differ in offset; within each the order is the classifier's.
    return float(np.mean([auc(scores[folds == held], made[folds == held]) for held in range(FOLDS)]))


def detection_auc_by_length(replies: Sequence[str], people: Sequence[str]) -> float | None:
    """The AUC of the number of words alone, in whichever direction; None for too few."""
    if len(replies) < FEWEST:
        return None
    lengths = np.array([len(words_of(text)) for text in (*replies, *people)], dtype=np.float64)
    found = auc(lengths, np.arange(len(lengths)) < len(replies))
    return max(found, 1 - found)


def _terms(text: str) -> Counter[str]:
    words = words_of(text)
    return Counter([*words, *(f"{one} {two}" for one, two in pairwise(words))])


def _vectors(texts: Sequence[Counter[str]], learn: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """TF-IDF of every text, rows of length 1, by the terms of those to learn from, (N, terms + 1); their number."""
    known = Counter(term for text, mine in zip(texts, learn, strict=True) if mine for term in text)
    terms = {term: column for column, (term, _) in enumerate(known.most_common(FEATURES))}
    rarity = np.array([np.log((1 + learn.sum()) / (1 + known[term])) + 1 for term in terms])
    matrix = np.zeros((len(texts), len(terms) + 1))
    for row, text in enumerate(texts):
        for term, count in text.items():
            if term in terms:
                matrix[row, terms[term]] = count
    matrix[:, :-1] *= rarity
    matrix[:, :-1] /= np.maximum(np.linalg.norm(matrix[:, :-1], axis=1, keepdims=True), 1e-12)
    matrix[:, -1] = 1
    return matrix, len(terms)


def _fitted(matrix: NDArray[np.float64], sign: NDArray[np.float64], terms: int) -> NDArray[np.float64]:
    """Weights of the logistic regression, (terms + 1,), by Newton's method in the space of the rows.

    There are more terms than rows, and what the penalty leaves is a sum of rows: w = Xᵀa, an N × N system a step.
    """
    features = matrix[:, :terms]
    kernel = features @ features.T + 1.0  # the constant's column is one more feature
    inner: NDArray[np.floating[Any]] = np.zeros(len(sign))
    for _ in range(STEPS):
        margin = kernel @ inner
        chance = 1 / (1 + np.exp(np.clip(sign * margin, -30, 30)))
        weight = np.maximum(chance * (1 - chance), 1e-9)
        target = margin + sign * chance / weight
        new = np.linalg.solve(kernel + np.diag(PENALTY / weight), target)
        moved = float(np.abs(new - inner).max())
        inner = new
        if moved < 1e-8:
            break
    found: NDArray[np.float64] = np.concatenate([features.T @ inner, [inner.sum()]])
    return found
