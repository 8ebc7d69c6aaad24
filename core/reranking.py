"""Which of several candidates is posted: its mutual information with the prompt, plus agreement between the candidates,
minus penalties for repetition, for a made-up name and for the wrong sentiment.

Pure text and numbers, the same for every generator; where one does not score its candidates, the rest decides.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from core.dialogue import Speaker, turns_of, words_of
from core.generator import Candidate
from core.sentiment import mismatch

REPETITION = 6.0
"""Penalty for a reply that repeats something, in nats: information seldom differs by so much, so such a reply is hardly
ever chosen unless all repeat."""

UNKNOWN_NAME = 6.0
"""Penalty for calling somebody by a name that nobody has said, in nats: the model made it up."""

SENTIMENT_MISMATCH = 6.0
"""Penalty for the opposite sentiment of what was said (`core.sentiment`), in nats."""

AGREEMENT = 1.0
"""Nats per natural logarithm of how many candidates have the same text: what six of eight say is seldom absurd, while a
single odd one may score high ("That's simply wonderful!" to somebody lonely)."""

SHOWN, SHOWN_CHARACTERS = 4, 80
"""Candidates, and characters of each, that “why?” shows."""

LONG_WORD = 5
"""Letters from which on a word must not be said twice in a sentence; shorter ones (“that”, “have”, “like”) may be."""
SAME_SENTENCE = 4
"""Words from which on a reply or sentence must not be repeated; “You are welcome.” may be."""
IN_A_ROW = 3
"""Words in a row that a reply must not say twice."""

_CALLED = re.compile(
    r"\b(you|too|hi|hello|hey|thanks|(?:good)?bye|morning|evening|night),? ((?-i:[A-Z])[a-z]+)(?=[.,!?])",
    re.IGNORECASE,
)
"""“You too, John.” “Hi Sarah, I'm Alex.”"""
_MET = re.compile(r"\b(meet you(?: too)?), ?(?!too\b)([a-z]+)(?=[.,!?])", re.IGNORECASE)
"""“Nice to meet you, ingridio.” After this comma comes a name, even in lower case."""
_ANYBODY = frozenset(
    words_of(
        "all again buddy bye dear everybody everyone folks friend friends goodbye guys madam mate sir team there world"
    )
)
"""Words that stand where a name would and name nobody."""
_SENTENCE_END = re.compile(r"[.!?…]+")
_TWICE = re.compile(r"\b([^\W\d_]+(?: [^\W\d_]+)?)(?:,? (?:and|or)|,)? \1\b")
"""“cook and cook”, “I do, I do”"""
_SHORT_FORM = re.compile(r"['’](m|re|s|ve|ll)\b", re.IGNORECASE)
"""“I'm” and “I am” are the same words."""
_FULL = {"m": " am", "re": " are", "s": " is", "ve": " have", "ll": " will"}


def ranked(prompt: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that have a text, the best first; of equally good ones, the one that was drawn first."""
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
    """The best few candidates for people to read, each with how often it was drawn and its score in nats."""
    times = Counter(candidate.text for candidate, _ in found)
    scores = {candidate.text: score for candidate, score in reversed(found)}
    shown = sorted(scores.items(), key=lambda one: one[1], reverse=True)[:SHOWN]
    return "; ".join(
        f"“{text.strip()[:SHOWN_CHARACTERS]}” ({times[text]} of {len(found)}, {score:.1f})" for text, score in shown
    )


def repeats(prompt: str, reply: str) -> bool:
    """Whether a reply says something twice, or repeats a line of the prompt as a whole or in one of its sentences."""
    words = _full(reply)
    sentences = _SENTENCE_END.split(reply.casefold())
    again = [part for part in (words, *map(_full, sentences)) if len(part) >= SAME_SENTENCE]
    if any(_contains(line, part) for line in _said(prompt) for part in again):
        return True
    rows = [tuple(words[at : at + IN_A_ROW]) for at in range(len(words) - IN_A_ROW + 1)]
    return len(set(rows)) < len(rows) or any(map(_stutters, sentences))


def uses_unknown_name(told: str, reply: str) -> bool:
    """Whether a reply calls somebody by a name that is not in what was `told`.

    Names are looked for only after a greeting and the like ("You too, John."): elsewhere a capitalised word may be
    anything.
    """
    known = _ANYBODY | set(words_of(told))
    called = [*_CALLED.finditer(reply), *_MET.finditer(reply)]
    return any(found[2].casefold() not in known for found in called)


def is_sentiment_mismatch(prompt: str, reply: str) -> bool:
    """Whether a reply has the opposite sentiment of the prompt's last line."""
    turns = turns_of(prompt)
    return bool(turns) and mismatch(turns[-1].text, reply)


def _told(prompt: str) -> str:
    """What Person1 said in it."""
    return " ".join(turn.text for turn in turns_of(prompt) if turn.speaker is Speaker.PERSON1)


def _contains(line: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a line has these words in a row: “I have a dog.” in “I have a dog too.”"""
    return any(line[at : at + len(words)] == words for at in range(len(line) - len(words) + 1))


def _stutters(sentence: str) -> bool:
    long = [word for word in words_of(sentence) if len(word) >= LONG_WORD]
    return len(set(long)) < len(long) or _TWICE.search(sentence) is not None


def _said(prompt: str) -> list[list[str]]:
    return [_full(turn.text) for turn in turns_of(prompt)]


def _full(text: str) -> list[str]:
    return words_of(_SHORT_FORM.sub(lambda found: _FULL[found[1].lower()], text))
