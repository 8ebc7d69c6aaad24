"""The errors that people see. Each message is one sentence that says what was wrong and what to do.

Person2Error
├── SettingsError          a variable is missing or malformed (names every one of them)
├── StorageError           the database cannot be opened, read or written
├── ModelError             a base model cannot be loaded
├── AdapterError           an adapter is missing, damaged, foreign or does not fit the base
├── GeneratorError         a reply could not be generated
│   ├── NumericalError     the model's numbers overflowed: its weights or the adapter's are damaged
│   ├── Overloaded         the queue is full: try again shortly
│   └── Unavailable        the generator is stopped, or the remote server is down
├── DialogueError          a dialogue file cannot be used at all
├── ExportError            an export cannot be read at all
├── TrainingError          a training run cannot start or go on
└── PlatformError          Discord or Slack refused the bot, or cannot be reached
    └── PermanentPlatformError   retrying will not help: bad token, missing intent or scope
"""

from collections.abc import Sequence


class Person2Error(Exception):
    """Root of every error that is shown to a person as a sentence instead of a traceback."""


class SettingsError(Person2Error):
    pass


class StorageError(Person2Error):
    pass


class ModelError(Person2Error):
    pass


class AdapterError(Person2Error):
    pass


class GeneratorError(Person2Error):
    pass


class NumericalError(GeneratorError):
    pass


class Overloaded(GeneratorError):
    pass


class Unavailable(GeneratorError):
    pass


class DialogueError(Person2Error):
    pass


class ExportError(Person2Error):
    pass


class TrainingError(Person2Error):
    pass


class PlatformError(Person2Error):
    pass


class PermanentPlatformError(PlatformError):
    pass


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def reason(error: BaseException) -> str:
    """The cause of an error in a few words: what the operating system says, else the error's own text or type."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())[:200]
