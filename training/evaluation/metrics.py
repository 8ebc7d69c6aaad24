"""The figures of a suite with their intervals, how far two models differ in them, and the baselines.

Knows what each figure means; loads no model.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, words_of
from training.evaluation.baselines import Markov, TfIdf
from training.evaluation.copying import Extraction, TrainingText, copied
from training.evaluation.detection import detection_auc, detection_auc_by_length
from training.evaluation.generation import distinct_2
from training.evaluation.intervals import Figure, bootstrap, difference, mean, ratio
from training.evaluation.likelihood import Likelihood
from training.evaluation.ranking import hits
from training.evaluation.suite import EvalResult, EvalSuite
from training.finetune.corpus import Corpus

CHAIN_WORDS = 4_000_000
"""Words that a Markov chain is made of at most, some 20 MB of talk: its memory grows with every new pair of words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one model scores. A figure that could not be taken is None."""

    dialogues: int
    bits_per_byte: Figure
    """Over whole dialogues (see `training.evaluation.likelihood` for what is counted); lower is better."""
    reply_bits_per_byte: Figure
    """Over Person2's words only."""
    perplexity: Figure
    """Per token of the whole dialogues; only comparable between models with one vocabulary."""
    hits_at_1_of_20: Figure | None
    """Next-reply ranking by mutual information; chance is 0.05."""
    distinct_2: float | None
    """Distinct word pairs over all word pairs, in one reply to each context."""
    empty: Figure | None
    """Share of replies that are empty, repeat themselves or echo the other's line."""
    detection_auc: float | None
    """AUC of a simple classifier of the model's replies against people's to the same lines; 0.5 is
    indistinguishable."""
    detection_auc_by_length: float | None
    """The same by the number of words alone."""
    words: float | None
    """Mean words of a reply."""
    words_of_people: float | None
    """And of people's replies to the same lines."""
    copied: Figure | None
    """Share of the replies of eight words or more that are part of a training turn; None without training text."""
    longest_copy: int | None
    """Most words in a row that a reply shares with a training turn."""
    extracted: Figure | None
    """Share of long training turns whose second half was reproduced from the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """The baselines' figures on the same suites."""

    tf_idf_hits: Figure | None
    markov_hits: Figure | None
    markov_distinct_2: float | None


def plain_values(figures: Scores | Baselines) -> dict[str, Any]:
    """Figures by name, as numbers without their intervals."""
    return {name: value["value"] if isinstance(value, dict) else value for name, value in asdict(figures).items()}


def _words(texts: Sequence[str]) -> float | None:
    return sum(len(words_of(text)) for text in texts) / len(texts) if texts else None


def summed(result: EvalResult, tries: Sequence[Extraction] = ()) -> Scores:
    """The figures of a result, with their intervals."""
    whole, replied, runs = result.whole, result.replied, result.runs
    return Scores(
        dialogues=len(whole.nats),
        bits_per_byte=ratio(whole.nats, whole.size, scale=1 / math.log(2)),
        reply_bits_per_byte=ratio(replied.nats, replied.size, scale=1 / math.log(2)),
        perplexity=bootstrap(
            lambda at: math.exp(whole.nats[at].sum() / max(1, whole.tokens[at].sum())), len(whole.nats)
        ),
        hits_at_1_of_20=mean(result.found) if len(result.found) else None,
        distinct_2=distinct_2(result.replies) if result.replies else None,
        empty=mean(result.empty) if len(result.empty) else None,
        detection_auc=detection_auc(result.replies, result.people),
        detection_auc_by_length=detection_auc_by_length(result.replies, result.people),
        words=_words(result.replies),
        words_of_people=_words(result.people) if result.replies else None,
        copied=mean(copied(runs, result.replies)) if len(runs) and len(copied(runs, result.replies)) else None,
        longest_copy=int(runs.max()) if len(runs) else None,
        extracted=mean(np.array([one.out for one in tries], dtype=np.float64)) if tries else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """The baselines' answers to one suite before they are summed up, like `suite.EvalResult` for a model."""

    tf_idf: NDArray[np.float64]
    """1 for each context whose true reply was found, (contexts,)."""
    markov: NDArray[np.float64]
    """Likewise, in another order."""
    lines: tuple[str, ...]
    """What the chain says, once for each context."""

    @classmethod
    def joined(cls, results: "Sequence[BaselineResult]") -> "BaselineResult":
        return cls(
            tf_idf=np.concatenate([result.tf_idf for result in results]),
            markov=np.concatenate([result.markov for result in results]),
            lines=tuple(line for result in results for line in result.lines),
        )


def chain_of(seen: Corpus, text: TrainingText, *, words: int = CHAIN_WORDS) -> Markov:
    """A chain of what was learned, or of as many of its dialogues, spread evenly, as have about so many `words`."""
    return _chain(seen.share(min(1.0, words / text.size)))


def _chain(dialogues: Iterable[Dialogue]) -> Markov:
    return Markov(turn.text for turns in dialogues for turn in turns)


def run_baselines(suite: EvalSuite, chain: Markov | None = None) -> BaselineResult:
    """TF-IDF over the file's own turns; a Markov chain of the training text, else of the file's other half."""
    if not suite.contexts:
        return BaselineResult(tf_idf=np.zeros(0), markov=np.zeros(0), lines=())
    markov, lines = list[NDArray[np.float64]](), list[str]()
    # One for both halves, and another for each file: else a chain of the training text repeats its lines.
    random = np.random.default_rng([suite.seed, crc32(suite.contexts[0].reply.encode())])
    for half in (0, 1):
        asked = [context for context in suite.contexts if context.dialogue % 2 == half]
        other = chain or _chain([turns for index, turns in enumerate(suite.dialogues) if index % 2 != half])
        markov.append(hits(other.rank(asked)))
        lines += [other.speak(random) for _ in asked]
    return BaselineResult(
        tf_idf=hits(TfIdf(suite.dialogues).rank(suite.contexts)), markov=np.concatenate(markov), lines=tuple(lines)
    )


def baselines(result: BaselineResult) -> Baselines:
    """The baselines' figures, with their intervals."""
    if not len(result.tf_idf):
        return Baselines(tf_idf_hits=None, markov_hits=None, markov_distinct_2=None)
    return Baselines(
        tf_idf_hits=mean(result.tf_idf), markov_hits=mean(result.markov), markov_distinct_2=distinct_2(result.lines)
    )


def differences(
    new: EvalResult,
    reference: EvalResult,
    *,
    tries: Sequence[Extraction] = (),
    reference_tries: Sequence[Extraction] = (),
) -> dict[str, Figure]:
    """The new model's figures less the reference's, by name, resampled over the same dialogues, contexts or turns.

    There is no such difference for copied replies: each model's long replies are answers to other contexts.
    """
    found = {
        "reply_bits_per_byte": _bits_difference(new.replied, reference.replied),
        "bits_per_byte": _bits_difference(new.whole, reference.whole),
    }
    if len(new.found):
        found["hits_at_1_of_20"] = mean(new.found - reference.found)
    if len(new.empty):
        found["empty"] = mean(new.empty - reference.empty)
    if tries and len(tries) == len(reference_tries):
        found["extracted"] = mean(
            np.array(
                [int(one.out) - int(other.out) for one, other in zip(tries, reference_tries, strict=True)], np.float64
            )
        )
    return found


def _bits_difference(new: Likelihood, reference: Likelihood) -> Figure:
    def both(at: NDArray[np.int64]) -> tuple[float, float]:
        size = max(1, int(new.size[at].sum())) * math.log(2)
        return float(reference.nats[at].sum() / size), float(new.nats[at].sum() / size)

    return difference(both, len(new.nats))
