"""Passwords, keys and tokens: the formats that `detect-secrets` knows, what is named a secret, and long random runs."""

import importlib
import inspect
import pkgutil
import re
from functools import cache

import detect_secrets.plugins
from detect_secrets.plugins.base import RegexBasedDetector

_OTHER_FORMATS = (
    r"xox[a-z]-[\w-]{8,}", r"xapp-[\w-]{8,}", r"gh[pousr]_\w{16,}", r"github_pat_\w{16,}", r"sk-[\w-]{16,}",
    r"[sprw]k_(?:live|test)_\w{10,}", r"whsec_\w{16,}", r"AIza[\w-]{30,}", r"ya29\.[\w-]{16,}", r"hf_\w{16,}",
    r"npm_\w{20,}", r"pypi-[\w-]{16,}", r"dop_v1_\w{16,}", r"shp(?:at|ca|pa|ss)_\w{16,}", r"mfa\.[\w-]{20,}",
    r"[A-Za-z0-9_-]{23,28}\.[\w-]{6,7}\.[\w-]{27,45}", r"SG\.[\w-]{16,}\.[\w-]{16,}", r"EAAC\w{20,}",
    r"[0-9]{1,10}:AA[\w-]{30,}", r"ops_\w{20,}", r"AGE-SECRET-KEY-\w{20,}", r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
)  # fmt: skip
"""Formats of tokens that the library lacks, or recognises only at full length while people paste a part."""

_NAME = (
    r"pass ?words?|passwd|passphrase|pass ?code|pwd|pw|passwort|kennwort|contrase(?:ñ|n)a|mot de passe|mdp|senha"
    r"|wachtwoord|has(?:ł|l)o"
    r"|пароль|密码|パスワード|비밀번호"
)
_KEY = (
    r"secrets?|pass|token|api[ _-]?(?:key|token|secret)|auth(?:orization)?[ _-]?(?:key|token)|access[ _-]?(?:key"
    r"|token)|private[ _-]?key"
    r"|client[ _-]?secret|signing[ _-]?(?:key|secret)|credentials?|license[ _-]?key|seed(?: phrase)?"
    r"|recovery (?:code|key|phrase)"
)
_QUOTED = r"\"[^\"\0]{3,200}\"|'[^'\0]{3,200}'|`[^`\0]{3,200}`|“[^”\0]{3,200}”|„[^“”\0]{3,200}[“”]|«[^»\0]{3,200}»"
_ASSIGN = r"[\"'`]?\s*(?::=|[=-]>|→|==?|:(?!//)|：)\s*"

NAMED_ASSIGNED = re.compile(
    rf"(?:(?<![^\W_])(?:[\w.]*[_.-])?(?:{_NAME}|pass(?==))|\b\w{{2,20}}(?:password"
    rf"|passwd))(?:[_-][\w-]*)?{_ASSIGN}(?P<secret>{_QUOTED}|[^\s\0,;\"'`]{{3,200}})",
    re.IGNORECASE,
)
"""`password: x`, `DB_PASSWORD=x`, `"password": "x y"`, `pw:x`: whatever stands there is one."""
KEY_ASSIGNED = re.compile(
    rf"(?<![^\W_])(?:[\w.]*[_.-])?(?:{_KEY})(?:[_-][\w-]*)?{_ASSIGN}(?P<secret>{_QUOTED}|[^\s\0,;\"'`]{{6,200}})",
    re.IGNORECASE,
)
"""`API_KEY=x`: here people also write sentences ("the secret: add salt"), so it must look like a key."""
SAID = re.compile(
    rf"(?:\b(?:{_NAME}|{_KEY})(?:['’]s|\s+(?:\w+\s+){{0,3}}?(?:is|was|ist|lautet|es|est)(?:\s+now)?)"
    r"|(?:密码|密碼|パスワード|비밀번호)(?:是|为|為|は|는))\s*:?\s*"
    rf"(?P<secret>{_QUOTED}|[^\s\0]{{4,200}})",
    re.IGNORECASE,
)
"""“the password is hunter2”; “password is required” is talk."""
OPTION = re.compile(
    rf"\b(?:sshpass|mysql\w*|plink|curl|wget|psql|mongo\w*|redis-cli|ftp)\b[^\n\0]{{0,80}}? "
    rf"(?:-p ?|-pw |-a |--pass(?:word)?[ =]|-u ?[\w.-]+:)(?P<secret>{_QUOTED}|[^\s\0-][^\s\0]{{2,100}})"
)
"""A password among the options of a command."""
BESIDE = re.compile(
    rf"(?<![^\W_])(?:(?:{_NAME})\s+(?P<secret>(?=\S*\d)(?=\S*[a-zA-Z])[^\s\0,;]{{6,100}})"
    rf"|(?:{_KEY})\s+(?P<key>(?=\S*\d)(?=\S*[a-zA-Z])[\w+/=.-]{{12,100}}))",
    re.IGNORECASE,
)
"""“passwd hunter22”: no sign between, so only what has letters and digits."""
PAIR = re.compile(
    rf"\b(?:login|user(?:name)?|e-?mail|account)\W{{1,3}}[^\s\0]{{1,60}}\W{{1,3}}(?:and\W)?(?:{_NAME}|pass|key)\W{{1,3}}"
    r"(?P<secret>[^\s\0]{3,100})",
    re.IGNORECASE,
)
"""`login: ann / pass: swordfish`: beside an account's name whatever stands there is one."""
PHRASE = re.compile(
    r"\b(?:seed|recovery|mnemonic|backup|secret|wallet)(?: recovery)? (?:phrase|words)\b\W{0,3}(?:is\W{1,3})?"
    r"(?P<secret>(?:[a-z]{3,8}[ ,]+){11,23}[a-z]{3,8})",
    re.IGNORECASE,
)
"""BIP 39: twelve to twenty-four words of three to eight letters."""
CODE_AHEAD = re.compile(
    r"(?<![\w.,-])(?:[A-Z]-)?(?P<secret>\d{4,8}|\d{3}[ -]\d{3})(?! ?\d)"
    r" (?:is|ist|es|est|é) (?:your|dein|ihr|tu|su|votre|seu)\b"
    r"[^.\n\0]{0,40}?\b(?:code|otp|pin|tan|código)\b"
    r"|\b(?:use|enter|type|with) (?:the )?code[: ]{1,2}(?P<code>\d{4,8})(?!\w)",
    re.IGNORECASE,
)
CODE = re.compile(
    r"\b(?:(?:your|my|our|verification|security|login|confirmation|access|door|gate|entry|backup|auth\w*"
    r"|2fa) code|otp|pin|2fa|tan|passcode"
    r"|cvv|cvc)\b(?:\s+(?:is|ist|for \w+ is))?[\s:=#-]{1,3}"
    r"(?P<secret>\d{3}[ -]\d{3}|\d{3,8})(?![\w.,]\d|\w)",
    re.IGNORECASE,
)
BEARER = re.compile(r"\b(?:Bearer|Basic|Digest)\s+(?P<secret>(?=[\w+/=.~-]*\d)[\w+/=.~-]{12,})")
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)", re.DOTALL
)
GROUPED = re.compile(r"(?<![\w-])(?=[A-Z-]*\d|(?:[A-Z]{5}-){3})(?:[A-Z0-9]{4,6}-){3,7}[A-Z0-9]{4,6}(?![\w-])")
"""A licence key."""
LONG_RUN = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_=-]{20,}(?![\w+/=-])")
_SYMBOL = re.compile(r"[^\w\s.,:;!?'\"()…-]")


@cache
def known_formats() -> re.Pattern[str]:
    """One pattern of every token format that is known."""
    formats = [pattern for pattern in _library_formats() if "(?i" not in pattern]
    return re.compile("|".join(f"(?:{_anonymous(pattern)})" for pattern in (*_OTHER_FORMATS, *formats)))


def _library_formats() -> list[str]:
    patterns: list[str] = []
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__):
        if module.name in {
            "base",
            "keyword",
            "high_entropy_strings",
            "ip_public",
            "private_key",
            "basic_auth",
            "twilio",
        }:
            continue  # no formats of tokens, or ones too short to tell from words
        loaded = importlib.import_module(f"{detect_secrets.plugins.__name__}.{module.name}")
        for _, kind in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(kind, RegexBasedDetector) and kind.__module__ == loaded.__name__:
                patterns += [each.pattern for each in kind().denylist]
    return patterns


def _anonymous(pattern: str) -> str:
    """The pattern with its groups not capturing, so that many can stand side by side."""
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)


def looks_random(text: str) -> bool:
    """Whether a long run is a key: several kinds of signs, digits among them. Long words, paths and rules are not."""
    kinds = sum((any(c.isdigit() for c in text), any(c.isupper() for c in text), any(c.islower() for c in text)))
    digits = sum(c.isdigit() for c in text)
    if text.count("/") > 2 or (text.count("-") > 4 and len(text) < 40):
        return False
    return (kinds == 3 and (digits >= 2 or (digits == 1 and len(text) >= 36))) or (
        kinds == 2 and digits >= 4 and len(text) >= 24
    )


def looks_secret(text: str) -> bool:
    """Whether what somebody calls a password or key may be one rather than the next word of a sentence."""
    bare = text.strip("\"'`“”„«».,;:!?()")
    if text[:1] in "\"'`“„«":
        return True
    if not bare or len(bare) < 4:
        return False
    mixed = any(c.isupper() for c in bare[1:]) and any(c.islower() for c in bare)
    return any(c.isdigit() for c in bare) or mixed or _SYMBOL.search(bare) is not None
