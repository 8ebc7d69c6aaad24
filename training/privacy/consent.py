"""Who consented, and how to find a person's words again without recording who they are.

Knows names, ids and keyed hashes; no export format. A person is `platform:id`; in files they are an HMAC under a key
that never leaves `PERSON2_HOME`, so a manifest reveals nobody and `forget` still finds their dialogues.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ExportError, reason

KEY_NAME = "people.key"
KEY_BYTES = 32
HASH_DIGITS = 32
"""Hex digits kept of an HMAC-SHA-256: 128 bits."""


@dataclass(frozen=True, slots=True)
class PeopleKey:
    """Turns members into keyed hashes (RFC 2104)."""

    key: bytes

    @classmethod
    def at(cls, home: Path) -> "PeopleKey":
        """The key of this installation, made on first use, readable by its owner only. Raises ExportError."""
        path = home / KEY_NAME
        try:
            home.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                key = path.read_bytes()
            else:
                key = secrets.token_bytes(KEY_BYTES)
                with os.fdopen(handle, "wb") as file:
                    file.write(key)
        except OSError as problem:
            raise ExportError(
                f"The key for people's hashes cannot be used at {path} ({reason(problem)}); make the folder writable."
            ) from problem
        if len(key) != KEY_BYTES:
            raise ExportError(
                f"{path} is not a key of {KEY_BYTES} bytes; restore it from a backup, or move it away for a new one."
            )
        return cls(key)

    def hash(self, platform: str, author: str) -> str:
        """`platform` and `author` as in `Message`."""
        return self.of(f"{platform}:{author}")

    def of(self, person: str) -> str:
        digest = hmac.new(self.key, person.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return digest[:HASH_DIGITS]


def read_people(path: Path) -> list[str]:
    """Names or ids, one a line; `#` starts a comment line. Raises ExportError where there is nothing to read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ExportError(
            f"The list of people {path} cannot be read ({problem}); give a UTF-8 file, one name or id a line."
        ) from problem
    people = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not people:
        raise ExportError(f"The list of people {path} is empty; put one name or id on each line.")
    return people


def matching(wanted: Iterable[str], directory: Mapping[str, Iterable[str]]) -> tuple[frozenset[str], list[str]]:
    """The `platform:id`s that a list names, and the entries that match nobody or several people.

    `directory` gives every name of every `platform:id`. An entry is an id, a `platform:id`, or a name in any case with
    or without `@`, with `platform:` before it where members of several platforms have it. A name that several members
    have matches nobody, because one of them may not have consented.
    """
    by_name: dict[str, set[str]] = {}
    by_id: dict[str, set[str]] = {}
    for person, names in directory.items():
        by_id.setdefault(person, set()).add(person)
        by_id.setdefault(person.split(":", 1)[1], set()).add(person)
        platform = person.split(":", 1)[0]
        for name in names:
            known = name.strip().removeprefix("@").casefold()
            for spelling in (known, f"{platform}:{known}"):
                by_name.setdefault(spelling, set()).add(person)
    found: set[str] = set()
    missing = []
    for entry in wanted:
        people = by_id.get(entry) or by_name.get(entry.replace(":@", ":").removeprefix("@").casefold(), set())
        if len(people) != 1:
            missing.append(entry)
        else:
            found |= people
    return frozenset(found), missing
