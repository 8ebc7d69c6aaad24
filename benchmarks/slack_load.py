"""The Slack bot under load: a crowd behind Slack's own limits, an outage, and malformed events.

    python -m benchmarks.slack_load crowd --channels 200 --mentions 5 --seconds 20
    python -m benchmarks.slack_load outage --minutes 10
    python -m benchmarks.slack_load mutated --events 10000 --transport http

Everything runs on loopback in one process: the tests' Slack with its limits, the real bot over real sockets, SQLite in
a file, and a generator that answers each question with its last words, so that an answer shows whose it is. What is
acknowledged must be stored, and every question answered once, where it was asked; else the exit status is 1.
"""

import argparse
import asyncio
import contextlib
import copy
import json
import logging
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bots.slack.timeouts import SlackTimeouts
from core.chat import ChatSettings
from core.memory import open_memory
from tests.bots.slack_talk import Talk, talk
from tests.fakes import FakeGenerator
from tests.slack_server import BOT_USER, Json, Limits, SlackServer

ME = f"<@{BOT_USER}>"


@dataclass(kw_only=True)
class Result:
    """The result of a run; `faults` must be empty."""

    asked: int = 0
    acknowledged: int = 0
    answered: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    """Seconds from each question to its answer."""
    limited: Counter[str] = field(default_factory=Counter)
    grown_mb: float = 0.0
    log_lines: int = 0
    tracebacks: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        waits = sorted(self.waits) or [0.0]
        return "\n".join(
            (
                f"asked {self.asked}, acknowledged {self.acknowledged}, answered {self.answered}, {self.seconds:.0f} s",
                f"waited for an answer: median {waits[len(waits) // 2]:.1f} s, longest {waits[-1]:.1f} s",
                f"answers of 429: {sum(self.limited.values())} {dict(self.limited) or ''}",
                f"memory grown by {self.grown_mb:.0f} MB; {self.log_lines} lines of log, {self.tracebacks} tracebacks",
                *(f"FAULT: {fault}" for fault in self.faults[:20]),
                "no faults" if not self.faults else f"{len(self.faults)} faults",
            )
        )


class Lines(logging.Handler):
    """Counts what the bot writes to its log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines = 0
        self.tracebacks = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        self.tracebacks += record.exc_info is not None


class Asking:
    """Asks questions and checks afterwards what became of each."""

    def __init__(self, t: Talk, result: Result) -> None:
        self._t = t
        self._result = result
        self._asked: dict[str, tuple[str, str, float]] = {}
        """Words → channel, timestamp and when."""

    async def ask(self, words: str, *, channel: str, user: str) -> None:
        began = time.monotonic()
        self._result.asked += 1
        ts = await self._t.slack.says(f"{ME} say {words}", channel=channel, user=user)
        self._result.acknowledged += 1
        self._asked[words] = (channel, ts, began)
        if not self._is_stored(f"say {words}"):
            self._result.faults.append(f"acknowledged and not stored: {words}")

    def _is_stored(self, text: str) -> bool:
        with self._t.memory.borrowed() as engine, engine.connect() as connection:
            return connection.exec_driver_sql("SELECT 1 FROM messages WHERE text = ?", (text,)).first() is not None

    async def settle(self, within: float) -> None:
        """Wait for the answers, then look at each."""
        wanted = {f"re {words}" for words in self._asked}
        with contextlib.suppress(AssertionError):  # missing answers are reported below
            await self._t.slack.until(lambda: wanted <= {post.text for post in self._t.slack.posts}, within)
        await self._t.bot.idle()  # so that duplicates have arrived
        posts = [post for post in self._t.slack.posts if post.text.startswith("re ")]
        counted = Counter(post.text.removeprefix("re ") for post in posts)
        stored = Counter(said.message.text.removeprefix("say ") for said in self._t.memory.everything())
        for words, (channel, ts, began) in self._asked.items():
            if counted[words] != 1:
                self._result.faults.append(f"answered {counted[words]} times: {words}")
            if stored[words] != 1:
                self._result.faults.append(f"stored {stored[words]} times: {words}")
            for post in posts:
                if post.text == f"re {words}" and (post.channel, post.thread) != (
                    channel,
                    None if channel[0] == "D" else ts,
                ):
                    self._result.faults.append(f"answered elsewhere: {words}")
            self._result.waits += [post.at - began for post in posts if post.text == f"re {words}"]
        self._result.answered = sum(counted[words] for words in self._asked)


@contextlib.asynccontextmanager
async def running(
    transport: str, server: SlackServer, timeouts: SlackTimeouts
) -> AsyncIterator[tuple[Talk, Asking, Result]]:
    result = Result()
    server.pauses = (0.5, 5.0, 20.0)
    lines = Lines()
    logging.getLogger("bots").addHandler(lines)
    logging.getLogger("core").addHandler(lines)
    logging.getLogger("bots").setLevel(logging.INFO)
    generator = FakeGenerator(speak=lambda prompt: "re " + prompt.removesuffix("\nPerson2:").rpartition("say ")[2])
    with TemporaryDirectory() as folder:
        memory = open_memory(f"sqlite:///{folder}/person2.db")
        settings = ChatSettings(user_rate=0)
        async with talk(
            transport, generator=generator, memory=memory, settings=settings, server=server, timeouts=timeouts
        ) as t:
            before, began = most_memory(), time.monotonic()
            yield t, Asking(t, result), result
            result.seconds = time.monotonic() - began
            result.grown_mb = most_memory() - before
            result.limited = Counter(server.limited)
            if t.running.done():
                result.faults.append("the bot ended")
    result.log_lines, result.tracebacks = lines.lines, lines.tracebacks


async def crowd(transport: str, *, channels: int, mentions: int, seconds: float) -> Result:
    """So many mentions in each of so many channels within so many seconds, behind Slack's limits at their real pace."""
    server = SlackServer(transport)
    server.limits = Limits()
    async with running(transport, server, SlackTimeouts()) as (_, asking, result):
        order = [(channel, number) for channel in range(channels) for number in range(mentions)]
        random.Random(1).shuffle(order)
        began = time.monotonic()

        async def later(index: int, channel: int, number: int) -> None:
            await asyncio.sleep(max(0.0, began + index * seconds / len(order) - time.monotonic()))
            await asking.ask(f"c{channel}n{number}", channel=f"C{channel}", user=f"U{channel}x{number}")

        await asyncio.gather(*(later(index, *each) for index, each in enumerate(order)))
        await asking.settle(within=600)
    return result


async def outage(transport: str, *, minutes: float) -> Result:
    """Slack refuses every call for so long, in real time, while a question comes every two seconds."""
    server = SlackServer(transport)
    server.limits = Limits()
    async with running(transport, server, SlackTimeouts()) as (_, asking, result):
        await asking.ask("before", channel="C0", user="U0")
        server.refusing = "service_unavailable"
        end, number = time.monotonic() + minutes * 60, 0
        while time.monotonic() < end:
            await asking.ask(f"n{number}", channel=f"C{number % 20}", user=f"U{number % 50}")
            number += 1
            await asyncio.sleep(2.0)
        server.refusing = ""
        await asking.ask("after", channel="C1", user="U1")
        await asking.settle(within=600)
    return result


def most_memory() -> float:
    """Peak memory of this process in MB; Linux counts it in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, "", " ", "\0", "\ud800", "x" * 5000, "<@U>", "<!channel>", [], [[]], {}, {"a": None},
    [1, "two", None], "C1", "D1", "1.1", "99999999999999999999.1", "-1.0", "NaN", BOT_USER, "USLACKBOT", "🙂" * 50,
)  # fmt: skip


def mutated(payload: Any, rng: random.Random) -> Any:
    """The payload with one to four of its parts replaced, removed, doubled or nested."""
    payload = copy.deepcopy(payload)
    for _ in range(rng.randint(1, 4)):
        places = list(_places(payload))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
            case 2 if isinstance(holder, dict):
                del holder[key]
            case 3:
                holder[key] = [copy.deepcopy(holder[key]) for _ in range(rng.randint(1, 3))]
            case _:
                holder[key] = {str(key): holder[key]}
    return payload


def _places(part: Any) -> Any:
    """Everything in a payload that can be changed."""
    entries = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, inner in list(entries):
        yield part, key
        yield from _places(inner)


def payloads() -> list[tuple[str, Json]]:
    """One payload of each kind that Slack sends."""
    said = {
        "type": "message",
        "user": "UANN",
        "channel": "C1",
        "channel_type": "channel",
        "text": f"{ME} hi",
        "ts": "5.1",
    }
    old = {"type": "message", "user": "UANN", "text": "old", "ts": "5.2"}
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": "hi"}]}
    shared = {"attachments": [{"is_share": True, "text": "hi"}], "files": [{"mode": "snippet", "preview": "hi"}]}
    changed = {"type": "message", "subtype": "message_changed", "channel": "C1", "ts": "6.1", "previous_message": old}
    thumb = {"user": "UANN", "item": {"type": "message", "channel": "C1", "ts": "5.1"}, "item_user": BOT_USER}
    opened = {"user_id": "UANN", "channel_id": "D1", "thread_ts": "7.1"}
    events: list[Json] = [
        said,
        {**said, "type": "app_mention"},
        {**said, "channel": "D1", "channel_type": "im", "thread_ts": "4.1", "parent_user_id": BOT_USER},
        {**said, "text": "", "blocks": [{"type": "rich_text", "elements": [section]}], **shared},
        {**changed, "message": {**old, "text": "new"}},
        {**changed, "subtype": "message_deleted", "deleted_ts": "5.1"},
        {"type": "message", "subtype": "bot_message", "bot_id": "B0001", "channel": "C1", "ts": "6.3", "text": "me"},
        {"type": "reaction_added", "reaction": "+1", **thumb},
        {"type": "reaction_removed", "reaction": "-1", **thumb},
        {"type": "app_home_opened", "user": "UANN", "channel": "D1", "tab": "home"},
        {"type": "assistant_thread_started", "assistant_thread": opened},
        {"type": "channel_deleted", "channel": "C77"},
        {"type": "channel_id_changed", "old_channel_id": "C78", "new_channel_id": "C79"},
    ]
    envelope = {"token": "t", "team_id": "T0001", "api_app_id": "A0001", "type": "event_callback", "event_time": 1}
    authorizations = [{"team_id": "T0001", "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}]
    command = {
        "team_id": "T0001", "channel_id": "C1", "user_id": "UANN", "user_name": "ann", "command": "/person2",
        "text": "ask hi", "response_url": "", "trigger_id": "1.2.3",
    }  # fmt: skip
    action = {
        "type": "block_actions", "user": {"id": "UANN"}, "team": {"id": "T0001"}, "trigger_id": "1.2.4",
        "actions": [{"action_id": "feedback", "value": "good"}], "container": {"message_ts": "5.1", "channel_id": "C1"},
    }  # fmt: skip
    shortcut = {
        "type": "message_action", "callback_id": "another_answer", "user": {"id": "UANN", "name": "ann"},
        "channel": {"id": "C1"}, "message": {"ts": "5.1", "user": BOT_USER}, "response_url": "", "trigger_id": "1.2.5",
    }  # fmt: skip
    return [
        *(("events_api", {**envelope, "event": event, "authorizations": authorizations}) for event in events),
        ("slash_commands", command),
        ("interactive", action),
        ("interactive", shortcut),
    ]


async def mutations(transport: str, *, events: int) -> Result:
    """So many malformed payloads, and a real question after every twenty."""
    server = SlackServer(transport)
    hasty = SlackTimeouts(between_posts=0.0, reply=60.0, notice=5.0)
    rng, kinds = random.Random(7), payloads()
    async with running(transport, server, hasty) as (t, asking, result):
        refused = 0

        async def send(number: int) -> None:
            nonlocal refused
            kind, payload = rng.choice(kinds)
            body = mutated(payload, rng)
            if isinstance(body, dict) and kind == "events_api":
                body.setdefault("event_id", f"Ev{number}")
            refused += await t.slack.offers_anything(kind, body) is None

        for start in range(0, events, 20):
            await asyncio.gather(*(send(number) for number in range(start, min(start + 20, events))))
            await asking.ask(f"n{start}", channel=f"D{start % 7 + 100}", user=f"U{start % 11}")
        print(f"{events} payloads sent, {refused} of them refused", file=sys.stderr)
        await asking.settle(within=120)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("crowd", "outage", "mutated"))
    parser.add_argument("--transport", choices=("socket", "http"), default="socket")
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument("--mentions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    runs: dict[str, Callable[[], Any]] = {
        "crowd": lambda: crowd(
            chosen.transport, channels=chosen.channels, mentions=chosen.mentions, seconds=chosen.seconds
        ),
        "outage": lambda: outage(chosen.transport, minutes=chosen.minutes),
        "mutated": lambda: mutations(chosen.transport, events=chosen.events),
    }
    result: Result = asyncio.run(runs[chosen.what]())
    print(result)
    print(f"most memory at once: {most_memory():.0f} MB")
    if chosen.json:
        chosen.json.write_text(json.dumps(vars(result), default=dict, indent=2))
    raise SystemExit(1 if result.faults else 0)


if __name__ == "__main__":
    main()
