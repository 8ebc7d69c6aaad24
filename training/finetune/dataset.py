"""Dialogues in tokens → windows → packed rows, and rows → batches.

Knows windows, rows and labels; knows no model. Rows hold several dialogues without padding between them; each
dialogue's positions start at 0, and that alone keeps them apart: transformers isolates packed dialogues only when it
gets position ids, NO attention mask and `use_cache=False`. Rows are kept in a temporary file and read on access, so
that memory does not grow with the data.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from core.dialogue import Dialogue
from training.finetune.encoder import EncodedDialogue, Encoder, Targets

IGNORE = -100
"""The label of a token that is no target; the number transformers and torch's cross-entropy agree on."""
PACKING_BUFFER = 8_192
"""Windows packed at a time: enough for rows to fill, little enough to stay in memory whatever the file's size."""
IN_MEMORY = 32 << 20
"""Bytes of rows beyond which they are kept in a temporary file."""

Batch: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of one dialogue that fits into a row."""

    ids: NDArray[np.int32]
    """(T,)"""
    target: NDArray[np.bool_]
    """(T,)"""
    dialogue: int
    """The index of its dialogue in the corpus."""

    def __len__(self) -> int:
        return len(self.ids)


Row: TypeAlias = tuple[Window, ...]
"""Windows that share a row, at most `block` tokens together."""


def windows(encoded: EncodedDialogue, *, block: int, dialogue: int = 0, overlap: int | None = None) -> Iterator[Window]:
    """Windows of at most `block` tokens that contain each target exactly once.

    Every window after the first begins with up to `overlap` tokens (half a block) of the one before, so that no reply
    is learned without context; the last one reaches back as far as fits. Windows begin between turns, except inside a
    turn that is too long for one. What follows a window's last target is left out, since nothing is learned from it.
    """
    overlap = block // 2 if overlap is None else overlap
    if not 0 <= overlap < block:
        raise ValueError("the overlap must be shorter than the block")
    positions = np.flatnonzero(encoded.target)
    if not len(positions):
        return
    total = int(positions[-1]) + 1
    seams = [*encoded.turns.tolist(), total]
    done = 0
    while done < total:
        latest = max(0, done - 1)  # a window's first token has nothing before it that could predict it
        start = _seam(seams, max(0, done - overlap), latest)
        end = start + block
        if end >= total:
            start = _seam(seams, max(0, total - block), latest)
            end = total
        else:
            before = seams[bisect_left(seams, end + 1) - 1]
            end = before if before > done else end
        target = encoded.target[start:end].copy()
        target[: done - start] = False
        if target.any():
            last = int(np.flatnonzero(target)[-1]) + 1
            yield Window(ids=encoded.ids[start : start + last], target=target[:last], dialogue=dialogue)
        done = end


def _seam(seams: list[int], low: int, high: int) -> int:
    """The first seam from `low` to `high`, else `low` itself, in the middle of a turn."""
    found = seams[bisect_left(seams, low)]
    return found if found <= high else low


def pack(stream: Iterable[Window], *, block: int, seed: int, buffer: int = PACKING_BUFFER) -> Iterator[Row]:
    """Whole windows in rows of at most `block` tokens: best fit, longest first, `buffer` windows at a time.

    Which windows meet in a row does not matter to the model, since they do not see each other. Rows come out shuffled
    within the buffer; the same seed gives the same rows.
    """
    random = np.random.default_rng(seed)
    windows_left = iter(stream)
    while batch := list(islice(windows_left, buffer)):
        yield from _best_fit([batch[index] for index in random.permutation(len(batch))], block, random)


def _best_fit(batch: list[Window], block: int, random: np.random.Generator) -> list[Row]:
    rows: list[list[Window]] = []
    rooms: list[int] = []  # every amount of room some row has left, sorted
    having: dict[int, list[int]] = {}  # room → rows
    for window in sorted(batch, key=len, reverse=True):
        size = len(window)
        if size > block:
            raise ValueError("a window is longer than a row")
        fit = bisect_left(rooms, size)
        if fit < len(rooms):
            room = rooms[fit]
            row = having[room].pop()
            if not having[room]:
                del having[room], rooms[fit]
        else:
            room, row = block, len(rows)
            rows.append([])
        rows[row].append(window)
        left = room - size
        if left:
            if left not in having:
                insort(rooms, left)
            having.setdefault(left, []).append(row)
    return [tuple(rows[index]) for index in random.permutation(len(rows))]


class Rows(Dataset[Row]):
    """Packed rows as a torch data set; memory holds only their positions in the file. One process reads at a time."""

    def __init__(self, rows: Iterable[Row], *, block: int) -> None:
        self.block = block
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as rows are read
        ends, lengths, targets = array("q"), array("i"), array("i")
        for row in rows:
            self._file.write(_to_bytes(row))
            ends.append(self._file.tell())
            lengths.append(sum(len(window) for window in row))
            targets.append(sum(int(window.target.sum()) for window in row))
        starts = [0, *ends][: len(ends)]
        self._places = np.array([starts, ends], dtype=np.int64).T
        self._targets = np.array(targets, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        """Tokens of each row, (rows,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Row:
        start, end = self._places[index].tolist()
        self._file.seek(start)
        return _from_bytes(self._file.read(end - start))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def part(self, first: int, step: int) -> "Rows":
        """Every `step`th row from `first` on."""
        part = copy(self)
        part._places, part._targets = self._places[first::step], self._targets[first::step]
        part.lengths = self.lengths[first::step]
        return part

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def targets(self) -> int:
        return int(self._targets.sum())

    @property
    def fill(self) -> float:
        """Share of the rows that is tokens and not padding."""
        return self.tokens / max(1, len(self) * self.block)


def _to_bytes(row: Row) -> bytes:
    """int32: the number of windows, length and dialogue of each, then the tokens, where ~token marks a non-target."""
    head = [len(row), *(number for window in row for number in (len(window), window.dialogue))]
    tokens = (np.where(window.target, window.ids, ~window.ids) for window in row)
    return np.concatenate([np.array(head, dtype=np.int32), *tokens]).astype(np.int32).tobytes()


def _from_bytes(data: bytes) -> Row:
    numbers = np.frombuffer(data, dtype=np.int32)
    count = int(numbers[0])
    heads = numbers[1 : 1 + 2 * count].reshape(count, 2)
    parts = np.split(numbers[1 + 2 * count :], np.cumsum(heads[:-1, 0]))
    return tuple(
        Window(ids=np.where(part < 0, ~part, part), target=part >= 0, dialogue=int(dialogue))
        for part, (_, dialogue) in zip(parts, heads, strict=True)
    )


def encode_rows(
    corpus: Iterable[Dialogue],
    encoder: Encoder,
    *,
    block: int,
    seed: int,
    targets: Targets = Targets.REPLIES,
) -> Rows:
    """Dialogues → windows → packed rows."""
    stream = (
        window
        for index, encoded in enumerate(encoder.encode(corpus, targets))
        for window in windows(encoded, block=block, dialogue=index)
    )
    return Rows(pack(stream, block=block, seed=seed), block=block)


def collate(rows: Sequence[Row], *, end: int = 0, owners: bool = False) -> Batch:
    """Rows as a batch: `input_ids`, `position_ids`, `labels`, each (B, T) int64; `owners` adds the dialogue of each
    token.

    T is the length of the longest row. Shorter rows are padded with `end`, as a dialogue of its own without targets.
    Labels are at the token itself, as transformers expects, not at the one before. There is no attention mask, on
    purpose: with one, transformers would let dialogues attend to each other.
    """
    width = max(sum(len(window) for window in row) for row in rows)
    shape = (len(rows), width)
    ids = np.full(shape, end, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    owner = np.full(shape, -1, dtype=np.int64)
    for line, row in enumerate(rows):
        at = 0
        for window in row:
            here = slice(at, at + len(window))
            ids[line, here] = window.ids
            positions[line, here] = np.arange(len(window))
            labels[line, here] = np.where(window.target, window.ids, IGNORE)
            owner[line, here] = window.dialogue
            at += len(window)
        positions[line, at:] = np.arange(width - at)
    arrays: dict[str, Any] = {"input_ids": ids, "position_ids": positions, "labels": labels}
    if owners:
        arrays["owners"] = owner
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
