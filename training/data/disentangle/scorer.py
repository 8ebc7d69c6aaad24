"""The learned part: small networks that score a message's possible antecedents, and their file.

Knows arrays, not messages. Two passes: the first network looks at every message within reach, one pair at a time; the
second ones look at the few it leaves, knowing the threads its guesses make. NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from core.errors import TrainingError
from training.data.disentangle.columns import Floats, Ints
from training.data.disentangle.pairs import REACH, ConversationFeatures, between, candidates
from training.data.disentangle.threads import Guess, Threads

BUNDLED = Path(__file__).resolve().parents[3] / "models" / "disentangler" / "scorer.safetensors"
"""Beside its card; in a wheel `models` lies beside this package as in a checkout."""
FORMAT = "1"
"""Raised whenever a feature is added, removed or changes its meaning: an older scorer then must be trained again."""
OPTIONS = 10
"""Antecedents per message that reach the second pass: 98.5 % of the gold links of the development logs are among
them."""
TILE = 256
"""Messages scored at once in the first pass: its features then stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Network:
    """A first layer over message, candidate and pair; two more give a score.

    The parts of the first layer that see one message only are computed once a message, not once a pair.
    """

    pair: Floats
    """(PAIRS, H)"""
    query: Floats
    """(M, H)"""
    option: Floats
    """(M, H)"""
    bias: Floats
    """(H,)"""
    alone: Floats
    """(H,): takes the candidate's place in the score of "answers nobody"."""
    middle: Floats
    """(H, G)"""
    middle_bias: Floats
    """(G,)"""
    out: Floats
    """(G,)"""

    def towers(self, message: Floats) -> tuple[Floats, Floats]:
        """(N, M) → (N, H) as the message that answers, bias included, and (N, H) as the one that is answered."""
        return message @ self.query + self.bias, message @ self.option

    def _top(self, hidden: Floats) -> Floats:
        np.maximum(hidden, 0, out=hidden)
        hidden = hidden @ self.middle
        hidden += self.middle_bias
        np.maximum(hidden, 0, out=hidden)
        return hidden @ self.out

    def score(self, asked: Floats, told: Floats, pairs: Floats, query: Ints, option: Ints) -> Floats:
        """(P,) scores of the pairs `query[p]`, `option[p]` with features (PAIRS, P)."""
        hidden = pairs.T @ self.pair
        hidden += asked[query]
        hidden += told[option]
        return self._top(hidden)

    def score_alone(self, asked: Floats) -> Floats:
        """(N,) scores of "answers nobody"."""
        return self._top(asked + self.alone)


FIELDS = ("pair", "query", "option", "bias", "alone", "middle", "middle_bias", "out")


def _softmax(scores: Floats) -> Floats:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, slots=True)
class Scorer:
    first: Network
    second: Sequence[Network]
    """Their probabilities are averaged."""
    telling: Floats
    """(BUCKETS,): inverse document frequency of each word."""
    common: NDArray[np.bool_]
    """(BUCKETS,): words of everyday talk."""
    hesitation: float
    """Added to the score of "answers nobody" in the second pass."""
    loyalty: float
    """Weight of a thread's probability beside a link's own (`threads.decode`)."""

    def guess(self, talk: ConversationFeatures) -> Guess:
        """The first pass over all messages."""
        count = len(talk.columns)
        asked, told = self.first.towers(talk.message)
        option = np.full((count, OPTIONS), -1, np.int32)
        scores = np.full((count, OPTIONS + 1), -np.inf, np.float32)
        scores[:, 0] = self.first.score_alone(asked)
        for start in range(0, count, TILE):
            row = np.arange(start, min(start + TILE, count), dtype=np.int32)
            query, earlier = candidates(talk.columns, row)
            table = np.full((len(row), REACH), -np.inf, np.float32)
            distance = query - earlier
            table[query - start, distance - 1] = self.first.score(
                asked, told, between(talk, query, earlier), query, earlier
            )
            top = np.argpartition(table, REACH - OPTIONS, axis=1)[:, REACH - OPTIONS :]
            top = np.take_along_axis(top, np.argsort(-np.take_along_axis(table, top, 1), axis=1, kind="stable"), 1)
            best = np.take_along_axis(table, top, 1)
            scores[row, 1:] = best
            option[row] = np.where(np.isfinite(best), row[:, None] - 1 - top, -1)
        return Guess(option, _softmax(scores))

    def decide(self, talk: ConversationFeatures, guess: Guess, first_row: int = 0) -> Guess:
        """The second pass, over the options of the first: a better guess from `first_row` on, the old one before."""
        threads = Threads(talk.columns, guess)
        message = np.concatenate([talk.message, threads.alone()], axis=1)
        row, slot = np.nonzero(guess.option[first_row:] >= 0)
        query = (row + first_row).astype(np.int32)
        option = guess.option[query, slot]
        chance = guess.chance[query, slot + 1]
        features = np.concatenate(
            [between(talk, query, option), threads.between(query, option, chance, slot.astype(np.int32))]
        )
        total = np.zeros((len(talk.columns) - first_row, OPTIONS + 1), np.float32)
        for network in self.second:
            asked, told = network.towers(message)
            scores = np.full(total.shape, -np.inf, np.float32)
            scores[:, 0] = network.score_alone(asked[first_row:]) + self.hesitation
            scores[row, slot + 1] = network.score(asked, told, features, query, option)
            total += _softmax(scores)
        total /= max(len(self.second), 1)
        return Guess(guess.option, np.concatenate([guess.chance[:first_row], total]))

    def save(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {
            "telling": self.telling.astype(np.float16),
            "common": self.common.astype(np.uint8),
            "hesitation": np.array([self.hesitation], np.float32),
            "loyalty": np.array([self.loyalty], np.float32),
        }
        for index, network in enumerate((self.first, *self.second)):
            arrays |= {f"{index}.{field}": np.ascontiguousarray(getattr(network, field)) for field in FIELDS}
        save_file(arrays, path, metadata={"format": FORMAT})

    @classmethod
    def load(cls, path: Path | None = None) -> "Scorer":
        """The scorer at `path`, or the bundled one; raises TrainingError when it cannot be used."""
        path = path or BUNDLED
        again = "install Person2 again, or train it as models/disentangler/README.md says"
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise TrainingError(f"{path} is a scorer of another version: {again}.")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            networks = [
                Network(*(arrays[f"{index}.{field}"].astype(np.float32) for field in FIELDS))
                for index in range(sum(name.endswith(".pair") for name in arrays))
            ]
            return cls(
                first=networks[0],
                second=networks[1:],
                telling=arrays["telling"].astype(np.float32),
                common=arrays["common"].astype(bool),
                hesitation=float(arrays["hesitation"][0]),
                loyalty=float(arrays["loyalty"][0]),
            )
        except (OSError, SafetensorError, KeyError, IndexError) as error:
            raise TrainingError(f"The scorer {path} cannot be read ({error}): {again}.") from error
