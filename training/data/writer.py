"""The dialogues of an import: spooled while they are made, then written to files with their manifest.

Knows bytes, hashes of people and the split by time; knows nothing of exports.
"""

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from training.data import manifest
from training.data.projection import Draft
from training.data.stats import ImportStats
from training.privacy import consent

SAMPLED = 2000
"""Dialogues whose tokens are counted; the total is extrapolated by characters."""
CHARACTERS_PER_TOKEN = 4.2
"""Of GPT-2 on English chat, where no tokenizer is given."""

_HEAD = struct.Struct("<qIIH")
_PERSON = struct.Struct("<II")

Progress = Callable[[str, float], None]
"""Called with what is being done (`reading`, `making dialogues`, `writing`) and the share that is done, 0 to 1."""


class DialogueWriter:
    """Dialogues in a spool file, each: `_HEAD` (began, bytes, turns, people), people, text. Added to inside `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=1 << 18)
        self._people: dict[str, int] = {}
        self.began = array("q")
        """When each dialogue began, as in `Draft`."""

    @property
    def people(self) -> list[str]:
        """Everybody in them; the dialogues hold places in this list."""
        return list(self._people)

    def __enter__(self) -> "DialogueWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, draft: Draft) -> None:
        """Append a dialogue."""
        text = draft.text.encode("utf-8", "replace")
        self._file.write(_HEAD.pack(draft.began, len(text), draft.turns, len(draft.people)))
        for who, messages in draft.people:
            self._file.write(_PERSON.pack(self._people.setdefault(who, len(self._people)), messages))
        self._file.write(text)
        self.began.append(draft.began)

    def __iter__(self) -> Iterator[tuple[int, list[tuple[int, int]], bytes]]:
        """When it began, its people as (place in `people`, messages), its text; in the order of adding."""
        with self._path.open("rb", buffering=1 << 18) as file:
            while head := file.read(_HEAD.size):
                began, size, _, count = _HEAD.unpack(head)
                people = [_PERSON.unpack(file.read(_PERSON.size)) for _ in range(count)]
                yield began, people, file.read(size)


class _Target:
    """A dialogue file being written: its temporary file, its checksum, and the people of each dialogue."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.count = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)))
        self.temporary, self.lines = folder / "text", folder / "people"
        self._sum = sha256()
        self._text = stack.enter_context(self.temporary.open("wb", buffering=1 << 18))
        self._people = stack.enter_context(self.lines.open("w", encoding="ascii", buffering=1 << 18))

    def add(self, text: bytes, people: Iterable[int]) -> None:
        block = (b"\n" if self.count else b"") + text
        self._text.write(block)
        self._sum.update(block)
        self._people.write(" ".join(map(str, people)) + "\n")
        self.count += 1

    def close(self) -> str:
        self._text.close()
        self._people.close()
        return self._sum.hexdigest()

    def people(self) -> Iterator[str]:
        with self.lines.open(encoding="ascii") as file:
            for line in file:
                yield line.rstrip("\n")


def write(
    dialogues: DialogueWriter,
    stats: ImportStats,
    head: dict[str, Any],
    key: consent.PeopleKey,
    out: Path,
    held_out: Path | None,
    held_out_share: float,
    count_tokens: Callable[[str], int] | None,
    report: Progress,
) -> None:
    """The dialogues to `out` and the newest `held_out_share` of them to `held_out`, a manifest beside `out`.

    `head` holds the manifest's first fields. Everything is written to temporary files first; then all are moved into
    place.
    """
    boundary = _boundary(dialogues.began, held_out_share) if held_out is not None else None
    names = dialogues.people
    order = sorted(range(len(names)), key=lambda at: key.of(names[at]))
    place = {at: new for new, at in enumerate(order)}
    messages = [0] * len(order)
    sample = _TokenEstimate(count_tokens, len(dialogues.began))
    with ExitStack() as stack:
        targets = {"out": _Target(out, stack)}
        if held_out is not None:
            targets["held_out"] = _Target(held_out, stack)
        for number, (began, people, text) in enumerate(dialogues):
            name = "held_out" if boundary is not None and began >= boundary else "out"
            two, *others = (place[at] for at, _ in people)
            targets[name].add(text, [two, *sorted(others)])
            for at, count in people:
                messages[place[at]] += count
            sample.add(number, text)
            if number % 4096 == 0:
                report("writing", number / len(dialogues.began))
        sums = {name: target.close() for name, target in targets.items()}
        stats.held_out = targets["held_out"].count if held_out is not None else 0
        stats.tokens, stats.tokens_exact = sample.total()
        document = targets["out"].temporary.with_name("manifest")
        head |= {
            "counts": stats.counts(),
            "files": {name: target.path.name for name, target in targets.items()},
            "sha256": sums,
        }
        everybody = (
            manifest.Person(hash=key.of(names[at]), messages=count) for at, count in zip(order, messages, strict=True)
        )
        with document.open("wb") as file:
            manifest.write(file, head, everybody, {name: target.people() for name, target in targets.items()})
        document.replace(manifest.beside(out))
        for target in reversed(targets.values()):
            target.temporary.replace(target.path)
    report("writing", 1.0)
    stats.out, stats.held_out_file, stats.manifest = out, held_out, manifest.beside(out)


def _boundary(began: "array[int]", share: float) -> int | None:
    """The time from which on dialogues are held out: the newest `share`, whole conversations, never all of them."""
    times = sorted(began)
    wanted = round(len(times) * share)
    if wanted == 0 or len(times) < 2:
        return None
    boundary = times[-wanted]
    if boundary == times[0]:
        return next((moment for moment in times if moment > boundary), None)
    return boundary


class _TokenEstimate:
    """The number of tokens, from an even sample of dialogues."""

    def __init__(self, count: Callable[[str], int] | None, dialogues: int) -> None:
        self._count = count
        self._every = max(1, dialogues // SAMPLED)
        self._characters = self._sampled = self._tokens = 0

    def add(self, number: int, text: bytes) -> None:
        self._characters += len(text)
        if self._count is not None and number % self._every == 0:
            self._sampled += len(text)
            self._tokens += self._count(text.decode())

    def total(self) -> tuple[int, bool]:
        if self._count is None or not self._sampled:
            return round(self._characters / CHARACTERS_PER_TOKEN), False
        return round(self._tokens * self._characters / self._sampled), self._every == 1
