"""Baselines without a neural network: TF-IDF for finding a reply, and a word-level Markov chain for making one.

A model that does not beat these has learned nothing. Knows words, no tensors.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, words_of
from training.evaluation.contexts import Context

LAST_TURNS = 5
"""Turns before a reply that TF-IDF compares it with: with fewer the subject is missed, with all of them it is
diluted."""


class TfIdf:
    """Cosine of TF-IDF vectors (Spärck Jones 1972, doi:10.1108/eb026526) between a reply and the last turns before it.

    A word weighs 1 + log of its count in the text, times its smoothed inverse document frequency; the documents are
    the file's whole dialogues, and no word is left out. It ranks the very candidates that a model ranks.

    The baseline should be as strong as it can be, so this is the variant that finds most replies on the average of four
    held-out files: self_dialogue 0.32, topical_chat_rare 0.48, synthetic_persona_chat 0.29, dailydialog 0.39 (1,000
    contexts of `choose` with seed 2; 200 contexts give these ± 0.06). scikit-learn's TfidfVectorizer as it comes, with
    turns for documents and two turns of context, finds 0.26, 0.44, 0.29 and 0.33; the last turn alone 0.22, 0.38, 0.27
    and 0.27. Without stop words many candidates tie at 0; a tie counts as a share of a hit here, and counted as a whole
    one it would give 0.65 on dailydialog.
    """

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        seen = Counter(word for turns in dialogues for word in {word for turn in turns for word in words_of(turn.text)})
        self._idf = {word: math.log((1 + len(dialogues)) / (1 + times)) + 1 for word, times in seen.items()}
        self._unseen = math.log(1 + len(dialogues)) + 1

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(words_of(text))
        weights = {word: (1 + math.log(times)) * self._idf.get(word, self._unseen) for word, times in counts.items()}
        norm = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {word: weight / norm for word, weight in weights.items()}

    def rank(self, contexts: Sequence[Context]) -> list[NDArray[np.float64]]:
        """Likeness of each reply to the last turns before it, the true one first, (choices,) each."""
        found = []
        for one in contexts:
            before = self._vector(" ".join(turn.text for turn in one.before[-LAST_TURNS:]))
            replies = (self._vector(text) for text in (one.reply, *one.others))
            found.append(
                np.array([sum(weight * before.get(word, 0.0) for word, weight in reply.items()) for reply in replies])
            )
        return found


class Markov:
    """A chain from word to word, as in many Discord bots: generates lines, and gives any text a likelihood."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._next: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._words: Counter[str] = Counter()
        for text in texts:
            chain = ["", *text.split(), ""]
            self._words.update(chain[1:])
            for word, following in pairwise(chain):
                self._next[word][following] += 1
        self._total = sum(self._words.values())

    def speak(self, random: np.random.Generator, *, most: int = 60) -> str:
        """A line from the chain's start to its end."""
        said: list[str] = []
        word = ""
        while len(said) < most and (following := self._next.get(word)):
            word = list(following)[int(random.choice(len(following), p=_shares(following)))]
            if not word:
                break
            said.append(word)
        return " ".join(said)

    def log_likelihood(self, text: str, *, after: str = "") -> float:
        """log P of a line in nats after the word `after`, interpolated with unigrams at a weight of one tenth.

        An unknown word counts as seen half a time.
        """
        total = 0.0
        word = after
        for following in [*text.split(), ""]:
            single = (self._words[following] or 0.5) / (self._total + 1)
            counts = self._next.get(word, Counter())
            pair = counts[following] / counts.total() if counts else 0.0
            total += math.log(0.9 * pair + 0.1 * single)
            word = following
        return total

    def rank(self, contexts: Sequence[Context]) -> list[NDArray[np.float64]]:
        """Likelihood of each reply after the last word said, less its likelihood from the start, (choices,) each."""
        return [
            np.array(
                [
                    self.log_likelihood(text, after=one.before[-1].text.split()[-1]) - self.log_likelihood(text)
                    for text in (one.reply, *one.others)
                ]
            )
            for one in contexts
        ]


def _shares(counts: Counter[str]) -> NDArray[np.float64]:
    values = np.fromiter(counts.values(), dtype=np.float64)
    return np.asarray(values / values.sum())
