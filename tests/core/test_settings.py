"""The settings table: read from the environment, wrong values named all at once, documented in one place."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.generator import Sampling
from core.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults_need_nothing() -> None:
    """A fresh machine starts with no variable set."""
    settings = load_settings()
    assert settings.base_model == "starter"
    assert settings.database.startswith("sqlite:///")
    assert settings.sampling(Sampling()).max_new_tokens > 0


def test_every_malformed_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message names all faults and repeats none of the values."""
    monkeypatch.setenv("TEMPERATURE", "hot-secret")
    monkeypatch.setenv("MAX_BATCH", "0")
    monkeypatch.setenv("GENERATOR", "magic-secret")
    monkeypatch.setenv("QUIET_HOURS", "at night")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    sentence = str(caught.value)
    assert all(name in sentence for name in ("TEMPERATURE", "MAX_BATCH", "GENERATOR", "QUIET_HOURS"))
    assert "secret" not in sentence
    assert "\n" not in sentence


def test_every_missing_variable_is_named_at_once() -> None:
    """What a bot needs and is not set is one sentence."""
    with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN and SLACK_APP_TOKEN are not set"):
        load_settings().require("slack_bot_token", "slack_app_token")


def test_the_env_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the working folder fills in what the environment does not say."""
    (tmp_path / ".env").write_text("TOP_P=0.5\nTEMPERATURE=0.1\nALLOWED_CHANNELS=1, 2 3\nRETENTION_DAYS=\n")
    monkeypatch.setenv("TEMPERATURE", "0.9")
    settings = load_settings()
    assert (settings.top_p, settings.temperature) == (0.5, 0.9)
    assert settings.allowed_channels == {"1", "2", "3"}
    assert settings.retention_days is None


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither repr nor str of the settings holds a token."""
    monkeypatch.setenv("DISCORD_TOKEN", "tok-123")
    assert "tok-123" not in f"{load_settings()!r} {load_settings()}"


def test_the_example_file_lists_every_setting() -> None:
    """`.env.example` and the code name the same variables, each with its meaning."""
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE)) == {
        name.upper() for name in Settings.model_fields
    }
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description in example, name


def test_what_is_not_set_is_the_models_own() -> None:
    """Each sampling setting by itself."""
    own = Sampling(temperature=0.5, top_p=0.8, repetition_penalty=1.2, best_of=8)
    assert load_settings().sampling(own) == own
    assert load_settings(temperature=0.0, best_of=1).sampling(own) == replace(own, temperature=0.0, best_of=1)
    assert load_settings(max_new_tokens=9, top_p=1.0).sampling(own) == replace(own, max_new_tokens=9, top_p=1.0)


def test_when_it_speaks_and_to_whom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lists are split at commas, names keep their blanks, and what is left out stays as it was."""
    monkeypatch.setenv("PERSON2_NAMES", "Robo, Old Bot")
    monkeypatch.setenv("PERSON2_IGNORED", "123, @456")
    monkeypatch.setenv("PERSON2_DIRECT_MESSAGES", "false")
    monkeypatch.setenv("PERSON2_BLOCKED_WORDS", "")
    rules = load_settings().rules
    assert (rules.names, rules.ignored) == (frozenset({"Robo", "Old Bot"}), frozenset({"123", "@456"}))
    assert not rules.direct_messages
    assert load_settings().person2_blocked_words is None
