"""Ordered messages → segments of talk between silences → dialogues, a batch at a time.

Knows places in the sorted table and dialogues, no format and no output. `batches` runs in the main process and only
looks at times; `make` runs in a worker, reads the messages and does the work.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from core.errors import ExportError
from training.data import sort
from training.data.projection import READY_MADE, Made, ProjectionRules, dialogues
from training.data.reply_links import Linker

BATCH = 3000
"""Messages handed to a worker at once; a reply link reaches back this far at most."""
MAX_SEGMENT = 3000
"""Messages of one segment; talk without a silence as long as the gap is cut here."""
THREAD_GAP = timedelta(days=14)
"""Silence that ends a thread; people answer threads days later."""

Place: TypeAlias = tuple[int, str, int, int, int]
"""Of a message: its conversation's key and address, its time in microseconds since 1970, its part and row."""


@dataclass(slots=True)
class ConversationSegments:
    """Segments of one conversation, which `conversation` names by its address."""

    conversation: str
    segments: list[sort.Segment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What workers need once: pickled to a file, loaded by each on its first batch."""

    rules: ProjectionRules
    linker: Linker | None
    """None: the bundled disentangler."""
    languages: tuple[str, ...] = ()


def batches(places: Iterable[Place], gap: timedelta) -> Iterator[list[ConversationSegments]]:
    """Cut the ordered stream at silences and gather segments into batches; a batch ends between segments."""
    batch: list[ConversationSegments] = []
    size = 0
    for address, segment in _segments(places, gap):
        if size >= BATCH:
            yield batch
            batch, size = [], 0
        if not batch or batch[-1].conversation != address:
            batch.append(ConversationSegments(address, []))
        batch[-1].segments.append(segment)
        size += segment.count
    if batch:
        yield batch


def _segments(places: Iterable[Place], gap: timedelta) -> Iterator[tuple[str, sort.Segment]]:
    here = gap // timedelta(microseconds=1)
    thread = max(gap, THREAD_GAP) // timedelta(microseconds=1)
    opened: tuple[str, int, tuple[int, int, int]] | None = None
    latest = silence = count = 0
    for key, address, time, part, row in places:
        if opened is not None:
            if key == opened[1] and time - latest <= silence and count < MAX_SEGMENT:
                latest = time
                count += 1
                continue
            yield opened[0], sort.Segment(conversation=opened[1], start=opened[2], count=count)
        if opened is None or key != opened[1]:
            silence = (
                1 << 62 if address.startswith(READY_MADE + "\x1f") else thread if "\x1fthread\x1f" in address else here
            )
        opened, latest, count = (address, key, (time, part, row)), time, 1
    if opened is not None:
        yield opened[0], sort.Segment(conversation=opened[1], start=opened[2], count=count)


def make(batch: Sequence[ConversationSegments], setup: Path, store: Path) -> Made:
    """All dialogues of a batch."""
    rules, linker = _load(setup)
    total = Made()
    for talk in batch:
        conversation = sort.conversation_of(talk.conversation)
        read = [sort.messages(store, conversation, segment) for segment in talk.segments]
        made = dialogues(
            [[message for message, _ in segment] for segment in read],
            linker=linker,
            rules=rules,
            copies=[[copy for _, copy in segment] for segment in read],
        )
        total.drafts += made.drafts
        total.conversations += made.conversations
        total.dropped += made.dropped
        total.dialogues_dropped += made.dialogues_dropped
        total.masked += made.masked
        total.links += made.links
    return total


@lru_cache(maxsize=1)
def _load(setup: Path) -> tuple[ProjectionRules, Linker]:
    with setup.open("rb") as file:
        given: Setup = pickle.load(file)  # noqa: S301 - written by the main process a moment ago
    rules = given.rules
    if given.languages:
        rules = replace(rules, language=language_filter(given.languages))
    return rules, given.linker if given.linker is not None else bundled_linker()


THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def numpy_on_one_thread() -> None:
    """Load numpy so that it multiplies matrices on one thread: ours are small, and waiting threads took four times the
    processor time. The variables are read while loading and restored at once, so nothing loaded later sees them."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        import_module("numpy")
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def bundled_linker() -> Linker:
    """The disentangler that ships with Person2."""
    numpy_on_one_thread()
    from training.data.disentangle import Disentangler  # loads its scorer, which only workers need

    return Disentangler.load()


def language_filter(languages: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text is in one of the languages (ISO 639-1); needs the optional package py3langid."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as missing:
        raise ExportError("The language filter needs py3langid; install it with `pip install py3langid`.") from missing

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    wanted = frozenset(languages)
    return lambda text: identifier.classify(text)[0] in wanted
