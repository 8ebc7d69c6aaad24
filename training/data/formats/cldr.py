"""Month names and parts of the day in the languages of the world, as Unicode's CLDR lists them.

Knows words, no timestamps. English is built in; the other languages are loaded (once, a second) when a word is not
English. A word may mean different months in two languages (`listopad`), so a file's words are looked at together.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from training.data.formats.normalise import plain

ENGLISH = "en"
_MONTHS = "january february march april may june july august september october november december"
_HALVES = {"am": ((0, 12),), "pm": ((12, 24),), "a": ((0, 12),), "p": ((12, 24),)}
_HALVES |= {"inthemorning": ((0, 12),), "intheafternoon": ((12, 24),), "intheevening": ((12, 24),)}
_EARLIER = {
    "am": (
        "पूर्वाह्न পূর্বাহ্ণ म.पू. મ.પૂ. முற்பகல் ಪೂರ್ವಾಹ್ನ ਪੂ.ਦੁ. قبلدوپہر לפנה״צ de. "
        "PG paradite dop. пр.об. priešpiet priekšp. дп ÖÖ vorm."
    ),
    "pm": (
        "अपराह्न অপরাহ্ণ म.उ. મ.ઉ. பிற்பகல் ಅಪರಾಹ್ನ ਬਾ.ਦੁ. بعددوپہر אחה״צ du. "
        "PTG pasdite odp. сл.об. popiet pēcp. пп ÖS nachm."
    ),
}
"""AM and PM as earlier versions of CLDR named them; older phones still write those."""
_VARIANTS = {"zh_Hant", "es_MX", "pt_PT", "sr_Latn", "fr_CA", "en_AU"}
"""Regional variants that write months or halves of the day differently."""
_COMMON = "en zh hi es ar fr bn pt ru ur id de ja tr ko vi it fa pl uk nl th ro el cs sv hu he"
"""Preferred where several languages know all the words."""
SHORTEST = 3
"""Letters of a month's name that may stand for it."""


@dataclass(frozen=True, slots=True)
class Words:
    """One language's words, folded by `fold`."""

    months: dict[str, int]
    periods: dict[str, tuple[tuple[int, int], ...]]
    """Part of the day → the hours from and before which it may be, over midnight where the first is larger."""


def fold(word: str) -> str:
    """Case, stops and blanks aside: `p. m.`, `P.M.` and `pm` are one word."""
    return plain(word).casefold().replace(".", "").replace(" ", "").replace("'", "")


@lru_cache(maxsize=1)
def _english() -> Words:
    months = {name: number for number, name in enumerate(_MONTHS.split(), 1)}
    months |= {name[:SHORTEST]: number for name, number in months.items()} | {"sept": 9}
    return Words(months, dict(_HALVES))


@lru_cache(maxsize=1)
def _languages() -> dict[str, Words]:
    from babel import Locale, localedata  # loads for a second, and few exports need it

    found = {ENGLISH: _english()}
    for code in localedata.locale_identifiers():
        if code == ENGLISH or ("_" in code and code not in _VARIANTS):
            continue
        locale = Locale.parse(code)
        months = {
            fold(name): number
            for context in ("format", "stand-alone")
            for width in ("wide", "abbreviated")
            for number, name in locale.months[context][width].items()
        }
        rules = locale.day_period_rules.get(None, {})
        periods: dict[str, tuple[tuple[int, int], ...]] = {}
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated", "narrow"):
                for period, word in locale.day_periods.get(context, {}).get(width, {}).items():
                    periods.setdefault(fold(word), ())
                    periods[fold(word)] += _hours(period, rules.get(period, ()))
        found[code] = Words(months, periods)
    for half, words in _EARLIER.items():
        for each in found.values():
            for word in words.split():
                each.periods.setdefault(fold(word), _HALVES[half])
    return found


def _hours(period: str, rules: Iterable[dict[str, int]]) -> tuple[tuple[int, int], ...]:
    if period in {"am", "pm"}:
        return _HALVES[period]
    hour = 3600
    return tuple(
        (rule["from"] // hour, rule["before"] // hour)
        if "from" in rule
        else (rule["at"] // hour, rule["at"] // hour + 1)
        for rule in rules
    )


def language_of(words: Iterable[str]) -> str:
    """The language that knows most of a file's words; English where it knows them all."""
    wanted = {fold(word) for word in words if word}
    if all(_known(_english(), word) for word in wanted):
        return ENGLISH
    scores = {code: sum(_known(each, word) for word in wanted) for code, each in _languages().items()}
    best = max(scores.values())
    order = {code: place for place, code in enumerate(_COMMON.split())}
    return min(
        (code for code, score in scores.items() if score == best), key=lambda code: (order.get(code, len(order)), code)
    )


def _known(words: Words, word: str) -> int:
    """How surely the language knows the word: 3 as it stands, 2 as the beginning of a month's name, 1 behind one's."""
    if word in words.periods or word in words.months:
        return 3
    return (2 if any(name.startswith(word) for name in words.months) else 1) if _month(words, word) else 0


def _month(words: Words, word: str) -> int | None:
    found = words.months.get(word)
    if found is None and len(word) >= SHORTEST:
        begun = {number for name, number in words.months.items() if name.startswith(word) or word.startswith(name)}
        found = begun.pop() if len(begun) == 1 else None
    return found


def _words(language: str) -> Words:
    return _english() if language == ENGLISH else _languages()[language]


@lru_cache(maxsize=4096)
def month(word: str, language: str = ENGLISH) -> int | None:
    """The month that a full or abbreviated name stands for, 1 to 12."""
    return _month(_words(language), fold(word))


def hour(clock: int, word: str, language: str = ENGLISH) -> int | None:
    """The hour, 0 to 23, of `clock` o'clock in the part of the day that `word` names; None where it names none."""
    periods = _words(language).periods.get(fold(word))
    if periods is None:
        periods = _english().periods.get(fold(word))
    if periods is None or not 0 <= clock <= 24:
        return None
    if clock > 12 or not periods:
        return clock % 24
    for candidate in (clock % 12, clock % 12 + 12):
        if any(_within(candidate, *period) for period in periods):
            return candidate
    # Programs also say “in the afternoon” for the whole second half of the day.
    return clock % 12 + (12 if periods[0][0] >= 12 else 0)


def _within(hour_: int, start: int, end: int) -> bool:
    return start <= hour_ < end if start < end else hour_ >= start or hour_ < end
