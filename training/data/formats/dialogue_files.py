"""Files that are dialogues already: `Person1:`/`Person2:` lines, a blank line between dialogues.

Knows nothing of its own: `core.dialogue.read` does the reading. Each dialogue becomes a direct conversation in which
the author `Person2` is the one to learn from; dialogues have no times, so their order stands in for them.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core import dialogue
from core.messages import Conversation, Kind, Message
from training.data.formats import textfile
from training.data.formats.items import Fault, Item, Part

NAME = "dialogues"
PLATFORM = "dialogues"
"""The projection keeps the sides of this platform's conversations as they are."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def recognises(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    start = [line for line in head.lstrip("\ufeff").splitlines()[:20] if line.strip()]
    return sum(line.lstrip().startswith(("Person1:", "Person2:")) for line in start) * 2 > len(start) > 0


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    digest = hashlib.sha256(label.encode("utf-8", "replace")).hexdigest()[:16]
    yield Part(reader=NAME, path=path, label=label, context={"channel": digest})


def read(part: Part) -> Iterator[Item]:
    encoding: list[Fault] = []

    def texts() -> Iterator[str]:
        for line in textfile.lines(part.path, part.label):
            if isinstance(line, Fault):
                encoding.append(line)
            else:
                yield line[1]

    number = turns = 0
    for found in dialogue.read(texts()):
        while encoding:
            yield encoding.pop()
        if isinstance(found, dialogue.DialogueFault):
            yield Fault(file=part.label, place=f"line {found.line}", reason=found.reason)
            continue
        conversation = Conversation(
            platform=PLATFORM, channel=part.context["channel"], thread=f"{number:09d}", kind=Kind.DIRECT
        )
        for turn in found:
            yield Message(
                conversation=conversation,
                id=str(turns),
                author=str(turn.speaker),
                author_name=str(turn.speaker),
                text=turn.text,
                sent_at=_EPOCH + timedelta(seconds=turns),
            )
            turns += 1
        number += 1
    yield from encoding
