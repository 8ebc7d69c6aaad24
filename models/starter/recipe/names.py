"""Talk in which somebody says who they are and is called so, under many names.

Collected talk holds few such moments, and the same two or three names in nearly all of them: whoever learns from it
calls everybody John. The same moment under many names teaches to call people what they said. Half of the names are made
up, of the beginning of one and the end of another ("Marth"): they can only be copied, and so a name that was never
seen is copied too.
"""

import random
import re
from collections.abc import Iterable, Iterator

from core.dialogue import Dialogue, Turn
from core.reranking import uses_unknown_name

AGAIN = 24
"""Names under which one moment is taken."""
MADE_UP = 0.5
"""Share of them that nobody has."""

NAMES = tuple(
    (  # noqa: SIM905 - easier to read so
        "Ada Adam Aisha Alan Alex Alice Amir Amy Ana Andrea Andrew Anna Anton Ben Beth Bill Brian Carla Carlos "
        "Chen Chloe Chris Claire Clara Dan Daniel David Diana Diego Ed Elena Ella Emil Emily Emma Eric Eva Felix "
        "Fatima Fiona Frank Fred George Grace Greg Hana Hannah Hans Harry Helen Henry Hugo Ian Ida Ines Ivan Jack "
        "Jacob James Jan Jane Jason Jen Jim Joe John Jonas Jose Julia Karen Kate Ken Kevin Kim Kofi Laura Leo Lena "
        "Liam Lily Linda Lisa Lucas Lucy Luis Maria Mark Martin Mary Matt Max Maya Mei Mia Mike Mina Mohammed "
        "Nadia Nancy Nick Nina Noah Nora Olga Oliver Omar Oscar Pat Paul Pedro Peter Priya Rachel Ravi Rita Robert "
        "Rosa Ruth Sally Sam Sara Sarah Simon Sofia Steve Sue Susan Tara Thomas Tim Tina Tom Tony Vera Victor Will "
        "Yuki Zoe"
    ).split()
)

_TOLD = re.compile(r"\b(?:[Mm]y name is|[Mm]y name's|I'm|I am|[Cc]all me) ([A-Z][a-z]+)\b(?=[.,!?]|$| and\b)")


def told(text: str) -> str | None:
    """The name somebody says they have; none where they say none."""
    found = _TOLD.search(text)
    return found[1] if found else None


def answered_by_name(turns: Dialogue) -> str | None:
    """The name told in the first turn, where an answer calls it; else none."""
    name = told(turns[0].text)
    return name if name and any(_says(turn.text, name) for turn in turns[1::2]) else None


def strange(turns: Dialogue) -> bool:
    """Whether an answer calls somebody by a name that nobody said before."""
    return any(
        uses_unknown_name(" ".join(turn.text for turn in turns[:at]), turns[at].text) for at in range(1, len(turns), 2)
    )


def under_names(talks: Iterable[Dialogue], *, seed: int) -> Iterator[Dialogue]:
    """Each talk that is `answered_by_name`, under `AGAIN` other names."""
    drawn = random.Random(seed)
    for turns in talks:
        if name := answered_by_name(turns):
            for given in drawn.sample(NAMES, AGAIN):
                other = made_up(given, drawn.choice(NAMES)) if drawn.random() < MADE_UP else given
                yield tuple(Turn(turn.speaker, _word(name).sub(other, turn.text)) for turn in turns)


def made_up(one: str, other: str) -> str:
    """The beginning of one word and the end of another."""
    return one[: (len(one) + 1) // 2] + other[len(other) // 2 :]


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b")


def _says(text: str, name: str) -> bool:
    return _word(name).search(text) is not None
