"""WhatsApp's “export chat” text: Android's `date, time - name: words` and the iPhone's `[date, time] name: words`.

Knows both shapes, twelve- and twenty-four-hour clocks and any order of day and month, which is decided from all dates
of the file. A line without a stamp goes on with the message above it. A stamped line without a name is WhatsApp's own.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from core.messages import Conversation, Kind, Message
from training.exports import markup, stamps, textfile
from training.exports.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "whatsapp"

_HIDDEN = re.compile("[\u200e\u200f\u202a-\u202e\ufeff]")
_TIME = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[\s\u202f\xa0]?[AaPp]\.?[\s\u202f\xa0]?[Mm]\.?)?"
_STAMP = (
    rf"(?P<date>\d{{1,4}}[./\-]\d{{1,2}}[./\-]\d{{1,4}})\.?,?[\s\u202f\xa0]+(?:at\s+|um\s+|à\s+)?(?P<clock>{_TIME})"
)
_ANDROID = re.compile(rf"^{_STAMP}[\s\u202f\xa0]+[-\u2013][\s\u202f\xa0]+(?P<rest>.*)$", re.DOTALL)
_IPHONE = re.compile(rf"^\[{_STAMP}\][\s\u202f\xa0]+(?P<rest>.*)$", re.DOTALL)
_NAMED = re.compile(r"^(?P<name>[^:\n]{1,100}?): (?P<text>.*)$", re.DOTALL)
_MEDIA = re.compile(
    r"<[^<>\n]{0,60}(?:omitted|weggelassen|ausgeschlossen|omis|omitido|omessi|omesso|omitida|weggelaten|пропущен)[^<>\n]{0,20}>|"
    r"(?:image|video|audio|sticker|GIF|document|Contact card|Bild|Foto|Video note) (?:omitted|weggelassen)|"
    r"\S{1,120}\.(?:jpg|jpeg|png|webp|mp4|opus|pdf|vcf|m4a|3gp) "
    r"\((?:file attached|Datei angehängt|archivo adjunto|fichier joint)\)|"
    r"<(?:attached|Anhang|adjunto|pièce jointe): [^<>\n]*>",
    re.IGNORECASE,
)
_EDITED = re.compile(
    r"\s*<(?:This message was edited|Diese Nachricht wurde bearbeitet\.?|Se editó este mensaje\.?)>\s*$"
)
_GONE = re.compile(
    r"(?:This message was deleted\.?|You deleted this message\.?|Diese Nachricht wurde gelöscht\.?|null|"
    r"Missed (?:voice|video|group)(?: \w+)? call.*|(?:Voice|Video) call.*|(?:live )?location(?: shared)?:.*|POLL:.*|"
    r"Waiting for this message\.?.*|Messages and calls are end-to-end encrypted.*)",
    re.IGNORECASE | re.DOTALL,
)
_MEMBERSHIP = re.compile(
    r"(?:created (?:this )?group|added|removed|joined using|left|changed (?:the|this|their)|was added|security code)",
    re.IGNORECASE,
)


def recognises(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    start = [line for line in head.splitlines()[:60] if line.strip()]
    return any(_match(line) for line in start[:3]) and sum(_match(line) is not None for line in start) >= 1


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    order = stamps.decide(
        numbers
        for line in textfile.lines(path, label)
        if not isinstance(line, Fault) and (found := _match(line[1])) and (numbers := stamps.numbers(found["date"]))
    )
    people: set[str] = set()
    channel = hashlib.sha256(label.encode("utf-8", "replace")).hexdigest()[:16]
    for line in textfile.lines(path, label):
        if not isinstance(line, Fault) and len(people) < 3 and (found := _match(line[1])):
            named = _NAMED.match(found["rest"])
            if named:
                people.add(named["name"])
        if len(people) > 2:
            break
    yield Part(
        reader=NAME,
        path=path,
        label=label,
        context={"channel": channel, "order": order.name, "direct": "yes" if len(people) <= 2 else ""},
    )


def _match(line: str) -> re.Match[str] | None:
    line = _HIDDEN.sub("", line[: 4 * MAX_MESSAGE])
    return _IPHONE.match(line) if line.startswith("[") else _ANDROID.match(line)


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(
        platform="whatsapp",
        channel=part.context["channel"],
        kind=Kind.DIRECT if part.context["direct"] else Kind.CHANNEL,
    )
    order = stamps.Order[part.context["order"]]
    opened: tuple[int, re.Match[str], list[str], int] | None = None
    latest: datetime | None = None
    count = 0
    for entry in textfile.lines(part.path, part.label):
        if isinstance(entry, Fault):
            yield entry
            continue
        number, line = entry
        found = _match(line)
        if found is None:
            if opened is not None:
                if opened[3] <= MAX_MESSAGE:
                    opened[2].append(_HIDDEN.sub("", line))
                opened = (*opened[:3], opened[3] + len(line))
            elif line.strip():
                yield Fault(
                    file=part.label, place=f"line {number}", reason="stands before the first message; it is left out"
                )
            continue
        if opened is not None:
            latest, item = _said(part, conversation, order, opened, count, latest)
            count += 1
            yield item
        rest = found["rest"] if len(line) <= 4 * MAX_MESSAGE else ""
        opened = (number, found, [rest], len(line))
    if opened is not None:
        yield _said(part, conversation, order, opened, count, latest)[1]


def _said(
    part: Part,
    conversation: Conversation,
    order: stamps.Order,
    opened: tuple[int, re.Match[str], list[str], int],
    count: int,
    latest: datetime | None,
) -> tuple[datetime | None, Item]:
    """One stamped line with what follows it; minutes are all there is, so messages of a minute keep their order."""
    number, found, lines, length = opened
    date = stamps.numbers(found["date"])
    moment = stamps.combine(date, order, found["clock"]) if date else None
    if moment is None:
        return latest, Fault(file=part.label, place=f"line {number}", reason="no such date; the message is left out")
    if length > MAX_MESSAGE:
        return latest, Skipped.TOO_LONG
    named = _NAMED.match("\n".join(lines))
    if named is None or _MEMBERSHIP.search(named["name"]):
        return latest, Skipped.SYSTEM
    text = _EDITED.sub("", _MEDIA.sub("", named["text"])).strip()
    if not text:
        return latest, Skipped.EMPTY
    if _GONE.fullmatch(text):
        return latest, Skipped.SYSTEM
    if markup.COMMAND.match(text):
        return latest, Skipped.COMMAND
    if latest is not None and moment.replace(microsecond=0) == latest.replace(microsecond=0):
        moment = latest + timedelta(microseconds=1)
    name = named["name"].strip().lstrip("~").strip() or "someone"
    message = Message(
        conversation=conversation, id=str(number), author=name, author_name=name, text=text, sent_at=moment
    )
    return moment, message
