"""Whom a message addresses or mentions, by the names of the authors in a segment of talk.

Knows nothing of time, threads or links. A name at the front of a line followed by `:` or `,` (or after `@`, or behind
the `|` of a bot command) is an address; a name elsewhere is a mention, and then a name that is also an everyday word
does not count.
"""

import re
from collections.abc import Callable, Iterable
from enum import IntEnum

MAX_TARGETS = 3
"""Names kept per message; more is a roll call, which addresses nobody in particular."""
SHORTEST_NAME = 3
"""Shorter names collide with words and typing errors; Kummerfeld et al. (ACL 2019) draw the line in the same place."""
MAX_WORDS_OF_A_NAME = 4
"""Display names of Discord and Slack may have spaces; `@` is followed up to so many words."""
SHORTEST_PREFIX = 3

EDGES = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_PIPED = re.compile(r"^[!@]\S.*?[|>]\s*(\S+)")
_LEADING_AT = re.compile(r"@")


class Address(IntEnum):
    """How a message points at people, from not at all to by name."""

    NOBODY = 0
    MENTION = 1
    NAMED = 2
    STRANGER = 3
    """Addressed to a name that nobody in sight has."""


class NameIndex:
    """The names in use in a segment of talk, each with the number of its owner."""

    def __init__(self, bearers: Iterable[tuple[str, int]], *, is_common: Callable[[str], bool]) -> None:
        self._bearer: dict[str, int] = {}
        self._is_common = is_common
        cores: dict[str, int] = {}
        for name, person in bearers:
            lowered = name.lower()
            self._bearer.setdefault(lowered, person)
            core = lowered.strip(EDGES)
            if len(core) >= SHORTEST_NAME and core != lowered:
                cores.setdefault(core, person)
        for core, person in cores.items():
            self._bearer.setdefault(core, person)
        self._completed: dict[str, int | None] = {}

    def _exact(self, token: str) -> int | None:
        """The owner of the name `token`, less the punctuation around it: step by step from the right, then from the
        left."""
        if len(token) < SHORTEST_NAME - 1:
            return None
        found = self._bearer.get(token)
        if found is not None:
            return found if len(token) >= SHORTEST_NAME else None
        right = token.rstrip(EDGES)
        for end in range(len(token) - 1, max(len(right), SHORTEST_NAME) - 1, -1):
            found = self._bearer.get(token[:end])
            if found is not None:
                return found
        left = right.lstrip(EDGES)
        return self._bearer.get(left) if len(left) >= SHORTEST_NAME else None

    def _completes(self, start: str) -> int | None:
        """The only person whose name begins with `start`; None for several or nobody."""
        if start not in self._completed:
            people = {person for name, person in self._bearer.items() if name.startswith(start)}
            self._completed[start] = people.pop() if len(people) == 1 else None
        return self._completed[start]

    def targets(self, lowered: str, *, author: int) -> tuple[Address, list[int]]:
        """How `lowered` (a message in lower case) addresses people, and whom, the first named first."""
        tokens = lowered.split()
        if not tokens:
            return Address.NOBODY, []
        found: list[int] = []
        address = Address.NOBODY
        first = tokens[0]
        if first[-1] in ":," and len(first) > SHORTEST_PREFIX - 1:
            bare = first[:-1]
            person = self._exact(bare)
            if person is None and bare and not self._is_common(bare) and len(bare) >= SHORTEST_PREFIX:
                person = self._completes(bare.strip("@"))
                if person is None and first[-1] == ":" and "/" not in bare:
                    address = Address.STRANGER
            if person is not None:
                address = Address.NAMED
                found.append(person)
        elif len(tokens) > 1 and tokens[1] in (":", ",", "-", "->"):
            person = self._exact(first)
            if person is not None:
                address = Address.NAMED
                found.append(person)
        if first[0] in "!@":
            piped = _PIPED.match(lowered)
            person = self._exact(piped[1]) if piped else None
            if person is not None:
                address = Address.NAMED
                found.append(person)
        if "@" in lowered:
            for at in _LEADING_AT.finditer(lowered):
                words = lowered[at.end() : at.end() + 80].split(maxsplit=MAX_WORDS_OF_A_NAME)[:MAX_WORDS_OF_A_NAME]
                for count in range(len(words), 0, -1):
                    person = self._exact(" ".join(words[:count]))
                    if person is not None:
                        address = Address.NAMED
                        found.append(person)
                        break
        for token in tokens:
            if len(token) < SHORTEST_NAME:
                continue
            # Nearly all words are neither names nor beside punctuation, so one look-up is enough.
            unadorned = token[-1] not in EDGES and token[0] not in EDGES
            person = self._bearer.get(token) if unadorned else self._exact(token)
            if person is not None and not self._is_common(token.strip(EDGES)):
                found.append(person)
                if address is not Address.NAMED:
                    address = Address.MENTION
        others = [person for person in dict.fromkeys(found) if person != author]
        if not others and address in (Address.NAMED, Address.MENTION):
            address = Address.NOBODY
        return address, others[:MAX_TARGETS]
