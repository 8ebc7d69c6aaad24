"""Dialogues → tokens, labels, packed rows.

Knows the dialogue format (through `core.dialogue`) and tokenizers; knows no model. A model that learns from these
rows meets exactly the text it will be prompted with. Only Person2's words are targets. Rows hold several dialogues
without padding between them; each dialogue's positions start at 0, and that alone keeps them apart: transformers
isolates packed dialogues only when it gets position ids, NO attention mask and `use_cache=False`.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from core.dialogue import Dialogue, DialogueFault, Speaker, Turn, prompt, read, render
from core.errors import DialogueError, ModelError, reason
from core.generator import END_OF_TEXT
from core.generator.vocabulary import end_tokens, start_tokens

IGNORE = -100
"""The label of a token that is no target; the number transformers and torch's cross-entropy agree on."""
HELD_OUT_SHARE = 20
"""One dialogue in twenty, the newest, is held out where no file is given for it."""
HELD_OUT_MOST = 1_000
"""More held-out dialogues than this make a run slower and its figures hardly surer."""
PACKING_BUFFER = 8_192
"""Windows packed at a time: enough for rows to fill, little enough to stay in memory whatever the file's size."""

Batch: TypeAlias = dict[str, torch.Tensor]


class Targets(Enum):
    """Which tokens a model is asked to predict."""

    REPLIES = "replies"
    """What follows `Person2:`, its newline included, since that is where a reply stops. Used to train, and for
    reply_bits_per_byte. The end of text after a dialogue is no target: a bot is never asked what follows its line."""
    EVERYTHING = "everything"
    """Every token of the rendered dialogue but the first, before which nothing stands. Used for bits_per_byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFault:
    """A fault and the file it stands in."""

    file: Path
    fault: DialogueFault

    def __str__(self) -> str:
        return f"{self.file}, {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What dialogue files hold."""

    dialogues: tuple[Dialogue, ...]
    """In the order of the files, which is oldest first for an import."""
    faults: tuple[FileFault, ...] = ()
    sha256: str = ""
    """Over the files' bytes, in order: the same data, the same hash."""

    def split(self) -> "tuple[Corpus, Corpus]":
        """The older dialogues, and the newest one in twenty of them (at least one) to hold out."""
        count = min(max(1, len(self.dialogues) // HELD_OUT_SHARE), HELD_OUT_MOST)
        if len(self.dialogues) <= count:
            raise DialogueError(
                "One dialogue is too little to train on, because one has to be held out; add dialogues to the file, "
                "or give a held-out file with --held-out."
            )
        cut = len(self.dialogues) - count
        return (
            Corpus(dialogues=self.dialogues[:cut], faults=self.faults, sha256=self.sha256),
            Corpus(dialogues=self.dialogues[cut:], sha256=self.sha256),
        )

    def share(self, part: float) -> tuple[Dialogue, ...]:
        """A part of the dialogues, spread evenly over all of them; at least one."""
        count = max(1, round(part * len(self.dialogues)))
        return tuple(self.dialogues[index * len(self.dialogues) // count] for index in range(count))

    def without(self, other: "Corpus") -> "Corpus":
        """This corpus less the dialogues that stand word for word in `other`: nothing held out is trained on."""
        known = {render(turns) for turns in other.dialogues}
        kept = tuple(turns for turns in self.dialogues if render(turns) not in known)
        return Corpus(dialogues=kept, faults=self.faults, sha256=self.sha256)


def load(files: Sequence[Path]) -> Corpus:
    """Every usable dialogue of `files`, and every fault with its line.

    Raises DialogueError where a file is missing, unreadable, or none of them holds a dialogue.
    """
    dialogues: list[Dialogue] = []
    faults: list[FileFault] = []
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as raw:
                lines = (_hashed(line, digest).decode("utf-8", errors="replace") for line in raw)
                for found in read(lines):
                    if isinstance(found, DialogueFault):
                        faults.append(FileFault(file=file, fault=found))
                    else:
                        dialogues.append(found)
        except FileNotFoundError:
            raise DialogueError(f"There is no dialogue file {file}; check its name.") from None
        except OSError as error:
            raise DialogueError(
                f"The dialogue file {file} cannot be read ({reason(error)}); correct that first."
            ) from error
    if not dialogues:
        names = ", ".join(str(file) for file in files) or "no file"
        first = f" (the first fault: {faults[0].fault})" if faults else ""
        raise DialogueError(
            f"No usable dialogue in {names}{first}; a dialogue is lines that begin with Person1: and Person2:, "
            "with a blank line between dialogues."
        )
    return Corpus(dialogues=tuple(dialogues), faults=tuple(faults), sha256=digest.hexdigest())


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over the files' bytes, in order, as `Corpus.sha256`. Raises DialogueError."""
    found = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as raw:
                while block := raw.read(1 << 20):
                    found.update(block)
        except OSError as error:
            raise DialogueError(
                f"The dialogue file {file} cannot be read ({reason(error)}); check its name."
            ) from error
    return found.hexdigest()


def divide(files: Sequence[Path], held_out: Sequence[Path] = ()) -> tuple[Corpus, Corpus, int]:
    """What to train on, what to hold out, and how many dialogues were left out because they stood in both.

    Raises DialogueError as `load` does, and where nothing is left to train on.
    """
    corpus = load(files)
    train, held = (corpus, load(held_out)) if held_out else corpus.split()
    kept = train.without(held)
    if not kept.dialogues:
        raise DialogueError("Every dialogue to train on also stands in the held-out file; give two different files.")
    return kept, held, len(train.dialogues) - len(kept.dialogues)


def _hashed(line: bytes, digest: "hashlib._Hash") -> bytes:
    digest.update(line)
    return line


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedDialogue:
    """One dialogue in tokens."""

    ids: NDArray[np.int32]
    """(T,)"""
    target: NDArray[np.bool_]
    """(T,): the model is asked to predict this token from those before it."""
    turns: NDArray[np.int32]
    """(turns,): where each turn begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of one dialogue that fits a row."""

    ids: NDArray[np.int32]
    """(T,)"""
    target: NDArray[np.bool_]
    """(T,)"""
    dialogue: int
    """Which dialogue of the corpus it is a part of."""

    def __len__(self) -> int:
        return len(self.ids)


Row: TypeAlias = tuple[Window, ...]
"""Windows that share a row, at most `block` tokens together."""


class Encoder:
    """Dialogues in tokens of one model's vocabulary.

    Turns are encoded piece by piece, the tag apart from the words; a byte-level BPE never joins tokens across those
    seams, so the pieces are the tokens of the whole text (a test holds this for every dialogue it can invent). Where a
    vocabulary does join them, or marks the beginning of a text (SentencePiece), the whole is encoded and then divided.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, left_out: Callable[[str], bool] = lambda text: False
    ) -> None:
        """`left_out` says of a turn's text that it is no target, though it is Person2's."""
        self._left_out = left_out
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError("This base has no fast tokenizer; use one with a tokenizer.json.")
        self.start = start_tokens(backend)
        """What stands in front of every dialogue and prompt; nothing in most families."""
        # A special token that somebody types is words, not a control.
        backend.encode_special_tokens = True
        self._backend = backend
        own = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        unknown = own == tokenizer.unk_token_id and tokenizer.unk_token != END_OF_TEXT
        end = tokenizer.eos_token_id if own is None or unknown else own
        if not isinstance(end, int):
            raise ModelError(f"This base's tokenizer has neither {END_OF_TEXT} nor an end of text of its own.")
        self.end: int = end
        self.ends = frozenset({end, *end_tokens(backend, {"eos_token_id": tokenizer.eos_token_id})})
        """What ends a generation."""
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=False)
        self.newlines = tuple(number for token, number in vocabulary.items() if "Ċ" in token or "<0x0A>" in token)
        """Tokens that hold a newline, alone or behind a stop, as byte-level and SentencePiece vocabularies write it."""
        self._tags = {speaker: self._encode([f"{speaker}:"])[0] for speaker in Speaker}
        pieces = [*self._tags[Speaker.PERSON1], *self.text(" a\n"), *self._tags[Speaker.PERSON2], *self.text(" b\n")]
        self._in_pieces = pieces == self.text(f"{Speaker.PERSON1}: a\n{Speaker.PERSON2}: b\n")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [cast("list[int]", encoding.ids) for encoding in encodings]

    def text(self, text: str) -> list[int]:
        """Tokens of any text, special tokens in it as plain words."""
        return self._encode([text])[0]

    def prompt(self, turns: Iterable[Turn]) -> list[int]:
        """What a model continues with Person2's next words."""
        return [*self.start, *self.text(prompt(turns))]

    def reply(self, words: str) -> list[int]:
        """Tokens of what follows `Person2:`, a space in front included."""
        if self._in_pieces:
            return self.text(f" {words}")
        front = self._tags[Speaker.PERSON2]
        return self.text(f"{Speaker.PERSON2}: {words}")[len(front) :]

    def words(self, ids: list[int]) -> str:
        """The text of tokens, special ones left out."""
        return cast("str", self._backend.decode(ids, skip_special_tokens=True))

    def encode(self, dialogues: Iterable[Dialogue], targets: Targets) -> Iterator[EncodedDialogue]:
        """Each dialogue in tokens, in order; a batch of them at a time, since the tokenizer is quickest so."""
        stream = iter(dialogues)
        while batch := list(islice(stream, 256)):
            if not self._in_pieces:
                yield from (self._divided(turns, targets) for turns in batch)
                continue
            words = iter(self._encode([f" {turn.text}\n" for turns in batch for turn in turns]))
            for turns in batch:
                yield self._one(turns, words, targets)

    def _divided(self, turns: Dialogue, targets: Targets) -> EncodedDialogue:
        """A dialogue encoded as a whole; a token belongs to the turn, and to the part of it, in which it ends."""
        found = self._backend.encode(render(turns), add_special_tokens=False)
        ends = [last - 1 for _, last in found.offsets]
        turn_ends = list(accumulate(len(f"{turn}\n") for turn in turns))
        cuts = [bisect_left(ends, place) for place in (0, *turn_ends)]
        tokens = iter(found.ids)

        def parts() -> Iterator[tuple[list[int], list[int]]]:
            for number, turn in enumerate(turns):
                words_begin = (turn_ends[number - 1] if number else 0) + len(f"{turn.speaker}:")
                seam = bisect_left(ends, words_begin)
                tag = list(islice(tokens, seam - cuts[number]))
                yield tag, list(islice(tokens, cuts[number + 1] - seam))

        return self._joined(turns, parts(), targets)

    def _one(self, turns: Dialogue, words: Iterator[list[int]], targets: Targets) -> EncodedDialogue:
        return self._joined(turns, ((self._tags[turn.speaker], next(words)) for turn in turns), targets)

    def _joined(
        self, turns: Dialogue, parts: Iterable[tuple[list[int], list[int]]], targets: Targets
    ) -> EncodedDialogue:
        """`parts` are each turn's tag and words."""
        ids: list[int] = [*self.start]
        target: list[bool] = [False] * len(ids)
        starts: list[int] = []
        everything = targets is Targets.EVERYTHING
        for turn, (tag, said) in zip(turns, parts, strict=True):
            starts.append(len(ids) if starts else 0)
            ids += tag + said
            answers = turn.speaker is Speaker.PERSON2 and len(starts) > 1  # an opening answers nothing
            answers = answers and not self._left_out(turn.text)
            target += [everything] * len(tag) + [everything or answers] * len(said)
        ids.append(self.end)
        target.append(False)
        if everything:
            target[len(self.start)] = False  # nothing that says anything stands before it
        return EncodedDialogue(
            ids=np.asarray(ids, dtype=np.int32),
            target=np.asarray(target, dtype=np.bool_),
            turns=np.asarray(starts, dtype=np.int32),
        )


def windows(encoded: EncodedDialogue, *, block: int, dialogue: int = 0, overlap: int | None = None) -> Iterator[Window]:
    """Stretches of at most `block` tokens in which each target stands exactly once.

    Every window after the first begins with up to `overlap` tokens (half a block) already seen, so that no reply is
    learned without what came before it; the last one looks back as far as fits. Seams fall between turns, except
    inside a turn that is too long for a window. What follows a window's last target teaches nothing and is left out.
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
        start = _seam(seams, max(0, done - overlap), done)
        end = start + block
        if end >= total:
            start = _seam(seams, max(0, total - block), done)
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
    """Packed rows, as a torch data set."""

    def __init__(self, rows: Iterable[Row], *, block: int) -> None:
        self.rows = list(rows)
        self.block = block

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def tokens(self) -> int:
        return sum(len(window) for row in self.rows for window in row)

    @property
    def targets(self) -> int:
        return sum(int(window.target.sum()) for row in self.rows for window in row)

    @property
    def fill(self) -> float:
        """Share of the rows' room that tokens take; the rest is padding."""
        return self.tokens / max(1, len(self.rows) * self.block)


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
    """Rows as a batch: `input_ids`, `position_ids`, `labels`, each (B, T) int64; `owners` adds whose tokens they are.

    T is the longest row's length. A shorter row's rest is filled with `end`, as a dialogue of its own without a
    target. Labels stand at the token itself, as transformers expects, not at the one before. There is no attention
    mask, on purpose: with one, transformers would let dialogues see each other.
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
