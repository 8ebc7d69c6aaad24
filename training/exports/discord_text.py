"""DiscordChatExporter's CSV and plain text: neither holds message ids or reply links, only author, date and words.

Knows `CsvMessageWriter.cs` and `PlainTextMessageWriter.cs` of Tyrrrz/DiscordChatExporter. Dates follow the exporter's
language, so their order is decided from the whole file. Neither marks bots; what Discord itself wrote (joins, pins,
calls) is known by its fixed English sentences.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from core.messages import Conversation, Message
from training.exports import markup, stamps, textfile
from training.exports.items import MAX_MESSAGE, Fault, Item, Part, Skipped

_CSV_HEAD = re.compile(r"\ufeff?\"?AuthorID\"?[,;]\"?Author\"?[,;]\"?Date\"?[,;]\"?Content\"?", re.IGNORECASE)
_HEADER = re.compile(r"^\[(?P<stamp>[^\]\n]{6,40})\] (?P<author>.{1,80}?)(?: \(pinned\))?$")
_RULE = "=" * 62
_SECTIONS = {"{Attachments}", "{Embed}", "{Stickers}", "{Reactions}"}
_SYSTEM = re.compile(
    r"(?:Joined the server\.|Started a call that lasted .+ minutes\.|Pinned a message\.|Started a thread\.|"
    r"Changed the channel (?:name|icon).*|Added .+ to the group\.|Removed .+ from the group\.|Left the group\.)",
    re.IGNORECASE | re.DOTALL,
)
_ID_IN_NAME = re.compile(r"(?<!\d)(\d{17,20})(?!\d)")
_DISCRIMINATOR = re.compile(r"#\d{4}$")
csv.field_size_limit(1 << 27)  # a million-character cell is a message too long, not an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message as both formats give it."""

    place: str
    author: str
    name: str
    stamp: str
    text: str
    long: bool = False


Lines: TypeAlias = Callable[[Path, str], Iterator[Line | Fault]]


@dataclass(frozen=True, slots=True)
class DiscordText:
    """A reader over one of the two layouts."""

    NAME: str
    lines: Lines
    looks: Callable[[str], bool]

    def recognises(self, path: Path, head: str) -> bool:
        return path.is_file() and self.looks(head.lstrip("\ufeff"))

    def parts(self, path: Path, label: str) -> Iterator[Part | Fault]:
        order = stamps.decide(
            numbers
            for line in self.lines(path, label)
            if isinstance(line, Line) and (numbers := stamps.date_numbers(line.stamp)) is not None
        )
        yield Part(
            reader=self.NAME, path=path, label=label, context={"channel": channel_of(label), "order": order.name}
        )

    def read(self, part: Part) -> Iterator[Item]:
        conversation = Conversation(platform="discord", channel=part.context["channel"])
        order = stamps.Order[part.context["order"]]
        code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
        latest: datetime | None = None
        for line in self.lines(part.path, part.label):
            if isinstance(line, Fault):
                yield line
                continue
            item, latest = _said(line, part, conversation, order, code, latest)
            yield item


def channel_of(label: str) -> str:
    """The channel's id where the exporter put it into the name (`Guild - channel [123].csv`), else the name."""
    name = label.rsplit("/", 1)[-1].rsplit("!", 1)[-1]
    found = _ID_IN_NAME.search(name)
    return found[1] if found else hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


def _said(
    line: Line,
    part: Part,
    conversation: Conversation,
    order: stamps.Order,
    code: markup.CodeBlocks,
    latest: datetime | None,
) -> tuple[Item, datetime | None]:
    if not line.author:
        return Skipped.AUTHORLESS, latest
    if line.long:
        return Skipped.TOO_LONG, latest
    if _SYSTEM.fullmatch(line.text.strip()):
        return Skipped.SYSTEM, latest
    text = markup.discord(line.text, {}, code).strip()
    if not text:
        return Skipped.EMPTY, latest
    if markup.COMMAND.match(text):
        return Skipped.COMMAND, latest
    moment = stamps.parse(line.stamp, order)
    if moment is None:
        reason = f"no readable time ({line.stamp[:40]!r}); the message is left out"
        return Fault(file=part.label, place=line.place, reason=reason), latest
    if latest is not None and moment.replace(second=0, microsecond=0) == latest.replace(second=0, microsecond=0):
        moment = max(
            moment, latest + timedelta(microseconds=1)
        )  # minutes are often all there is: keep the file's order
    message = Message(
        conversation=conversation,
        id=line.place,
        author=line.author,
        author_name=line.name or "someone",
        text=text,
        sent_at=moment,
    )
    return message, moment


def csv_lines(path: Path, label: str) -> Iterator[Line | Fault]:
    faults: list[Fault] = []

    def texts() -> Iterator[str]:
        for line in textfile.lines(path, label):
            if isinstance(line, Fault):
                faults.append(line)
            else:
                yield line[1].replace("\0", "") + "\n"

    rows = csv.reader(texts())
    width = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as problem:
            yield Fault(file=label, place=f"line {rows.line_num}", reason=f"not a row of a CSV file ({problem})")
            continue
        while faults:
            yield faults.pop()
        if not width:
            width = len(row)
            continue
        if len(row) < 4:
            if row:
                yield Fault(
                    file=label, place=f"line {rows.line_num}", reason="fewer than four columns; the row is left out"
                )
            continue
        name = _DISCRIMINATOR.sub("", row[1])
        long = len(row[3]) > MAX_MESSAGE
        yield Line(
            place=f"line {rows.line_num}",
            author=row[0].strip(),
            name=name,
            stamp=row[2],
            text="" if long else row[3],
            long=long,
        )
    yield from faults


def text_lines(path: Path, label: str) -> Iterator[Line | Fault]:
    header: tuple[int, re.Match[str]] | None = None
    content: list[str] = []
    length = 0
    skipping = False
    blank = True
    for entry in textfile.lines(path, label):
        if isinstance(entry, Fault):
            yield entry
            continue
        number, line = entry
        found = _HEADER.match(line) if blank and len(line) < 140 else None
        if found is not None:
            if header is not None:
                yield _text_line(header, content, length)
            header, content, length, skipping = (number, found), [], 0, False
        elif line in _SECTIONS and blank:
            skipping = True
        elif line == _RULE:
            if header is not None:
                yield _text_line(header, content, length)
            header, skipping = None, True
        elif header is not None and not skipping:
            length += len(line)
            if length <= MAX_MESSAGE:
                content.append(line)
        blank = not line.strip() or line == _RULE
    if header is not None:
        yield _text_line(header, content, length)


def _text_line(header: tuple[int, re.Match[str]], content: list[str], length: int) -> Line:
    number, found = header
    name = found["author"].strip()
    return Line(
        place=f"line {number}",
        author=name,
        name=_DISCRIMINATOR.sub("", name),
        stamp=found["stamp"],
        text="\n".join(content).strip(),
        long=length > MAX_MESSAGE,
    )


CSV = DiscordText("discord-csv", csv_lines, lambda head: _CSV_HEAD.match(head.lstrip()) is not None)
TEXT = DiscordText(
    "discord-text", text_lines, lambda head: head.startswith(_RULE) and "\nGuild: " in head.replace("\r", "")
)
