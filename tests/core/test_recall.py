"""Old exchanges that a member's words recall: found by rare words, kept where they were said, gone with their words."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from core.chat import Chat, ChatSettings
from core.commands import Commands, Invocation
from core.generator import Sampling
from core.memory import Exchange, Memory, open_memory
from core.messages import Conversation, Kind, Message
from core.recall import recalled
from tests.bots.discord_talk import talking
from tests.bots.slack_talk import talk
from tests.discord_server import serving
from tests.fakes import Clock, FakeGenerator, chat, said

NOW = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
LATER = NOW + timedelta(days=30)
RECALLING = ChatSettings(recall=True, user_rate=0)
FRONT = "Person1: my parrot Captain Flint bites the postman\nPerson2: Poor postman!\n"
SAID = ("I like tea", "nice weather today", "my parrot Captain Flint bites the postman", "what is for dinner", "hello")


def exchange(row: int, text: str, *, days: float = 30) -> Exchange:
    return Exchange(row=row, said=text, sent_at=LATER - timedelta(days=days), answer="I see.")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("guess what Captain Flint the parrot did", [2]),
        ("captain flint!", [2]),
        ("a captain I like", []),
        ("I like the weather", []),
        ("my parrot Captain Flint bites the postman", []),
        ("", []),
    ],
)
def test_what_is_recalled(text: str, rows: list[int]) -> None:
    """Two rare words in common are enough, everyday ones and a single one are not, and nor are the same words again."""
    old = [exchange(row, words) for row, words in enumerate([*SAID, *SAID[:2] * 5])]
    assert [each.row for each in recalled(text, old, now=LATER)] == rows


def test_the_more_recent_comes_first_and_the_newest_not_at_all() -> None:
    """Of three that are alike two are taken, oldest first; what was said yesterday stands in the window."""
    texts = [f"{way} parrot Captain Flint" for way in ("my", "our", "your", "their")]
    fill = [exchange(10 + row, f"something else {row}") for row in range(20)]
    old = [exchange(row, text, days=days) for row, (text, days) in enumerate(zip(texts, (400, 60, 30, 1), strict=True))]
    found = recalled("the parrot Captain Flint again", [*old, *fill], now=LATER)
    assert [each.row for each in found] == [1, 2]


def at(message: Message, when: datetime) -> Message:
    return replace(message, sent_at=when)


async def exchanged(talk_: Chat, question: Message) -> None:
    reply = await talk_.hear(question)
    assert reply is not None
    await talk_.posted(reply, question.conversation, [f"post of {question.id}"])


async def filled(memory: Memory, where: Conversation, *, author: str = "ann") -> None:
    """What Ann told and was answered thirty days ago, among other things; then as much talk as a window holds."""
    told = chat(FakeGenerator(lines=("Fine.", "Yes.", "Poor postman!", "Soup.", "Hi.")), memory=memory)
    for text in SAID:
        message = said(text, author=author, mentions_bot=True)
        await exchanged(told, replace(message, conversation=where))
    for number in range(40):
        message = at(said(f"talk number {number}", author="ben"), NOW)
        memory.remember(replace(message, conversation=where))


async def asked(
    memory: Memory,
    where: Conversation,
    *,
    author: str = "ann",
    settings: ChatSettings = RECALLING,
    text: str = "Captain Flint the parrot flew away",
) -> str:
    """The prompt of a question thirty days later."""
    generator = FakeGenerator(lines=("Oh no!",))
    question = at(said(text, author=author, mentions_bot=True), LATER)
    await exchanged(chat(generator, memory=memory, settings=settings), replace(question, conversation=where))
    return generator.prompts[0]


def in_files(folder: Path) -> bytes:
    """Everything in the database's files, the write-ahead log included."""
    return b"".join(file.read_bytes() for file in folder.glob("m.db*"))


DIRECT = Conversation(platform="test", channel="d1", kind=Kind.DIRECT)
CHANNEL = Conversation(platform="test", channel="c1")
OTHER = Conversation(platform="test", channel="c2")


def thread(name: str) -> Conversation:
    return Conversation(platform="test", channel="c1", thread=name, kind=Kind.THREAD)


async def test_what_somebody_told_is_in_view(url: str) -> None:
    """In front of the window, once; without the setting the prompt is as it always was."""
    memory = open_memory(url)
    await filled(memory, DIRECT)
    without = await asked(memory, DIRECT, settings=ChatSettings())
    assert "postman" not in without
    prompt = await asked(memory, DIRECT, text="the parrot Captain Flint flew away again")
    assert prompt.startswith(FRONT)
    assert prompt.count("postman") == 2
    memory.close()


@pytest.mark.parametrize(
    ("told", "asks", "author", "seen"),
    [
        (DIRECT, DIRECT, "ann", True),
        (CHANNEL, CHANNEL, "ann", True),
        (CHANNEL, thread("t1"), "ann", True),
        (thread("t1"), thread("t1"), "ann", True),
        (DIRECT, CHANNEL, "ann", False),
        (CHANNEL, OTHER, "ann", False),
        (CHANNEL, CHANNEL, "ben", False),
        (thread("t1"), CHANNEL, "ann", False),
        (thread("t1"), thread("t2"), "ann", False),
    ],
)
async def test_words_stay_where_they_were_said(told: Conversation, asks: Conversation, author: str, seen: bool) -> None:
    """Direct messages stay direct, channels apart, a thread's words in the thread, and everybody's are their own."""
    memory = open_memory("sqlite://")
    await filled(memory, told)
    assert ("postman" in await asked(memory, asks, author=author)) is seen


async def test_what_opened_a_thread_is_the_channels() -> None:
    """On Slack a question in a channel opens a thread: everybody in the channel sees it, so it is recalled there."""
    memory = open_memory("sqlite://")
    told = chat(FakeGenerator(lines=("Poor postman!",)), memory=memory)
    opening = said(SAID[2], id="t9", kind=Kind.THREAD, channel="c1", thread="t9", mentions_bot=True)
    await exchanged(told, opening)
    for number in range(9):
        await exchanged(told, said(f"something {number}", kind=Kind.CHANNEL, channel="c1", mentions_bot=True))
    assert FRONT in await asked(memory, thread("t10"))


@pytest.mark.parametrize("how", ["forget", "delete", "delete the answer", "edit", "retention", "reset"])
async def test_what_is_gone_is_not_recalled(how: str) -> None:
    """Forgotten, deleted, changed, past its retention, or from before a reset."""
    memory = open_memory("sqlite://")
    await filled(memory, DIRECT)
    question = next(each.message.id for each in memory.everything() if "postman" in each.message.text)
    match how:
        case "forget":
            memory.forget("test", "ann")
        case "delete":
            memory.remove(DIRECT, [question])
        case "delete the answer":
            memory.remove(DIRECT, [f"post of {question}"])
        case "edit":
            memory.edit(DIRECT, question, "never mind")
        case "retention":
            memory.purge(before=NOW + timedelta(days=1))
        case _:
            memory.reset(DIRECT)
    assert "postman" not in await asked(memory, DIRECT)


async def test_why_shows_what_was_in_view(tmp_path: Path) -> None:
    """The old message and its day; once that is deleted, nothing of its words is left, in no file either."""
    memory = open_memory(f"sqlite:///{tmp_path}/m.db")
    await filled(memory, DIRECT)
    await asked(memory, DIRECT)
    commands = Commands(chat=chat(memory=memory), started_at=NOW, clock=Clock())
    asking = Invocation(name="why", message=said("", channel="d1"))
    assert "recalled: “my parrot Captain Flint bites the postman” (2026-01-01)" in (await commands.run(asking)).text
    question = next(each.message.id for each in memory.everything() if "postman" in each.message.text)
    assert b"bites the postman" in in_files(tmp_path)
    memory.remove(DIRECT, [question])
    assert "recalled: what has been deleted since" in (await commands.run(asking)).text
    assert b"bites the postman" not in in_files(tmp_path)


async def test_a_long_exchange_is_left_out() -> None:
    """What is recalled has a quarter of the prompt at most; the window has the rest."""
    memory = open_memory("sqlite://")
    await filled(memory, DIRECT)
    small = replace(RECALLING, sampling=Sampling(max_new_tokens=FakeGenerator.context_length - 40))
    prompt = await asked(memory, DIRECT, settings=small)
    assert "postman" not in prompt
    assert "Captain Flint the parrot flew away" in prompt


async def test_a_channel_decides_for_itself() -> None:
    """`settings recall on` and `off` stand above the operator's setting, `default` gives it back."""
    memory = open_memory("sqlite://")
    await filled(memory, CHANNEL)
    commands = Commands(chat=chat(memory=memory), started_at=NOW, clock=Clock())

    async def choose(value: str) -> str:
        message = replace(said(""), conversation=CHANNEL)
        argument = f"recall {value}"
        return (await commands.run(Invocation(name="settings", argument=argument, message=message, admin=True))).text

    assert await choose("maybe") == "recall can be on, off or default."
    assert "recall on" in await choose("on")
    assert FRONT in await asked(memory, CHANNEL, settings=ChatSettings(user_rate=0))
    assert "recall off" in await choose("off")
    assert "postman" not in await asked(memory, CHANNEL)
    assert "recall default" in await choose("default")
    assert FRONT in await asked(memory, CHANNEL)


async def test_on_discord() -> None:
    """A direct message recalls what was said in direct messages weeks ago; in a channel it does not."""
    memory, generator = open_memory("sqlite://"), FakeGenerator(lines=("Oh no!",))
    async with serving() as server:
        ann = server.person("Ann")
        where = Conversation(platform="discord", channel=str(ann.direct), kind=Kind.DIRECT)
        await filled(memory, where, author=str(ann.id))
        server.backend.clock.advance(timedelta(days=30).total_seconds())
        async with talking(server, talk=chat(generator, memory=memory, settings=RECALLING)):
            ann.says("Captain Flint the parrot flew away", where=ann.direct)
            assert await server.posted(1, ann.direct) == ["Oh no!"]
            ann.says(f"{ann.bot} Captain Flint the parrot flew away")
            assert await server.posted(1) == ["Oh no!"]
    assert generator.prompts[0].startswith(FRONT)
    assert generator.prompts[-1] == "Person1: Captain Flint the parrot flew away\nPerson2:"


async def test_on_slack() -> None:
    """A question in a channel recalls what the same member asked there eleven days ago."""
    lines = ("Fine.", "Yes.", "Poor postman!", "Soup.", "Hi.", "Oh no!")
    async with talk("socket", *lines, settings=RECALLING) as t:
        for number, text in enumerate((*SAID, "Captain Flint the parrot flew away"), 1):
            day = 1_700_000_000 if number < len(lines) else 1_701_000_000
            await t.slack.says(f"<@UBOT> {text}".replace("UBOT", t.slack.identity["user_id"]), ts=f"{day}.{number:06d}")
            await t.slack.post(number)
        assert t.prompts[-1] == f"{FRONT}Person1: Captain Flint the parrot flew away\nPerson2:"


async def test_with_all_of_it_off_replies_are_as_before() -> None:
    """No recall, no forgotten names, no trial: the same prompt, the same words, and nothing new in `why`."""
    memory = open_memory("sqlite://")
    await filled(memory, DIRECT)
    memory.keep_forgotten("test", "member", {"digest": False}, NOW)
    generator = FakeGenerator(lines=("Ask Ben.",))
    reply = await chat(generator, memory=memory).hear(at(said("Captain Flint the parrot?", channel="d1"), LATER))
    window = " ".join(f"talk number {number}" for number in range(1, 40))
    assert generator.prompts == [f"Person1: {window} Captain Flint the parrot?\nPerson2:"]
    assert reply is not None
    assert (reply.text, reply.adapter) == ("Ask Ben.", None)
    assert "recalled" not in reply.details
