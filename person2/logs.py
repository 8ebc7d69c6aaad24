"""What goes to the log: lines for people or JSON for machines, on standard error, and never a secret.

Knows the settings' secrets by their type, and passwords by their place in a URL; knows nothing of who logs what.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from core.settings import Settings

MASK = "***"

LEAST_SECRET = 4
"""Characters of a secret that is masked: a shorter one is guessed at once, and masking it would eat every line."""

CHATTY = ("httpx", "httpx2", "httpcore", "openai", "alembic", "urllib3", "slack_bolt", "aiohttp.access")
"""Libraries that tell more than an operator wants to know."""

_TEXT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def set_up_logging(settings: Settings, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Log as PERSON2_LOG_FORMAT says. Replaces earlier handlers, so that nothing is written around the mask."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter(settings.log_format, secrets_of(settings)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in CHATTY:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))


def formatter(kind: Literal["text", "json"], secrets: Iterable[str]) -> logging.Formatter:
    return (_Json if kind == "json" else _Text)(Mask(secrets))


def secrets_of(settings: Settings) -> frozenset[str]:
    """Every token, key and signing secret of the settings, and the passwords inside their URLs."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        elif isinstance(value, str) and "://" in value:
            try:
                password = urlsplit(value).password
            except ValueError:  # no URL after all; who uses it says so
                continue
            found.update({password, unquote(password)} if password else ())
    return frozenset(found)


class Mask:
    """Puts *** in the place of secrets: as they are, quoted in a literal however deep, or spelt for a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {
            spelt
            for secret in secrets
            if len(secret) >= LEAST_SECRET
            for spelt in (_literally(secret), re.escape(quote(secret, safe="")), re.escape(quote_plus(secret)))
        }
        # One that holds another goes first.
        self._found = re.compile("|".join(sorted(spellings, key=len, reverse=True)) or r"(?!)", re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return self._found.sub(MASK, text)


def _literally(secret: str) -> str:
    """A pattern for a secret, also where a literal puts backslashes before its quotes and backslashes."""
    return "".join(rf"\\*{re.escape(each)}" if each in "'\"\\" else re.escape(each) for each in secret)


class _Text(logging.Formatter):
    """A line for people; a traceback below it."""

    def __init__(self, mask: Mask) -> None:
        super().__init__(_TEXT)
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


class _Json(logging.Formatter):
    """One object a line: time (ISO 8601, UTC), level, logger, message, and exception where there is one."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._mask(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self._mask(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = self._mask(self.formatStack(record.stack_info))
        return json.dumps(line, ensure_ascii=False)
