"""Words that the bot must not say, however they are disguised: the operator's list, and lists of slurs by language.

The `badwords` library sees through look-alike letters, digits for letters and repeated letters; words spelt with
punctuation or spaces between the letters are joined here.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from badwords import Options, ProfanityFilter

from core.errors import SettingsError, reason

LANGUAGE = re.compile(r"@([a-z]{2}(?:_[a-z0-9]+)?|all)")
"""A line of the file that stands for the list that `badwords` has for a language, or for all of its lists."""

_STRICT = Options(split_on_punctuation=True, collapse_repeats=True, leetspeak=True)
_SPELT_OUT = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,3}[^\W_](?![^\W_])){2,}")
"""Single letters with punctuation or spaces between them: “f.o.o”, “f o o”."""
_BETWEEN = re.compile(r"[\W_]+")
_HIDDEN = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]|(?<=[^\W_])[*_~`|]+(?=[^\W_])")
"""Invisible characters, and markup inside a word."""


class BlockedWords:
    """Raises SettingsError for a language that has no list."""

    def __init__(self, words: Iterable[str], *, languages: Iterable[str] = ()) -> None:
        self._filter = ProfanityFilter()
        self._filter.init(languages=[])
        known = self._filter.available_languages()
        for language in languages:
            if language != "all" and language not in known:
                raise SettingsError(
                    f"There is no list of slurs for @{language}; the available ones are {', '.join(sorted(known))}."
                )
            self._filter.load_languages(known if language == "all" else [language])
        self._filter.add_words(list(words))

    def find(self, text: str) -> str | None:
        """The first blocked word in a text, as the list spells it; None where there is none."""
        shown = _HIDDEN.sub("", text)
        together = _SPELT_OUT.sub(lambda found: _BETWEEN.sub("", found[0]), shown)
        for each in dict.fromkeys((shown, together)):
            for match in self._filter.find(each, _STRICT):
                return str(match.word)
        return None


def read(path: Path) -> BlockedWords:
    """The list in a file: a word or phrase a line, `#` before a comment, `@en` for the slurs of a language, `@all` for
    those of every one. Raises SettingsError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error)
        raise SettingsError(f"The list of blocked words {path} cannot be read ({why}); give a UTF-8 file.") from None
    entries = [line for line in lines if line and not line.startswith("#")]
    languages = [found[1] for line in entries if (found := LANGUAGE.fullmatch(line))]
    return BlockedWords((line for line in entries if not LANGUAGE.fullmatch(line)), languages=languages)
