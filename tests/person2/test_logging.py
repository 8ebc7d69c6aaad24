"""What stands in the log: words for people or objects for machines, and no secret in either."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
from pydantic import SecretStr

from core.settings import Settings
from person2.logging import secrets_of, set_up_logging

TOKEN = 'MTk4-t0ken/with+odd"chars'
PASSWORD = "p@ss w0rd"

SETTINGS = Settings(
    discord_token=SecretStr(TOKEN),
    slack_app_token=SecretStr("xapp-1-loopback-secret"),
    remote_api_key=SecretStr("abc"),
    database_url="postgresql://ann:p%40ss%20w0rd@db/person2",
    slack_proxy="http://who:open-sesame@proxy:3128",
    discord_gateway_url="wss://[broken",
)


def written(
    kind: Literal["text", "json"],
    message: str,
    *arguments: object,
    error: BaseException | None = None,
    settings: Settings = SETTINGS,
) -> str:
    """What the log holds after one warning of `bots.x`, without the newline at its end."""
    stream = io.StringIO()
    set_up_logging(settings.model_copy(update={"log_format": kind}), stream=stream)
    caught = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("bots.x", logging.WARNING, __file__, 1, message, arguments, caught)
    made.created = 1767268800.5
    logging.getLogger("bots.x").handle(made)
    return stream.getvalue().removesuffix("\n")


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def test_json_is_one_object_a_line() -> None:
    """Machines read time, level, logger and message; a traceback is one more string on the same line."""
    line = written("json", "ü %s", "ö", error=ValueError("two\nlines"))
    assert "\n" not in line
    read = json.loads(line)
    assert read.pop("exception").endswith("ValueError: two\nlines")
    assert read == {
        "time": "2026-01-01T12:00:00.500+00:00",
        "level": "WARNING",
        "logger": "bots.x",
        "message": "ü ö",
    }


def test_secrets_are_found_by_their_type_and_in_urls() -> None:
    """Tokens and keys, and passwords of database and proxy, as typed and as meant; a broken URL hides none."""
    assert secrets_of(SETTINGS) == {
        TOKEN,
        "xapp-1-loopback-secret",
        "abc",
        "p%40ss%20w0rd",
        PASSWORD,
        "open-sesame",
    }


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize(
    "said",
    [
        TOKEN,
        f"Bot {TOKEN}, again {TOKEN}",
        repr({"token": TOKEN}),
        json.dumps({"token": TOKEN}),
        "https://x/?token=MTk4-t0ken%2Fwith%2Bodd%22chars",
        "xapp-1-loopback-secret",
        "postgresql://ann:p%40ss%20w0rd@db/person2",
        f"password {PASSWORD}",
        "http://who:open-sesame@proxy:3128",
    ],
)
def test_no_secret_reaches_the_log(kind: Literal["text", "json"], said: str) -> None:
    """In a message, in its arguments, in an exception and its cause: *** stands where the secret would."""
    error = RuntimeError(said)
    error.__cause__ = KeyError(said)
    for line in (
        written(kind, said.replace("%", "%%") + "%s", ""),
        written(kind, "got %s", said),
        written(kind, "x", error=error),
    ):
        shown = str(json.loads(line)) if kind == "json" else line
        assert "***" in shown
        for secret in ("t0ken", "loopback", "w0rd", "sesame"):
            assert secret not in shown


def test_a_short_word_is_no_secret() -> None:
    """Masking three letters would hide half of every line."""
    assert SETTINGS.remote_api_key is not None
    assert written("text", "abcdef").endswith("WARNING abcdef")


def test_nothing_is_written_unredacted() -> None:
    """Any logger of any library ends in the one handler; verbose ones are quiet."""
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    stream = io.StringIO()
    set_up_logging(SETTINGS.model_copy(update={"log_format": "json"}), stream=stream)
    logging.getLogger("a.dependency").error("header %r", {"Authorization": f"Bot {TOKEN}"})
    logging.getLogger("httpx").info("GET")
    assert len(logging.getLogger().handlers) == 1
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["header {'Authorization': 'Bot ***'}"]
