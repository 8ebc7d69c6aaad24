"""Telephone numbers, by Google's libphonenumber (`phonenumbers`): shapes by country instead of patterns by hand."""

import re
from collections.abc import Sequence
from functools import lru_cache

import phonenumbers

COUNTRIES = ("US", "GB", "DE", "FR", "IN", "AU", "ES", "IT", "NL", "BR", "PL", "SE", "RU", "TR", "MX")
"""Whose national forms are known unless an import names others; numbers with a plus need no country."""

CANDIDATE = re.compile(r"(?<![\w.,/:=-])(?:\+|00)?\(?\d[\d().\-/ ]{5,22}\d(?![\w:=]|[.,/-]\d)")
NAMED = re.compile(
    r"\b(?:phone|tel|telefon|telephone|fon|mobile|cell|handy|whatsapp|signal|fax|sms|my number|nummer|numero"
    r"|número|phone number)"
    r"(?: (?:is|number|nr)\.?)*[ :=.#]{1,3}(?P<number>\d(?:[ \-/.]?\d){5,14})(?![\w.,]\d)",
    re.IGNORECASE,
)
"""“phone: 5551234”: a number that is called one, however short."""
_DATE = re.compile(
    r"(?:\d{4}[-./ ](?:0?\d|1[0-2])[-./ ][0-3]?\d|[0-3]?\d[-./ ][0-3]?\d[-./ ](?:19"
    r"|20)\d{2})(?:[ T]\d{1,2}(?::\d{2})*)?"
    r"|(?:19|20)\d{2}(?: ?[-/ ] ?(?:19|20)?\d{2,4})?"
)
_GROUPED = re.compile(
    r"\(\d{2,5}\)[ .\-/]?\d{3,4}(?:[ .\-]?\d{2,4}){1,3}"  # (030) 1234 5678
    r"|(?:1[ .\-])?\d{3}[ .\-]\d{3}[ .\-]\d{4}"  # 555-123-4567
    r"|\d{3}-\d{4}"  # 555-1234
    r"|0\d{1,5}[ /\-]\d{3,}(?:[ \-]?\d{2,}){0,4}"  # 030/1234567
)
"""Grouped as only telephone numbers are. Kept beside the library, which knows which numbers are in use and so lets
through those that are reserved, new, or short of their area code."""
_DIGITS = range(7, 16)
"""ITU-T E.164: at most 15 digits; shorter than seven it is an extension or a year."""


def is_phone(text: str, countries: Sequence[str] = COUNTRIES) -> bool:
    """Whether a candidate is a telephone number, international or in a national form of one of the countries."""
    return _is_phone(text.strip(), tuple(countries))


@lru_cache(maxsize=20_000)
def _is_phone(text: str, countries: tuple[str, ...]) -> bool:
    digits = sum(character.isdigit() for character in text)
    if digits not in _DIGITS or _DATE.fullmatch(text):
        return False
    if text.startswith("+"):
        return True
    if "." in text and (len(set(text) & set("-/()")) or text.count(".") == 1):
        return False  # a version, a decimal fraction
    if text.startswith("00"):
        return digits >= 10
    if _GROUPED.fullmatch(text):
        return True
    bare = text.isdigit()
    if bare and text[0] != "0" and digits != 10:
        return False  # nine digits are more often an id, a price or a build number
    return any(_valid(text, country, bare=bare) for country in countries)


def _valid(text: str, country: str, *, bare: bool) -> bool:
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(number):
        return False
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    written, usual = _groups(text), _groups(national)
    if "".join(written) != "".join(usual):
        return False  # without the 0 or 8 that the country writes in front
    # Grouped otherwise than the country groups its numbers: a sum, a score, a row of a table.
    return bare or len(written) <= len(usual) + 1


def _groups(text: str) -> list[str]:
    return re.findall(r"\d+", text)
