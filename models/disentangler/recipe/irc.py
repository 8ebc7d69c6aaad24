"""Annotated IRC logs of Kummerfeld et al. (ACL 2019): `*.ascii.txt` beside `*.annotation.txt`.

Knows that file format and nothing else; the reader for people's own IRC logs is `training.data.formats`. Every line of
a log becomes a Message, system lines too, because the annotation counts them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.errors import TrainingError
from core.messages import Conversation, Message

SYSTEM = "==="
"""Author of the lines a server wrote."""
FIRST_ANNOTATED = 1000
"""The lines before are context (the corpus' data/README.md)."""

_SAID = re.compile(r"^\[(\d\d):(\d\d)\] (?:<([^>]*)>|\s?\* (\S+)|-([^:\s]*):\S*-)\s?(.*)$")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""The logs give no seconds and, within a file, no day; only differences count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log with its gold links."""

    name: str
    messages: list[Message]
    gold: dict[int, frozenset[int]]
    """Annotated line → the lines it answers; a line that starts a conversation answers itself."""


def parse(lines: list[str], *, name: str) -> list[Message]:
    """A Message a line; the time of day runs on over midnight."""
    place = Conversation(platform="irc", channel=name)
    messages: list[Message] = []
    day, last = 0, 0
    for number, line in enumerate(lines):
        said = _SAID.match(line)
        if said is None:
            author, text, minute = SYSTEM, line.removeprefix("===").strip(), last
        else:
            hour, minutes, speaker, actor, noticer, text = said.groups()
            author = speaker or actor or noticer or SYSTEM
            text = f"* {text}" if actor else text
            minute = int(hour) * 60 + int(minutes)
            if minute < last - 12 * 60:
                day += 1
            last = minute
        messages.append(
            Message(
                conversation=place,
                id=str(number),
                author=author.lower(),
                author_name=author,
                text=text,
                sent_at=_EPOCH + timedelta(days=day, minutes=minute),
            )
        )
    return messages


def read_gold(lines: list[str], *, source: Path) -> dict[int, frozenset[int]]:
    """`A B -` a line, in either order: the later line answers the earlier one."""
    gold: dict[int, set[int]] = {}
    for number, line in enumerate(lines, 1):
        fields = [field for field in line.split() if field != "-"]
        if not fields:
            continue
        try:
            first, second = (int(field) for field in fields)
        except ValueError:
            raise TrainingError(
                f"{source}, line {number} is no link: write two line numbers and a dash, as in “1002 1003 -”."
            ) from None
        gold.setdefault(max(first, second), set()).add(min(first, second))
    return {line_number: frozenset(answers) for line_number, answers in sorted(gold.items())}


def read(folder: Path) -> Iterator[Log]:
    """The annotated logs of a folder, by name; raises TrainingError when there is none."""
    found = False
    for annotation in sorted(folder.glob("*.annotation.txt")):
        text = annotation.with_name(annotation.name.replace(".annotation.", ".ascii."))
        if not text.exists():
            raise TrainingError(f"{annotation.name} has no {text.name} beside it: put the log there.")
        found = True
        name = annotation.name.removesuffix(".annotation.txt")
        lines = text.read_text(encoding="utf-8", errors="replace").split("\n")
        if lines and not lines[-1]:
            lines.pop()
        yield Log(
            name=name,
            messages=parse(lines, name=name),
            gold=read_gold(annotation.read_text(encoding="utf-8").splitlines(), source=annotation),
        )
    if not found:
        raise TrainingError(f"{folder} has no *.annotation.txt: give a folder with annotated logs.")
