"""IRC logs, a line a message: irssi, WeeChat, ZNC, energymech, HexChat, mIRC, Textual and their kin.

Knows how clients write logs; a file keeps to one frame. Many write a time without a date: then the date comes from
day-change lines or from the file's name, and a clock that jumps back means the next day. Joins, modes and
`* nick acts` are not talk. IRC marks no bots; nicks of the usual services and those ending in `bot` or `serv` are taken
for them. A nick under which a bridge speaks for many is unfolded into those.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path

from core.messages import Conversation, Message
from training.data.formats import cldr, identity, markup, textfile, timestamps
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped
from training.data.formats.normalise import plain

NAME = "irc"

_NICK = r"[@+%&~!*^ ]?(?P<nick>[^\s<>]{1,64})"
_FRAMES = {
    "angles": re.compile(rf"\[?(?P<stamp>[^<>\[\]\t]{{4,40}}?)\]?[ \t]*<{_NICK}>[ \t]?(?P<text>.*)"),
    "tabs": re.compile(r"(?P<stamp>[^\t]{4,40})\t[@+%&~]?(?P<nick>[^\t]{0,64})\t(?P<text>.*)"),
    "parentheses": re.compile(
        r"\((?P<stamp>[^()<>\t]{4,40})\) (?P<nick>[^:\t\n]{1,64}?)(?: <[^<>]{1,20}>)?: (?P<text>.*)"
    ),
    "columns": re.compile(
        r"(?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) +[@+%&~]?(?P<nick>\S{1,64}?)(?: {2,}| +[|│] ?)(?P<text>\S.*)"
    ),
}
"""How clients mark the speaker: `<nick>`, WeeChat's tabs, those tabs once a terminal has made blanks of them, and
Pidgin's `(time) nick: words`."""
_DATE_APART = re.compile(r"\[([^\[\]<>]{6,40})\] \[(\d{1,2}:\d\d[^\[\]<>]{0,20})\]")
"""Konversation's two brackets, one for the date and one for the time."""
_CLOCK = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp]\.?[Mm]\.?)?)(?:\.\d+)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?")
_MONTH_DAY = re.compile(rf"([^\W\d_]{{2,12}})\.? +(\d{{1,2}}) +{_CLOCK.pattern}")
_SYSTEM = re.compile(r"^(?:Conversation with |===|\*\*\*|---|-!-|--|<--|-->|\* |Session |#|\[?\*)")
_WEECHAT_SIGNS = {"-->", "<--", "--", "*", "", "=!=", "--->", "<---"}
_CHANGE = re.compile(r"(?:---|\*{4}|===|Session |Conversation with )")
_CHANGED_TO = re.compile(
    r"(?P<month>[^\W\d_]{3,12})\.? +(?P<day>\d{1,2})(?:,? +\d{1,2}:\d{2}:\d{2})?,? +(?P<year>\d{4})|"
    r"(?P<day2>\d{1,2})\.? +(?P<month2>[^\W\d_]{3,12})\.? +(?P<year2>\d{4})|"
    r"(?P<year3>\d{4})-(?P<number3>\d\d)-(?P<day3>\d\d)"
)
_COLOURS = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]|\x04[0-9a-fA-F]{6}")
_BOT_NICK = re.compile(
    r"(?:.*bot\d*[_`|]*|(?:chan|nick|memo|oper|bot|host|info)serv|ubot+u\d*|ubotta|lubotu\d*|\*?status)", re.IGNORECASE
)
_RENAMED = re.compile(
    r"(?P<old>[^\s<>]{1,64}) (?:is now known as|heißt jetzt|ist (?:jetzt|nun) bekannt als|nennt sich (?:jetzt|nun)|"
    r"s'appelle maintenant|est (?:maintenant|désormais) connue? sous le nom de|ahora (?:se llama|es conocido como)|"
    r"è ora conosciuto come|ora si chiama|agora é conhecido como|staat nu bekend als|jest teraz znany jako|"
    r"теперь известен как) (?P<new>[^\s<>]{1,64}?)[.\]]?\s*$"
)
"""As irssi, WeeChat, ZNC, mIRC and HexChat write it; HexChat does so in its user's language."""
_RELAYED = re.compile(r"(?:\[[^\[\]\n]{1,30}\] ?)?<(?P<who>[^<>\n]{1,64})> ?(?P<text>.*)")
RELAYS_FROM = 2
"""A nick that relays at least so many people is a bridge."""
RELAY_SHARE = 0.6
"""Share of a bridge's lines that are relayed; a person who quotes two others writes more of their own."""
BACKWARD = timedelta(minutes=90)
"""A clock further back than this has passed midnight; less is a clock set right or winter time's hour."""
UNDATED = date(2000, 1, 1)
"""Where neither file name nor lines say a date; only gaps and order matter."""
SHOWN = 3
"""Unrecognised lines that are reported one by one."""


def _one_bracket(line: str) -> str:
    return _DATE_APART.sub(r"[\1 \2]", line, count=1) if line.startswith("[") and "] [" in line[:64] else line


@lru_cache(maxsize=1 << 15)
def _stamp(text: str) -> tuple[tuple[int, int, int], tuple[str, int] | None, timestamps.Stamp | None] | None:
    """Clock, and what is said of the date: nothing, month and day, or a whole stamp. None for no stamp at all."""
    text = plain(text).strip()
    alone = _CLOCK.fullmatch(text)
    if alone:
        clock = timestamps.clock_of(alone[1])
        return None if clock is None else (clock, None, None)
    dated = _MONTH_DAY.fullmatch(text)
    if dated:
        clock = timestamps.clock_of(dated[3])
        return None if clock is None else (clock, (dated[1], int(dated[2])), None)
    whole = timestamps.read(text)
    if whole is None or (whole.exact is None and ":" not in text):
        return None
    return (0, 0, 0), None, whole


def _frame_of(lines: list[str]) -> str | None:
    counts = Counter(
        frame
        for line in lines
        for frame, pattern in _FRAMES.items()
        if (found := pattern.fullmatch(line)) is not None and _stamp(found["stamp"]) is not None
    )
    return max(_FRAMES, key=lambda frame: counts[frame]) if counts else None


def _stamped(line: str) -> bool:
    """Whether a log writes it by itself: `10:30 -!- Eve has joined`, `[10:30] *** Eve sets mode`."""
    found = re.match(
        r"\[([^\[\]]{4,40})\](?:\s|$)|\(([^()]{4,40})\)\s|(.{4,30}?)(?:\s(?=-!-|\*|-->|<--|--|===)|\t)|(\S{4,10})(?:\s|$)",
        line,
    )
    return found is not None and _stamp(next(each for each in found.groups() if each is not None)) is not None


def recognises(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    start = [_one_bracket(line) for line in head.splitlines()[:400] if line.strip()]
    frame = _frame_of(start)
    if frame is None:
        return False
    alike = sum(
        _SYSTEM.match(line) is not None or _FRAMES[frame].fullmatch(line) is not None or _stamped(line)
        for line in start
    )
    return alike * 10 >= len(start) * 8


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    head = [_one_bracket(line) for line in textfile.head(path).splitlines() if line.strip()]
    frame = _frame_of(head[:400]) or "angles"
    words: set[str] = set()
    whole: list[timestamps.Stamp] = []
    for line in head:
        found = _FRAMES[frame].fullmatch(line)
        said = _stamp(found["stamp"]) if found else None
        if said is not None and said[1] is not None:
            words.add(said[1][0])
        if said is not None and said[2] is not None:
            whole.append(said[2])
        change = _CHANGED_TO.search(line) if _CHANGE.match(line) else None
        if change:
            words.add(change["month"] or change["month2"] or "")
    style = timestamps.decide(whole)
    if words - {""}:
        style = timestamps.Style(style.order, cldr.language_of(words))
    relays = _relays(path, label, _FRAMES[frame])
    context = {"channel": identity.by_path(label, dated=True) or "irc", "frame": frame, "style": str(style)}
    yield Part(reader=NAME, path=path, label=label, context={**context, "relays": "\n".join(sorted(relays))})


def _relays(path: Path, label: str, pattern: re.Pattern[str]) -> set[str]:
    """Nicks under which a bridge relays several people."""
    people: dict[str, set[str]] = {}
    relayed: Counter[str] = Counter()
    for entry in textfile.lines(path, label):
        if isinstance(entry, Fault) or "> " not in entry[1] or len(entry[1]) > MAX_MESSAGE:
            continue
        found = pattern.fullmatch(_one_bracket(entry[1]))
        quoted = _RELAYED.fullmatch(_COLOURS.sub("", found["text"])) if found and found["text"] else None
        if found and quoted and len(people) < 1000:
            people.setdefault(found["nick"], set()).add(quoted["who"])
            relayed[found["nick"]] += 1
    several = {nick for nick, whom in people.items() if len(whom) >= RELAYS_FROM}
    if not several:
        return several
    lines: Counter[str] = Counter()
    for entry in textfile.lines(path, label):
        found = None if isinstance(entry, Fault) else pattern.fullmatch(_one_bracket(entry[1][:MAX_MESSAGE]))
        if found and found["nick"] in several:
            lines[found["nick"]] += 1
    return {nick for nick in several if relayed[nick] >= RELAY_SHARE * lines[nick]}


@dataclass(slots=True)
class _Context:
    """What the lines so far say about the next ones."""

    part: Part
    style: timestamps.Style
    before: datetime
    relays: frozenset[str]
    aliases: dict[str, str] = field(default_factory=dict)
    """Nick → the first nick of the same person."""
    spoke: set[str] = field(default_factory=set)
    unread: int = 0


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(platform="irc", channel=part.context["channel"])
    in_name = identity.date_in_name(part.label)
    today = (_day(*in_name) if in_name else None) or UNDATED
    relays = frozenset(filter(None, part.context["relays"].split("\n")))
    state = _Context(part, timestamps.Style.parse(part.context["style"]), datetime.combine(today, time(), UTC), relays)
    pattern = _FRAMES[part.context["frame"]]
    for entry in textfile.lines(part.path, part.label):
        if isinstance(entry, Fault):
            yield entry
        elif entry[1].strip():
            yield from _line(entry[0], _one_bracket(entry[1]), pattern, conversation, state)
    if state.unread > SHOWN:
        yield Fault(file=part.label, place="", reason=f"{state.unread - SHOWN} more lines are not lines of an IRC log")


def _line(
    number: int, line: str, pattern: re.Pattern[str], conversation: Conversation, state: _Context
) -> Iterator[Item]:
    if len(line) > MAX_MESSAGE:
        yield Skipped.TOO_LONG
        return
    found = None if _CHANGE.match(line) else pattern.fullmatch(line)
    said = _stamp(found["stamp"]) if found else None
    if found is None or said is None:
        yield from _unsaid(number, line, state)
        return
    moment = _moment(said, state)
    if moment is None:
        yield Fault(file=state.part.label, place=f"line {number}", reason="no such time of day; the line is left out")
        return
    state.before = moment
    nick = found["nick"].strip()
    if nick in _WEECHAT_SIGNS or nick.startswith(("-->", "<--")):
        yield from _renamed(found["text"], state)
        yield Skipped.ACTION if nick == "*" else Skipped.SYSTEM
        return
    text = _COLOURS.sub("", found["text"]).strip()
    author, name = state.aliases.get(nick.lower(), nick.lower()), nick
    if nick in state.relays:
        relayed = _RELAYED.fullmatch(text)
        if relayed is None:
            yield Skipped.BOT
            return
        # Of another network: its Ann is not this channel's Ann, and did not agree for her.
        name, text = plain(relayed["who"]).strip(), relayed["text"].strip()
        author = f"{name.lower()}@{nick.lower()}"
    if _BOT_NICK.fullmatch(name):
        yield Skipped.BOT
    elif not text or not name:
        yield Skipped.EMPTY
    elif markup.COMMAND.match(text):
        yield Skipped.COMMAND
    else:
        state.spoke.add(author)
        yield Message(conversation=conversation, id="", author=author, author_name=name, text=text, sent_at=moment)


def _unsaid(number: int, line: str, state: _Context) -> Iterator[Item]:
    """Lines that nobody says, and lines that are not part of a log."""
    if _CHANGE.match(line):
        day = _changed_day(line, state.style.language)
        if day is not None:
            state.before = datetime.combine(day, time(), UTC)
    if _SYSTEM.match(line) or _stamped(line):
        yield from _renamed(line, state)
        yield Skipped.ACTION if re.match(r"\[?[^\[\]]{4,30}\]?\s+\*\s+\S", line) else Skipped.SYSTEM
        return
    state.unread += 1
    if state.unread <= SHOWN:
        yield Fault(file=state.part.label, place=f"line {number}", reason="not a line of an IRC log; it is left out")


def _renamed(line: str, state: _Context) -> Iterator[Named]:
    """Whoever takes a nick under which nobody else spoke is still the same person."""
    found = _RENAMED.search(_COLOURS.sub("", line))
    if found is None:
        return
    old, new = found["old"].lower(), found["new"].lower()
    author = state.aliases.get(old, old)
    if new == author:
        state.aliases.pop(new, None)
    elif new not in state.spoke and old != new:
        state.aliases[new] = author
        yield Named(platform="irc", author=author, name=found["new"])


def _changed_day(line: str, language: str) -> date | None:
    found = _CHANGED_TO.search(line)
    if found is None:
        return None
    if found["year3"]:
        return _day(int(found["year3"]), int(found["number3"]), int(found["day3"]))
    month = cldr.month(found["month"] or found["month2"], language)
    return _day(int(found["year"] or found["year2"]), month or 0, int(found["day"] or found["day2"]))


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _moment(
    said: tuple[tuple[int, int, int], tuple[str, int] | None, timestamps.Stamp | None], state: _Context
) -> datetime | None:
    """When a line was written, given the line before it."""
    (hour, minute, second), month_day, whole = said
    before = state.before
    if whole is not None:
        return timestamps.moment(whole, state.style)
    at = time(hour, minute, min(second, 59))
    if month_day is not None:
        dated = _day(before.year, cldr.month(month_day[0], state.style.language) or 0, month_day[1])
        if dated is None:
            return None
        if datetime.combine(dated, at, UTC) < before - timedelta(days=180) and before.year > UNDATED.year:
            dated = _day(before.year + 1, dated.month, dated.day) or dated
        return datetime.combine(dated, at, UTC)
    moment = datetime.combine(before.date(), at, UTC)
    if before.replace(microsecond=0) - moment > BACKWARD:
        try:
            moment += timedelta(days=1)
        except OverflowError:
            return None
    return moment
