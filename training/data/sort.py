"""Messages on disk in order of conversation and time, however large the input and however its files were ordered.

Knows rows and what makes two of them one message; no format and no dialogue. SQLite does the sorting: reading processes
append rows to one file, `settle` drops the copies that overlapping exports hold and puts talk that belongs together in
one conversation, and then any process reads any segment. Memory holds what SQLite caches.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from core.messages import Conversation, Kind, Message

WRITTEN_AT_ONCE = 10_000
"""Messages that a reader collects before it writes them: some 5 MB."""
CACHE_KB = 16_384
"""SQLite's page cache of a process; larger sorts go to files beside the database."""
BUSY_SECONDS = 600
"""How long a reader waits for the others to write."""
SAME_TALK = 3
"""Messages two conversations must share to be copies of one, besides half of what the smaller holds of that time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000

_TABLES = """
CREATE TABLE conversation (key INTEGER PRIMARY KEY, address TEXT NOT NULL, opening INTEGER);
CREATE TABLE message (
    conversation INTEGER NOT NULL, time INTEGER NOT NULL, part INTEGER NOT NULL, row INTEGER NOT NULL,
    id INTEGER NOT NULL, said INTEGER NOT NULL, copy INTEGER NOT NULL,
    message_id TEXT NOT NULL, author TEXT NOT NULL, author_name TEXT NOT NULL, text TEXT NOT NULL,
    reply_to TEXT, from_bot INTEGER NOT NULL
);
"""
_INSERT = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

Row: TypeAlias = tuple[int, int, int, int, int, int, int, str, str, str, str, str | None, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Messages of one conversation that follow each other, as a place in the sorted table."""

    conversation: int
    start: tuple[int, int, int]
    """Time in microseconds since 1970, part and row of the first."""
    count: int


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def hash64(*texts: str) -> int:
    """64 bits, the same in every process, as SQLite holds them (signed)."""
    data = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def address(conversation: Conversation) -> str:
    """Packs a conversation. The space is left out: a page without the server's id and a JSON file with it agree."""
    thread = conversation.thread
    return "\x1f".join(
        (
            conversation.platform,
            conversation.channel.replace("\x1f", " "),
            (thread or "").replace("\x1f", " "),
            conversation.kind,
            "t" if thread is not None else "",
        )
    )


def conversation_of(packed: str) -> Conversation:
    platform, channel, thread, kind, threaded = packed.split("\x1f")
    return Conversation(platform=platform, channel=channel, thread=thread if threaded else None, kind=Kind(kind))


def _snowflake(platform: str, text: str) -> int | None:
    """Discord's ids are unique everywhere, so that a copy without its channel's id is recognised."""
    return int(text) if platform == "discord" and 15 <= len(text) <= 18 and text.isascii() and text.isdigit() else None


def _open(path: Path) -> sqlite3.Connection:
    # What SQLite sorts on disk lies beside the database, and is unlinked as soon as it is opened.
    os.environ["SQLITE_TMPDIR"] = str(path.parent)
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")  # the file lives as long as one import; a killed one starts anew
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA temp_store = FILE")
    database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    return database


class Writer:
    """Takes the messages of one part in the order of its file. Raises sqlite3.Error, of a full disk too."""

    def __init__(self, path: Path, part: int) -> None:
        self._path, self._part, self._row = path, part, 0
        self._rows: list[Row] = []
        self._conversations: dict[int, str] = {}
        self._packed: tuple[Conversation, str, int] | None = None
        self._second = 0
        self._repeats: dict[tuple[str, str], int] = {}

    def add(self, message: Message, copy: int) -> None:
        """Add a message. One without an id is identified by author, second, words and number among identical ones."""
        where = message.conversation
        if self._packed is None or self._packed[0] is not where:
            packed = address(where)
            self._packed = (where, packed, hash64(packed))
            self._conversations[self._packed[2]] = packed
        time = microseconds(message.sent_at)
        second = time // _SECOND
        if second != self._second:
            self._second = second
            self._repeats.clear()
        again = self._repeats.get((message.author, message.text), 0)
        self._repeats[message.author, message.text] = again + 1
        words = " ".join(message.text.split())
        said = hash64(where.platform, message.author, str(second), words, str(again))
        id_ = _snowflake(where.platform, message.id)
        if id_ is None:
            id_ = hash64(where.platform, where.channel, message.id or f"{said:x}")
        self._rows.append(
            (
                *(self._packed[2], time, self._part, self._row, id_, said, copy),
                *(message.id or f"{said:x}", message.author, message.author_name, message.text),
                *(message.reply_to, message.from_bot),
            )
        )
        self._row += 1
        if len(self._rows) >= WRITTEN_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._rows:
            return
        database = _connection(self._path)
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT OR IGNORE INTO conversation VALUES (?, ?, ?)",
            [(key, packed, _opening(packed)) for key, packed in self._conversations.items()],
        )
        database.executemany(_INSERT, self._rows)
        database.execute("COMMIT")
        self._rows, self._conversations = [], {}
        self._packed = None


def _opening(packed: str) -> int | None:
    """The id of the message that opened a Discord thread, which is the thread's own. It is in the parent's file."""
    platform, channel, *_ = packed.split("\x1f")
    return _snowflake(platform, channel)


@lru_cache(maxsize=1)
def _connection(path: Path) -> sqlite3.Connection:
    """One connection a process."""
    return _open(path)


def messages(path: Path, conversation: Conversation, segment: Segment) -> list[tuple[Message, int]]:
    """A segment's messages with their copy hashes."""
    rows = _connection(path).execute(
        "SELECT time, message_id, author, author_name, text, reply_to, from_bot, copy FROM message "
        "WHERE conversation = ? AND (time, part, row) >= (?, ?, ?) ORDER BY time, part, row LIMIT ?",
        (segment.conversation, *segment.start, segment.count),
    )
    return [
        (
            Message(
                conversation=conversation,
                id=id_,
                author=author,
                author_name=name,
                text=text,
                sent_at=_EPOCH + timedelta(microseconds=time),
                from_bot=bool(from_bot),
                reply_to=reply_to,
            ),
            copy,
        )
        for time, id_, author, name, text, reply_to, from_bot, copy in rows
    ]


class MessageTable:
    """The table of one import, in the main process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = _connection(path)
        self._database.executescript(_TABLES)

    def close(self) -> None:
        self._database.close()
        _connection.cache_clear()

    def settle(self) -> int:
        """Drop copies and join what belongs together; returns how many messages were dropped.

        A message is a copy of another with the same id, or with the same author, second and words (of several in one
        second, as many as one file has are kept). Of the same id the last in the order of the sources, an edit, stays.
        Conversations that overlapping exports name differently are joined where they share their messages. Call it
        once, after the last writer.
        """
        run = self._database.execute
        run("CREATE INDEX place ON message (conversation, time, part, row)")
        run("CREATE TEMP TABLE twice AS SELECT said FROM message GROUP BY said HAVING count(*) > 1")
        before = self._count()
        if run("SELECT count(*) FROM twice").fetchone()[0]:
            run("CREATE UNIQUE INDEX temp.twice_said ON twice (said)")
            run(
                "CREATE TEMP TABLE shared AS SELECT said, conversation FROM message "
                "WHERE said IN (SELECT said FROM twice) GROUP BY said, conversation"
            )
            self._join_copies()
        self._drop_older(
            "SELECT rowid, id, id FROM message "
            "WHERE id IN (SELECT id FROM message GROUP BY id HAVING count(*) > 1) ORDER BY id, part, row"
        )
        self._drop_later(
            "SELECT rowid, conversation, said FROM message "
            "WHERE said IN (SELECT said FROM twice) ORDER BY conversation, said, part, row"
        )
        self._adopt_openings()
        return before - self._count()

    def _count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM message").fetchone()[0])

    def _drop_older(self, query: str) -> None:
        """Of neighbours with the same key, keep the last."""
        rows = self._database.execute(query)
        self._delete(one[0] for one, two in pairwise(rows) if one[1:] == two[1:])

    def _drop_later(self, query: str) -> None:
        """Of neighbours with the same key, keep the first."""
        rows = self._database.execute(query)
        self._delete(two[0] for one, two in pairwise(rows) if one[1:] == two[1:])

    def _delete(self, rows: Iterator[int]) -> None:
        run = self._database.execute
        run("CREATE TEMP TABLE IF NOT EXISTS gone (row INTEGER PRIMARY KEY)")
        self._database.executemany("INSERT INTO gone VALUES (?)", ((row,) for row in rows))
        run("DELETE FROM message WHERE rowid IN (SELECT row FROM gone)")
        run("DELETE FROM gone")

    def _join_copies(self) -> None:
        """Join conversations that share most messages of the time they both cover."""
        run = self._database.execute
        pairs = run(
            "SELECT first.conversation, other.conversation, count(*) FROM shared AS other "
            "JOIN (SELECT said, min(conversation) AS conversation FROM shared GROUP BY said HAVING count(*) > 1) "
            "AS first ON first.said = other.said AND first.conversation < other.conversation GROUP BY 1, 2"
        ).fetchall()
        home: dict[int, int] = {}
        kinds = dict(run("SELECT key, address FROM conversation"))
        for one, two, shared in sorted(pairs, key=lambda pair: (-pair[2], pair)):
            here, there = _root(home, one), _root(home, two)
            alike = conversation_of(kinds[one]).thread == conversation_of(kinds[two]).thread
            if here != there and alike and self._same_talk(one, two, shared):
                # The one whose name comes first determines the place in the output.
                kept, moved = sorted((here, there), key=lambda key: kinds[key])
                home[moved] = kept
        for moved in home:
            run("UPDATE message SET conversation = ? WHERE conversation = ?", (_root(home, moved), moved))

    def _same_talk(self, one: int, two: int, shared: int) -> bool:
        run = self._database.execute
        spans = [
            run("SELECT min(time), max(time), count(*) FROM message WHERE conversation = ?", (key,)).fetchone()
            for key in (one, two)
        ]
        if shared == min(span[2] for span in spans):
            return True
        low, high = max(span[0] for span in spans), min(span[1] for span in spans)
        counts = [
            run(
                "SELECT count(*) FROM message WHERE conversation = ? AND time BETWEEN ? AND ?", (key, low, high)
            ).fetchone()[0]
            for key in (one, two)
        ]
        return shared >= SAME_TALK and 2 * shared >= min(counts)

    def _adopt_openings(self) -> None:
        """Move a message that opened a thread in another file into the thread."""
        run = self._database.execute
        if run("SELECT count(*) FROM conversation WHERE opening IS NOT NULL").fetchone()[0] < 2:
            return
        found = run(
            "SELECT message.rowid, thread.key FROM message JOIN conversation AS thread ON thread.opening = message.id "
            "WHERE message.conversation != thread.key"
        ).fetchall()
        for row, thread in found:
            run("UPDATE message SET conversation = ? WHERE rowid = ?", (thread, row))

    def copied(self, often: int, most: int) -> frozenset[int]:
        """The copy hashes of texts that occur at least `often` times, at most the `most` commonest."""
        rows = self._database.execute(
            "SELECT copy FROM message WHERE copy != 0 GROUP BY copy HAVING count(*) >= ? "
            "ORDER BY count(*) DESC, copy LIMIT ?",
            (often, most),
        )
        return frozenset(row[0] for row in rows)

    def places(self) -> Iterator[tuple[int, str, int, int, int]]:
        """Every message's conversation (key and address), time, part and row, in order."""
        yield from self._database.execute(
            "SELECT conversation.key, address, time, part, row FROM "
            "(SELECT key, address FROM conversation ORDER BY address) AS conversation "
            "CROSS JOIN message ON message.conversation = conversation.key ORDER BY address, time, part, row"
        )


def _root(home: dict[int, int], key: int) -> int:
    while key in home:
        key = home[key]
    return key
