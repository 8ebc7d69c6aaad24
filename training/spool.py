"""Messages on disk in order of conversation and time, however large the input and however its files were ordered.

Knows records and runs (an external merge sort, Knuth vol. 3, 5.4), no format and no dialogue. Readers fill sorted runs,
several at a time in several processes; `merged` gives one stream in which a conversation is contiguous, its messages
are in time order and each of them stands once. Memory holds one run a reader and one block a run that overlaps.
"""

import hashlib
import heapq
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec

from core.messages import Conversation, Kind, Message

RUN = 20_000
"""Messages of a run: sorted in memory at once, 20 MB."""
FAN_IN = 200
"""Runs open at a time while merging; the usual limit of open files is 1,024."""
BLOCK = 1 << 17
"""Bytes read of a run at a time."""
RECENT = 1024
"""Messages of a conversation among which an id may not come twice; copies of a message have nearly the same time."""

_HEAD = struct.Struct("<IHqQ")
"""Payload bytes, index of the conversation in the run's table, microseconds since 1970, hash of the message id."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BIG = 1 << 16

Said: TypeAlias = tuple[str, str, str, str, str | None, bool, int]
"""What a record holds: id, author, author's name, text, id it replies to, whether the bot said it, copy hash."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A sorted file, and the keys it goes from and to."""

    path: Path
    first: tuple[str, int]
    last: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One message, still packed."""

    conversation: str
    """`address`: packed, and the first part of the order."""
    time: int
    """Microseconds since 1970."""
    id: int
    payload: bytes


def address(conversation: Conversation) -> str:
    """Packs a conversation so that its copies (HTML without the server's id, JSON with it) agree and sort together."""
    return "\x1f".join(
        (
            conversation.platform,
            conversation.channel,
            conversation.thread or "",
            conversation.kind,
            "t" if conversation.thread is not None else "",
        )
    )


def conversation_of(packed: str) -> Conversation:
    platform, channel, thread, kind, threaded = packed.split("\x1f")
    return Conversation(platform=platform, channel=channel, thread=thread if threaded else None, kind=Kind(kind))


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def id_hash(text: str) -> int:
    """64 bits, the same in every process; short numbers, as most ids are, stand for themselves."""
    if len(text) < 20 and text.isascii() and text.isdigit():
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def unpack(record_payload: bytes, conversation: Conversation, time: int) -> tuple[Message, int]:
    """The message again, and its copy hash."""
    id_, author, name, text, reply_to, from_bot, copy = _decode(record_payload)
    message = Message(
        conversation=conversation,
        id=id_,
        author=author,
        author_name=name,
        text=text,
        sent_at=_EPOCH + timedelta(microseconds=time),
        from_bot=from_bot,
        reply_to=reply_to,
    )
    return message, copy


class Runs:
    """Takes messages in any order and leaves sorted runs `PREFIX-0`, `PREFIX-1`, … in a folder."""

    def __init__(self, folder: Path, prefix: str, *, size: int = RUN) -> None:
        self.runs: list[Run] = []
        self._folder, self._prefix, self._size = folder, prefix, size
        self._records: list[tuple[str, int, int, bytes]] = []
        self._address: tuple[Conversation, str] | None = None

    def add(self, message: Message, copy: int) -> tuple[str, int]:
        """Keep a message; gives its conversation's address and its time."""
        if self._address is None or self._address[0] is not message.conversation:
            self._address = (message.conversation, address(message.conversation))
        packed = self._address[1]
        time = microseconds(message.sent_at)
        payload = _encode(
            (message.id, message.author, message.author_name, message.text, message.reply_to, message.from_bot, copy)
        )
        self._records.append((packed, time, id_hash(message.id), payload))
        if len(self._records) >= self._size:
            self.close()
        return packed, time

    def close(self) -> None:
        """Write what is held."""
        if self._records:
            self._records.sort(key=lambda record: record[:2])  # stable: equal times keep the order of the file
            path = self._folder / f"{self._prefix}-{len(self.runs)}"
            self.runs.append(_write(path, iter(self._records)))
            self._records = []


def _write(path: Path, records: Iterator[tuple[str, int, int, bytes]]) -> Run:
    """A run file: records, and a table of addresses each announced where it first occurs (payload size 0)."""
    table: dict[str, int] = {}
    first = last = ("", 0)
    with path.open("wb", buffering=1 << 18) as file:
        for packed, time, id_, payload in records:
            index = table.get(packed)
            if index is None or index >= _BIG:
                if len(table) >= _BIG:
                    table.clear()
                index = table[packed] = len(table)
                name = packed.encode("utf-8", "surrogatepass")
                file.write(_HEAD.pack(0, index, len(name), 0) + name)
            if not first[0]:
                first = (packed, time)
            last = (packed, time)
            file.write(_HEAD.pack(len(payload), index, time, id_) + payload)
    return Run(path=path, first=first, last=last)


def _read(run: Run) -> Iterator[Record]:
    table: dict[int, str] = {}
    with run.path.open("rb", buffering=BLOCK) as file:
        while head := file.read(_HEAD.size):
            size, index, time, id_ = _HEAD.unpack(head)
            if size == 0:
                table[index] = file.read(time).decode("utf-8", "surrogatepass")
            else:
                yield Record(table[index], time, id_, file.read(size))


def merged(runs: Sequence[Run], folder: Path) -> Iterator[Record | None]:
    """All records in order, each once; None stands for a record dropped because its id was there already."""
    return _unique(_merge(_few(list(runs), folder)))


def _few(runs: list[Run], folder: Path) -> list[Run]:
    """Merge neighbours until no more than `FAN_IN` runs overlap anywhere, so that files are opened within bounds."""
    level = 0
    while _overlap(runs) > FAN_IN:
        groups = [runs[start : start + FAN_IN] for start in range(0, len(runs), FAN_IN)]
        runs = []
        for number, group in enumerate(groups):
            records = ((r.conversation, r.time, r.id, r.payload) for r in _merge(group))
            runs.append(_write(folder / f"merged-{level}-{number}", records))
            for run in group:
                run.path.unlink()
        level += 1
    return runs


def _overlap(runs: Sequence[Run]) -> int:
    """Most runs that cover one key."""
    edges = sorted([(run.first, 0) for run in runs] + [(run.last, 1) for run in runs])
    most = now = 0
    for _, closing in edges:
        now += -1 if closing else 1
        most = max(most, now)
    return most


def _merge(runs: Sequence[Run]) -> Iterator[Record]:
    """k-way merge that opens a run only once its first key is due. Equal keys keep the order of the runs."""
    waiting = sorted(range(len(runs)), key=lambda i: (runs[i].first, i), reverse=True)
    heap: list[tuple[str, int, int, Record, Iterator[Record]]] = []
    while waiting or heap:
        while waiting and (not heap or (*runs[waiting[-1]].first, waiting[-1]) <= heap[0][:3]):
            number = waiting.pop()
            records = _read(runs[number])
            record = next(records, None)
            if record is not None:
                heapq.heappush(heap, (record.conversation, record.time, number, record, records))
        if not heap:
            continue
        _, _, number, record, records = heap[0]
        yield record
        following = next(records, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.conversation, following.time, number, following, records))


def _unique(records: Iterator[Record]) -> Iterator[Record | None]:
    """Drops a later record whose id was just there; at the very same time the later one, an edit, takes the place."""
    held: Record | None = None
    recent: OrderedDict[int, None] = OrderedDict()
    conversation = ""
    for record in records:
        if record.conversation != conversation:
            conversation = record.conversation
            recent.clear()
        if held is not None:
            if held.id == record.id and held.time == record.time and held.conversation == record.conversation:
                held = record
                yield None
                continue
            yield held
            held = None
        if record.id in recent:
            yield None
            continue
        recent[record.id] = None
        if len(recent) > RECENT:
            recent.popitem(last=False)
        held = record
    if held is not None:
        yield held
