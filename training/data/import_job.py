"""`person2 import`: exports in, a dialogue file and its manifest out, nothing else touched.

Wires readers, sorting, links, projection, consent and manifest together; each of them does its own part. Two passes:
read everything into one sorted table (which shows people, copies and silences), then cut it into dialogues. Both use
all cores given, and neither the number of cores nor the order in which they finish changes a byte.
"""

import errno
import os
import pickle
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import phonenumbers

from core.errors import ExportError
from core.messages import Message
from training.data import formats, ingest, manifest, pii, segmentation, sort
from training.data.fingerprints import RecentFingerprints
from training.data.formats.items import MAX_MESSAGE
from training.data.formats.markup import CodeBlocks
from training.data.names import Names
from training.data.pii.phones import COUNTRIES
from training.data.projection import Made, ProjectionRules, person
from training.data.reply_links import Linker
from training.data.stats import ImportStats
from training.data.workers import Workers
from training.data.writer import DialogueWriter, Progress, write
from training.privacy import consent

PARALLEL_FROM = 16 << 20
"""Bytes of exports from which further processes are worth starting (each takes half a second to start)."""
MAX_WORKERS = 4
AHEAD = 2
"""Tasks waiting for each worker; more would only hold memory."""
HELD_OUT_SHARE = 0.1
"""Of all dialogues, the newest: training and held-out dialogues are split by time."""
COPIED_OFTEN = 5
"""Times a text must occur in the whole import to count as copy-pasta."""
MAX_COPIED = 200_000
GAP = timedelta(hours=12)
"""Silence that ends a conversation. Measured on the PyScript Discord with its reply links hidden: of 1 to 24 hours, the
conversations found are nearest to the true ones with 12 (scaled VI 81.7, one-to-one 55.0; with half an hour 81.2 and
50.1, and without the disentangler 80.6 and 48.9). Busy IRC channels hardly fall silent so long: #ubuntu's figures are
the same from half an hour on."""
T = TypeVar("T")
Argument = TypeVar("Argument")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an import besides sources, outputs and consent."""

    as_name: str | None = None
    """Only this member (a name or id) is Person2."""
    gap: timedelta = GAP
    """Silence that ends a conversation."""
    held_out_share: float = HELD_OUT_SHARE
    min_turns: int = 2
    min_words: int = 5
    max_message: int = MAX_MESSAGE
    """Characters; longer messages are left out."""
    code: CodeBlocks = CodeBlocks.SHORT
    block_list: tuple[str, ...] = ()
    """Words and phrases; a message that contains one is left out."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; dialogues in others are left out. Empty keeps all."""
    columns: str = ""
    """Which columns of CSV files are what, as `--columns` takes it; empty leaves them out."""
    keep_names: bool = False
    """Leave people's names in the text, instead of the tag of their side or `[name]`."""
    countries: tuple[str, ...] = ()
    """ISO 3166 codes of more countries whose national telephone numbers are masked."""
    linker: Linker | None = None
    """Who answers whom where no reply link says so; None takes the bundled disentangler."""
    workers: int | None = None
    """Processes; None chooses by size and cores."""


def import_talk(
    sources: Sequence[Path],
    *,
    out: Path,
    home: Path,
    attest: str | None = None,
    people: Path | None = None,
    held_out: Path | None = None,
    log: Iterable[Message] | None = None,
    consented: Iterable[str] = (),
    liked: Iterable[str] = (),
    options: Options | None = None,
    count_tokens: Callable[[str], int] | None = None,
    progress: Progress | None = None,
) -> ImportStats:
    """Turn exports (and the bot's own `log`) into dialogues at `out`, with `out.manifest.json` beside it.

    `home` holds the key for people's hashes. `consented` are the `platform:id`s who gave the bot their consent: of the
    log only their words are taken. `liked` are ids of the bot's messages that somebody liked. What is wrong inside the
    sources is in the faults of the result; raises ExportError where the import cannot be done at all.
    """
    options = options or Options()
    report = progress or (lambda stage, share: None)
    started = time.monotonic()
    _check(options, sources, out, held_out, attest, people, log)
    if options.columns:
        formats.columns.parse(options.columns)
    names = consent.read_people(people) if people is not None else None
    key = consent.PeopleKey.at(home)
    stats = ImportStats()
    with _explaining_failures(out), ExitStack() as stack:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)))
        job = _ImportJob(scratch, options, stats, report, stack)
        job.read(sources, log, frozenset(consented))
        rules = job.rules(names, frozenset(consented) if log is not None else frozenset(), frozenset(liked))
        dialogues = job.make_dialogues(rules)
        if stats.dialogues:
            head = {
                "version": manifest.VERSION,
                "attestation": attest.strip() if attest else None,
                "people_file": ingest.digest(people) if people is not None else None,
                "sources": job.sources,
                "options": _recorded(options, held_out) | {"as": _hashes(rules.targets, key)},
            }
            share = options.held_out_share
            write(dialogues, stats, head, key, out, held_out, share, count_tokens, report)
    stats.seconds = time.monotonic() - started
    return stats


@contextmanager
def _explaining_failures(out: Path) -> Iterator[None]:
    """Turns a full disk and a killed process into sentences; the block removes all it had written so far."""
    try:
        yield
    except BrokenProcessPool as problem:
        raise ExportError(
            "A process that read the exports was killed by the system, most likely because memory ran out; nothing was "
            "written."
        ) from problem
    except (OSError, sqlite3.Error) as problem:
        full = isinstance(problem, OSError) and problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        if not full and getattr(problem, "sqlite_errorname", "") not in {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}:
            raise
        raise ExportError(
            f"The disk of {out} is full, so nothing was written; an import needs about as much space as the "
            "unpacked exports. Free some, or choose another place with --out."
        ) from problem


def _check(
    options: Options,
    sources: Sequence[Path],
    out: Path,
    held_out: Path | None,
    attest: str | None,
    people: Path | None,
    log: Iterable[Message] | None,
) -> None:
    if not sources and log is None:
        raise ExportError("There is nothing to import; name an export file, folder or zip, or `log`.")
    unknown = [code for code in options.countries if code not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        raise ExportError(f"{unknown[0]!r} is not a country code; give two letters, such as --country DE.")
    if sources and not (attest and attest.strip()) and people is None:
        raise ExportError(
            'Nothing was written: say with --attest "…" why you may use this talk, '
            "or list the people who consented with --people FILE."
        )
    for target in (out, held_out):
        if target is None:
            continue
        if target.is_dir():
            raise ExportError(f"{target} is a folder; name the file to write.")
        if any(target.resolve() == source.resolve() for source in sources):
            raise ExportError(f"{target} is one of the sources and would be overwritten; name another file.")
    if held_out is not None and held_out.resolve() in (out.resolve(), manifest.beside(out).resolve()):
        raise ExportError("The held-out dialogues need a file of their own; name another one with --held-out.")
    for source in sources:
        if not source.exists():
            raise ExportError(f"There is no file or folder {source}; name an export.")


def _recorded(options: Options, held_out: Path | None) -> dict[str, Any]:
    """The options as the manifest shows them. The block list stays private; its size does not."""
    return {
        "gap minutes": options.gap.total_seconds() / 60,
        "held out share": options.held_out_share if held_out else None,
        "min turns": options.min_turns,
        "min words": options.min_words,
        "max message": options.max_message,
        "code": str(options.code),
        "block list": len(options.block_list),
        "languages": list(options.languages),
        "keep names": options.keep_names,
        "links": type(options.linker).__name__ if options.linker is not None else "disentangler",
    }


def _hashes(targets: frozenset[str] | None, key: consent.PeopleKey) -> list[str] | None:
    """Whom `--as` named, as hashes: a name would stay in the manifest after they asked to be forgotten."""
    return None if targets is None else sorted(key.of(target) for target in targets)


class _ImportJob:
    """The two passes of one import and its scratch folder."""

    def __init__(self, scratch: Path, options: Options, stats: ImportStats, report: Progress, stack: ExitStack) -> None:
        self.sources: list[dict[str, Any]] = []
        self._scratch, self._options, self._stats, self._report = scratch, options, stats, report
        self._stack = stack
        self._store = sort.MessageTable(scratch / "messages.db")
        stack.callback(self._store.close)
        self._names: dict[str, list[str]] = {}

    def read(self, sources: Sequence[Path], log: Iterable[Message] | None, consented: frozenset[str]) -> None:
        """First pass: everything into the table, sorted, and each message once."""
        size = sum(_size(source) for source in sources)
        self._start(size)
        done = parts = 0
        for result, cost in self._results(sources):
            self._add(result)
            parts += 1
            done += cost
            self._report("reading", min(done / size, 1.0) if size else 1.0)
        if log is not None:
            self._add(ingest.fill(_only_consented(log, consented), parts, self._store.path))
            self.sources.append({"name": "log", "kind": "log", "sha256": ""})
        self._stats.dropped["duplicate"] += self._store.settle()

    def _start(self, size: int) -> None:
        asked = self._options.workers
        count = asked or (1 if size < PARALLEL_FROM else min(MAX_WORKERS, _processors()))
        self._workers = self._stack.enter_context(Workers(count))

    def _results(self, sources: Sequence[Path]) -> Iterator[tuple[ingest.IngestResult, int]]:
        """The result of each part with its size in bytes, in the order of the sources."""
        waiting: deque[tuple[Future[ingest.IngestResult] | ingest.IngestResult, int]] = deque()
        number = 0
        for at, (source, label) in enumerate(zip(sources, labels(sources), strict=True)):
            files: dict[Path, str] = {}
            kinds: dict[str, None] = {}
            unpacked = self._scratch / f"unpacked-{at}"
            unpacked.mkdir()
            for piece in formats.pieces(source, scratch=unpacked, label=label, mapping=self._options.columns):
                if isinstance(piece, formats.Fault):
                    waiting.append((ingest.fill([piece], number, self._store.path), 0))
                else:
                    files[piece.path] = piece.label
                    kinds[piece.reader] = None
                    part = replace(piece, context={**piece.context, "code": str(self._options.code)})
                    cost = (part.end or part.path.stat().st_size) - part.start
                    waiting.append((self._workers.submit(ingest.ingest, part, number, self._store.path), cost))
                number += 1
                while len(waiting) > AHEAD * self._workers.count:
                    yield _result(waiting.popleft())
            self.sources.append({"name": source.name, "kind": ", ".join(kinds), "sha256": self._digest(source, files)})
        while waiting:
            yield _result(waiting.popleft())

    def _digest(self, source: Path, files: dict[Path, str]) -> str:
        """Of a file its SHA-256; of a folder one over the names and SHA-256s of the files that were read."""
        if source.is_file():
            return ingest.digest(source)
        whole = sha256()
        for path, label in files.items():
            whole.update(f"{label}\0{ingest.digest(path)}\n".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()

    def _add(self, result: ingest.IngestResult) -> None:
        stats = self._stats
        stats.read += result.read
        stats.dropped += result.skipped
        stats.faults.update(result.faults)
        for who, names in result.names.items():
            known = self._names.setdefault(who, [])
            known += [name for name in names if name not in known]

    def rules(self, names: list[str] | None, consented: frozenset[str], liked: frozenset[str]) -> ProjectionRules:
        """The rules that follow from the exports' people and the options."""
        options = self._options
        self._stats.gap_minutes = options.gap.total_seconds() / 60
        allowed = targets = None
        if names is not None:
            found, missing = consent.matching(names, self._names)
            self._stats.unknown_people += missing
            allowed = found | consented
        if options.as_name is not None:
            targets, missing = consent.matching([options.as_name], self._names)
            if missing:
                raise ExportError(
                    f"Nobody, or more than one member, is called {options.as_name!r} in these exports; "
                    "give --as a name or id from them."
                )
        return ProjectionRules(
            gap=options.gap,
            allowed=allowed,
            targets=targets,
            liked=liked,
            copied=self._store.copied(COPIED_OFTEN, MAX_COPIED),
            blocked=pii.blocker(options.block_list),
            max_message=options.max_message,
            min_turns=options.min_turns,
            min_words=options.min_words,
            names=None if options.keep_names else Names(self._names),
            countries=(*COUNTRIES, *options.countries),
        )

    def make_dialogues(self, rules: ProjectionRules) -> DialogueWriter:
        """Second pass: dialogues, near-duplicates removed, into one spool file."""
        setup = self._scratch / "setup.pickle"
        setup.write_bytes(
            pickle.dumps(
                segmentation.Setup(rules=rules, linker=self._options.linker, languages=self._options.languages)
            )
        )
        seen = RecentFingerprints()
        messages = max(1, self._stats.read - self._stats.dropped.total())
        done = 0
        with DialogueWriter(self._scratch / "dialogues") as written:
            for made, size in self._made(setup, rules.gap):
                self._count(made)
                for draft in made.drafts:
                    if seen.contain(draft.fingerprints):
                        self._stats.dialogues_dropped["near-duplicate"] += 1
                        self._stats.dropped["in a near-duplicate dialogue"] += draft.messages
                        continue
                    written.add(draft)
                    self._stats.dialogues += 1
                    self._stats.turns += draft.turns
                    self._stats.words += draft.words
                    self._stats.used += draft.messages
                done += size
                self._report("making dialogues", min(done / messages, 1.0))
        self._stats.people = len(written.people)
        return written

    def _count(self, made: Made) -> None:
        self._stats.conversations += made.conversations
        self._stats.dropped += made.dropped
        self._stats.dialogues_dropped += made.dialogues_dropped
        self._stats.masked += made.masked
        self._stats.links += made.links

    def _made(self, setup: Path, gap: timedelta) -> Iterator[tuple[Made, int]]:
        waiting: deque[tuple[Future[Made] | Made, int]] = deque()
        for batch in segmentation.batches(self._store.places(), gap):
            size = sum(segment.count for talk in batch for segment in talk.segments)
            waiting.append((self._workers.submit(segmentation.make, batch, setup, self._store.path), size))
            while len(waiting) > AHEAD * self._workers.count:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _processors() -> int:
    """How many this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _result(waiting: "tuple[Future[T] | T, int]") -> tuple[T, int]:
    value, cost = waiting
    return (value.result() if isinstance(value, Future) else value), cost


def labels(sources: Sequence[Path]) -> list[str]:
    """A name for each source, as short as distinguishes them: `ann/_chat.txt` and `bob/_chat.txt` are two chats."""
    parts = [source.resolve().parts for source in sources]
    longest = max(map(len, parts), default=0)
    found = []
    for own in parts:
        length = 1
        while length < longest and any(other != own and other[-length:] == own[-length:] for other in parts):
            length += 1
        found.append("/".join(part.strip("/\\") for part in own[-length:]) or "export")
    return found


def _size(source: Path) -> int:
    if source.is_file():
        return source.stat().st_size
    return sum(child.stat().st_size for child in source.rglob("*") if child.is_file() and not child.is_symlink())


def _only_consented(log: Iterable[Message], consented: frozenset[str]) -> Iterator[Message]:
    """The log with everybody else's words blanked before they reach a file; the gap stays."""
    for message in log:
        if message.from_bot or person(message) in consented:
            yield message
        else:
            yield replace(message, text="", author_name="")
