"""Dates as people's programs write them: which of three numbers is the day is decided from a whole file.

Knows number order, twelve-hour clocks and ISO; no chat format. Times without a zone are taken as UTC, because an export
does not say where it was made and only gaps and order matter here.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias


class Order(Enum):
    """Where day, month and year stand among the three numbers of a date."""

    DAY_FIRST = (2, 1, 0)
    MONTH_FIRST = (2, 0, 1)
    YEAR_FIRST = (0, 1, 2)


Numbers: TypeAlias = tuple[int, int, int]

_HALVES = {"am": 0, "a.m.": 0, "a.m": 0, "pm": 12, "p.m.": 12, "p.m": 12}
_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?(?:[.,]\d+)?\s*([AaPp]\.?\s?[Mm]\.?)?")
_DATE = re.compile(r"(\d{1,4})[./\-\u2010-\u2015](\d{1,2})[./\-\u2010-\u2015](\d{1,4})\.?")
_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec"
MONTHS = {name: number for number, name in enumerate(_NAMES.split(), 1)}
_NAMED_DATE = re.compile(
    r"(?:(\d{1,2})[\s\-.]+([A-Za-z]{3})[a-z]*\.?[\s\-.,]+(\d{2,4})|([A-Za-z]{3})[a-z]*\.?\s+(\d{1,2}),?\s+(\d{4}))"
)


def decide(dates: Iterable[Numbers]) -> Order:
    """The order that makes every date of the file possible, and where both do, the one in which time runs forward.

    With neither to tell (every number at most 12 and no jump back), the day comes first, as in most of the world.
    """
    possible = dict.fromkeys(Order, 0)
    jumps = dict.fromkeys(Order, 0)
    latest: dict[Order, tuple[int, int, int]] = {}
    for numbers in dates:
        for order in Order:
            year, month, day = (numbers[i] for i in order.value)
            if not (1 <= month <= 12 and 1 <= day <= 31 and (year < 100 or 1970 <= year <= 2200)):
                possible[order] += 1
                continue
            here = (year, month, day)
            if order in latest and here < latest[order]:
                jumps[order] += 1
            latest[order] = here
    preference = {Order.DAY_FIRST: 0, Order.MONTH_FIRST: 1, Order.YEAR_FIRST: 2}
    return min(Order, key=lambda order: (possible[order], jumps[order], preference[order]))


def numbers(date: str) -> Numbers | None:
    """The three numbers of a date like `15/01/24`, `2024-01-15` or `1.15.2024`."""
    found = _DATE.fullmatch(date.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def combine(date: Numbers, order: Order, clock: str) -> datetime | None:
    """A moment in UTC, or None where the numbers make no date or time."""
    year, month, day = (date[i] for i in order.value)
    time = parse_clock(clock)
    if time is None:
        return None
    try:
        return datetime(year + 2000 if year < 100 else year, month, day, *time, tzinfo=UTC)
    except ValueError:
        return None


def parse_clock(clock: str) -> tuple[int, int, int] | None:
    """Hour, minute, second of `10:30`, `10.30`, `10:30:05 PM` or `1:05 p. m.`."""
    found = _CLOCK.fullmatch(clock.strip().replace("\u202f", " ").replace("\xa0", " "))
    if not found:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    if found[4]:
        half = _HALVES.get(found[4].lower().replace(" ", ""))
        if half is None or not 1 <= hour <= 12:
            return None
        hour = hour % 12 + half
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 61 else None


def parse(text: str, order: Order = Order.DAY_FIRST) -> datetime | None:
    """A whole stamp in any common shape: ISO 8601, numbers in `order`, or a month's English name."""
    text = text.strip().strip("[]").replace("\u202f", " ").replace("\xa0", " ")
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    named = _NAMED_DATE.search(text)
    if named:
        day, month, year = (named[1], named[2], named[3]) if named[1] else (named[5], named[4], named[6])
        number = MONTHS.get(month.lower())
        rest = text[named.end() :].lstrip(" ,T")
        date: Numbers | None = (int(year), number, int(day)) if number else None
        return combine(date, Order.YEAR_FIRST, rest or "0:00") if date else None
    found = _DATE.match(text)
    if not found:
        return None
    rest = text[found.end() :].strip(" ,T")
    return combine((int(found[1]), int(found[2]), int(found[3])), order, rest or "0:00")


def date_numbers(text: str) -> Numbers | None:
    """The numbers of the date a stamp starts with, for `decide`; None where it needs no deciding."""
    found = _DATE.match(text.strip().strip("["))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
