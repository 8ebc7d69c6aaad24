"""What the model wrote → what may be posted: cleaned, harmless, in parts that fit. Pure; knows no platform's markup.

Escaping a platform's own markup (`&<>` on Slack, `*_` on Discord) is the bot's business; that nobody is pinged is ours.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from core.dialogue import Speaker, one_line

LOST_FOR_WORDS = "I'm lost for words. Could you say that another way?"
"""Posted when the model says nothing usable; not stored as something Person2 said."""

COPY_WORDS = 6
"""A reply of at least this many words that someone in the conversation already said is a copy, not an answer."""

_OWN_TAG = re.compile(rf"\A\s*{Speaker.PERSON2}\s*:", re.IGNORECASE)
_TAG = re.compile(rf"\b(?:{'|'.join(Speaker)})\s*:", re.IGNORECASE)
# Mass mentions (Discord's @everyone and @here, Slack's <!channel>) and both platforms' raw id mentions (<@1>, <#1>).
_MASS = re.compile(r"@(?=(?:everyone|here|channel)\b)", re.IGNORECASE)
_RAW_MENTION = re.compile(r"<\s*(?:[@#!][!&]?|!subteam\^)[^<>]{0,200}>?")
_CALLED_BY_TAG = re.compile(rf"\b{Speaker.PERSON1}\b(?!\s*:)")
_REPEATED = re.compile(r"(.{1,40}?)\1{4,}")
_NUMBER = re.compile(r"\S*\d\S*")
# Letters and symbols that show nothing: Hangul fillers and the empty Braille pattern.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def clean(generated: str, *, said: Iterable[str] = ()) -> str:
    """One harmless line, or an empty string when nothing usable is left.

    Takes the first line with something to read, before any speaker tag but a leading `Person2:`; removes mentions that
    would ping somebody (a zero-width space after the @ would still look like one), shortens stutter, and refuses a
    verbatim copy of one of `said` (the messages that others wrote in the conversation).
    """
    text = next(filter(None, _own_lines(generated)), "")
    if len(text.split()) >= COPY_WORDS and among(text, said):
        return ""
    return text


def _own_lines(generated: str) -> Iterator[str]:
    """Each line as it may be posted, empty where nothing is left of it; ends where another speaker's turn begins."""
    for line in generated.splitlines():
        rest = _OWN_TAG.sub("", line, count=1)
        tag = _TAG.search(rest)
        yield _harmless(rest[: tag.start()] if tag else rest)
        if tag:
            return


def _harmless(line: str) -> str:
    text = _MASS.sub("", _RAW_MENTION.sub("", line))
    text = text.replace("\ufffd", "")  # bytes that make no character: a reply cut inside one
    text = one_line(_REPEATED.sub(_shortened, text))
    return text if any(map(_is_visible, text)) else ""


def _shortened(found: re.Match[str]) -> str:
    """Stutter, three times instead of more; what repeats in a number (1000000, 3.333333) is no stutter."""
    return found[0] if _NUMBER.fullmatch(found[1]) else found[1] * 3


def _is_visible(character: str) -> bool:
    """Whether a character alone would be something to read: a letter, a digit, an emoji or another drawn symbol."""
    category = unicodedata.category(character)
    if category[0] in "LN":
        return character not in _BLANK
    return category in {"So", "Sm", "Sc"} and not character.isascii() and character not in _BLANK


def with_asker_name(generated: str, asker: str) -> str:
    """What was generated, with the asker's name where the model calls them `Person1`.

    Training data has tags in place of names (`training.data.names`). A tag with a colon opens another turn and stays.
    """
    return _CALLED_BY_TAG.sub(lambda _: one_line(asker), generated) if Speaker.PERSON1 in generated else generated


def among(text: str, others: Iterable[str]) -> bool:
    """Whether one of `others` has the same words, whatever their case and punctuation."""
    folded = _folded(text)
    return any(_folded(other) == folded for other in others)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or one_line(text)


_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)]*\s+")


def split(text: str, *, limit: int) -> list[str]:
    """Parts of at most `limit` characters: cut at sentence ends, else at spaces, else anywhere. No part is empty.

    The limit is the platform's own unit; pass a smaller one where that is not Python's code points.
    """
    if limit < 1:
        raise ValueError("limit must be positive")
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > limit:
        window = rest[: limit + 1]
        ends = [found.end() for found in _SENTENCE_END.finditer(window)]
        cut = ends[-1] if ends and ends[-1] > limit // 4 else window.rfind(" ")
        if cut <= 0:
            cut = limit
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [part for part in (*parts, rest) if part]
