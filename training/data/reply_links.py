"""Who answers whom in a segment of talk: reply links first, then the linker where several conversations interleave.

Knows messages and indices, nothing of dialogues. Two people answer each other, so the linker (which costs a hundred
times more than looking at the message before) is asked only where more than two speak within a few messages.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from core.messages import Kind, Message

NEAR = 6
"""Messages within which a third person makes the talk a crowd."""
BEFORE = 3
"""Messages of quieter talk before a crowd that the linker sees."""
AT_ONCE = 300
"""Messages in one call of the linker, beyond which the cost of a message falls no further."""
CONTINUES = timedelta(minutes=5)
"""Within this time, one person's second answer to a message continues the first instead of branching off."""


class Linker(Protocol):
    """Who answers whom where no reply link says so."""

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        """For each message of a channel, in time order, the index of the earlier message it answers, or None."""
        ...


class Previous:
    """Everybody answers the previous message: right for two people, and the baseline for more."""

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        return [index - 1 if index else None for index in range(len(messages))]


def parents(
    segments: Sequence[Sequence[Message]], linker: Linker, gap: timedelta, *, found_by: Counter[str] | None = None
) -> list[int | None]:
    """The one earlier message each message answers, as an index over all segments.

    A reply link may reach back into an earlier segment; one to a message out of sight answers nothing here. Links of
    the linker across a silence longer than `gap` are ignored, except in threads, where an answer may come days later.
    `found_by` counts how each was found.
    """
    messages = [message for segment in segments for message in segment]
    guessed, asked = _guesses(segments, messages, linker)
    counted = Counter[str]() if found_by is None else found_by
    where: dict[str, int] = {}
    found: list[int | None] = []
    for index, (message, guess) in enumerate(zip(messages, guessed, strict=True)):
        where[message.id] = index
        if message.reply_to is not None:
            found.append(where.get(message.reply_to) if message.reply_to != message.id else None)
            counted["reply link"] += found[-1] is not None
        elif guess is not None and guess < index and _near(messages[guess], message, gap):
            found.append(guess)
            counted["the disentangler" if index in asked else "the message before"] += 1
        else:
            found.append(None)
    return _continued(messages, found)


def _near(earlier: Message, later: Message, gap: timedelta) -> bool:
    return later.conversation.kind is Kind.THREAD or later.sent_at - earlier.sent_at <= gap


def _guesses(
    segments: Sequence[Sequence[Message]], messages: Sequence[Message], linker: Linker
) -> tuple[list[int | None], set[int]]:
    """The previous message, and in crowds what the linker says; never across the silence between two segments. Also the
    indices of the messages for which the linker was asked."""
    guessed: list[int | None] = []
    asked: list[tuple[int, int, int]] = []
    start = 0
    for segment in segments:
        guessed += [None, *range(start, start + len(segment) - 1)]
        if segment[0].conversation.kind is not Kind.DIRECT:
            for begin, end in _crowds(segment):
                asked.append((start + max(0, begin - BEFORE), start + begin, start + end))
        start += len(segment)
    for batch in _batches(asked):
        shown = [index for context, _, end in batch for index in range(context, end)]
        links = linker.links([messages[index] for index in shown])
        at = 0
        for context, begin, end in batch:
            for index in range(begin, end):
                link = links[at + index - context]
                # Ranges share a call for efficiency alone, so links between them do not count.
                guessed[index] = None if link is None or not at <= link < at + end - context else shown[link]
            at += end - context
    return guessed, {index for _, begin, end in asked for index in range(begin, end)}


def _batches(asked: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Ranges grouped until a call is worth its fixed cost."""
    batch: list[tuple[int, int, int]] = []
    size = 0
    for found in asked:
        batch.append(found)
        size += found[2] - found[0]
        if size >= AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _crowds(segment: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Ranges in which a message has at least three authors among itself and the `NEAR` before, and those `NEAR`."""
    authors: Counter[str] = Counter()
    begin: int | None = None
    last = 0
    for index, message in enumerate(segment):
        authors[message.author] += 1
        if index > NEAR:
            leaving = segment[index - NEAR - 1].author
            authors[leaving] -= 1
            if not authors[leaving]:
                del authors[leaving]
        if len(authors) > 2:
            if begin is None:
                begin = max(last, index - NEAR)
            last = index
        elif begin is not None and index - last > 2 * NEAR:  # one long range is cheaper than two with context each
            yield begin, last + 1
            begin, last = None, last + 1
    if begin is not None:
        yield begin, last + 1


def _continued(messages: Sequence[Message], found: list[int | None]) -> list[int | None]:
    """One person's second answer to a message follows the first."""
    latest: dict[tuple[int, str], int] = {}
    for index, parent in enumerate(found):
        if parent is None:
            continue
        key = (parent, messages[index].author)
        first = latest.get(key)
        if first is not None and messages[index].sent_at - messages[first].sent_at <= CONTINUES:
            found[index] = first
        latest[key] = index
    return found
