"""The settings table: read from the environment, wrong values named all at once, documented in one place."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.generator import Sampling
from core.settings import Settings, load_settings, variable

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(variable(field), raising=False)
        monkeypatch.delenv(field.upper(), raising=False)


def test_defaults_need_nothing() -> None:
    """A fresh machine starts with no variable set."""
    settings = load_settings()
    assert settings.base_model == "starter"
    assert settings.database.startswith("sqlite:///")
    assert settings.sampling(Sampling()).max_new_tokens > 0


def test_every_malformed_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message names all faults and repeats none of the values."""
    monkeypatch.setenv("PERSON2_TEMPERATURE", "hot-secret")
    monkeypatch.setenv("PERSON2_MAX_BATCH", "0")
    monkeypatch.setenv("PERSON2_GENERATOR", "magic-secret")
    monkeypatch.setenv("PERSON2_QUIET_HOURS", "at night")
    monkeypatch.setenv("SLACK_HTTP_PORT", "http")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    sentence = str(caught.value)
    assert sentence.startswith("Invalid settings (5): ")
    for name in ("TEMPERATURE", "MAX_BATCH", "GENERATOR", "QUIET_HOURS"):
        assert f"PERSON2_{name}: " in sentence
    assert "; SLACK_HTTP_PORT: " in sentence or ": SLACK_HTTP_PORT: " in sentence
    assert "secret" not in sentence
    assert "\n" not in sentence


def test_every_missing_variable_is_named_at_once() -> None:
    """What a bot needs and is not set is one sentence."""
    with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN and SLACK_APP_TOKEN are not set"):
        load_settings().require("slack_bot_token", "slack_app_token")


def test_the_env_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the working folder fills in what the environment does not say."""
    lines = ("TOP_P=0.5", "TEMPERATURE=0.1", "ALLOWED_CHANNELS=1, 2 3", "RETENTION_DAYS=")
    (tmp_path / ".env").write_text("".join(f"PERSON2_{line}\n" for line in lines))
    monkeypatch.setenv("PERSON2_TEMPERATURE", "0.9")
    settings = load_settings()
    assert (settings.top_p, settings.temperature) == (0.5, 0.9)
    assert settings.allowed_channels == {"1", "2", "3"}
    assert settings.retention_days is None


def test_old_names_are_read_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the new name is not set; what is set by its new name wins wherever it stands."""
    (tmp_path / ".env").write_text("TOP_P=0.5\nPERSON2_TEMPERATURE=0.1\nDATABASE_URL=sqlite:///from-file.db\n")
    monkeypatch.setenv("TEMPERATURE", "0.9")
    monkeypatch.setenv("BASE_MODEL", "gpt2")
    settings = load_settings()
    assert (settings.base_model, settings.top_p, settings.temperature) == ("gpt2", 0.5, 0.1)
    assert settings.database == "sqlite:///from-file.db"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for name in ("BASE_MODEL", "TOP_P", "DATABASE_URL"):
        assert f"{name} is now PERSON2_{name}" in warning
    assert "TEMPERATURE" not in warning


def test_another_programs_database_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare DATABASE_URL in the environment may be anybody's: nothing is migrated there."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody/elses")
    assert load_settings().database.startswith("sqlite:///")
    monkeypatch.setenv("PERSON2_DATABASE_URL", "sqlite:///ours.db")
    assert load_settings().database == "sqlite:///ours.db"


def test_a_name_that_never_was_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what once had no prefix is read without it."""
    monkeypatch.setenv("NAMES", "Somebody")
    monkeypatch.setenv("HOME_MODEL", "x")
    assert load_settings().names == frozenset()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither repr nor str of the settings holds a token."""
    monkeypatch.setenv("DISCORD_TOKEN", "tok-123")
    assert "tok-123" not in f"{load_settings()!r} {load_settings()}"


def test_the_example_file_lists_every_setting() -> None:
    """`.env.example` and the code name the same variables, each with its meaning."""
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE)) == {
        variable(field) for field in Settings.model_fields
    }
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description in example, name


def test_the_example_file_begins_with_everyday_settings() -> None:
    """Each setting stands once, under the everyday headings or under the one for what is seldom touched."""
    everyday, advanced = (
        re.findall(r"^# ([A-Z][A-Z0-9_]+)=", part, re.MULTILINE)
        for part in (ROOT / ".env.example").read_text().split("# === Advanced")
    )
    assert sorted(everyday + advanced) == sorted({variable(field) for field in Settings.model_fields})
    most_used = (ROOT / "README.md").read_text().partition("The most used:")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([A-Z0-9_]+)`", most_used))
    assert {"DISCORD_TOKEN", "SLACK_BOT_TOKEN", *named} <= set(everyday)
    assert named


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
    assert load_settings().blocked_words is None
