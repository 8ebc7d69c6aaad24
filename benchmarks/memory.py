"""How long queries take with many messages stored, and how long writes wait while a million rows are deleted.

    python -m benchmarks.memory --rows 10000 2000000 [--url DATABASE_URL] [--calls 300] [--delete 1000000]

Fills an empty database with talk of 5,000 members in 200 channels and their threads, a third of it answered, then runs
a bot's queries, prints a row for each (median, 99th percentile and slowest, in milliseconds), and finally deletes the
oldest `--delete` messages by retention while another thread stores two messages a second, as a bot does. Without --url
it uses a SQLite file in a temporary folder.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert

from core.memory import Memory, open_memory
from core.memory.tables import ConversationRow, MessageRow, PostRow
from core.messages import Conversation, Kind, Message

MEMBERS, CHANNELS, THREADS = 5_000, 200, 20
CHUNK = 20_000
START = datetime(2020, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=10)
WORDS = ("the", "quick", "brown", "fox", "talks", "about", "release", "notes", "every", "monday", "morning", "again")


def place(number: int) -> Conversation:
    """Every channel and its threads in turn."""
    channel, thread = number % CHANNELS, number // CHANNELS % (THREADS + 1)
    kind = Kind.THREAD if thread else Kind.CHANNEL
    return Conversation(
        platform="test", space="s", channel=f"c{channel}", thread=f"t{thread}" if thread else None, kind=kind
    )


def fill(engine: Engine, rows: int, rng: random.Random) -> None:
    """Insert so many messages, in large transactions."""
    places = [place(number) for number in range(CHANNELS * (THREADS + 1))]
    with engine.begin() as connection:
        connection.execute(
            insert(ConversationRow),
            [
                {"id": number, "key": where.key, "platform": "test", "space": "s", "channel": where.channel}
                | {"thread": where.thread, "kind": str(where.kind), "epoch": 0}
                for number, where in enumerate(places, 1)
            ],
        )
    for chunk in _chunks(rows, CHUNK):
        messages: list[dict[str, Any]] = []
        posts: list[dict[str, Any]] = []
        for number in chunk:
            answer = number % 3 == 0 and number > 1
            where = messages[-1]["conversation_id"] if answer and messages else rng.randrange(len(places)) + 1
            member = rng.randrange(MEMBERS)
            messages.append(
                {
                    "id": number,
                    "conversation_id": where,
                    "platform": "test",
                    "channel": places[where - 1].channel,
                    "message_id": f"m{number}",
                    "epoch": 0,
                    "place": number - answer,
                    "author": "person2" if answer else f"u{member}",
                    "author_name": "Person2" if answer else f"Member {member}",
                    "text": " ".join(rng.choices(WORDS, k=rng.randint(3, 25))),
                    "sent_at": START + number * STEP,
                    "from_bot": answer,
                    "reply_to": f"m{number - 1}" if answer else None,
                    "answers": number - 1 if answer else None,
                    "replaced": False,
                    "adapter": None,
                    "details": None,
                }
            )
            if answer:
                posts.append({"message_id": number, "platform": "test", "channel": places[where - 1].channel})
                posts[-1]["post_id"] = f"p{number}"
        with engine.begin() as connection:
            connection.execute(insert(MessageRow), messages)
            connection.execute(insert(PostRow), posts)

    if engine.dialect.name == "postgresql":  # whose sequences do not notice numbers that were given
        with engine.begin() as connection:
            for table, last in (("conversations", len(places)), ("messages", rows)):
                connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")


def _chunks(rows: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, rows + 1)) for start in range(1, rows + 1, size))


def said(number: int, rng: random.Random) -> Message:
    return Message(
        conversation=place(rng.randrange(CHANNELS * (THREADS + 1))),
        id=f"new{number}",
        author=f"u{rng.randrange(MEMBERS)}",
        author_name="Somebody New",
        text="what do you think of that",
        sent_at=datetime.now(UTC),
    )


def measure(memory: Memory, rows: int, calls: int, rng: random.Random) -> None:
    numbers = itertools.count()

    def answered() -> int:
        return 3 * rng.randrange(1, rows // 3)

    def reply() -> None:
        row = memory.remember(said(next(numbers), rng))
        memory.remember_reply("I like it.", answers=row or 1, sent_at=datetime.now(UTC), adapter=None, details={})

    asked: dict[str, Callable[[], Any]] = {
        "remember": lambda: memory.remember(said(next(numbers), rng)),
        "remember and reply": reply,
        "window of 40": lambda: memory.window(place(rng.randrange(CHANNELS)), limit=40),
        "reply chain": lambda: memory.chain(answered(), 40),
        "reply by its post": lambda: memory.reply_of(place(0), f"p{answered()}"),
        "member by name": lambda: memory.find_members(f"Member {rng.randrange(MEMBERS)}"),
        "all of a member (my-data)": lambda: memory.export("test", f"u{rng.randrange(MEMBERS)}"),
    }
    for name, ask in asked.items():
        times = sorted(timed(ask) for _ in range(calls))
        print(
            f"| {name} | {statistics.median(times):.1f} | {times[int(0.99 * (calls - 1))]:.1f} | {times[-1]:.1f} |",
            flush=True,
        )
    alone = sorted(timed(lambda: memory.forget("test", f"u{rng.randrange(MEMBERS)}")) for _ in range(5))
    print(f"| forget a member | {statistics.median(alone):.0f} | – | {alone[-1]:.0f} |", flush=True)


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def delete(memory: Memory, rows: int, rng: random.Random) -> None:
    """Retention takes the oldest `rows` messages while a bot writes."""
    over, waits = threading.Event(), list[float]()

    def write() -> None:
        number = itertools.count(10**9)
        while True:
            waits.append(timed(lambda: memory.remember(said(next(number), rng))))
            if over.wait(0.5):
                return

    writing = threading.Thread(target=write)
    writing.start()
    began = time.perf_counter()
    removed = memory.purge(before=START + (rows + 1) * STEP)
    took = time.perf_counter() - began
    began = time.perf_counter()
    memory.compact()
    compacted = time.perf_counter() - began
    over.set()
    writing.join()
    count = removed.messages + removed.replies
    waits.sort()
    print(
        f"\nRetention: {count} rows gone in {took:.0f} s, space given back in {compacted:.0f} s; {len(waits)} writes "
        f"meanwhile waited {statistics.median(waits):.1f} ms (median), {waits[-1]:.0f} ms at most."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--url", help="an empty database for each number of rows; `{rows}` in it stands for the number")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--delete", type=int, default=1_000_000, help="rows that retention takes, half of all at most")
    options = parser.parse_args()
    for rows in options.rows:
        rng = random.Random(rows)
        with tempfile.TemporaryDirectory() as folder:
            url = (options.url or f"sqlite:///{folder}/person2.db").replace("{rows}", str(rows))
            memory = open_memory(url)
            began = time.perf_counter()
            with memory.borrowed() as engine:
                fill(engine, rows, rng)
            print(f"\n{rows:,} messages (filled in {time.perf_counter() - began:.0f} s)\n")
            print("| milliseconds | median | 99 % | slowest |\n|---|---|---|---|", flush=True)
            measure(memory, rows, options.calls, rng)
            delete(memory, min(options.delete, rows // 2), rng)
            memory.close()


if __name__ == "__main__":
    main()
