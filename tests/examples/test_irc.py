"""Person2 on IRC, end to end on loopback: what ann, who operates #room, and others type, and what they read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from core.adapters import AdapterRegistry
from core.adapters.judge import TrialJudge
from core.adapters.selection import AdapterSelection
from core.blocked_words import BlockedWords
from core.chat import ChatSettings
from core.commands import Commands
from core.composer import SelectAdapter
from core.memory import Memory, open_memory
from core.notices import IGNORED, UNSAYABLE
from core.policy import Rules
from examples.irc import LIMIT, IrcBot, to_lines
from tests.core.adapters.test_registry import adapter, card
from tests.core.test_recall import SAID
from tests.fakes import Clock, FakeGenerator, chat, until

ROOT = Path(__file__).parents[2]


class IrcServer:
    """Enough of RFC 2812 for one bot: registration with taken nicks, JOIN with NAMES; keeps what the bot sends."""

    def __init__(self, *, taken: str = "") -> None:
        self.taken = taken
        self.sent: asyncio.Queue[str] = asyncio.Queue()
        self.connections = 0
        self.refuse = 0
        """Connections to hang up on before any word."""
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.connections <= self.refuse:
            writer.close()
            return
        self._writer, nick = writer, ""
        while raw := await reader.readline():
            assert raw.endswith(b"\r\n")
            assert len(raw) <= 512
            line = raw.decode().rstrip("\r\n")
            verb, _, rest = line.partition(" ")
            match verb:
                case "NICK" if rest == self.taken:
                    self.types(f":irc.test 433 * {rest} :Nickname is already in use")
                case "NICK":
                    nick = rest
                    self.types(f":irc.test 001 {nick} :Welcome", "PING :are you there")
                case "JOIN" | "NAMES":
                    if verb == "JOIN":
                        self.types(f":{nick}!b@h JOIN {rest}")
                    self.types(f":irc.test 353 {nick} = {rest} :{nick} @ann +ben", f":irc.test 366 {nick} {rest} :End")
                case "USER":
                    pass
                case _:
                    self.sent.put_nowait(line)
        writer.close()

    def types(self, *lines: str) -> None:
        assert self._writer is not None
        self._writer.writelines(f"{line}\r\n".encode() for line in lines)

    def ann(self, target: str, text: str, verb: str = "PRIVMSG") -> None:
        self.says("ann", text, target, verb)

    def says(self, who: str, text: str, target: str = "#room", verb: str = "PRIVMSG") -> None:
        self.types(f":{who}!~{who}@host {verb} {target} :{text}")

    async def settles(self, setting: str) -> str:
        """Ann changes a setting; what she reads."""
        self.says("ann", f"!settings {setting}")
        return await self.reads("ann")

    async def reads(self, who: str) -> str:
        """A sentence to a member alone, which may come in several lines."""
        told: list[str] = []
        while not told or not told[-1].endswith((".", "agreed")):
            target, _, line = (await self.read()).removeprefix("PRIVMSG ").partition(" :")
            assert target == who
            told.append(line)
        return " ".join(told).replace("\u200b", "")  # which keeps nicks from ringing

    async def read(self) -> str:
        """The bot's next line that is no PONG or PASS."""
        async with asyncio.timeout(10):
            while (line := await self.sent.get()).startswith(("PONG", "PASS")):
                pass
        return line

    def drop(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()


@asynccontextmanager
async def talk(
    *lines: str,
    server: IrcServer | None = None,
    model: FakeGenerator | None = None,
    memory: Memory | None = None,
    settings: ChatSettings | None = None,
    clock: Clock | None = None,
    select_adapter: SelectAdapter | None = None,
    **commands: Any,
) -> AsyncIterator[IrcServer]:
    """A server with a bot in #room that says `lines`."""
    server, clock = server or IrcServer(), clock or Clock()
    model = model or FakeGenerator(lines=lines or ("hello",))
    room = chat(model, memory=memory, clock=clock, settings=settings, select_adapter=select_adapter)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    bot = IrcBot(
        room,
        Commands(chat=room, clock=clock, started_at=clock.now, prefix="!", **commands),
        server="127.0.0.1",
        port=listening.sockets[0].getsockname()[1],
        nick="person2",
        channels=["#room"],
        password="open sesame",
        waits=(0.01,),
    )
    running = asyncio.create_task(bot.run())
    try:
        assert await asyncio.wait_for(server.sent.get(), 10) == "PASS open sesame"
        assert await asyncio.wait_for(server.sent.get(), 10) == "PONG :are you there"
        yield server
        assert "sesame" not in repr(bot)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        listening.close()


@pytest.mark.parametrize(
    ("target", "said", "answered"),
    [
        ("#room", "person2: how are you?", "PRIVMSG #room :fine"),
        ("#Room", "how are you, Person2?", "PRIVMSG #room :fine"),
        ("person2", "how are you?", "PRIVMSG ann :fine"),
        ("#room", "!ask how are you?", "PRIVMSG #room :fine"),
        ("person2", "!ask how are you?", "PRIVMSG ann :fine"),
        ("#room", "!reset", "PRIVMSG #room :A fresh start: from now on I ignore what was said before."),
        ("person2", "!settings answers loud", "PRIVMSG ann :answers can be mention, name, all, off or default."),
        ("#room", "person2:", "PRIVMSG ann :I read text only: write me something and I'll answer."),
    ],
)
async def test_who_speaks_to_it_is_answered(target: str, said: str, answered: str) -> None:
    """By nick anywhere in the line, in private and by command; private matters go to the member alone."""
    async with talk("fine") as server:
        server.ann(target, said)
        assert await server.read() == answered


async def test_what_is_not_for_it_is_only_heard() -> None:
    """Others' talk, longer nicks, notices and client requests get no answer; the talk is context for the next one."""
    model = FakeGenerator(lines=("soup",))
    async with talk(model=model) as server:
        server.ann("#room", "we had bread")
        server.ann("#room", "person2000 and person2-bot are others")
        server.ann("person2", "you have won", "NOTICE")
        server.ann("person2", "\x01VERSION\x01")
        server.types("", "garbage \x00", ":irc.test PING")
        server.ann("#room", "person2, and you?")
        assert await server.read() == "PRIVMSG #room :soup"
        assert len(model.prompts) == 1
        assert "we had bread" in model.prompts[0]
        assert "won" not in model.prompts[0]
        assert model.prompts[0].endswith("and you?\nPerson2:")


async def test_when_it_speaks() -> None:
    """A channel's operators choose what is answered there; what is said to somebody else is never for it."""
    model = FakeGenerator()
    async with talk(model=model, settings=ChatSettings(rules=Rules(names=frozenset({"Robo"})))) as server:
        server.says("ben", "!settings answers all")
        assert await server.read() == "PRIVMSG ben :Only members who may manage this channel can do that."
        assert await server.settles("answers loud") == "answers can be mention, name, all, off or default."
        for answers, unanswered, answered in (
            ("mention", ["robo?"], "person2, one"),
            ("name", ["microrobo", "robots are fun", "nice weather"], "what do you say, Robo?"),
            ("all", ["ann: robo?", "@ann can you?"], "two"),
            ("off", ["person2, three"], "!ask four"),
        ):
            assert f"answers {answers}," in await server.settles(f"answers {answers}")
            for text in (*unanswered, answered):
                server.says("ben", text)
            assert await server.read() == "PRIVMSG #room :hello"
        assert await server.settles("answers") == "Here, answers off."
        asked = [prompt.splitlines()[-2].rpartition(" ")[2] for prompt in model.prompts]
        assert asked == ["one", "Robo?", "two", "four"]


async def test_what_is_said_in_pieces() -> None:
    """One answer, to all of them, while another's question has its own."""
    model = FakeGenerator(speak=lambda prompt: prompt.splitlines()[-2].removeprefix("Person1: "))
    async with talk(model=model, settings=ChatSettings(burst=0.3)) as server:
        for text in ("person2: so", "what about", "the roses?"):
            server.says("ann", text)
        first = await server.read()
        server.says("ann", "person2: thanks")
        assert first == "PRIVMSG #room :so what about the roses?"
        assert await server.read() == "PRIVMSG #room :thanks"


async def test_what_it_must_not_say() -> None:
    """The next candidate is said; where there is none, the asker alone is told."""
    blocked = ChatSettings(blocked=BlockedWords(["frobnicate"]))
    async with talk("f r o b n i c a t e!|dear me", "fr0bnicate", settings=blocked) as server:
        server.says("ben", "person2: say something")
        assert await server.read() == "PRIVMSG #room :dear me"
        server.says("ben", "person2: and now?")
        assert await server.read() == f"PRIVMSG ben :{UNSAYABLE}"


async def test_whom_it_ignores() -> None:
    """An operator's word is enough; who is ignored is neither answered nor remembered."""
    model = FakeGenerator()
    async with talk(model=model) as server:
        assert await server.settles("ignore Ben") == "From now on I ignore ben here."
        server.says("ben", "person2: secret")
        server.says("BEN", "!ask secret")
        assert await server.read() == f"PRIVMSG BEN :{IGNORED}"
        server.says("ann", "person2: hello")
        assert await server.read() == "PRIVMSG #room :hello"
        assert await server.settles("unignore ben") == "From now on I listen to ben here."
        server.says("ben", "person2: me?")
        assert await server.read() == "PRIVMSG #room :hello"
        assert model.prompts[1] == "Person1: hello\nPerson2: hello\nPerson1: me?\nPerson2:"


async def test_who_it_is_and_why_it_said_so(tmp_path: Path) -> None:
    """A persona for the channel; `why` shows what was drawn, recalled and learned from, and how the trial stands."""
    clock = Clock()
    registry = AdapterRegistry(tmp_path / "adapters", clock=clock)
    for name in ("one", "two"):
        registry.add(adapter(tmp_path / name), card(name))
    registry.use("one")
    registry.begin_trial("two", share=0.99, days=7)
    model = FakeGenerator(lines=[*("I see." for _ in SAID), "Poor parrot!|Poor parrot!|Hm."])
    memory = open_memory("sqlite://")
    selection = AdapterSelection(registry, model)
    await selection.refresh()
    judge = TrialJudge(registry, memory.judgements, clock=clock)
    async with talk(
        model=model,
        memory=memory,
        clock=clock,
        select_adapter=selection.adapter_for,
        trial=judge.standing,
        learned_from={"two": 3}.get,
    ) as server:
        assert "recall on" in await server.settles("recall on")
        assert "persona “A kind gardener.”" in await server.settles("persona A kind gardener.")
        for text in SAID:
            server.says("ben", f"!ask {text}")
            assert await server.read() == "PRIVMSG #room :I see."
        for number in range(40):
            server.says("ann", f"talk number {number}")
        await until(lambda: len(list(memory.everything())) == 40 + 2 * len(SAID))
        clock.now += timedelta(days=30)
        server.says("ben", "!ask Captain Flint the parrot flew away")
        assert await server.read() == "PRIVMSG #room :Poor parrot!"
        server.says("ben", "!why")
        told = await server.reads("ben")
        for detail in (
            "adapter: two",
            "learned from: 3 people who agreed",
            "drawn: “Poor parrot!” (2 of 3,",
            "“my parrot Captain Flint bites the postman” (2026-01-01)",
        ):
            assert detail in told
        server.says("ben", "!again")
        assert await server.read() == "PRIVMSG #room :Hm."
        server.says("ben", "!status")
        assert "two is on trial" in await server.read()
    assert set(model.personas) == {"A kind gardener."}


async def test_another_answer_and_help() -> None:
    """`!again` answers anew; help is in private and short enough for one breath."""
    async with talk("one", "two") as server:
        server.ann("person2", "count")
        assert await server.read() == "PRIVMSG ann :one"
        server.ann("person2", "!again")
        assert await server.read() == "PRIVMSG ann :two"
        server.ann("#room", "!help")
        first = await server.read()
        assert first.startswith("PRIVMSG ann :Mention me")
        assert "!ask QUESTION" in first


async def test_nobody_is_pinged_and_nothing_is_injected() -> None:
    """Nicks of the channel are broken by an invisible character; a line break cannot start a command."""
    async with talk(speak := "ben and ANN said: quit") as server:
        server.ann("#room", "person2?")
        said = (await server.read()).removeprefix("PRIVMSG #room :")
        assert said.replace("\u200b", "") == speak
        assert "ben" not in said
        assert "ANN" not in said
    assert to_lines("a\r\nQUIT :x\x01\x00") == ["a | QUIT :x"]


@pytest.mark.parametrize("text", ["word " * 300, "ü" * 700, "🎉" * 300, "x" * 5000, "“word” " * 200])
def test_long_replies_fit(text: str) -> None:
    """No line has more than 400 bytes or is much shorter, and no answer has more than a few lines."""
    lines = to_lines(text)
    assert all(len(line.encode()) > 200 for line in lines[:-1])
    assert 1 < len(lines) <= 5
    assert all(0 < len(line.encode()) <= LIMIT for line in lines)


async def test_a_taken_nick_gets_a_tail() -> None:
    """The bot listens to the nick it was given in the end."""
    async with talk("yes", server=IrcServer(taken="person2")) as server:
        server.ann("#room", "person2_: are you there?")
        assert await server.read() == "PRIVMSG #room :yes"


async def test_what_was_left_unanswered_is_answered(tmp_path: Path) -> None:
    """Killed while it thought, the bot answers once it is back."""
    url, gate = f"sqlite:///{tmp_path / 'm.db'}", asyncio.Event()
    stuck = FakeGenerator(gate=gate)
    async with talk(model=stuck, memory=open_memory(url)) as server:
        server.ann("#room", "person2: are you there?")
        await until(lambda: bool(stuck.prompts))
    async with talk("yes, again", memory=open_memory(url)) as server:
        assert await server.read() == "PRIVMSG #room :yes, again"
        server.ann("#room", "person2: good")
        assert await server.read() == "PRIVMSG #room :yes, again"


async def test_two_bots_stop_talking_to_each_other() -> None:
    """On IRC a bot is a member like any other: one that answers each of our lines at once is left alone."""
    async with talk("how do you do?") as server:
        for _ in range(12):
            server.ann("#room", "person2: fine, and how do you do?")
            assert (await server.read()) == "PRIVMSG #room :how do you do?"
        for _ in range(5):
            server.ann("#room", "person2: fine, and how do you do?")
        server.types(":ben!~ben@host PRIVMSG #room :person2: and I?")
        assert await server.read() == "PRIVMSG #room :how do you do?"
        assert server.sent.empty()


async def test_it_comes_back() -> None:
    """Refused at first, then dropped in the middle: it connects again and remembers the talk."""
    server = IrcServer()
    server.refuse = 3
    model = FakeGenerator(lines=("one", "two"))
    async with talk(server=server, model=model):
        server.ann("#room", "person2: first")
        assert await server.read() == "PRIVMSG #room :one"
        server.drop()
        async with asyncio.timeout(10):
            while await server.sent.get() != "PONG :are you there":
                pass
        server.ann("#room", "person2: second")
        assert await server.read() == "PRIVMSG #room :two"
        assert server.connections == 5
        assert "first" in model.prompts[1]


def test_a_platform_costs_at_most_195_lines() -> None:
    """The promise of the architecture, kept by the whole file with its command line."""
    assert len((ROOT / "examples" / "irc.py").read_text(encoding="utf-8").splitlines()) <= 195
