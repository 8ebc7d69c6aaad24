"""Which of several drawn replies is said: what the prompt says about each, less what a reply loses by repeating.

Pure text and numbers; both generators that can score draw on it, so that they choose alike.
"""

import re
from collections.abc import Sequence

REPETITION = 6.0
"""Nats that a repeating reply loses: one reply is seldom that much better informed than the next, so a repeating one is
said where all repeat, and hardly anywhere else."""

LONG_WORD = 5
"""Letters of a word that is not said twice in one sentence; shorter ones (“that”, “have”, “like”) well may be."""
SAME_LINE = 4
"""Words of a line from which on it is not said again; “You are welcome.” may be."""
IN_A_ROW = 3
"""Words that a reply does not say twice in a row, “I'm” being two."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_SENTENCE_END = re.compile(r"[.!?…]+")
_TWICE = re.compile(r"\b([^\W\d_]+(?: [^\W\d_]+)?)(?:,? (?:and|or)|,)? \1\b")
"""“cook and cook”, “I do, I do”"""
_SHORT_FORM = {"'m": " am", "'re": " are", "'s": " is", "'ve": " have", "'ll": " will"}


def best(prompt: str, replies: Sequence[str], information: Sequence[float]) -> int:
    """The index of the reply to be said; the first where two are as good. `information`: nats, one of each reply."""
    scores = [nats - REPETITION * repeats(prompt, text) for text, nats in zip(replies, information, strict=True)]
    return max(range(len(scores)), key=scores.__getitem__)


def repeats(prompt: str, reply: str) -> bool:
    """Whether a reply says something twice, or what somebody said in the prompt already."""
    words = _folded(reply)
    if len(words) >= SAME_LINE and words in [_folded(line.partition(":")[2]) for line in prompt.splitlines()]:
        return True
    for sentence in _SENTENCE_END.split(reply.casefold()):
        long = [word for word in _WORD.findall(sentence) if len(word) >= LONG_WORD]
        if len(set(long)) < len(long) or _TWICE.search(sentence):
            return True
    said = [tuple(words[at : at + IN_A_ROW]) for at in range(len(words) - IN_A_ROW + 1)]
    return len(set(said)) < len(said)


def _folded(text: str) -> list[str]:
    text = text.casefold().replace("’", "'")
    for short, full in _SHORT_FORM.items():
        text = re.sub(rf"{short}\b", full, text)
    return _WORD.findall(text)
