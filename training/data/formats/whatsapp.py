"""WhatsApp's “export chat” text: Android's `date, time - name: words` and the iPhone's `[date, time] name: words`.

Knows the frames a line may have, and that a file keeps to one. A line without a stamp continues the message above it.
What WhatsApp itself wrote is told by how it is marked (no name, U+200E in front, angle brackets), which holds in every
language, and where a program has taken the marks away, by the table of sentences in `whatsapp.toml`. Pages of
signal-export (`.md`) have the iPhone's frame too.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, markup, textfile, timestamps
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Part, Skipped
from training.data.formats.normalise import LEFT_TO_RIGHT, MARKS, RIGHT_TO_LEFT, plain, without_marks

NAME = "whatsapp"

_DATED = rf"(?:{timestamps.DATE}|[^\[\]:<>\n]{{6,40}}?)(?: BE)?"
_FRAMES = {
    # Framed by brackets, by a dash, and in files before 2015 by a colon; the stamp must then be one.
    "brackets": re.compile(rf"\[(?P<stamp>{_DATED}[, ]+(?:at )?{timestamps.CLOCK}|{timestamps.CLOCK}, {_DATED})\] ?"),
    "dash": re.compile(rf"(?P<stamp>{_DATED}[, ]+(?:(?:at|um|à|a las) )?{timestamps.CLOCK}) - "),
    "colon": re.compile(rf"(?P<stamp>{_DATED}[, ]+{timestamps.CLOCK}): (?=[^:\n]{{1,60}}: )"),
}
_BEGINS = re.compile(r"\[|\d|[^\W\d_]")
_NAMED = re.compile(r"(?P<name>[^:\n]{1,100}?):(?P<text>(?:[ \u200e\u200f].*)?)\Z", re.DOTALL)
_NAMED_CLOSE = re.compile(r"(?P<name>[^:\n]{1,100}?):(?P<text>.*)", re.DOTALL)
MAX_STAMP = 80
"""Characters in which a stamp ends."""
MAX_NAME_WORDS = 6
"""A longer “name” is a sentence of WhatsApp's that holds a colon."""
_QUOTES = re.compile('["“”„«»「」『』‟]')
_BRACKETED = re.compile(r"<[^<>\n]{2,80}>")
_MARKED_END = re.compile(r"\s*<(?P<mark>[^<>\n]{4,80})>\s*\Z")
_ATTACHED = re.compile(
    r"\A[^\n]{0,150}\.\w{2,5} \([^()\n]{2,40}\)[ \t]*(?:\n|\Z)|<[^<>\n:]{1,40}: [^<>\n]{1,200}\.\w{2,5}>"
)
"""`IMG-….jpg (file attached)` and `<attached: ….jpg>`, in every language."""
_FILE_NAME = re.compile(r"[^\n]{1,150}\.\w{2,5}")
_PAGES = re.compile(r"\s*\u2022\s*[^\n]*\Z")
_PLACE = re.compile(r"(?:[^\n]{0,120}: )?https?://(?:maps\.google\.com/\?q=|foursquare\.com/)\S+")
_CALL_END = re.compile(r"[,.]\s.{1,40}\Z", re.DOTALL)
_POLL = re.compile(r"(?P<word>[^\W\d_]{3,20}):(?:\n(?P<rest>.*))?", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*~_])([*_~])(?=\S)([^\n*_~]*[^\s*_~])\1(?![\w*~_])")
_REPEATED = 3
"""Times the same `<…>` ends a message of a file to be a mark of the program."""


@lru_cache(maxsize=1)
def own_sentences() -> dict[str, frozenset[str]]:
    text = files("training.data.formats").joinpath("whatsapp.toml").read_text(encoding="utf-8")
    return {kind: frozenset(_folded(each) for each in sentences) for kind, sentences in tomllib.loads(text).items()}


_START = 6


@lru_cache(maxsize=1)
def _notices() -> dict[str, list[str]]:
    """Notices by how they begin: every message is compared with them."""
    found: dict[str, list[str]] = {}
    for notice in own_sentences()["notices"]:
        found.setdefault(notice[:_START], []).append(notice)
    return found


@lru_cache(maxsize=1)
def _halves() -> tuple[frozenset[str], frozenset[str]]:
    """First words and ends of placeholders of two words: reports also name pairs that no string table holds."""
    pairs = [each.split(" ", 1) for each in own_sentences()["omitted"] if each.count(" ") == 1 and each.isascii()]
    return frozenset(pair[0] for pair in pairs), frozenset(pair[1] for pair in pairs)


def _folded(text: str) -> str:
    return plain(text).casefold().strip(" .\u3002\u0964<>!:")


def is_system(text: str) -> bool:
    """Whether the text is a sentence of WhatsApp's table, with a call's length or without."""
    if len(text) > 160:
        return False
    folded, table = _folded(text), own_sentences()
    if any(folded in table[kind] for kind in ("deleted", "calls", "locations", "others")):
        return True
    if _folded(_CALL_END.sub("", text)) in table["calls"]:
        return True
    return any(folded.startswith(notice) for notice in _notices().get(folded[:_START], ()))


def is_placeholder(text: str) -> bool:
    """Whether the text stands for a picture, a voice note, a document …"""
    if len(text) > 100:
        return False
    if _BRACKETED.fullmatch(text):
        return True
    folded = _folded(text)
    if folded in own_sentences()["omitted"]:
        return True
    first, _, end = folded.partition(" ")
    return first in _halves()[0] and end in _halves()[1]


@dataclass(slots=True)
class _Entry:
    """A line with a timestamp, and the lines that continue it."""

    number: int
    stamp: str
    marked: bool
    """U+200E stands in front of the line: a file belongs to it."""
    lines: list[str] = field(default_factory=list)
    length: int = 0


def recognises(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    start = [line for line in head.splitlines()[:60] if line.strip(MARKS + " ")]
    return _frame_of(start) is not None and any(_split(line, _frame_of(start) or "") for line in start[:3])


def _frame_of(lines: list[str]) -> str | None:
    """The frame most of these lines have; None where none has one and names somebody."""
    counts: Counter[str] = Counter()
    named = False
    for line in lines:
        for frame in _FRAMES:
            found = _split(line, frame)
            if found is not None:
                counts[frame] += 1
                named = named or _NAMED_CLOSE.match(found[2].lstrip(MARKS)) is not None
                if found[2].lstrip().startswith("<") and ">" in found[2][:80]:  # `[date] <nick>` is IRC
                    return None
                break
    return counts.most_common(1)[0][0] if counts and named else None


def _split(line: str, frame: str) -> tuple[str, bool, str] | None:
    """Stamp, whether a mark stands in front, and the rest of the line as it is; None for a line without a stamp."""
    start = line.lstrip(MARKS)
    if not _BEGINS.match(start):
        return None
    head = start[: MAX_STAMP + 40]
    found = _FRAMES[frame].match(head if head.isascii() else plain(head))
    if found is None or found.end("stamp") > MAX_STAMP or timestamps.read(found["stamp"]) is None:
        return None
    return found["stamp"], line.startswith(LEFT_TO_RIGHT), start[_place(start, found.end()) :]


def _place(text: str, plain_length: int) -> int:
    """Where in the text its first `plain_length` plain signs end: plain text has lost the invisible ones."""
    if text.isascii():
        return plain_length
    at = seen = 0
    while seen < plain_length and at < len(text):
        seen += len(plain(text[at]))
        at += 1
    return at


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    frame = _frame_of([line for line in textfile.head(path).splitlines()[:60] if line.strip()]) or "dash"
    people: set[str] = set()
    marks: Counter[str] = Counter()
    close = spaced = 0

    def dates() -> Iterator[timestamps.Stamp]:
        nonlocal close, spaced
        for line in textfile.lines(path, label):
            if isinstance(line, Fault):
                continue
            end = _MARKED_END.search(line[1][-120:]) if line[1].endswith(">") else None
            if end and len(marks) < 1000:
                marks[_folded(end["mark"])] += 1
            found = _split(line[1], frame)
            if found is None:
                continue
            named = _NAMED.match(found[2])
            spaced += named is not None
            close += named is None and _NAMED_CLOSE.match(found[2]) is not None
            if named and len(people) < 3 and not named["text"].lstrip(" ").startswith((LEFT_TO_RIGHT, RIGHT_TO_LEFT)):
                people.add(named["name"])
            stamp = timestamps.read(found[0])
            if stamp is not None:
                yield stamp

    style = timestamps.decide(dates())
    context = {
        "platform": "signal" if path.suffix.lower() == ".md" else "whatsapp",
        "channel": identity.by_path(label),
        "style": str(style),
        "frame": frame,
        "direct": "yes" if len(people) <= 2 else "",
        "close": "yes" if close > spaced else "",
        "edited": "\n".join(mark for mark, count in sorted(marks.items()) if count >= _REPEATED and " " in mark),
    }
    yield Part(reader=NAME, path=path, label=label, context=context)


def _entries(part: Part) -> Iterator[_Entry | Fault]:
    opened: _Entry | None = None
    for entry in textfile.lines(part.path, part.label):
        if isinstance(entry, Fault):
            yield entry
            continue
        number, line = entry
        found = _split(line, part.context["frame"])
        if found is not None:
            if opened is not None:
                yield opened
            opened = _Entry(number, found[0], found[1], [found[2][: MAX_MESSAGE + 200]], len(line))
        elif opened is not None:
            if opened.length <= MAX_MESSAGE:
                opened.lines.append(line)
            opened.length += len(line)
        elif line.strip():
            yield Fault(
                file=part.label, place=f"line {number}", reason="comes before the first message; it is left out"
            )
    if opened is not None:
        yield opened


def read(part: Part) -> Iterator[Item]:
    where = part.context
    conversation = Conversation(
        platform=where["platform"], channel=where["channel"], kind=Kind.DIRECT if where["direct"] else Kind.CHANNEL
    )
    style = timestamps.Style.parse(where["style"])
    named = _NAMED_CLOSE if where["close"] else _NAMED
    edited = own_sentences()["edited"] | frozenset(filter(None, where["edited"].split("\n")))
    for entry in _entries(part):
        if isinstance(entry, Fault):
            yield entry
            continue
        sent_at = timestamps.parse(entry.stamp, style)
        if sent_at is None:
            yield Fault(
                file=part.label, place=f"line {entry.number}", reason="not a valid date; the message is left out"
            )
            continue
        if entry.length > MAX_MESSAGE:
            yield Skipped.TOO_LONG
            continue
        found = named.fullmatch("\n".join(entry.lines))
        if found is None or _is_sentence(found["name"]):
            yield Skipped.SYSTEM
            continue
        text = _words(found["text"], entry.marked, edited)
        if isinstance(text, Skipped):
            yield text
            continue
        name = without_marks(found["name"]).strip().lstrip("~").strip() or "someone"
        yield Message(conversation=conversation, id="", author=name, author_name=name, text=text, sent_at=sent_at)


def _is_sentence(name: str) -> bool:
    """Whether a “name” is the beginning of a sentence of WhatsApp's: a quotation opens in it, or it is long."""
    return len(_QUOTES.findall(name)) % 2 == 1 or len(name.split()) > MAX_NAME_WORDS


def _words(raw: str, marked: bool, edited: frozenset[str]) -> str | Skipped:
    """What a person said, without what WhatsApp put beside it."""
    raw = raw.strip(" ")
    if raw.startswith((LEFT_TO_RIGHT, RIGHT_TO_LEFT)):
        text = without_marks(raw).strip()
        return Skipped.EMPTY if is_placeholder(text) or _ATTACHED.fullmatch(text) else Skipped.SYSTEM
    if LEFT_TO_RIGHT in raw and marked:  # `Plan.pdf • ‎12 pages ‎<attached: …>`: words, if any, come first
        raw = _PAGES.sub("", raw.split(LEFT_TO_RIGHT, 1)[0]).strip()
        if _FILE_NAME.fullmatch(raw):
            return Skipped.EMPTY
    text = without_marks(raw)
    end = _MARKED_END.search(text)
    if end and _folded(end["mark"]) in edited:
        text = text[: end.start()]
    text = _ATTACHED.sub("", text).strip()
    if not text or is_placeholder(text) or (_PAGES.search(text) and _FILE_NAME.fullmatch(_PAGES.sub("", text))):
        return Skipped.EMPTY
    if is_system(text) or _PLACE.fullmatch(text) or _is_poll(text):
        return Skipped.SYSTEM
    text = _plain_markup(text)
    return Skipped.COMMAND if markup.COMMAND.match(text) else text


def _is_poll(text: str) -> bool:
    """`POLL:` in every language: a word in capitals, and options behind a second one."""
    found = _POLL.fullmatch(text)
    if found is None or not found["word"].isupper():
        return False
    options = Counter(line.split(":", 1)[0] for line in (found["rest"] or "").split("\n") if ":" in line)
    return any(word.isupper() and count > 1 for word, count in options.items())


def _plain_markup(text: str) -> str:
    """`*bold*`, `_italic_`, `~struck~` and ```` ```code``` ```` as they look on the screen."""
    text = text.replace("```", "")
    for _ in range(3):  # bold inside italics inside strike
        plainer = _EMPHASIS.sub(r"\2", text)
        if plainer == text:
            break
        text = plainer
    return text
