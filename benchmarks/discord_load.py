"""The Discord bot behind Discord's real limits: a burst, an outage, and malformed events.

    python -m benchmarks.discord_load burst      200 channels × 5 mentions within 20 s, at 50 requests a second
    python -m benchmarks.discord_load outage     Discord refuses everything for ten minutes, and the connection is cut
    python -m benchmarks.discord_load mutated    10,000 malformed events among real questions

The server is the tests' one on loopback, with its limiter; the bot is a process of its own with a generator that
repeats the number of the question, so that lost, doubled and misdirected answers are recognised.
"""

import argparse
import asyncio
import contextlib
import copy
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.town import WallClock
from bots.discord import DiscordBot
from core.chat import ChatSettings
from core.commands import Commands
from core.memory import open_memory
from tests.discord_limits import Limits
from tests.discord_server import TOKEN, DiscordServer, Person
from tests.fakes import FakeGenerator, chat

THINKING = 0.2
"""Seconds that a reply takes, many in parallel: Discord's limits are what is measured."""
LAST = 300.0
"""Seconds after the last question within which every answer must arrive."""


NOISE = 10**9
"""The number of questions that are not counted."""


def now() -> datetime:
    return datetime.now(UTC)


def answer_to(prompt: str) -> str:
    numbers = re.findall(r"question (\d+)", prompt)
    return f"answer {numbers[-1]}" if numbers else "what?"


async def run_bot(api: str, home: Path) -> None:
    """The bot's process, until it is killed."""
    generator = FakeGenerator(speak=answer_to, delay=THINKING)
    memory = open_memory(f"sqlite:///{home / 'person2.db'}")
    talk = chat(generator, memory=memory, settings=ChatSettings(user_rate=0), clock=now)
    bot = DiscordBot(talk, Commands(chat=talk, started_at=now(), clock=now), token=TOKEN, api_base=api)
    await bot.run()


@dataclass
class LoadTest:
    """The server, the bot's process, and who asked what."""

    server: DiscordServer = field(default_factory=DiscordServer)
    asked: dict[int, tuple[int, Any, float]] = field(default_factory=dict)
    """By number: the channel, the message and when it was said."""
    waits: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    crossed: int = 0
    pid: int = 0
    log: Path = Path()

    def ask(self, person: Person, channel: int) -> None:
        number = len(self.asked)
        said = person.says(f"{person.bot} question {number}", where=channel)
        self.asked[number] = (channel, said, time.monotonic())

    def heard(self, event: str, payload: Any) -> None:
        if event != "MESSAGE_CREATE" or payload["author"]["id"] != str(self.server.backend.bot_user.id):
            return
        found = re.fullmatch(r"answer (\d+)", payload["content"])
        if payload["channel_id"] not in {str(channel) for channel, _, _ in self.asked.values()}:
            return  # an answer to noise
        if found is None or int(found[1]) not in self.asked:
            self.crossed += 1
            return
        channel, said, at = self.asked[int(found[1])]
        self.answers[int(found[1])] += 1
        self.waits.append(time.monotonic() - at)
        answers = (payload.get("message_reference") or {}).get("message_id")
        self.crossed += (str(channel), str(said.id)) != (payload["channel_id"], answers)

    async def settle(self) -> None:
        """Wait until every question was answered, or LAST seconds."""
        await within(LAST, lambda: len(self.answers) == len(self.asked))
        await asyncio.sleep(2.0)  # for a second answer to come

    def memory_mb(self, name: str) -> int:
        """`VmRSS` or `VmHWM` of the bot's process."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        return int(found[1]) >> 10 if found else 0


async def within(seconds: float, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        await asyncio.sleep(0.1)


@asynccontextmanager
async def load_test() -> AsyncIterator[LoadTest]:
    it = LoadTest()
    server = it.server
    server.backend.clock = WallClock()  # type: ignore[assignment]  # simcord's own stands still
    server.backend.subscribers.append(it.heard)
    server.limits = Limits(clock=time.monotonic)
    await server.start()
    with tempfile.TemporaryDirectory() as home:
        it.log = Path(home, "log")
        with it.log.open("wb") as log:
            command = (sys.executable, "-m", "benchmarks.discord_load", "bot", "--api", server.api, "--home", home)
            bot = await asyncio.create_subprocess_exec(*command, stderr=log, env=os.environ)
        it.pid = bot.pid
        try:
            await within(60.0, lambda: bool(server.sessions and server.session.socket))
            yield it
        finally:
            with contextlib.suppress(ProcessLookupError):
                bot.terminate()
            await bot.wait()
            await server.stop()


async def burst(channels: int, each: int, seconds: float) -> dict[str, object]:
    async with load_test() as it:
        rooms = [it.server.backend.create_channel(it.server.guild.id, f"room{n}").id for n in range(channels)]
        people = [it.server.person(f"Member{n}") for n in range(channels)]
        await asyncio.sleep(1.0)
        places = [(people[n], rooms[n]) for n in range(channels)] * each
        random.Random(0).shuffle(places)
        began = time.monotonic()
        for number, (person, room) in enumerate(places):
            it.ask(person, room)
            await asyncio.sleep(max(0.0, began + seconds * (number + 1) / len(places) - time.monotonic()))
        await it.settle()
        return report(it) | {"seconds until the last answer": round(max(it.waits, default=0.0), 1)}


async def outage(seconds: float) -> dict[str, object]:
    """A third of the time 503, a third 429, a third both the API and the gateway gone; two questions a second."""
    async with load_test() as it:
        server = it.server
        rooms = [server.backend.create_channel(server.guild.id, f"room{n}").id for n in range(50)]
        people = [server.person(f"Member{n}") for n in range(50)]
        await asyncio.sleep(1.0)
        refusals = 0
        for phase in ("503", "429", "gone"):
            server.faults.clear()
            if phase == "429":
                server.fail("*", "*", 429, times=1 << 60, everywhere=True, headers={"Retry-After": "5"})
            else:
                server.fail("*", "*", 503, times=1 << 60)
            if phase == "gone":
                server.refuse_gateway = 1 << 60
                await server.drop(server.session)
            calls, until = len(server.calls), time.monotonic() + seconds / 3
            while time.monotonic() < until:
                it.ask(random.choice(people), random.choice(rooms))
                await asyncio.sleep(0.5)
            refusals += len(server.calls) - calls
            print(f"{phase}: {len(server.calls) - calls} calls, {it.memory_mb('VmRSS')} MB", file=sys.stderr)
        server.faults.clear()
        server.refuse_gateway = 0
        back = time.monotonic()
        await it.settle()
        return report(it) | {
            "calls while refused": refusals,
            "seconds from the end of the outage to the last answer": round(time.monotonic() - back - 2.0, 1),
        }


async def mutated(count: int) -> dict[str, object]:
    rng = random.Random(7)
    async with load_test() as it:
        server = it.server
        ann = server.person("Ann")
        noise = server.backend.create_channel(server.guild.id, "noise").id
        await asyncio.sleep(1.0)
        start = len(server.session.events)
        said = ann.says(f"{ann.bot} question {NOISE}", where=noise)
        thread = ann.opens_thread("roses", parent=noise)
        ann.says("hello there", where=thread)
        ann.edits(said, f"{ann.bot} question {NOISE}?")
        ann.reacts(said, "👍")
        ann.deletes(said)
        await ann.uses("person2 ask", where=noise, question=f"question {NOISE}")
        await asyncio.sleep(3.0)
        seen = [(each["t"], each["d"]) for each in server.session.events[start:]]
        before = it.memory_mb("VmRSS")
        for number in range(count):
            name, payload = rng.choice(seen)
            wrong = mutate(copy.deepcopy(payload), rng)
            if isinstance(wrong, dict) and name == "MESSAGE_CREATE" and rng.random() < 0.5:
                wrong["id"] = str(server.backend.snowflake())
            if rng.random() < 0.05:
                await server.send_frame(json.dumps({"op": rng.choice([0, 3, 11, 99, "x"]), "t": wrong, "d": name}))
            else:
                await server.send(name, wrong)
            if number % 100 == 0:
                it.ask(ann, server.channel)
                await asyncio.sleep(0.05)
        await it.settle()
        return report(it) | {
            "events": count,
            "MB before": before,
            "sessions": server.identifies,
            "lines in the log": it.log.read_bytes().count(b"\n"),
        }


def mutate(payload: Any, rng: random.Random) -> Any:
    """Something somewhere missing, null, of another type, too long or too deep."""
    if isinstance(payload, dict) and payload and rng.random() < 0.8:
        key = rng.choice(list(payload))
        if isinstance(payload[key], dict | list) and rng.random() < 0.6:
            payload[key] = mutate(payload[key], rng)
            return payload
        match rng.randrange(4):
            case 0:
                del payload[key]
            case 1:
                payload[rng.choice(["", "id", "d", "guild_id", "\u0000"])] = payload.pop(key)
            case _:
                payload[key] = nonsense(rng)
        return payload
    if isinstance(payload, list) and payload and rng.random() < 0.8:
        payload[rng.randrange(len(payload))] = nonsense(rng)
        return payload
    return nonsense(rng)


def nonsense(rng: random.Random) -> Any:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    flat: list[Any] = [
        None,
        True,
        0,
        -1,
        1 << 70,
        1.5,
        "",
        "x",
        "0",
        "-1",
        "9" * 40,
        "\u00ff\u0000\ud83c",
        "x" * 99_999,
    ]
    return rng.choice([*flat, [], {}, [None], deep])


def report(it: LoadTest) -> dict[str, object]:
    waits = sorted(it.waits) or [0.0]
    limits = it.server.limits or Limits(clock=time.monotonic)
    return {
        "asked": len(it.asked),
        "answered": len(it.answers),
        "lost": len(it.asked) - len(it.answers),
        "doubled": sum(count - 1 for count in it.answers.values()),
        "crossed": it.crossed,
        "answers of 429": dict(limits.refused),
        "most requests in a second": limits.busiest,
        "wait, median s": round(waits[len(waits) // 2], 1),
        "wait, 95 % s": round(waits[int(len(waits) * 0.95)], 1),
        "MB at most": it.memory_mb("VmHWM"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["burst", "outage", "mutated", "bot"])
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument("--each", type=int, default=5, help="mentions a channel")
    parser.add_argument("--seconds", type=float, help="of the burst (20) or of the outage (600)")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--api")
    parser.add_argument("--home", type=Path)
    given = parser.parse_args()
    match given.what:
        case "bot":
            asyncio.run(run_bot(given.api, given.home))
            return
        case "burst":
            found = asyncio.run(burst(given.channels, given.each, given.seconds or 20.0))
        case "outage":
            found = asyncio.run(outage(given.seconds or 600.0))
        case _:
            found = asyncio.run(mutated(given.events))
    for name, value in found.items():
        print(f"{name:>55}  {value}")


if __name__ == "__main__":
    main()
