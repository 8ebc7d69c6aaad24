"""Masks personal data and secrets: addresses, numbers, keys, links. Pure; text in, text out.

In doubt it masks: better a version number too many than an address too few. Placeholders are plain words in brackets,
so that a model learns where such data occurs, but never the data.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv6Address

from training.data.pii import phones, places, secrets
from training.data.pii.spans import TAKEN, Copy

EMAIL, PHONE, IP, CARD, SECRET, LINK, ID = "[email]", "[phone]", "[ip]", "[card]", "[secret]", "[link]", "[id]"
PLACE, NAME = "[place]", "[name]"
PLACEHOLDERS = (EMAIL, PHONE, IP, CARD, SECRET, LINK, ID, PLACE, NAME)

_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))
_URL = re.compile(
    r"\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s<>\"\0]+|\bwww\.[^\s<>\"\0]+|\b(?:mailto|tel|magnet|skype):[^\s<>\"\0]+"
)
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_TLD = (
    r"com|org|net|edu|gov|mil|int|info|biz|app|dev|gg|co|uk|de|fr|nl|eu|ru|ua|ca|au|nz|ch|es|se|dk|fi|br|mx|ar|jp"
    r"|kr|cn|tw|hk|sg|ie|pt|cz|gr|ro|hu|tr|il|za|io|ai|tv|fm|ly|gl|xyz|site|online|store|blog|cloud|page|link"
    r"|club|live|news|wiki|space|onion"
    r"|internal|local|lan|corp|home\.arpa|example|test"
)
_AMBIGUOUS = r"pl|py|rs|sh|md|cc|so|zip|mov|id|is|ps|to|me|us|in|at|it|no|be|am|my"
"""Ends of domains that are file extensions or words too ("main.py", "ok.no"): a domain only with a path behind it."""
_DOMAIN = re.compile(
    rf"(?<![\w@./\\-])(?:{_LABEL}\.){{1,5}}(?:(?:{_TLD})(?![\w-]|\.\w)(?::\d{{1,5}})?(?:[/?#][^\s<>\"\0]*)?"
    rf"|(?:{_AMBIGUOUS})(?::\d{{1,5}})?/[^\s<>\"\0]*)",
    re.IGNORECASE,
)
_TECH = re.compile(r"(?:asp|vb|ado|ml|node|socket|discord|next|vue|three|d3|express)\.(?:net|io|js)", re.IGNORECASE)
"""Names of technologies that look like domains."""
_TRAILING = ".,;:!?)]}'’”»…*_|"
_EMAIL = re.compile(
    r"[\w.+%'&=~^-]{1,64} ?@ ?(?:[\w-]{1,63}\.){1,12}[^\W\d_]{2,24}(?![\w-])"
    r"|[\w.+%-]{1,64}@(?:gmail|yahoo|hotmail|outlook|icloud|protonmail|gmx)\b(?!\.)"
    r"|[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){0,12}[\w-]{1,63}\.[\w-]{2,63}|[\w.+%-]{1,64}@\[[\d.:a-fA-F]+\]"
)
_AT = r"(?: ?[\[({<|*_-]+ ?(?:at|a|ät|arroba|chez|@|æt) ?[\])}>|*_-]+ ?| (?:at|ät|arroba) | ?\(?@\)? ?)"
_DOT = r"(?: ?[\[({<|*_-]+ ?(?:dot|punkt|punto|point|ponto|\.) ?[\])}>|*_-]+ ?| (?:dot|punkt|punto|point|ponto) |\.)"
_SPELT_EMAIL = re.compile(
    rf"\b[\w+-](?:[\w.+-]{{0,63}}(?:{_DOT}[\w+-]{{1,63}}){{0,3}})?(?:{_AT})[\w-]{{2,63}}(?:{_DOT}[\w-]{{2,63}}){{0,3}}{_DOT}[a-z]{{2,10}}\b",
    re.IGNORECASE,
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_HEX = re.compile(r"(?<!\w)(?:0x)?(?=\d*[a-fA-F])(?=[a-fA-F]*\d)[0-9a-fA-F]{16,}(?!\w)")
_MAC = re.compile(
    r"(?<![\w:-])(?:[0-9a-fA-F]{2}([:-]))(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}(?![\w:-])"
    r"|(?<![\w.])[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}(?![\w.])"
)
_IPV4 = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|[01]?\d?\d)(?:\.|\[\.\]|\(\.\))){3}(?:25[0-5]|2[0-4]\d|[01]?\d?\d)(?::\d{1,5}"
    r"|/\d{1,2})?(?!\d|\.\d)"
)
_VERSION = re.compile(
    r"(?:\bv|\bver\.?|\bversion|\brelease|\brel\.?|\bbuild|\bfirmware|\bdriver|\bkernel|\bchrome/|\bfirefox/"
    r"|\bsafari/|\bedg/) ?$",
    re.IGNORECASE,
)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{0,4})(?:%\w+|/\d{1,3})?(?![\w:])"
)
_CARD = re.compile(
    r"(?<![\d.-])[2-6](?:\d{12,18}|\d{3}(?:([ .-])\d{4}){3}(?:\1\d{3})?|\d{3}[ .-]\d{6}[ .-]\d{4,5})(?![\d-])"
)
_IBAN = re.compile(r"\b[A-Za-z]{2} ?\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b")
_NATIONAL_ID = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])|(?<![\d.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)")
"""Of the United States, of Brazil."""
_BIRTHDAY = re.compile(
    r"\b(?:born|dob|d\.o\.b\.?|date of birth|geb(?:oren|\.)?|geburtstag|birthday)\b(?: is| on| am|:| =)*\s*"
    r"(?P<date>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?!\d)"
    r"|\d{1,2}(?:st|nd|rd|th|\.)? (?:de |of )?[^\W\d_]{3,12}\.?,? (?:de )?\d{4}(?!\d)"
    r"|[^\W\d_]{3,12}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4}(?!\d))",
    re.IGNORECASE,
)
_TAG = re.compile(r"(?<![\w/#&])[\w.]{2,32}#\d{4}(?!\w)")
"""A Discord name of before 2023, ann#1234."""
_ID_WORDS = (
    "passport", "license", "licence", "ssn", "social security", "tax", "steuer", "ausweis", "personal", "national",
    "insurance", "account", "acct", "konto", "customer", "kunden", "meeting", "case", "order", "booking",
    "reservation", "tracking", "imei", "serial", "vat", "vin", "swift", "bic", "iban", "sort code", "routing", "dni",
    "nie", "cpf", "cnpj", "pesel", "nif", "nhs", "aadhaar", "pan", "zip", "postal", "post", "plz", "student",
    "employee", "member", "patient", "policy", "plate",
)  # fmt: skip
_NAMED_ID = re.compile(
    rf"\b(?:{'|'.join(_ID_WORDS)})(?:nummer|[- ]?(?:nr|no|num|number|id|code|card|plate))?\.?(?: is)?[ :=#.]{{1,3}}"
    r"(?P<id>(?=[\w-]*\d(?:[\w-]*\d){3})[A-Z0-9][A-Z0-9-]{4,30}|\d{2,6}(?:[ -]\d{2,6}){1,5})(?!\w)",
    re.IGNORECASE,
)
_LONG_NUMBER = re.compile(r"(?<![\w.])\d{15,}(?!\w)")
_WALLET = re.compile(r"\b(?:bc1[a-z0-9]{25,60}|[13][a-km-zA-HJ-NP-Z1-9]{25,34}|0x[0-9a-fA-F]{40})\b")

# Quick checks for what a mask needs at all: most lines have none of it.
_DIGIT = re.compile(r"\d")
_FRACTION = re.compile(r"\d\.\d{3}|\d \d+\.\d")
_HEX_PARTS = re.compile(r"[\da-fA-F]{2}[:-][\da-fA-F]{2}[:-]|[\da-fA-F]{4}\.[\da-fA-F]{4}\.")
_NUMBER = re.compile(r"\d(?:[\s().:/,\-\[\]]{0,3}\d){4}|[A-Z]\d[A-Z\d]? \d|[A-Z] \d{4}|\d\.\d+\.\d+\.\d|\d\[")
_LONG = 16
_LONG_TOKEN = re.compile(rf"[^\s\0]{{{_LONG},}}")
_SCHEMES = re.compile(r"mailto:|tel:|magnet:|skype:")
_BEFORE_AT, _BEFORE_DOT = 65, 64
"""How many characters before the first such sign a match may begin."""
_LETTERS = re.compile(r"[^\W\d_]")
_AT_HOST = re.compile(r"@ ?(?:[\w-]{1,63}\.|\[|gmail|yahoo|hotmail|outlook|icloud|proton|gmx)")
_DOMAIN_END = re.compile(rf"\.(?:(?:{_TLD})(?![\w-])|(?:{_AMBIGUOUS})[:/])", re.IGNORECASE)


def scrub(text: str, *, countries: Sequence[str] = phones.COUNTRIES) -> str:
    """The text with everything that looks private masked. Applying it again changes nothing.

    `countries`: ISO 3166 codes of those whose national telephone numbers are looked for.
    """
    copy = Copy(text)
    if "[" in text:
        _keep_placeholders(copy)
    plain = copy.plain
    lower = plain.lower()
    if _may_name_a_secret(lower):
        if "-----BEGIN" in plain:
            copy.mask(secrets.PRIVATE_KEY, SECRET)
        if "=" in plain or ":" in plain or ">" in plain or "→" in plain:
            copy.mask(secrets.NAMED_ASSIGNED, _assigned, group="secret")
            copy.mask(secrets.KEY_ASSIGNED, _if_secret, group="secret")
        copy.mask(secrets.SAID, _if_secret, group="secret")
        copy.mask(secrets.BESIDE, SECRET, group="secret")
        copy.mask(secrets.BESIDE, SECRET, group="key")
        copy.mask(secrets.PAIR, _assigned, group="secret")
        copy.mask(secrets.PHRASE, SECRET, group="secret")
        copy.mask(secrets.BEARER, SECRET, group="secret")
    if " -p" in plain or " -u" in plain or " -a" in plain:
        copy.mask(secrets.OPTION, SECRET, group="secret")
    if ("://" in plain or "www." in plain) or (":" in plain and _SCHEMES.search(plain)):
        copy.mask(_URL, LINK, trim=_TRAILING)
    if "@" in plain and _AT_HOST.search(plain):
        copy.mask(_EMAIL, EMAIL, start=plain.index("@") - _BEFORE_AT)
    if _may_spell_an_address(lower):
        copy.mask(_SPELT_EMAIL, _spelt)
    if "." in plain and _DOMAIN_END.search(copy.plain):
        copy.mask(_DOMAIN, _domain, trim=_TRAILING, start=plain.index(".") - _BEFORE_DOT)
    digits = _DIGIT.search(copy.plain) is not None
    if max(map(len, copy.plain.replace(TAKEN, " ").split()), default=0) >= _LONG:
        _scrub_tokens(copy, digits=digits)
    if "/home/" in plain or "/Users/" in plain or ":\\" in plain or "~" in plain:
        copy.mask(places.HOME_FOLDER, NAME, group="user")
    if digits:
        _scrub_numbers(copy, lower, countries)
    return copy.text()


def _scrub_tokens(copy: Copy, *, digits: bool) -> None:
    """Secrets and ids in long runs of characters; most of them contain digits."""
    copy.mask(secrets.known_formats(), SECRET, within=_LONG_TOKEN)
    dashes = copy.plain.count("-") >= 3
    if dashes:
        copy.mask(_UUID, ID)
    if digits:
        copy.mask(_WALLET, ID, within=_LONG_TOKEN)
        copy.mask(_CARD, _card)
        copy.mask(_IBAN, _iban)
        copy.mask(_HEX, ID, within=_LONG_TOKEN)
    if dashes:
        copy.mask(secrets.GROUPED, SECRET, within=_LONG_TOKEN)
    if digits:
        copy.mask(secrets.LONG_RUN, _run, within=_LONG_TOKEN)


def _scrub_numbers(copy: Copy, lower: str, countries: Sequence[str]) -> None:
    """Everything that contains a digit."""
    plain = copy.plain
    if "°" in plain or "geo:" in plain or _FRACTION.search(plain):
        copy.mask(places.COORDINATES, PLACE)
    if _HEX_PARTS.search(plain):
        copy.mask(_MAC, ID)
    if plain.count(":") >= 2:
        copy.mask(_IPV6, _ipv6)
    if _may_name_a_code(lower):
        copy.mask(secrets.CODE, SECRET, group="secret")
        copy.mask(secrets.CODE_AHEAD, SECRET, group="secret")
        copy.mask(secrets.CODE_AHEAD, SECRET, group="code")
    if "born" in lower or "birth" in lower or "geb" in lower or "dob" in lower or "d.o.b" in lower:
        copy.mask(_BIRTHDAY, ID, group="date")
    if places.STREET_HINT.search(plain):
        copy.mask(places.STREET, PLACE)
    if _NUMBER.search(copy.plain):
        copy.mask(places.POSTCODE, PLACE)
        copy.mask(_IPV4, _ipv4)
        copy.mask(_CARD, _card)
        copy.mask(_IBAN, _iban)
        copy.mask(_NATIONAL_ID, ID)
        copy.mask(phones.NAMED, PHONE, group="number")
        if not plain.isascii() or any(word in lower for word in _ID_WORDS):
            copy.mask(_NAMED_ID, ID, group="id")
        copy.mask(phones.CANDIDATE, lambda found: PHONE if phones.is_phone(found[0], countries) else None)
        copy.mask(_LONG_NUMBER, ID)
    if "#" in plain:
        copy.mask(_TAG, NAME)


# Spelt out, because a loop over the words takes several times as long, and every message passes here.


def _may_name_a_secret(lower: str) -> bool:
    return (
        "pass" in lower
        or "pw" in lower
        or "key" in lower
        or "secret" in lower
        or "token" in lower
        or "cred" in lower
        or "seed" in lower
        or "recovery" in lower
        or "bearer" in lower
        or "basic" in lower
        or "digest" in lower
        or "-----begin" in lower
        or "kennwort" in lower
        or "contrase" in lower
        or "phrase" in lower
        or "words" in lower
        or "mdp" in lower
        or "senha" in lower
        or "wachtwoord" in lower
        or ("has" in lower and ("haslo" in lower or "hasło" in lower))
        or (
            not lower.isascii()
            and (
                "пароль" in lower or "密码" in lower or "密碼" in lower or "パスワード" in lower or "비밀번호" in lower
            )
        )
    )


def _may_name_a_code(lower: str) -> bool:
    return (
        "code" in lower
        or "código" in lower
        or "pin" in lower
        or "otp" in lower
        or "2fa" in lower
        or "tan" in lower
        or "cv" in lower
    )


def _may_spell_an_address(lower: str) -> bool:
    dotted = "." in lower or "dot" in lower or "pun" in lower or "poi" in lower or "pon" in lower
    return (dotted or not lower.isascii()) and (
        (" at " in lower and ("." in lower or " dot " in lower))
        or "@" in lower
        or "at)" in lower
        or "at]" in lower
        or "at}" in lower
        or "at>" in lower
        or "_at_" in lower
        or "(a)" in lower
        or "arroba" in lower
        or "ät" in lower
    )


def has_words(text: str) -> bool:
    """Whether there is any word besides placeholders, punctuation and numbers."""
    return _LETTERS.search(_PLACEHOLDER.sub("", text) if "[" in text else text) is not None


def blocker(words: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of the given words or phrases as whole words, in any case; None for no words."""
    known = sorted({word.strip().casefold() for word in words if word.strip()}, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)", re.IGNORECASE) if known else None


def _keep_placeholders(copy: Copy) -> None:
    """Leave placeholders that are in the text already as they are."""
    for found in _PLACEHOLDER.finditer(copy.plain):
        copy.take(*found.span(), found[0])


def _assigned(found: re.Match[str]) -> str | None:
    value = found["secret"]
    return None if value.strip("*•x.") == "" or value.startswith(("[", "(", "<", "{", "$")) else SECRET


def _if_secret(found: re.Match[str]) -> str | None:
    value = found["secret"]
    return SECRET if secrets.looks_secret(value) and not value.startswith(("[", "(", "<", "{", "$")) else None


def _spelt(found: re.Match[str]) -> str | None:
    """“ann (at) example.org”; in words alone only before a known ending, since people “look at that dot over there”."""
    signs = re.search(r"[\[({<|*_-] ?(?:at|a|ät|arroba|chez)|@", found[0], re.IGNORECASE)
    account = re.match(r"\S*[\w][._\d]\S* (?:at|ät|arroba) ", found[0], re.IGNORECASE)  # “ann.lee at example.com”
    return EMAIL if signs or account or _SPELT_END.search(found[0]) else None


_SPELT_END = re.compile(
    rf"(?: |[\[({{<|*_-])(?:dot|punkt|punto|point|ponto)(?: |[\])}}>|*_-])+(?:{_TLD}|us|it|be|at|in|no|me)$",
    re.IGNORECASE,
)


def _domain(found: re.Match[str]) -> str | None:
    return None if _TECH.fullmatch(found[0].rstrip(_TRAILING)) else LINK


def _run(found: re.Match[str]) -> str | None:
    return SECRET if secrets.looks_random(found[0]) else None


def _ipv4(found: re.Match[str]) -> str | None:
    return None if _VERSION.search(found.string, 0, found.start()) else IP


def _ipv6(found: re.Match[str]) -> str | None:
    try:
        IPv6Address(re.split("[%/]", found[0])[0])
    except AddressValueError:
        return None
    return IP if any(c.isdigit() for c in found[0]) else None  # `a::b` is C++


def _card(found: re.Match[str]) -> str | None:
    """ISO/IEC 7812: 13 to 19 digits whose Luhn sum divides by ten."""
    digits = [int(c) for c in found[0] if c.isdigit()]
    total = sum(digit if n % 2 == 0 else sum(divmod(2 * digit, 10)) for n, digit in enumerate(reversed(digits)))
    return CARD if total % 10 == 0 and any(digits) else None


def _iban(found: re.Match[str]) -> str | None:
    """ISO 13616: the rearranged number leaves 1 when divided by 97."""
    compact = found[0].replace(" ", "").replace("-", "")
    value = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return CARD if len(compact) >= 15 and int(value) % 97 == 1 else None
