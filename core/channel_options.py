"""A channel's settings in words: what an admin may type for each, and how they are shown.

Knows the fields of ChannelSettings; neither memory nor a platform.
"""

from collections.abc import Mapping

from core.dialogue import one_line
from core.generator.persona import LONGEST
from core.memory import ChannelSettings
from core.policy import Answers

FIELDS = {
    "answers": "answers",
    "ambient": "ambient_chance",
    "cool-down": "cool_down",
    "allowed": "allowed",
    "ignore": "ignored",
    "again": "again_by",
    "reset": "reset_by",
    "voice": "voice",
    "temperature": "temperature",
    "retention": "retention_days",
    "persona": "persona",
    "recall": "recall",
}
"""The words for a channel's settings, and the fields of ChannelSettings they stand for."""

_WORDS = {
    "answers": tuple(str(each) for each in Answers),
    "again": ("own", "anyone"),
    "reset": ("anyone", "admins"),
}
"""Settings whose value is one of a few words."""

_SWITCHES = {"allowed": ("yes", "no"), "recall": ("on", "off")}
"""Settings whose value is one of two words; the first means True."""

SETTING_VALUES: Mapping[str, tuple[str, ...]] = {**_WORDS, **_SWITCHES}
"""What a platform may offer as values of a setting; numbers, members and adapters are not among them."""

WHOM = "Mention the member or role, or give their id."


def value_of(name: str, value: str) -> float | int | bool | str | None:
    """A channel setting's value from what an admin typed; None for `default`. Raises ValueError with a sentence."""
    if value.casefold() == "default" or (name == "voice" and value == "current"):
        return None
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise ValueError(f"{name} can be {', '.join(_WORDS[name])} or default.")
        return value
    if name in _SWITCHES:
        if value not in _SWITCHES[name]:
            raise ValueError(f"{name} can be {', '.join(_SWITCHES[name])} or default.")
        return value == _SWITCHES[name][0]
    match name:
        case "ignore":
            raise ValueError(WHOM)
        case "cool-down":
            return _number(value, 0, 10_000, "cool-down must be a number of minutes, 0 or more.")
        case "ambient":
            return _number(value, 0, 1, "ambient must be a number from 0 to 1.")
        case "temperature":
            return _number(value, 0, 2, "temperature must be a number from 0 to 2.")
        case "retention":
            days = _number(value, 1, 36500, meaning := "retention must be a whole number of days, 1 or more.")
            if days != int(days):
                raise ValueError(meaning)
            return int(days)
        case "persona":
            if len(value) > LONGEST:
                raise ValueError(f"A persona can have at most {LONGEST} characters.")
            return "" if value.casefold() == "none" else value
        case _:
            return value


def _number(value: str, low: float, high: float, meaning: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(meaning) from None
    if not low <= number <= high:
        raise ValueError(meaning)
    return number


def describe_settings(chosen: ChannelSettings, *names: str) -> str:
    def shown(name: str) -> str:
        value = getattr(chosen, FIELDS[name])
        if value is None:
            return "current" if name == "voice" else "default"
        if name == "persona":
            return f"“{one_line(value)[:60]}”" if value else "none"
        return _SWITCHES[name][0 if value else 1] if name in _SWITCHES else str(value)

    return ", ".join(f"{name} {shown(name)}" for name in names or FIELDS)
