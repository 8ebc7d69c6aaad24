"""Logging: lines for people or JSON for machines, on standard error, without secrets.

Finds the settings' secrets by their type, and passwords by their place in a URL.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from core.settings import Settings

MASK = "***"

MIN_SECRET_LENGTH = 4
"""Shortest secret that is masked: a shorter one is easily guessed, and masking it would hide half of each line."""

VERBOSE_LIBRARIES = ("httpx", "httpx2", "httpcore", "openai", "alembic", "urllib3", "slack_bolt", "aiohttp.access")
"""Libraries that log more than an operator wants to know."""

TEXT_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def set_up_logging(settings: Settings, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Log as PERSON2_LOG_FORMAT says. Replaces earlier handlers, so that nothing is written unredacted."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(RedactingFilter(secrets_of(settings)))
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in VERBOSE_LIBRARIES:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))


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
            except ValueError:  # not a valid URL; whatever uses it reports that
                continue
            found.update({password, unquote(password)} if password else ())
    return frozenset(found)


class RedactingFilter(logging.Filter):
    """Puts *** in the place of secrets, in a record's message, traceback and stack: as they are, quoted in a literal
    however deep, or percent-encoded for a URL.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        spellings = {
            spelt
            for secret in secrets
            if len(secret) >= MIN_SECRET_LENGTH
            for spelt in (_literal(secret), re.escape(quote(secret, safe="")), re.escape(quote_plus(secret)))
        }
        # Longer secrets first, since one may contain another.
        self._pattern = re.compile("|".join(sorted(spellings, key=len, reverse=True)) or r"(?!)", re.IGNORECASE)
        self._tracebacks = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redact(record.getMessage()), None
        if record.exc_info:  # formatters use `exc_text` where there is one
            record.exc_text = self._redact(record.exc_text or self._tracebacks.formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = self._redact(record.stack_info)
        return True

    def _redact(self, text: str) -> str:
        return self._pattern.sub(MASK, text)


def _literal(secret: str) -> str:
    """A pattern for a secret, also where a literal puts backslashes before its quotes and backslashes."""
    return "".join(rf"\\*{re.escape(each)}" if each in "'\"\\" else re.escape(each) for each in secret)


class JsonFormatter(logging.Formatter):
    """One object a line: time (ISO 8601, UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False)
