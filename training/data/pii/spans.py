"""Private data in a text: found in a normalised copy, replaced in the text itself.

People write the same address with full-width letters, a non-breaking hyphen or an invisible space inside. So every mask
reads a normalised copy, in which each such character is its plain form, and the copy knows where in the text each of
its characters came from. What is found is blanked in the copy, so that a later mask does not see it.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

TAKEN = "\0"
"""Replaces in the copy what is masked already; no pattern matches it."""

_INVISIBLE = frozenset(
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)

Judge = Callable[[re.Match[str]], str | None]
"""The placeholder for what a pattern found, or None where it is harmless."""


class Copy:
    """A text to be masked and its normalised copy."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[tuple[int, int, str]] = []
        if text.isascii() or all(_plain(character) == character for character in set(text)):
            self.plain = text
            self._origin: list[int] | None = None
            return
        plain: list[str] = []
        origin: list[int] = []
        for index, character in enumerate(text):
            for each in _plain(character):
                plain.append(each)
                origin.append(index)
        self.plain = "".join(plain)
        self._origin = [*origin, len(text)]

    def mask(
        self,
        pattern: re.Pattern[str],
        placeholder: str | Judge,
        *,
        group: int | str = 0,
        trim: str = "",
        within: re.Pattern[str] | None = None,
        start: int = 0,
    ) -> None:
        """Mask `group` of every match of `pattern`, less the characters of `trim` at its end.

        A function as `placeholder` may decline a match by None. With `within` only parts of the copy that match it are
        searched, which is quicker for a long pattern; so is searching from `start` on only.
        """
        plain, spans = self.plain, []
        parts = [(max(0, start), len(plain))] if within is None else [part.span() for part in within.finditer(plain)]
        for part in parts:
            for found in pattern.finditer(plain, *part):
                start, end = found.span(group)
                if trim:
                    end = start + len(plain[start:end].rstrip(trim))
                label = placeholder if isinstance(placeholder, str) else placeholder(found)
                if label is not None and start < end and TAKEN not in plain[start:end]:
                    spans.append((start, end, label))
        for start, end, label in spans:
            self.take(start, end, label)

    def take(self, start: int, end: int, label: str) -> None:
        """Mask the characters from `start` to `end` of the copy."""
        self.plain = self.plain[:start] + TAKEN * (end - start) + self.plain[end:]
        self._found.append((start, end, label))

    def text(self) -> str:
        """The text with each masked part replaced by its placeholder."""
        if not self._found:
            return self._text
        out, at = [], 0
        for start, end, label in sorted(self._found):
            first, last = (start, end) if self._origin is None else (self._origin[start], self._origin[end - 1] + 1)
            if first < at:  # two matches within one character of the text
                continue
            out += [self._text[at:first], label]
            at = last
        return "".join([*out, self._text[at:]])


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """What a character becomes in the copy; empty for an invisible one."""
    if character in _INVISIBLE:
        return ""
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category == "Pd" or character in "\u2212\u02d7\u2043":  # minus sign, modifier minus, hyphen bullet
        return "-"
    if category == "Nd":
        return str(unicodedata.digit(character))
    if "\uff00" <= character <= "\uffef" or character in "\u2024\ufe52":  # full-width forms, one-dot leader, small stop
        return unicodedata.normalize("NFKC", character)
    return character
