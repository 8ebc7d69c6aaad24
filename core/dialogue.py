"""The only place that knows `Person1:` and `Person2:`: turns, render, parse, prompt, fit to the context.

The same `render` writes training data and prompts, so the model meets at run time exactly what it learned. A turn is
one line: whatever a person types, newlines become spaces, so nobody can speak for the bot by typing a tag.
Knows no tokenizer (counting is passed in) and no platform.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from core.messages import Message


class Speaker(StrEnum):
    PERSON1 = "Person1"
    """The human side."""

    PERSON2 = "Person2"
    """The bot's side."""

    @property
    def other(self) -> "Speaker":
        return Speaker.PERSON2 if self is Speaker.PERSON1 else Speaker.PERSON1


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says before the other answers. `text` is always one line (see `one_line`), never empty."""

    speaker: Speaker
    text: str

    def __post_init__(self) -> None:
        clean = one_line(self.text)
        if not clean:
            raise ValueError("a turn needs words")
        object.__setattr__(self, "text", clean)

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text}"


Dialogue: TypeAlias = tuple[Turn, ...]
"""Alternating turns, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueFault:
    """Something wrong in a dialogue file; the rest of the file is still read."""

    line: int
    """Counts from 1."""
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


# C0/C1 controls, line and paragraph separators, and the characters that reorder or hide text around them
# (Unicode Bidirectional Algorithm, UAX #9, explicit formatting).
# Joiners (U+200C, U+200D) stay: emoji and Persian need them.
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_HIDDEN = re.compile(r"[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")
# GPT-2's own control token must stay words when a person types it; tokenizers would otherwise read it as a control.
_CONTROL_TOKEN = re.compile(r"<\|(\s*\w+\s*)\|>")
_TAGGED = re.compile(r"^(Person1|Person2):[ \t]*(.*)$", re.DOTALL)
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _WORD.findall(text.lower())


def words_with_places(text: str) -> list[tuple[str, int, int]]:
    """The same words, each with where it begins and ends in `text`."""
    return [(found[0].lower(), found.start(), found.end()) for found in _WORD.finditer(text)]


def one_line(text: str) -> str:
    """Collapse every run of whitespace, newlines and control characters to one space; empty if nothing is left."""
    if text.isprintable() and "  " not in text and "<|" not in text:
        return text.strip()  # nothing below could change it, and most lines are like this
    text = _CONTROL_TOKEN.sub(r"< \1 >", text)
    return _BREAKS.sub(" ", _HIDDEN.sub("", text)).strip()


def merge(turns: Iterable[Turn]) -> Dialogue:
    """Join adjacent turns of one speaker, so that speakers alternate."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].speaker is turn.speaker:
            merged[-1] = Turn(turn.speaker, f"{merged[-1].text} {turn.text}")
        else:
            merged.append(turn)
    return tuple(merged)


def project(messages: Iterable[Message]) -> Dialogue:
    """Two-person view of a conversation the bot is in: its own posts are Person2's, everyone else's Person1's."""
    return merge(
        Turn(Speaker.PERSON2 if message.from_bot else Speaker.PERSON1, message.text)
        for message in messages
        if one_line(message.text)
    )


def render(turns: Iterable[Turn]) -> str:
    """`Person1: …` and `Person2: …`, a line each, every line ended by a newline. `read` is its inverse."""
    return "".join(f"{turn}\n" for turn in turns)


def prompt(turns: Iterable[Turn]) -> str:
    """The text a model continues with Person2's next line: it ends in `Person2:`, without a space.

    No space, because GPT-2's byte-level BPE puts the space at the front of the next word.
    """
    return f"{render(turns)}{Speaker.PERSON2}:"


def turns_of(prompt: str) -> Dialogue:
    """What was said in a prompt: the inverse of `prompt`. One side may speak alone in it, as before a first reply."""
    tagged = map(_TAGGED.match, prompt.splitlines())
    return tuple(Turn(Speaker(line[1]), line[2]) for line in tagged if line and one_line(line[2]))


def fit(turns: Sequence[Turn], *, budget: int, count: Callable[[str], int]) -> Dialogue:
    """As many of the newest whole turns as fit in `budget` tokens once made a prompt; at least the newest one.

    A newest turn too long by itself keeps its end, cut at a word where possible: that is where a question stands.
    `count` gives the tokens of a text; it must not shrink as text is added in front.
    """
    kept: list[Turn] = []
    used = count(prompt(()))
    for turn in reversed(turns):
        cost = count(f"{turn}\n") if len(turn.text) <= 16 * budget else budget + 1
        if used + cost > budget:
            break
        kept.append(turn)
        used += cost
    if kept or not turns:
        return tuple(reversed(kept))
    return (_tail(turns[-1], budget=budget - used, count=count),)


def _tail(turn: Turn, *, budget: int, count: Callable[[str], int]) -> Turn:
    """The longest end of a turn that fits, found by bisection over its last characters."""
    text = turn.text[-16 * max(budget, 1) :]  # no tokenizer of ours averages 16 characters a token
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        shorter = one_line(text[-middle:]) or text[-1:]
        if count(f"{turn.speaker}: {shorter}\n") <= budget:
            low = middle
        else:
            high = middle - 1
    end = text[-low:]
    first_space = end.find(" ")
    if low < len(text) and 0 <= first_space < len(end) - 1:
        end = end[first_space + 1 :]
    return Turn(turn.speaker, one_line(end) or turn.text[-1])


def read(lines: Iterable[str]) -> Iterator[Dialogue | DialogueFault]:
    """Dialogues of a file, in order, with a DialogueFault wherever a line breaks the format; never raises.

    A line without a tag is left out. Adjacent turns of one speaker are joined. A dialogue in which only one side
    speaks is left out. Each is reported at its line, and everything else is kept.
    """
    turns: list[Turn] = []
    start = 0
    number = 0

    def finish() -> Iterator[Dialogue | DialogueFault]:
        if len({turn.speaker for turn in turns}) == 1:
            yield DialogueFault(line=start, reason=f"only {turns[0].speaker} speaks in this dialogue")
        elif turns:
            yield merge(turns)
        turns.clear()

    for number, raw in enumerate(lines, 1):
        line = raw.lstrip("\ufeff").strip()
        if not line:
            yield from finish()
            continue
        tagged = _TAGGED.match(line)
        if tagged is None:
            yield DialogueFault(line=number, reason="no Person1: or Person2: tag at the start of the line")
            continue
        speaker, text = Speaker(tagged[1]), one_line(tagged[2])
        if not text:
            yield DialogueFault(line=number, reason=f"{speaker} says nothing")
            continue
        if turns and turns[-1].speaker is speaker:
            yield DialogueFault(line=number, reason=f"two turns in a row by {speaker}")
        if not turns:
            start = number
        turns.append(Turn(speaker, text))
    yield from finish()


def write(dialogues: Iterable[Iterable[Turn]]) -> Iterator[str]:
    """The file format: rendered dialogues with a blank line between them."""
    for index, dialogue in enumerate(dialogues):
        yield ("\n" if index else "") + render(dialogue)
