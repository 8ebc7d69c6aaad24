"""A segment of talk as columns of numbers: who, when, to whom, what form. One row a message, oldest first.

Knows single messages and their nearest relatives (the same author's previous and next message), not pairs and not
links. System lines (joins, renames, modes) get no row, but after a rename both nicks are one person.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.messages import Message
from training.data.disentangle.names import MAX_TARGETS, Address, NameIndex
from training.data.disentangle.words import MAX_CHARACTERS, Bags, Buckets, split

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

AHEAD = 40
"""Messages a row may look ahead, so that a stream can be answered with a bounded delay."""
LONGEST_GAP = 1.0
"""Minutes. #ubuntu, which the scorer learned from, is never silent for longer; in quiet channels an answer may take an
hour, which the scorer must not take for a new conversation (its caller decides what silence ends one). It makes no
difference on the development logs; on the PyScript Discord it finds 55 instead of 34 % of the reply links."""
FAR = 1 << 20
"""Stands for "never" in the pointers below."""

_SYSTEM_AUTHOR = re.compile(r"^[=*!<>\-\s]*$")
_SYSTEM_TEXT = re.compile(r"^\S+ \[[^\]]*\] +has (?:joined|left|quit)\b|^\S+ +is now known as \S+$|^mode/#")
_RENAME = re.compile(r"^(\S+) +is now known as (\S+)$")
_BOT = re.compile(r"^u?bot+u?\d*$|^ubot\w*$|bot\d*$", re.IGNORECASE)
_URL = re.compile(r"https?://|www\.")
_CODE = re.compile(r"\bsudo\b|\bapt-get\b|(?:^|\s)/\w+/|[{}$;]|--\w")

_OPENINGS: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "what how why where when who which whats what's hows how's whos wheres",
        "is are does do did can could has have anyone anybody any will would should was",
        "yes yeah yep yup sure right correct exactly true indeed aye yea ya definitely of",
        "no nope nah not never dont don't",
        "ok okay k kk alright ah ahh aha oh ohh hmm hm hmmm i'll cool great nice good awesome perfect excellent",
        "thanks thank thx ty thankyou cheers tnx",
        "hi hello hey hiya howdy yo morning greetings hallo",
        "lol haha heh hehe :) ;) :p :d rofl lmao =) ;p",
        "and but or so also because cause then well though plus unless until",
        "it its it's that that's thats this they he she there those these",
        "i im i'm ive i've my id i'd mine me",
        "you your you're youre u ur try just use if maybe type run install check look see",
        "sorry oops ooh wow damn omg wtf",
        "please pls plz help",
        "the a an in on for to with from at",
    )
)
_INSIDE: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "thanks thank thx ty",
        "you your you're u",
        "i im i'm my me i've",
        "anyone anybody someone somebody everyone everybody guys all",
        "it that this",
        "help problem trying tried error issue",
        "brb bye later afk night",
    )
)
_OPENING_OF = {word: index for index, words in enumerate(_OPENINGS) for word in words}
_INSIDE_OF = {word: index for index, words in enumerate(_INSIDE) for word in words}
SHAPES = len(_OPENINGS) + len(_INSIDE) + 17
"""Columns of `Columns.shape`; see `_shape`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """N messages of talk. Row numbers count talk only; `line` leads back to the sequence they came from."""

    line: Ints
    """(N,): index of the row in the messages given."""
    author: Ints
    """(N,): the person's number, from 0."""
    minute: Floats
    """(N,): whole minutes since the first message, each silence counted as LONGEST_GAP at most; never falling."""
    address: Ints
    """(N,): Address."""
    targets: Ints
    """(N, MAX_TARGETS): author numbers, -1 for none."""
    shape: Floats
    """(N, SHAPES): what the text looks like, 0 or 1 but for the lengths."""
    bags: Bags
    before: Ints
    """(N,): row of the same author's previous message; -FAR for none."""
    after: Ints
    """(N,): row of the same author's next message; FAR for none."""
    answered_at: Ints
    """(N,): row of the next message that names this row's author; FAR for none."""
    called_at: Ints
    """(N,): row of the last message before this one that names this row's author; -FAR for none."""
    last_called: Ints
    """(N,): author whom this row's author named last, before this row; -1 for none."""
    last_caller: Ints
    """(N,): author who named this row's author last, before this row; -1 for none."""
    target_at: Ints
    """(N,): row of the last message before this one by the first person this row names; -FAR for none."""
    edges: Ints
    """(N, 2): buckets of the first and the last word, other than those of the same words inside."""
    known: Ints
    """(N,): row of `reply_to`, where the platform says it; -1 where it does not."""

    def __len__(self) -> int:
        return len(self.author)


def is_system(message: Message) -> bool:
    """Whether a server wrote the line: joins, renames, modes and the like."""
    text = message.text
    if ("[" in text or "is now" in text or text.startswith("mode/#")) and _SYSTEM_TEXT.match(text) is not None:
        return True
    return not message.author_name[:1].isalnum() and _SYSTEM_AUTHOR.match(message.author_name) is not None


@lru_cache(maxsize=4096)
def _is_bot(name: str) -> bool:
    return _BOT.search(name) is not None


def _shape(lowered: str, words: list[str], *, bot: bool, address: Address, targets: int) -> list[float]:
    row = [0.0] * SHAPES
    body = words[1:] if address is Address.NAMED and len(words) > 1 else words
    if body:
        opening = _OPENING_OF.get(body[0])
        if opening is not None:
            row[opening] = 1.0
    base = len(_OPENINGS)
    for word in words:
        inside = _INSIDE_OF.get(word)
        if inside is not None:
            row[base + inside] = 1.0
    at = base + len(_INSIDE)
    length = len(body)
    end = lowered[-1:] if lowered else ""
    row[at : at + 17] = (
        "?" in lowered,
        end == "?",
        end == "!",
        end == "." and not lowered.endswith(".."),
        lowered.endswith(".."),
        end in (":", ","),
        lowered[:1] in ("!", "@"),
        lowered.startswith(("* ", "/me ")),
        ("http" in lowered or "www." in lowered) and _URL.search(lowered) is not None,
        _CODE.search(lowered) is not None,
        bot,
        address is Address.NOBODY,
        address is Address.MENTION,
        address is Address.STRANGER,
        targets > 1,
        length <= 2,
        min(length, 40) ** 0.5 / 4,
    )
    return row


def read(messages: Sequence[Message], *, buckets: Buckets, common: NDArray[np.bool_]) -> Columns:
    """The columns of `messages`. `common` (BUCKETS,) says which words are everyday words, never a name in passing."""
    line: list[int] = []
    author: list[int] = []
    people: dict[str, int] = {}
    names: dict[str, int] = {}
    rows: dict[str, int] = {}
    known: list[int] = []
    for index, message in enumerate(messages):
        if is_system(message):
            renamed = _RENAME.match(message.text)
            if renamed and renamed[1] in people:
                people.setdefault(renamed[2], people[renamed[1]])
                names.setdefault(renamed[2], people[renamed[1]])
            continue
        person = people.setdefault(message.author, len(people))
        names.setdefault(message.author_name, person)
        known.append(rows.get(message.reply_to, -1) if message.reply_to is not None else -1)
        rows[message.id] = len(line)
        line.append(index)
        author.append(person)
    book = NameIndex(names.items(), is_common=lambda word: bool(common[buckets[word]]))
    address: list[int] = []
    targets: list[list[int]] = []
    shape: list[list[float]] = []
    bags: list[list[int]] = []
    minute: list[float] = []
    edges: list[tuple[int, int]] = []
    for index, person in zip(line, author, strict=True):
        message = messages[index]
        lowered = message.text[:MAX_CHARACTERS].lower().strip()
        words = split(lowered)
        how, whom = book.targets(lowered, author=person)
        address.append(how)
        targets.append(whom + [-1] * (MAX_TARGETS - len(whom)))
        bot = message.from_bot or _is_bot(message.author_name)
        shape.append(_shape(lowered, words, bot=bot, address=how, targets=len(whom)))
        bags.append([buckets[word] for word in words])
        body = words[1:] if how is Address.NAMED and len(words) > 1 else words
        edges.append((buckets["^" + body[0]], buckets["$" + body[-1]]) if body else (buckets["^"], buckets["$"]))
        minute.append(message.sent_at.timestamp() // 60)
    gaps = np.clip(np.diff(np.array(minute), prepend=minute[:1]), 0, LONGEST_GAP)
    called = np.array(targets, np.int32).reshape(len(line), MAX_TARGETS)
    who = np.array(author, np.int32)
    return Columns(
        line=np.array(line, np.int32),
        author=who,
        minute=np.cumsum(gaps).astype(np.float32),
        address=np.array(address, np.int32),
        targets=called,
        shape=np.array(shape, np.float32).reshape(len(line), SHAPES),
        bags=Bags.of(bags),
        edges=np.array(edges, np.int32).reshape(len(line), 2),
        known=np.array(known, np.int32),
        **_relatives(author, targets),
    )


def _relatives(author: list[int], targets: list[list[int]]) -> dict[str, Ints]:
    """The pointers of Columns, in one walk forward."""
    count = len(author)
    before, after, answered = [-FAR] * count, [FAR] * count, [FAR] * count
    called, last_called, last_caller = [-FAR] * count, [-1] * count, [-1] * count
    target_at = [-FAR] * count
    last: dict[int, int] = {}
    waiting: dict[int, list[int]] = {}
    called_at: dict[int, int] = {}
    callee: dict[int, int] = {}
    caller: dict[int, int] = {}
    for row, person in enumerate(author):
        previous = last.get(person)
        if previous is not None:
            before[row] = previous
            after[previous] = row
        last[person] = row
        called[row] = called_at.get(person, -FAR)
        last_called[row] = callee.get(person, -1)
        last_caller[row] = caller.get(person, -1)
        target_at[row] = last.get(targets[row][0], -FAR)
        for target in targets[row]:
            if target < 0:
                break
            for waiter in waiting.pop(target, ()):
                answered[waiter] = row
            called_at[target] = row
            callee[person] = target
            caller[target] = person
        waiting.setdefault(person, []).append(row)
    columns = {
        "before": before,
        "after": after,
        "answered_at": answered,
        "called_at": called,
        "last_called": last_called,
        "last_caller": last_caller,
        "target_at": target_at,
    }
    return {name: np.array(column, np.int32) for name, column in columns.items()}
