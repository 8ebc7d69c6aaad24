"""Dialogue files as sequences of dialogues, read on access: memory holds where each one is, not its text.

Knows files and the dialogue format (through `core.dialogue`), no tokenizer and no model. A dialogue's key, a 64-bit
hash of its text, identifies it across files and reveals a file that is edited during training.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, DialogueFault, read, render
from core.errors import DialogueError, reason

HELD_OUT_SHARE = 20
"""One dialogue in twenty, the newest, is held out where no file is given for it."""
HELD_OUT_MOST = 1_000
"""More held-out dialogues than this slow a run down and hardly narrow its intervals."""
MAX_FAULTS = 1_000
"""Faults of one file that are listed; a file with more is most likely not a dialogue file."""
BUFFER = 1 << 20
"""Bytes read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFault:
    """A fault and its file."""

    file: Path
    fault: DialogueFault

    def __str__(self) -> str:
        return f"{self.file}, {self.fault}"


def key_of(turns: Dialogue) -> int:
    """A 64-bit hash of a dialogue's rendered text."""
    return int.from_bytes(hashlib.blake2b(render(turns).encode(), digest_size=8).digest(), "little")


class Dialogues(Sequence[Dialogue]):
    """Dialogues of files, by position: 28 bytes each in memory.

    Reading one raises DialogueError where its file is gone or was changed.
    """

    def __init__(
        self,
        files: Sequence[Path],
        file: NDArray[np.int32],
        start: NDArray[np.int64],
        size: NDArray[np.int64],
        keys: NDArray[np.uint64],
    ) -> None:
        """`file` (an index into `files`), `start` and `size` in bytes, and `keys`: (dialogues,) each."""
        self._files, self._file, self._start, self._size, self.keys = files, file, start, size, keys
        self._latest: tuple[int, Dialogue] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...

    @overload
    def __getitem__(self, index: slice) -> "Dialogues": ...

    def __getitem__(self, index: int | slice) -> "Dialogue | Dialogues":
        if isinstance(index, slice):
            return self.chosen(np.arange(len(self))[index])
        place = range(len(self))[index]
        if self._latest is None or self._latest[0] != place:  # callers look at one dialogue turn by turn
            path = self._files[self._file[place]]
            try:
                with path.open("rb") as raw:
                    self._latest = (place, self._read(raw, place))
            except OSError as error:
                raise _unreadable(path, error) from error
        return self._latest[1]

    def __iter__(self) -> Iterator[Dialogue]:
        begin = 0
        while begin < len(self):
            other = np.flatnonzero(self._file[begin:] != self._file[begin])
            end = begin + int(other[0]) if len(other) else len(self)
            path = self._files[self._file[begin]]
            try:
                with path.open("rb", buffering=BUFFER) as raw:
                    for place in range(begin, end):
                        yield self._read(raw, place)
            except OSError as error:
                raise _unreadable(path, error) from error
            begin = end

    def chosen(self, places: NDArray[np.int64]) -> "Dialogues":
        """Those at `places`, in that order."""
        return Dialogues(self._files, self._file[places], self._start[places], self._size[places], self.keys[places])

    def _read(self, raw: IO[bytes], place: int) -> Dialogue:
        raw.seek(int(self._start[place]))
        text = raw.read(int(self._size[place])).decode("utf-8", errors="replace")
        turns = next((found for found in read(text.split("\n")) if not isinstance(found, DialogueFault)), ())
        if key_of(turns) != self.keys[place]:
            path = self._files[self._file[place]]
            raise DialogueError(f"{path} was changed while it was being read; run the command again.")
        return turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The contents of dialogue files."""

    dialogues: Dialogues
    """In the order of the files, which is oldest first for an import."""
    faults: tuple[FileFault, ...] = ()
    sha256: str = ""
    """Over the files' bytes, in order: the same data, the same hash."""

    def split(self) -> "tuple[Corpus, Corpus]":
        """The older dialogues, and the newest one in twenty of them (at least one) to hold out."""
        count = min(max(1, len(self.dialogues) // HELD_OUT_SHARE), HELD_OUT_MOST)
        if len(self.dialogues) <= count:
            raise DialogueError(
                "One dialogue is not enough to train on, because one has to be held out; add dialogues to the file, "
                "or give a held-out file with --held-out."
            )
        cut = len(self.dialogues) - count
        return (
            Corpus(dialogues=self.dialogues[:cut], faults=self.faults, sha256=self.sha256),
            Corpus(dialogues=self.dialogues[cut:], sha256=self.sha256),
        )

    def share(self, part: float) -> Dialogues:
        """A part of the dialogues, spread evenly over all of them; at least one."""
        count = max(1, round(part * len(self.dialogues)))
        return self.dialogues.chosen(np.arange(count) * len(self.dialogues) // count)

    def without(self, other: "Corpus") -> "Corpus":
        """This corpus without the dialogues that are also in `other`, so that nothing held out is trained on."""
        kept = np.flatnonzero(~np.isin(self.dialogues.keys, other.dialogues.keys))
        return Corpus(dialogues=self.dialogues.chosen(kept), faults=self.faults, sha256=self.sha256)


def load(files: Sequence[Path]) -> Corpus:
    """Every usable dialogue of `files`, and every fault with its line.

    Raises DialogueError where a file is missing, unreadable, or none of them holds a dialogue.
    """
    faults: list[FileFault] = []
    digest = hashlib.sha256()
    file, start, size, keys = array("i"), array("q"), array("q"), array("Q")
    for number, path in enumerate(files):
        count = 0
        try:
            with path.open("rb", buffering=BUFFER) as raw:
                for found in _placed(raw, digest):
                    if isinstance(found, DialogueFault):
                        count += 1
                        if count <= MAX_FAULTS:
                            faults.append(FileFault(file=path, fault=found))
                        continue
                    turns, begin, end = found
                    file.append(number)
                    start.append(begin)
                    size.append(end - begin)
                    keys.append(key_of(turns))
        except OSError as error:
            raise _unreadable(path, error) from error
        if count > MAX_FAULTS:
            last = faults[-1].fault.line
            faults.append(
                FileFault(file=path, fault=DialogueFault(line=last, reason=f"and {count - MAX_FAULTS:,} more faults"))
            )
    if not keys:
        names = ", ".join(str(path) for path in files) or "no file"
        first = f" (the first fault: {faults[0].fault})" if faults else ""
        raise DialogueError(
            f"No usable dialogue in {names}{first}; a dialogue is lines that begin with Person1: and Person2:, "
            "with a blank line between dialogues."
        )
    dialogues = Dialogues(
        tuple(files),
        np.frombuffer(file, dtype=np.int32),
        np.frombuffer(start, dtype=np.int64),
        np.frombuffer(size, dtype=np.int64),
        np.frombuffer(keys, dtype=np.uint64),
    )
    return Corpus(dialogues=dialogues, faults=tuple(faults), sha256=digest.hexdigest())


def _placed(raw: IO[bytes], digest: "hashlib._Hash") -> Iterator[DialogueFault | tuple[Dialogue, int, int]]:
    """Faults, and dialogues with the bytes at which they begin and end."""
    begin = end = 0

    def lines() -> Iterator[str]:
        nonlocal begin, end
        for line in raw:
            digest.update(line)
            end += len(line)
            text = line.decode("utf-8", errors="replace")
            yield text
            if not text.lstrip("\ufeff").strip():  # what `read` takes for the end of a dialogue
                begin = end

    for found in read(lines()):
        yield found if isinstance(found, DialogueFault) else (found, begin, end)


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over the files' bytes, in order, as `Corpus.sha256`. Raises DialogueError."""
    found = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as raw:
                while block := raw.read(BUFFER):
                    found.update(block)
        except OSError as error:
            raise _unreadable(file, error) from error
    return found.hexdigest()


def divide(files: Sequence[Path], held_out: Sequence[Path] = ()) -> tuple[Corpus, Corpus, int]:
    """What to train on, what to hold out, and how many dialogues were dropped because they were in both.

    Raises DialogueError as `load` does, and where nothing is left to train on.
    """
    corpus = load(files)
    train, held = (corpus, load(held_out)) if held_out else corpus.split()
    kept = train.without(held)
    if not kept.dialogues:
        raise DialogueError("Every training dialogue is also in the held-out file; give two different files.")
    return kept, held, len(train.dialogues) - len(kept.dialogues)


def _unreadable(file: Path, error: OSError) -> DialogueError:
    if isinstance(error, FileNotFoundError):
        return DialogueError(f"There is no dialogue file {file}; check its name.")
    return DialogueError(f"The dialogue file {file} cannot be read ({reason(error)}); correct that first.")
