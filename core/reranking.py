"""Which of several drawn replies is said: what the prompt says about each, what the draws agree on, less what a reply
loses by repeating, by calling somebody a name that nobody said, or by being glad of bad news or sorry for good ones.

Pure text and numbers, the same for every generator: one that cannot score its candidates leaves the rest to decide.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from core.dialogue import Speaker, turns_of, words_of
from core.generator import Candidate
from core.sentiment import mismatch

REPETITION = 6.0
"""Nats that a repeating reply loses: one reply is seldom that much better informed than the next, so a repeating one is
said where all repeat, and hardly anywhere else."""

UNKNOWN_NAME = 6.0
"""Nats that a reply loses in which somebody is called by a name that nobody said: the model made it up."""

SENTIMENT_MISMATCH = 6.0
"""Nats that a reply loses that takes a feeling for its opposite (`feelings`)."""

AGREEMENT = 1.0
"""Nats for each natural logarithm of how many draws said the same: what six of eight say is seldom absurd, while one
odd draw may score high ("That's simply wonderful!" to somebody lonely)."""

SHOWN, SHOWN_LETTERS = 4, 80
"""Candidates, and letters of each, that “why?” shows."""

LONG_WORD = 5
"""Letters of a word that is not said twice in one sentence; shorter ones (“that”, “have”, “like”) well may be."""
SAME_SENTENCE = 4
"""Words of a reply or a sentence from which on it is not said again; “You are welcome.” may be."""
IN_A_ROW = 3
"""Words that a reply does not say twice in a row."""

_CALLED = re.compile(
    r"\b(you|too|hi|hello|hey|thanks|(?:good)?bye|morning|evening|night),? ((?-i:[A-Z])[a-z]+)(?=[.,!?])",
    re.IGNORECASE,
)
"""“You too, John.” “Hi Sarah, I'm Alex.”"""
_MET = re.compile(r"\b(meet you(?: too)?), ?(?!too\b)([a-z]+)(?=[.,!?])", re.IGNORECASE)
"""“Nice to meet you, ingridio.” Behind this comma stands a name, in small letters too."""
_ANYBODY = frozenset(
    words_of(
        "all again buddy bye dear everybody everyone folks friend friends goodbye guys madam mate sir team there world"
    )
)
"""What stands where a name does and is nobody's."""
_SENTENCE_END = re.compile(r"[.!?…]+")
_TWICE = re.compile(r"\b([^\W\d_]+(?: [^\W\d_]+)?)(?:,? (?:and|or)|,)? \1\b")
"""“cook and cook”, “I do, I do”"""
_SHORT_FORM = re.compile(r"['’](m|re|s|ve|ll)\b", re.IGNORECASE)
"""“I'm” and “I am” are the same words."""
_FULL = {"m": " am", "re": " are", "s": " is", "ve": " have", "ll": " will"}


def ranked(prompt: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that say something, the best first; of equally good ones the one that was drawn first."""
    return [candidate for candidate, _ in scored(prompt, candidates)]


def scored(prompt: str, candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    """The same with their scores, in nats."""
    speaking = [candidate for candidate in candidates if candidate.text.strip()]
    times, told = Counter(candidate.text for candidate in speaking), _told(prompt)

    def score(candidate: Candidate) -> float:
        return (
            (candidate.information or 0.0)
            + AGREEMENT * math.log(times[candidate.text])
            - REPETITION * repeats(prompt, candidate.text)
            - UNKNOWN_NAME * uses_unknown_name(told, candidate.text)
            - SENTIMENT_MISMATCH * is_sentiment_mismatch(prompt, candidate.text)
        )

    found = [(candidate, score(candidate)) for candidate in speaking]
    return sorted(found, key=lambda one: one[1], reverse=True)


def describe_candidates(found: Sequence[tuple[Candidate, float]]) -> str:
    """What was drawn, as people read it: the best few, each with how often it came and its score in nats."""
    times = Counter(candidate.text for candidate, _ in found)
    scores = {candidate.text: score for candidate, score in reversed(found)}
    shown = sorted(scores.items(), key=lambda one: one[1], reverse=True)[:SHOWN]
    return "; ".join(
        f"“{text.strip()[:SHOWN_LETTERS]}” ({times[text]} of {len(found)}, {score:.1f})" for text, score in shown
    )


def repeats(prompt: str, reply: str) -> bool:
    """Whether a reply says something twice, or what somebody said in the prompt already, in all or in one sentence."""
    words = _full(reply)
    sentences = _SENTENCE_END.split(reply.casefold())
    again = [part for part in (words, *map(_full, sentences)) if len(part) >= SAME_SENTENCE]
    if any(_stands_in(line, part) for line in _said(prompt) for part in again):
        return True
    rows = [tuple(words[at : at + IN_A_ROW]) for at in range(len(words) - IN_A_ROW + 1)]
    return len(set(rows)) < len(rows) or any(map(_stutters, sentences))


def uses_unknown_name(told: str, reply: str) -> bool:
    """Whether somebody is called by a name that stands nowhere in what was `told`.

    Looked for after a greeting and its like only ("You too, John."): elsewhere it may be anything's.
    """
    known = _ANYBODY | set(words_of(told))
    called = [*_CALLED.finditer(reply), *_MET.finditer(reply)]
    return any(found[2].casefold() not in known for found in called)


def is_sentiment_mismatch(prompt: str, reply: str) -> bool:
    """Whether a reply is glad of what the last line is sad about, or sorry for what it is glad of."""
    turns = turns_of(prompt)
    return bool(turns) and mismatch(turns[-1].text, reply)


def _told(prompt: str) -> str:
    """What Person1 said in it."""
    return " ".join(turn.text for turn in turns_of(prompt) if turn.speaker is Speaker.PERSON1)


def _stands_in(line: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words stand in a line, one after the other: “I have a dog.” in “I have a dog too.”"""
    return any(line[at : at + len(words)] == words for at in range(len(line) - len(words) + 1))


def _stutters(sentence: str) -> bool:
    long = [word for word in words_of(sentence) if len(word) >= LONG_WORD]
    return len(set(long)) < len(long) or _TWICE.search(sentence) is not None


def _said(prompt: str) -> list[list[str]]:
    return [_full(turn.text) for turn in turns_of(prompt)]


def _full(text: str) -> list[str]:
    return words_of(_SHORT_FORM.sub(lambda found: _FULL[found[1].lower()], text))
