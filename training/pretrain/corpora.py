"""What the model learns from: files with a weight, cleaned, hashed, and split by a fixed rule.

Knows dialogue files (through `core.dialogue`) and plain prose; knows no tokens and no torch. A text that comes out of
here is exactly what `render` writes, so the model meets at run time what it learned.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core import dialogue
from core.errors import TrainingError

HOLD_OUT_EVERY = 10
"""Of a file without a held-out file of its own, the dialogues 10, 20, 30 … are held out."""

MIDWAY_EVERY = 4
"""Every fourth dialogue begins at one of Person2's turns."""
MIDWAY_TURNS = 4
"""Shorter ones stay whole."""

MIN_TURN_LETTERS = 1
MAX_TURN_CHARACTERS = 1_200
"""A longer turn is an essay or a paste, not talk."""

_TAG_ARTEFACT = re.compile(r"(?:^|(?<=\s))(?:PERSON|Person|SPEAKER|Speaker|USER|User) ?[0-9AB]?: ?")
_LOST_SPACE = re.compile(r"\s+([,.!?;:])(?=\s|$)")
_REPEATED = re.compile(r"(.)\1{5,}")
_UNPRINTABLE = re.compile(r"[\ufffd\ue000-\uf8ff]")
_PLACEHOLDER = re.compile(
    r"\[(?:user|name|your |my |insert)[^\]]*\]|\((?:your )?name\)|\(?\buser ?[12]\b", re.IGNORECASE
)
"""Placeholders that a text generator left unfilled: `[user 2]`, `[name]`, `(name)`."""
SAME_ANSWER = 24
"""At most so many exchanges with the same answer are kept: else a few stock answers would follow everything."""
_MARKUP = re.compile(r"</?[a-z]+>|&(?:amp|quot|lt|gt|nbsp|#\d+);|https?://\S+|www\.\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSource:
    """A file and its weight: with 2 it is read twice as often as with 1."""

    path: Path
    weight: float
    kind: Literal["dialogues", "prose"] = "dialogues"
    hold_out: bool = False
    """Hold out every tenth dialogue (`HOLD_OUT_EVERY`)."""

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingCorpus:
    """The texts of one file, ready to be tokenized."""

    name: str
    sha256: str
    """Of the file as it lies on disk."""
    texts: tuple[str, ...]
    """What is trained on: rendered dialogues, or whole works of prose."""
    held_out: tuple[str, ...] = ()
    """Every tenth dialogue; as it is in the file, not cleaned."""
    dropped: int = 0
    """Dialogues left out: junk in one of their turns, or an answer that is common already."""


def parse_source(spec: str, *, kind: Literal["dialogues", "prose"] = "dialogues") -> CorpusSource:
    """`path` or `path=weight`. Raises TrainingError for a weight that is no positive number."""
    path, separator, weight = spec.rpartition("=")
    if not separator:
        return CorpusSource(path=Path(spec), weight=1.0, kind=kind)
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise TrainingError(f"{spec!r} has no weight after the “=”: write a file and a positive number, as talk.txt=3.")
    return CorpusSource(path=Path(path), weight=value, kind=kind)


def clean(text: str) -> str:
    """A turn without artefacts of its collection; empty if it is junk and its dialogue should be dropped.

    Transcript tags inside a turn, spaces before punctuation, markup, links, endless letters. Spelling, case and slang
    stay: people write like that, and the held-out files are scored as they are.
    """
    if (
        _UNPRINTABLE.search(text)
        or len(text) > MAX_TURN_CHARACTERS
        or _MARKUP.search(text)
        or _PLACEHOLDER.search(text)
    ):
        return ""
    text = _TAG_ARTEFACT.sub("", text)
    text = _LOST_SPACE.sub(r"\1", text)
    text = _REPEATED.sub(lambda match: match[1] * 3, text)
    text = dialogue.one_line(text)
    return text if sum(character.isalnum() for character in text) >= MIN_TURN_LETTERS else ""


def clean_dialogue(turns: dialogue.Dialogue) -> dialogue.Dialogue | None:
    """The dialogue with its turns cleaned; None if a turn is junk, since its neighbours then answer nothing."""
    kept = [dialogue.Turn(turn.speaker, text) for turn in turns if (text := clean(turn.text))]
    return tuple(kept) if len(kept) == len(turns) and len(kept) > 1 else None


def midway(turns: dialogue.Dialogue, number: int) -> dialogue.Dialogue:
    """The dialogue, or of every MIDWAY_EVERY-th the rest from one of Person2's turns, each turn equally often.

    So the model learns how likely a reply is without a context, which ranking by mutual information subtracts
    (`evaluation.ranking`). Otherwise it would rarely see a text that begins with `Person2:` and would expect an opening
    there, not a reply.
    """
    if number % MIDWAY_EVERY or len(turns) < MIDWAY_TURNS:
        return turns
    starts = [index for index, turn in enumerate(turns) if index and turn.speaker is dialogue.Speaker.PERSON2]
    return turns[starts[number // MIDWAY_EVERY % len(starts)] :]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file. Raises TrainingError if it cannot be read."""
    return _bytes_of(path).decode("utf-8", errors="replace").splitlines()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def load(source: CorpusSource) -> PretrainingCorpus:
    """Read one file. Raises TrainingError if it cannot be read or holds nothing to learn from."""
    raw = _bytes_of(source.path)
    sha256 = hashlib.sha256(raw).hexdigest()
    text = raw.decode("utf-8", errors="replace")
    if source.kind == "prose":
        texts: list[str] = [prose(text)] if text.strip() else []
        held_out: list[str] = []
        dropped = 0
    else:
        texts, held_out, dropped = _dialogues(text.splitlines(), hold_out=source.hold_out)
    if not texts:
        raise TrainingError(
            f"{source.path} contains nothing to learn from; write dialogues as lines of Person1: … and Person2: …."
        )
    return PretrainingCorpus(
        name=source.name, sha256=sha256, texts=tuple(texts), held_out=tuple(held_out), dropped=dropped
    )


def prose(text: str) -> str:
    """Paragraphs, a line each, without blank lines."""
    lines = (dialogue.one_line(line) for line in text.splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def held_out(path: Path) -> tuple[str, ...]:
    """Every dialogue of a held-out file, rendered and not cleaned. Raises TrainingError."""
    texts = tuple(dialogue.render(turns) for turns in dialogues_in(lines_of(path)))
    if not texts:
        raise TrainingError(f"{path} contains no dialogue to measure; write lines of Person1: … and Person2: ….")
    return texts


def dialogues_in(lines: Iterable[str]) -> Iterable[dialogue.Dialogue]:
    return (item for item in dialogue.read(lines) if not isinstance(item, dialogue.DialogueFault))


def _dialogues(lines: Iterable[str], *, hold_out: bool) -> tuple[list[str], list[str], int]:
    texts, held_out, dropped = [], [], 0
    answers: Counter[str] = Counter()
    for number, turns in enumerate(dialogues_in(lines), 1):
        if hold_out and number % HOLD_OUT_EVERY == 0:
            held_out.append(dialogue.render(turns))
            continue
        kept = clean_dialogue(turns)
        lone = kept is not None and len(kept) == 2
        if kept is None or (lone and answers[kept[1].text] == SAME_ANSWER):
            dropped += 1
            continue
        if lone:
            answers[kept[1].text] += 1
        texts.append(dialogue.render(midway(kept, number)))
    return texts, held_out, dropped
