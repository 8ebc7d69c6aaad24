"""Whose words count on Discord, and which: forwarded and pasted ones, and those that a proxy posts for a member."""

import asyncio
from datetime import datetime

import pytest

from core.chat import ChatSettings
from core.memory import open_memory
from core.policy import Rules
from tests.bots.discord_talk import talking
from tests.discord_server import DiscordServer, Person
from tests.fakes import Clock, FakeGenerator, chat


async def test_a_forwarded_message(server: DiscordServer, ann: Person) -> None:
    """What is forwarded to the bot is what it reads."""
    ben = server.person("Ben")
    generator = FakeGenerator(lines=("I see.",))
    async with talking(server, generator):
        said = ben.says(f"the roses droop, <@{ann.id}>")
        forwarded = {"type": 1, "message_id": str(said.id), "channel_id": str(server.channel)}
        server.backend.create_message(ann.direct, ann.id, "", reference=forwarded)
        assert await server.posted(1, ann.direct) == ["I see."]
    assert generator.prompts == ["Person1: the roses droop, @someone\nPerson2:"]


async def test_a_pasted_text(server: DiscordServer, ann: Person) -> None:
    """Discord makes `message.txt` of what is longer than a message; it is read as if it stood there."""
    generator = FakeGenerator(lines=("Long.", "Short."))
    async with talking(server, generator):
        ann.says("", attachments=[server.file("message.txt", f"{ann.bot} it all began\nwith a seed".encode())])
        assert await server.posted(1) == ["Long."]
        ann.says("look at this", where=ann.direct, attachments=[server.file("notes.txt", b"secret notes")])
        assert await server.posted(1, ann.direct) == ["Short."]
    assert generator.prompts == ["Person1: it all began with a seed\nPerson2:", "Person1: look at this\nPerson2:"]


@pytest.mark.parametrize("file", [{"size": 1 << 30}, {"url": "http://127.0.0.1:1/message.txt"}, {"url": "nonsense"}])
async def test_a_pasted_text_that_cannot_be_read(server: DiscordServer, ann: Person, file: dict[str, object]) -> None:
    """A file too large, or one that cannot be fetched, holds nobody up; the words beside it are heard."""
    generator = FakeGenerator(lines=("Hm.",))
    async with talking(server, generator):
        ann.says(f"{ann.bot} read!", attachments=[server.file("message.txt", b"words") | file])
        assert await server.posted(1) == ["Hm."]
    assert generator.prompts == ["Person1: read!\nPerson2:"]


@pytest.mark.parametrize("first", ["deletion", "repost"])
async def test_a_message_posted_again_by_a_proxy(server: DiscordServer, ann: Person, first: str) -> None:
    """PluralKit deletes a message and says it by a webhook: that one is answered, once, and is the member's."""
    memory = open_memory("sqlite://")
    generator = FakeGenerator(speak=lambda prompt: "hello", delay=0.3)
    async with talking(server, talk=chat(generator, memory=memory)):
        original = ann.says(f"[{ann.bot} how are you?]")
        await server.until(lambda: generator.prompts)
        if first == "deletion":
            ann.deletes(original)
            repost = server.webhook_says("Rose", f"{ann.bot} how are you?")
        else:
            repost = server.webhook_says("Rose", f"{ann.bot} how are you?")
            ann.deletes(original)
        await server.until(lambda: any(post.reference for post in server.messages()))
        ann.says(f"{ann.bot} and now?")
        await server.posted(2)
        answered = [post.reference["message_id"] for post in server.messages()]
        stored = [(said.message.author, said.message.text) for said in memory.everything() if not said.message.from_bot]
    assert answered[0] == str(repost.id)
    assert len(answered) == 2
    assert stored == [(str(ann.id), "how are you?"), (str(ann.id), "and now?")]


async def test_what_a_proxy_says_for_an_ignored_member(server: DiscordServer) -> None:
    """A webhook has no roles; the member it speaks for has."""
    role = server.backend.create_role(server.guild.id, "muted")
    muted, ann = server.person("Mo", roles=[role.id]), server.person("Amy")
    memory, generator = open_memory("sqlite://"), FakeGenerator()
    rules = ChatSettings(rules=Rules(ignored=frozenset({f"@{role.id}"})))
    async with talking(server, talk=chat(generator, memory=memory, settings=rules)):
        for member, words in ((muted, "how are you?"), (ann, "and now?")):
            original = member.says(f"[{member.bot} {words}]")
            server.webhook_says("Rose", f"{member.bot} {words}")
            member.deletes(original)
        await server.until(lambda: any(post.reference for post in server.messages()))
    assert {said.message.author for said in memory.everything() if not said.message.from_bot} == {str(ann.id)}


async def test_a_message_answered_before_it_is_posted_again(server: DiscordServer, ann: Person) -> None:
    """A proxy that is slower than the bot gets no second answer; the words that stand are remembered."""
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(FakeGenerator(lines=("hello", "bye")), memory=memory)):
        original = ann.says(f"{ann.bot} how are you?")
        await server.posted(1)
        ann.deletes(original)
        server.webhook_says("Rose", f"{ann.bot} how are you?")
        await server.until(lambda: [said.message.author_name for said in memory.everything()][-1] == "Rose")
        ann.says(f"{ann.bot} bye")
        assert await server.posted(2) == ["hello", "bye"]


async def test_a_webhook_that_repeats_what_stands(server: DiscordServer, ann: Person) -> None:
    """Where nothing was deleted a webhook is a webhook, and gets silence."""
    async with talking(server, FakeGenerator(lines=("hello", "bye"))):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        server.webhook_says("Bridge", f"{ann.bot} hello")
        server.webhook_says("Bridge", f"{ann.bot} something else")
        ann.says(f"{ann.bot} bye")
        assert await server.posted(2) == ["hello", "bye"]


async def test_an_edit_that_adds_the_mention(server: DiscordServer, ann: Person) -> None:
    """Who forgot to name the bot adds it: the message is answered, once, however often it is edited then."""
    generator = FakeGenerator(lines=("one", "two"))
    async with talking(server, generator):
        said = ann.says("how are you?")
        ann.edits(said, f"{ann.bot} how are you?")
        assert await server.posted(1) == ["one"]
        ann.edits(said, f"{ann.bot} how are you today?")
        ann.says(f"{ann.bot} and now?")
        assert await server.posted(2) == ["one", "two"]
    assert generator.prompts[1] == "Person1: how are you today?\nPerson2: one\nPerson1: and now?\nPerson2:"


@pytest.mark.parametrize("visible", [True, False])
async def test_an_edit_to_nothing(server: DiscordServer, ann: Person, visible: bool) -> None:
    """Words that were taken out are forgotten; where Discord just does not show them to us, they are not."""
    server.approved.message_content = visible
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(FakeGenerator(lines=("one", "two")), memory=memory)) as bot:
        await server.until(lambda: bot.ready and bot.message_content is visible)
        said = ann.says(f"{ann.bot} look at my garden", attachments=[server.picture()])
        await server.posted(1)
        ann.edits(said, "" if visible else "look at this")
        other = ann.says(f"{ann.bot} hello", where=ann.direct)
        await server.posted(1, ann.direct)
        ann.edits(other, "hello!")
        await server.until(lambda: "hello!" in [said.message.text for said in memory.everything()])
        stored = [said.message.text for said in memory.everything()]
    assert ("look at my garden" in stored) is not visible


async def test_a_question_left_by_an_earlier_process(server: DiscordServer, ann: Person) -> None:
    """What was asked before the bot was killed is answered when it is back, where it was asked."""
    memory = open_memory("sqlite://")
    lost = FakeGenerator(gate=asyncio.Event())
    clock = Clock(datetime.fromisoformat(server.backend.now_iso()))
    async with talking(server, talk=chat(lost, memory=memory, clock=clock)):
        asked = ann.says(f"{ann.bot} hello")
        await server.until(lambda: lost.prompts)
    async with talking(server, talk=chat(FakeGenerator(lines=("I am back.",)), memory=memory, clock=clock)):
        assert await server.posted(1) == ["I am back."]
    assert server.messages()[0].reference["message_id"] == str(asked.id)


async def test_an_answer_posted_by_an_earlier_process(server: DiscordServer, ann: Person) -> None:
    """A bot killed before it heard that its answer stands finds it, and does not say it twice."""
    memory = open_memory("sqlite://")
    clock = Clock(datetime.fromisoformat(server.backend.now_iso()))
    server.fail("POST", f"/channels/{server.channel}/messages", 503, times=1_000_000, lost=True)
    async with talking(server, talk=chat(FakeGenerator(lines=("one",)), memory=memory, clock=clock)):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
    server.faults.clear()
    async with talking(server, talk=chat(FakeGenerator(lines=("two", "three")), memory=memory, clock=clock)) as bot:
        await server.until(lambda: bot.ready)
        ann.says("go on", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]
