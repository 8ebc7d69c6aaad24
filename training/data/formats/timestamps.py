"""Dates in the many ways that chat programs write them; the order of day and month and the language are decided from a
whole file.

Knows number order, calendars, clocks and ISO; no chat format. Times without a zone are taken as UTC, because an export
does not say where it was made and only gaps and order matter here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache

from training.data.formats import cldr
from training.data.formats.normalise import plain


class Order(Enum):
    """Where day, month and year stand among the three numbers of a date."""

    DAY_FIRST = (2, 1, 0)
    MONTH_FIRST = (2, 0, 1)
    YEAR_FIRST = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Style:
    """How one file writes its dates."""

    order: Order = Order.DAY_FIRST
    language: str = cldr.ENGLISH

    def __str__(self) -> str:
        return f"{self.order.name} {self.language}"

    @classmethod
    def parse(cls, text: str) -> "Style":
        order, language = text.split(" ")
        return cls(Order[order], language)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A timestamp as it is written, before the order of its numbers is known."""

    numbers: tuple[int, int, int] = (0, 0, 0)
    """As they stand; with a month's name: year, 0, day."""
    month: str = ""
    clock: tuple[int, int, int] = (0, 0, 0)
    half: str = ""
    """`PM`, `nachm.`, `下午` …"""
    exact: datetime | None = None


_LETTER = "(?:[^\\W\\d_]|[\u0300-\u036f\u064b-\u065f\u0900-\u109f\u0e31-\u0e4e\u05f3\u05f4])"
"""`re` does not count the vowel signs of Indian scripts, Thai and Arabic as letters."""
_WORD = rf"[^\W\d_](?:{_LETTER}|(?:[.'’] ?| )(?=[^\W\d_]))*\.?"
CLOCK = rf"(?:(?:{_WORD}) ?)?\d{{1,2}}[:.]\d{{2}}(?:[:.]\d{{2}})?(?:[.,]\d{{1,9}})?(?: ?(?:{_WORD}))?"
"""A time of day, with AM or PM before or after it, in `plain` text."""
DATE = r"\d{1,4} ?[./\-年년] ?\d{1,2} ?[./\-月월] ?\d{1,4} ?[.日일]?"
_CLOCK = re.compile(
    rf"(?:(?P<before>{_WORD}) ?)?(?P<hour>\d{{1,2}})[:.](?P<minute>\d{{2}})(?:[:.](?P<second>\d{{2}}))?"
    rf"(?:[.,]\d{{1,9}})?(?: ?(?P<after>{_WORD}))?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
)
_DATE = re.compile(r"(\d{1,4}) ?[./\-年년] ?(\d{1,2}) ?[./\-月월] ?(\d{1,4}) ?[.日일]?")
_NAMED = re.compile(
    rf"(?:{_WORD},? )??"
    rf"(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.|º)?[ \-./,]*(?:de |of |d')?"
    rf"(?P<month>{_WORD})[ \-./,]*(?:de )?(?P<year>\d{{2,4}})"
    rf"|(?P<month2>[^\W\d_](?:{_LETTER}|[.'’](?=[^\W\d_]))*\.?)[ \-./]*"
    rf"(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?,?[ \-./]+(?P<year2>\d{{2,4}})"
    rf"|(?P<year3>\d{{4}})[ \-./,]+(?P<month3>{_WORD})[ \-./,]*(?P<day3>\d{{1,2}})\.?)"
)
_NUMBERED = re.compile(r"(?<=\d)([-./ ]?)(?:(\d{1,2})[月월]|thg (\d{1,2}))(?=\1\d)")
"""A month abbreviated to its number, between day and year: `13-5月-24`, `13-thg 5-24`."""
_UNIX = re.compile(r"1\d{9}(?:\d{3})?")
"""Seconds or milliseconds since 1970, from 2001 to 2033."""
_BETWEEN = re.compile(r"[\s,]*(?:at |um |à |a las |T(?=\d))?")


@lru_cache(maxsize=1 << 14)
def read(text: str) -> Stamp | None:
    """A stamp in any common shape: ISO 8601, numbers, or a month's name in any language; None for anything else."""
    text = plain(text).strip().strip("[]").strip()
    if _UNIX.fullmatch(text):
        return Stamp(exact=datetime.fromtimestamp(int(text[:10]), UTC))
    text = _NUMBERED.sub(r"\1\2\3", text)
    if text[4:5] == "-":
        try:
            exact = datetime.fromisoformat(text)
            return Stamp(exact=exact.astimezone(UTC) if exact.tzinfo else exact.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            pass
    colon, comma = text.find(":"), text.find(",")
    if 0 < colon < comma:  # `10:15, 13/05/2024`
        first = _CLOCK.match(text)
        if first and ":" in first[0] and first.end() == comma:
            text = f"{text[comma + 1 :].strip()}, {first[0]}"
    found = _DATE.match(text)
    if found:
        return _timed((int(found[1]), int(found[2]), int(found[3])), "", text[found.end() :])
    named = _NAMED.match(text)
    if named:
        number = next(n for n in ("", "2", "3") if named[f"month{n}"])
        numbers = (int(named[f"year{number}"]), 0, int(named[f"day{number}"]))
        return _timed(numbers, named[f"month{number}"], text[named.end() :])
    return None


def _timed(numbers: tuple[int, int, int], month: str, rest: str) -> Stamp | None:
    rest = rest[_BETWEEN.match(rest).end() :]  # type: ignore[union-attr] # it matches the empty text too
    if not rest:
        return Stamp(numbers, month)
    clock = _CLOCK.fullmatch(rest)
    if clock is None:
        return None
    time = (int(clock["hour"]), int(clock["minute"]), int(clock["second"] or 0))
    return Stamp(numbers, month, time, clock["before"] or clock["after"] or "")


def decide(stamps: Iterable[Stamp]) -> Style:
    """The order that makes every date of the file possible, and where both do, the one in which time runs forward.

    With neither to tell (every number at most 12 and no jump back), the day comes first, as in most of the world.
    """
    possible = dict.fromkeys(Order, 0)
    jumps = dict.fromkeys(Order, 0)
    latest: dict[Order, tuple[int, int, int]] = {}
    words: set[str] = set()
    before: tuple[int, int, int] | None = None
    for stamp in stamps:
        words |= {stamp.month, stamp.half}
        if stamp.exact is not None or stamp.month or stamp.numbers == before:
            continue
        before = stamp.numbers
        for order in Order:
            here = (year, month, day) = _ordered(stamp.numbers, order)
            if not (1 <= month <= 12 and 1 <= day <= 32 and _plausible(year)):
                possible[order] += 1
                continue
            if order in latest and here < latest[order]:
                jumps[order] += 1
            latest[order] = here
    preference = {Order.DAY_FIRST: 0, Order.MONTH_FIRST: 1, Order.YEAR_FIRST: 2}
    best = min(Order, key=lambda order: (possible[order], jumps[order], preference[order]))
    return Style(best, cldr.language_of(words))


def _ordered(numbers: tuple[int, int, int], order: Order) -> tuple[int, int, int]:
    year, month, day = (numbers[place] for place in order.value)
    return year, month, day


def _plausible(year: int) -> bool:
    return year < 100 or 1300 <= year <= 1500 or 1970 <= year <= 2200 or 2500 <= year <= 2700


@lru_cache(maxsize=1 << 14)
def moment(stamp: Stamp, style: Style) -> datetime | None:
    """When it was, in UTC; None where the numbers make no date or time."""
    if stamp.exact is not None:
        return stamp.exact
    year, month, day = _ordered(stamp.numbers, style.order)
    if stamp.month:
        year, day = stamp.numbers[0], stamp.numbers[2]
        month = cldr.month(stamp.month, style.language) or 0
    hour, minute, second = stamp.clock
    if stamp.half:
        of_day = cldr.hour(hour, stamp.half, style.language)  # None for `г.`, `Uhr` and other words beside a clock
        hour = hour if of_day is None else of_day
    try:
        if year < 100:
            year += 2500 if style.language == "th" else 2000  # Thailand counts by the Buddhist era, in short dates too
        on = _gregorian(year, month, day)
        return datetime(on.year, on.month, on.day, hour, minute, min(second, 59), tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _gregorian(year: int, month: int, day: int) -> date:
    """Telephones also count by the Buddhist era, and by the Persian and Islamic calendars (to a day or two)."""
    if year >= 2500:
        year -= 543
    elif 1420 <= year <= 1500 and 1 <= month <= 12:  # Islamic: lunar months of 29.53 days
        return date.fromordinal(227_014 + int((year - 1) * 354.367 + (month - 1) * 29.53 + day))
    elif 1300 <= year < 1420 and 1 <= month <= 12:  # Persian: six months of 31 days, five of 30
        days = (month - 1) * 31 - max(0, month - 7)
        return date.fromordinal(226_895 + int((year - 1) * 365.2422 + days + day))
    return date(year, month, day)


def parse(text: str, style: Style | None = None) -> datetime | None:
    """A whole stamp, as one file writes it."""
    stamp = read(text)
    return moment(stamp, style or Style()) if stamp is not None else None


def clock_of(text: str) -> tuple[int, int, int] | None:
    """Hour, minute, second of `10:30`, `10.30` or `10:30:05 PM`."""
    stamp = _timed((0, 0, 0), "", plain(text).strip())
    if stamp is None:
        return None
    hour, minute, second = stamp.clock
    if stamp.half:
        found = cldr.hour(hour, stamp.half) if hour <= 12 else hour
        if found is None:
            return None
        hour = found
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 61 else None
