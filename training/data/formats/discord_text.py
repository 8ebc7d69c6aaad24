"""DiscordChatExporter's CSV and plain text: neither holds message ids or reply links, only author, date and words.

Knows `CsvMessageWriter.cs` and `PlainTextMessageWriter.cs` of Tyrrrz/DiscordChatExporter, since 2018. Dates follow the
exporter's language and settings. Neither marks bots; what Discord itself wrote (joins, pins, calls) is known by the
exporter's fixed English sentences.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from core.messages import Conversation, Message
from training.data.formats import identity, markup, textfile, timestamps
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Part, Skipped

_COLUMNS = re.compile(
    r'\ufeff?(?:"?AuthorID"?(?P<by>[,;\t]))?"?Author"?(?P<by2>[,;\t])"?Date"?[,;\t]"?Content"?', re.IGNORECASE
)
_HEADER = re.compile(r"\[(?P<stamp>[^\]\n]{6,60})\] (?P<author>.{1,80}?)(?: \(pinned\))?")
_RULE = "=" * 62
_FORWARDED = "{Forwarded Message}"
_SECTIONS = {"{Attachments}", "{Embed}", "{Stickers}", "{Reactions}", _FORWARDED}
SYSTEM = re.compile(
    r"Joined the server\.|Started a call that lasted .{1,20} minutes?\.?|Pinned a message\.|Started a thread\.|"
    r"Changed the channel (?:name|icon)(?:\.|: .{0,200})|Added (?:a recipient|.{1,80} to the group)\.|"
    r"Removed (?:a recipient|.{1,80} from the group)\.|Left the group\.",
    re.IGNORECASE,
)
"""What the exporter writes for what Discord said (`PlainTextMessageExtensions.cs`)."""
_DISCRIMINATOR = re.compile(r"#\d{4}$")
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+\.?"), re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message as both formats give it."""

    place: int
    """The line on which it begins."""
    author: str
    name: str
    stamp: str
    text: str
    long: bool = False
    forwarded: bool = False


Lines: TypeAlias = Callable[[Part], Iterator[Line | Fault]]


@dataclass(frozen=True, slots=True)
class DiscordText:
    """A reader over one of the two layouts."""

    NAME: str
    lines: Lines
    stamps: Callable[[Path, str], Iterator[str]]
    """Every timestamp of a file, without parsing the rest."""
    looks: Callable[[str], bool]
    between: re.Pattern[bytes] | None = None
    """Matches where the file may be cut; None where no pattern is certain."""

    def recognises(self, path: Path, head: str) -> bool:
        return path.is_file() and self.looks(head.lstrip("\ufeff"))

    def parts(self, path: Path, label: str) -> Iterator[Part | Fault]:
        style = timestamps.decide(
            stamp for text in self.stamps(path, label) if (stamp := timestamps.read(text)) is not None
        )
        guild, name = _preamble(textfile.head(path))
        channel = identity.discord(label, guild=guild, name=name)
        context = {"channel": channel, "style": str(style)}
        if self.between is None:
            yield Part(reader=self.NAME, path=path, label=label, context=context)
            return
        context["shape"] = next((_shape(stamp) for stamp in self.stamps(path, label) if timestamps.read(stamp)), "")
        if not context["shape"]:
            told = next((stamp for stamp in self.stamps(path, label)), "")
            reason = f"no date that can be read ({told!r}); the file is left out" if told else "no messages in it"
            yield Fault(file=label, place="", reason=reason)
            return
        for start, end, before in textfile.cuts(path, self.between):
            here = {**context, "lines before": str(before)}
            yield Part(reader=self.NAME, path=path, label=label, start=start, end=end, context=here)

    def read(self, part: Part) -> Iterator[Item]:
        conversation = Conversation(platform="discord", channel=part.context["channel"])
        style = timestamps.Style.parse(part.context["style"])
        code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
        for line in self.lines(part):
            yield line if isinstance(line, Fault) else _said(line, part, conversation, style, code)


def _preamble(head: str) -> tuple[str, str]:
    """Server and channel where the file begins with them."""
    found = re.match(rf"\ufeff?{_RULE}\s*\nGuild: ([^\n]*)\nChannel: ([^\n]*)", head.replace("\r", ""))
    return (found[1].strip(), found[2].strip()) if found else ("", "")


def _said(line: Line, part: Part, conversation: Conversation, style: timestamps.Style, code: markup.CodeBlocks) -> Item:
    if not line.author:
        return Skipped.AUTHORLESS
    if line.long:
        return Skipped.TOO_LONG
    if SYSTEM.fullmatch(line.text):
        return Skipped.SYSTEM
    text = markup.discord(line.text, {}, code).strip()
    if not text:
        return Skipped.FORWARDED if line.forwarded else Skipped.EMPTY
    if markup.COMMAND.match(text):
        return Skipped.COMMAND
    sent_at = timestamps.parse(line.stamp, style)
    if sent_at is None:
        reason = f"no readable time ({line.stamp[:40]!r}); the message is left out"
        return Fault(file=part.label, place=f"line {line.place}", reason=reason)
    return Message(
        conversation=conversation,
        id="",
        author=line.author,
        author_name=line.name or "someone",
        text=text,
        sent_at=sent_at,
    )


def csv_lines(part: Part) -> Iterator[Line | Fault]:
    path, label = part.path, part.label
    columns = _COLUMNS.match(textfile.head(path).lstrip())
    named = 0 if columns is None or columns["by"] else -1
    """Before September 2019 there was no column of ids."""
    is_head = True
    for found in textfile.rows(path, label, (columns["by"] or columns["by2"]) if columns else ","):
        if isinstance(found, Fault):
            yield found
            continue
        line, row = found
        if is_head or not row:
            is_head = False
            continue
        if len(row) < 4 + named:
            yield Fault(file=label, place=f"line {line}", reason="fewer than four columns; the row is left out")
            continue
        author, stamp, text = row[1 + named : 4 + named]
        long = len(text) > MAX_MESSAGE
        yield Line(
            place=line,
            author=(author if named else row[0]).strip(),
            name=_DISCRIMINATOR.sub("", author),
            stamp=stamp,
            text="" if long else text.strip(),
            long=long,
        )


def _csv_stamps(path: Path, label: str) -> Iterator[str]:
    part = Part(reader="discord-csv", path=path, label=label)
    return (line.stamp for line in csv_lines(part) if isinstance(line, Line))


def text_lines(part: Part) -> Iterator[Line | Fault]:
    """A header is a line `[stamp] author` after a blank line, with its stamp written like the first one."""
    header: tuple[int, re.Match[str]] | None = None
    shape, before = part.context["shape"], int(part.context["lines before"])
    content: list[str] = []
    length = 0
    skipping = forwarded = False
    blank = True
    for entry in textfile.lines(part.path, part.label, start=part.start, end=part.end, before=before):
        if isinstance(entry, Fault):
            yield entry
            continue
        number, line = entry
        found = _HEADER.fullmatch(line) if blank and line.startswith("[") and len(line) < 160 else None
        if found is not None and _shape(found["stamp"]) == shape:
            if header is not None:
                yield _text_line(header, content, length, forwarded)
            header, content, length, skipping, forwarded = (number, found), [], 0, False, False
        elif line in _SECTIONS and (blank or not content):
            skipping = True
            forwarded = forwarded or line == _FORWARDED
        elif line == _RULE:
            if header is not None:
                yield _text_line(header, content, length, forwarded)
            header, skipping = None, True
        elif header is not None and not skipping:
            length += len(line)
            if length <= MAX_MESSAGE:
                content.append(line)
        blank = not line or line == _RULE or line.isspace()
    if header is not None:
        yield _text_line(header, content, length, forwarded)


@lru_cache(maxsize=1 << 14)
def _shape(stamp: str) -> str:
    """`17-Jul-19 06:10 PM` → `9-a-9 9:9 a`."""
    return _DIGITS.sub("9", _LETTERS.sub("a", stamp))


def _text_stamps(path: Path, label: str) -> Iterator[str]:
    before = ""
    for line in textfile.lines(path, label):
        if not isinstance(line, Fault) and line[1].startswith("["):
            found = _HEADER.fullmatch(line[1])
            if found and found["stamp"] != before:
                before = found["stamp"]
                yield before


def _text_line(header: tuple[int, re.Match[str]], content: list[str], length: int, forwarded: bool) -> Line:
    number, found = header
    name = found["author"].strip()
    return Line(
        place=number,
        author=name,
        name=_DISCRIMINATOR.sub("", name),
        stamp=found["stamp"],
        text="\n".join(content).strip(),
        long=length > MAX_MESSAGE,
        forwarded=forwarded,
    )


CSV = DiscordText("discord-csv", csv_lines, _csv_stamps, lambda head: _COLUMNS.match(head.lstrip()) is not None)
TEXT = DiscordText(
    "discord-text",
    text_lines,
    _text_stamps,
    lambda head: head.startswith(_RULE) and "\nGuild: " in head.replace("\r", ""),
    between=re.compile(rb"\n\r?\n\[[^\]\r\n]{6,60}\] [^\r\n]{1,100}\r?\n"),
)
