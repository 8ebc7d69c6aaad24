"""IRC logs, a line a message: irssi, weechat, ZNC, energymech, HexChat, mIRC, Textual and their kin.

Knows how clients write logs. Many write a time without a date: then the date comes from day-change lines or from the
file's name, and a clock that jumps back means the next day. Joins, modes and `* nick acts` are not talk. IRC marks no
bots; nicks of the usual services and those ending in `bot` or `serv` are taken for them.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from core.messages import Conversation, Message
from training.exports import markup, stamps, textfile
from training.exports.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "irc"

_NICK = r"[@+%&~!*^ ]?(?P<nick>[^\s<>]{1,64})"
_CLOCK = r"(?P<clock>\d{1,2}:\d{2}(?::\d{2})?(?:\s?[AaPp][Mm])?)"
_DATE = r"(?:(?P<date>\d{4}-\d{2}-\d{2})[T ]|(?P<month>[A-Z][a-z]{2}) (?P<day>[ \d]\d) )?"
_STAMP = rf"\[?{_DATE}{_CLOCK}(?:\.\d+)?(?:Z|[+-]\d{{2}}:?\d{{2}})?\]?"
_SAID = re.compile(rf"^{_STAMP}[ \t]+<{_NICK}>[ \t]?(?P<text>.*)$")
_WEECHAT = re.compile(rf"^{_STAMP}\t[@+%&~]?(?P<nick>[^\t]{{1,64}})\t(?P<text>.*)$")
_STAMPED = re.compile(rf"^{_STAMP}(?:[ \t]|$)")
_SYSTEM = re.compile(r"^(?:===|\*\*\*|---|-!-|--|<--|-->|\*\*\*\*|\* |Session |#|\[?\*)")
_WEECHAT_SIGNS = {"-->", "<--", "--", "*", "", "=!=", "--->", "<---"}
_DAY_CHANGE = re.compile(
    r"(?:--- (?:Log opened|Day changed|Log closed) |\*{4} (?:BEGIN|ENDING) LOGGING AT |Session (?:Start|Time|Close): )"
    r"(?:\w{3},? )?(?P<month>[A-Z][a-z]{2}) (?P<day>[ \d]?\d)(?: (?P<clock>\d{2}:\d{2}:\d{2}))?,? (?P<year>\d{4})"
)
_DATE_IN_NAME = re.compile(r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?!\d)")
_MONTHS = {name.capitalize(): number for name, number in stamps.MONTHS.items()}
_COLOURS = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]|\x04[0-9a-fA-F]{6}")
_BOT_NICK = re.compile(
    r"(?:.*bot\d*[_`|]*|(?:chan|nick|memo|oper|bot|host|info)serv|ubot+u\d*|ubotta|lubotu\d*|\*?status)", re.IGNORECASE
)

BACKWARD = timedelta(minutes=90)
"""A clock further back than this has passed midnight; less is a clock set right or winter time's hour."""
UNDATED = date(2000, 1, 1)
"""Where neither file name nor lines say a date; only gaps and order matter."""


def recognises(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    start = [line for line in head.splitlines()[:400] if line.strip()]
    said = sum(_SAID.match(line) is not None or _WEECHAT.match(line) is not None for line in start)
    alike = sum(_STAMPED.match(line) is not None or _SYSTEM.match(line) is not None for line in start)
    return said >= 1 and alike * 10 >= len(start) * 8


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    yield Part(reader=NAME, path=path, label=label, context={"channel": channel_of(label)})


def channel_of(label: str) -> str:
    """The file's name without the date and the ending, so that a channel's daily logs are one channel."""
    name = label.rsplit("/", 1)[-1].rsplit("!", 1)[-1]
    name = _DATE_IN_NAME.sub("", re.sub(r"\.(?:txt|log|ascii|weechatlog)", "", name)).strip("-_. ")
    folder = label.rsplit("/", 1)[0] if "/" in label else ""
    return f"{folder}/{name}" if folder else name or "irc"


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(platform="irc", channel=part.context["channel"])
    in_name = _DATE_IN_NAME.search(part.label.rsplit("/", 1)[-1])
    today = UNDATED
    if in_name:
        today = _day(int(in_name[1]), int(in_name[2]), int(in_name[3])) or UNDATED
    before = datetime.combine(today, time(), UTC)
    unread = 0
    for entry in textfile.lines(part.path, part.label):
        if isinstance(entry, Fault):
            yield entry
            continue
        number, line = entry
        if not line.strip():
            continue
        if len(line) > MAX_MESSAGE:
            yield Skipped.TOO_LONG
            continue
        changed = _DAY_CHANGE.match(line)
        if changed:
            day = _day(int(changed["year"]), _MONTHS.get(changed["month"], 0), int(changed["day"]))
            if day:
                before = datetime.combine(day, time(), UTC)
            yield Skipped.SYSTEM
            continue
        found = _SAID.match(line) or _WEECHAT.match(line)
        if found is None:
            if _SYSTEM.match(line) or _STAMPED.match(line):
                acted = re.match(rf"^{_STAMP}\s+\*\s+\S", line)
                yield Skipped.ACTION if acted else Skipped.SYSTEM
                continue
            unread += 1
            if unread <= 3:
                yield Fault(file=part.label, place=f"line {number}", reason="not a line of an IRC log; it is left out")
            continue
        moment = _moment(found, before)
        if moment is None:
            yield Fault(file=part.label, place=f"line {number}", reason="no such time of day; the line is left out")
            continue
        before = moment
        nick = found["nick"].strip()
        if nick in _WEECHAT_SIGNS or nick.startswith(("-->", "<--")):
            yield Skipped.SYSTEM if nick != "*" else Skipped.ACTION
            continue
        if _BOT_NICK.fullmatch(nick):
            yield Skipped.BOT
            continue
        text = _COLOURS.sub("", found["text"]).strip()
        if not text:
            yield Skipped.EMPTY
            continue
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            continue
        yield Message(
            conversation=conversation,
            id=f"{part.label}:{number}",
            author=nick.lower(),
            author_name=nick,
            text=text,
            sent_at=moment + timedelta(microseconds=number % 60_000_000),
        )
    if unread > 3:
        yield Fault(file=part.label, place="", reason=f"{unread - 3} more lines are not of an IRC log")


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _moment(found: re.Match[str], before: datetime) -> datetime | None:
    """When the line was said, given the line before it."""
    clock = stamps.parse_clock(found["clock"])
    if clock is None:
        return None
    hour, minute, second = clock
    at = time(hour, minute, min(second, 59))
    if found["date"]:
        year, month, day = map(int, found["date"].split("-"))
        dated = _day(year, month, day)
        return datetime.combine(dated, at, UTC) if dated else None
    if found["month"]:
        dated = _day(before.year, _MONTHS.get(found["month"], 0), int(found["day"]))
        if dated is None:
            return None
        if datetime.combine(dated, at, UTC) < before - timedelta(days=180) and before.year > UNDATED.year:
            dated = _day(before.year + 1, dated.month, dated.day) or dated
        return datetime.combine(dated, at, UTC)
    moment = datetime.combine(before.date(), at, UTC)
    if moment < before.replace(microsecond=0) - BACKWARD:
        try:
            moment += timedelta(days=1)
        except OverflowError:
            return None
    return moment
