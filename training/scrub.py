"""Masks what identifies people or opens doors: addresses, numbers, keys, links. Pure; text in, text out.

Knows patterns, no platform and no language. It would rather mask a version number than let an address through.
Placeholders are plain words in brackets, so that a model learns where such a thing stands and never which.
"""

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Address

EMAIL, PHONE, IP, CARD, SECRET, LINK, ID = "[email]", "[phone]", "[ip]", "[card]", "[secret]", "[link]", "[id]"
PLACEHOLDERS = (EMAIL, PHONE, IP, CARD, SECRET, LINK, ID)

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s<>\"]+|\bwww\.[^\s<>\"]+|\bmailto:[^\s<>\"]+")
_BARE_URL = re.compile(
    r"(?<![\w@./-])(?:[A-Za-z0-9-]{1,63}\.){1,4}"
    r"(?:com|org|net|io|dev|gg|me|co|ru|de|uk|fr|nl|eu|ly|gl|be|app|xyz|info|edu|gov|tv|ai|us|ca|ch|at|in|it|es|se|pl|page|site|link)"
    r"(?::\d{1,5})?/[^\s<>\"]*"
)
_TRAILING = ".,;:!?)]}'’”»…*_|"
_EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}")
_SPELT_EMAIL = re.compile(
    r"\b[\w.+-]{2,64} ?[\[({<] ?at ?[\])}>] ?[\w-]{2,63}(?: ?[\[({<] ?dot ?[\])}>] ?|\.)[a-z]{2,10}\b|"
    r"\b[\w.+-]{2,64} at [\w-]{2,63} dot (?:com|org|net|edu|gov|io|dev|de|uk|fr|eu|ru|ca|au|us|in|ch|at|nl)\b",
    re.IGNORECASE,
)
_KNOWN_TOKEN = re.compile(
    r"\b(?:xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|"
    r"[sprw]k_(?:live|test)_\w{10,}|whsec_\w{16,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{16,}|hf_\w{16,}|"
    r"npm_\w{20,}|pypi-[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|mfa\.[\w-]{20,}|"
    r"[A-Za-z0-9_-]{23,28}\.[\w-]{6,7}\.[\w-]{27,45}|\d{8,10}:[\w-]{35})"
)
_NAMED_SECRET = re.compile(
    r"\b((?:password|passwd|passphrase|pwd|passwort|secret|token|api[ _-]?key|auth[ _-]?key|access[ _-]?key|bearer)"
    r"(?: is|:| ?=|:=)\s*)(?!\[)(\S{4,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic) (?=[\w+/=.~-]*\d)[\w+/=.~-]{12,}")
_LONG_RUN = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_=-]{24,}(?![\w+/=-])")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_HEX = re.compile(r"(?<!\w)(?:0x)?(?=[a-fA-F]*\d)[0-9a-fA-F]{16,}(?!\w)")
_MAC = re.compile(r"(?<![\w:-])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![\w:-])")
_IPV4 = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?::\d{1,5}|/\d{1,2})?(?!\d|\.\d)"
)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}(?:[ .\-/]?\(?\d{1,5}\)?){2,7}"  # international, with its plus
    r"|\(\d{2,5}\)[ .\-/]?\d{3,4}(?:[ .\-]?\d{2,4}){1,3}"  # (030) 1234 5678
    r"|(?:1[ .\-])?\d{3}[ .\-]\d{3}[ .\-]\d{4}"  # 555-123-4567
    r"|0\d{1,5}[ /\-]\d{3,}(?:[ \-]?\d{2,}){0,4}"  # 030/1234567, 07700 900123
    r"|\d{3}-\d{4}"  # 555-1234
    r"|00\d{9,14})(?![\w-]|\.\d)"
)
_LONG_NUMBER = re.compile(r"(?<![\w.])\d{9,}(?!\w)")

# What a mask needs to stand in a text at all: most lines have none of it, and these are quick to look for.
_DIGITS = re.compile(r"\d[\d\s().:/\-]{5,}")
_AT = re.compile(r"[\[({<] ?at ?[\])}>]", re.IGNORECASE)
_RUN = 16
_LETTERS = re.compile(r"[^\W\d_]")


def scrub(text: str) -> str:
    """The text with everything that looks private masked. Applying it again changes nothing."""
    if "-----BEGIN" in text:
        text = _PRIVATE_KEY.sub(SECRET, text)
    if "/" in text or "www." in text or "mailto:" in text:
        text = _URL.sub(_link, text)
        text = _BARE_URL.sub(_link, text)
    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    lower = text.lower()
    if (" at " in lower and " dot " in lower) or _AT.search(text):
        text = _SPELT_EMAIL.sub(EMAIL, text)
    if _may_name_a_secret(lower):
        text = _NAMED_SECRET.sub(rf"\1{SECRET}", text)
        text = _BEARER.sub(rf"\1 {SECRET}", text)
    if max(map(len, text.split()), default=0) >= _RUN:
        text = _KNOWN_TOKEN.sub(SECRET, text)
        text = _UUID.sub(ID, text)
        text = _IBAN.sub(_iban, text)
        text = _HEX.sub(ID, text)
        text = _LONG_RUN.sub(_run, text)
    if text.count(":") >= 2:
        text = _MAC.sub(ID, text)
        text = _IPV6.sub(_ipv6, text)
    if _DIGITS.search(text):
        text = _IPV4.sub(IP, text)
        text = _MAC.sub(ID, text)
        text = _CARD.sub(_card, text)
        text = _IBAN.sub(_iban, text)
        text = _SSN.sub(ID, text)
        text = _PHONE.sub(_phone, text)
        text = _LONG_NUMBER.sub(ID, text)
    return text


def _may_name_a_secret(lower: str) -> bool:
    """Spelt out, because a loop over the words takes five times as long and this sees every message."""
    return (
        "pass" in lower
        or "key" in lower
        or "token" in lower
        or "secret" in lower
        or "pwd" in lower
        or "bearer" in lower
        or "basic" in lower
    )


def has_words(text: str) -> bool:
    """Whether anything was said besides placeholders, signs and numbers."""
    if "[" in text:
        for placeholder in PLACEHOLDERS:
            text = text.replace(placeholder, "")
    return _LETTERS.search(text) is not None


def blocker(words: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of the given words or phrases as whole words, in any case; None for no words."""
    known = sorted({word.strip().casefold() for word in words if word.strip()}, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)", re.IGNORECASE) if known else None


def _link(found: re.Match[str]) -> str:
    """A link without the punctuation of the sentence it ends."""
    address = found[0]
    return LINK + address[len(address.rstrip(_TRAILING)) :]


def _run(found: re.Match[str]) -> str:
    """Long runs of mixed signs are keys; long words, paths and `=====` are not."""
    run = found[0]
    mixed = sum((any(c.isdigit() for c in run), any(c.isupper() for c in run), any(c.islower() for c in run)))
    digits = sum(c.isdigit() for c in run)
    return SECRET if (mixed == 3 or (mixed == 2 and digits >= 4)) and digits >= 2 and run.count("/") <= 2 else run


def _ipv6(found: re.Match[str]) -> str:
    try:
        IPv6Address(found[0])
    except AddressValueError:
        return found[0]
    return IP if any(c.isdigit() for c in found[0]) else found[0]  # `a::b` is C++


def _card(found: re.Match[str]) -> str:
    """ISO/IEC 7812: 13 to 19 digits whose Luhn sum divides by ten."""
    digits = [int(c) for c in found[0] if c.isdigit()]
    total = sum(digit if n % 2 == 0 else sum(divmod(2 * digit, 10)) for n, digit in enumerate(reversed(digits)))
    if total % 10 == 0 and any(digits):
        return CARD
    return found[0]


def _iban(found: re.Match[str]) -> str:
    """ISO 13616: the rearranged number leaves 1 when divided by 97."""
    compact = found[0].replace(" ", "")
    value = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return CARD if len(compact) >= 15 and int(value) % 97 == 1 else found[0]


def _phone(found: re.Match[str]) -> str:
    digits = sum(c.isdigit() for c in found[0])
    return PHONE if 7 <= digits <= 15 else found[0]
