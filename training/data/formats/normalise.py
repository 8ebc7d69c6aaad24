"""One spelling for what looks alike: digits of every script, blanks, dashes, full-width letters, invisible marks.

Knows Unicode, no format. Whatever looks for a pattern in text that people or their programs wrote looks at `plain`
text first; words that are kept are only freed of marks that nobody typed (`without_marks`).
"""

import unicodedata

LEFT_TO_RIGHT, RIGHT_TO_LEFT = "\u200e", "\u200f"
MARKS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
"""Directional marks (UAX #9) and the byte order mark: programs set them, and they are never seen."""
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\u00ad\u180e"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_DROP_MARKS = dict.fromkeys(map(ord, MARKS))


class _Spelling(dict[int, str | None]):
    """What each character is written as, found when it is first met."""

    def __missing__(self, code: int) -> str | None:
        sign = chr(code)
        category = unicodedata.category(sign)
        if code < 128:
            self[code] = sign
        elif category == "Nd":
            self[code] = str(unicodedata.digit(sign))
        elif category == "Zs":
            self[code] = " "
        else:
            self[code] = chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else sign  # full-width ASCII
        return self[code]


_SPELLING = _Spelling(
    dict.fromkeys(map(ord, MARKS + _ZERO_WIDTH))
    | dict.fromkeys(map(ord, _DASHES), "-")
    | {ord("\u060c"): ","}  # the Arabic comma stands in dates
)


def plain(text: str) -> str:
    """ASCII digits, blanks, dashes and punctuation for all that look like them; invisible signs are gone."""
    return text if text.isascii() else text.translate(_SPELLING)


def without_marks(text: str) -> str:
    """The words as typed, without directional marks. Joiners stay: emoji and Persian are spelt with them."""
    return text if text.isascii() else text.translate(_DROP_MARKS)
