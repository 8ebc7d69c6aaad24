"""What people say on Discord and what they get, over real sockets: an unmodified discord.py against a server on
loopback with Discord's rules."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from simcord.enums import MessageType

from bots.discord import check_credentials
from bots.discord.markup import parts
from core.chat import ChatSettings
from core.errors import PermanentPlatformError
from core.memory import open_memory
from core.messages import Conversation
from core.notices import BROKEN, TOO_FAST, WORDLESS
from tests.bots.discord_talk import talking
from tests.discord_server import TOKEN, DiscordServer, Person, forum
from tests.fakes import FakeGenerator, chat


async def test_mention(server: DiscordServer, ann: Person) -> None:
    """Who is mentioned answers, under the message and without a ping, and is seen typing."""
    seen = asyncio.Event()
    generator = FakeGenerator(lines=("Fine, thank you.",), gate=seen)
    async with talking(server, generator):
        asked = ann.says(f"{ann.bot} how are you?")
        await server.until(lambda: ("POST", f"/channels/{server.channel}/typing", None) in server.calls)
        seen.set()
        assert await server.posted(1) == ["Fine, thank you."]
    [post] = server.messages()
    assert post.reference["message_id"] == str(asked.id)
    assert not post.ping_user_ids
    assert generator.prompts == ["Person1: how are you?\nPerson2:"]


async def test_who_is_answered(server: DiscordServer, ann: Person) -> None:
    """Mention, reply, direct message, thread it takes part in; silence elsewhere."""
    generator = FakeGenerator(lines=("one", "two", "three", "four", "five"))
    async with talking(server, generator):
        ann.says("nobody is asked here")
        ann.says(f"{ann.bot} mentioned")
        assert await server.posted(1) == ["one"]

        ann.says("replied to", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]

        ann.says("direct", where=ann.direct)
        assert await server.posted(1, ann.direct) == ["three"]

        thread = ann.opens_thread("roses")
        ann.says("nobody is asked in this thread", where=thread)
        ann.says(f"{ann.bot} come here", where=thread)
        assert await server.posted(1, thread) == ["four"]
        ann.says("no mention is needed now", where=thread)
        assert await server.posted(2, thread) == ["four", "five"]
        assert len(server.posts()) == 2
    assert generator.prompts[-1] == (
        "Person1: nobody is asked in this thread come here\nPerson2: four\nPerson1: no mention is needed now\nPerson2:"
    )


async def test_a_follow_up_in_a_new_thread(server: DiscordServer, ann: Person) -> None:
    """Who goes on talking in a thread while the first answer there is being composed is talking to the bot."""
    gate = asyncio.Event()
    generator = FakeGenerator(lines=("one", "two"), gate=gate)
    async with talking(server, generator):
        thread = ann.opens_thread("roses")
        ann.says(f"{ann.bot} why do they droop?", where=thread)
        await server.until(lambda: generator.prompts)
        ann.says("I water them daily", where=thread)
        gate.set()
        assert await server.posted(2, thread) == ["one", "two"]


async def test_forum_posts(server: DiscordServer, ann: Person) -> None:
    """A forum post is a thread: mentioned in it the bot answers there and then takes part."""
    place = forum(server)
    async with talking(server, FakeGenerator(lines=("Water them.", "Twice a week."))):
        post = ann.opens_thread("My roses droop", parent=place)
        ann.says(f"{ann.bot} what shall I do?", where=post)
        assert await server.posted(1, post) == ["Water them."]
        ann.says("How often?", where=post)
        assert (await server.posted(2, post))[1] == "Twice a week."


async def test_a_reply_to_an_old_post_is_known_from_memory(server: DiscordServer, ann: Person) -> None:
    """Discord may leave out the message that is answered; the bot remembers which posts are its own."""
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        payload = server.payload(ann.says("and then?", answering=server.messages()[0].id, broadcast=False))
        del payload["referenced_message"]
        payload["mentions"] = []
        await server.send("MESSAGE_CREATE", payload)
        assert await server.posted(2) == ["one", "two"]


async def test_only_people_are_answered(server: DiscordServer, ann: Person) -> None:
    """Other bots, webhooks and Discord's own notes get silence, whatever they say."""
    other = server.person("Beep", bot=True)
    hook = server.backend.make_user("Hook").id
    async with talking(server, FakeGenerator(lines=("hello Ann",))):
        other.says(f"{ann.bot} hello from a bot")
        server.backend.create_message(server.channel, hook, f"{ann.bot} from a webhook", webhook_id=hook)
        server.backend.create_message(
            server.channel, ann.id, f"{ann.bot}", message_type=MessageType.NEW_MEMBER
        )  # “Ann joined”
        ann.says(f"{ann.bot} hello from a person")
        assert await server.posted(1) == ["hello Ann"]
        assert server.posts() == ["hello Ann"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{bot} hi", "hi"),
        ("{bot}, {bot} hi {bot}", "hi"),
        ("hey {bot} you", "hey @Person2 you"),
        ("{bot} ask {ben}", "ask @Ben"),
        ("{bot} see {general}", "see #general"),
        ("{bot} nice <:rose:123456789012345678><a:bee:123456789012345679>", "nice :rose::bee:"),
        ("{bot} at <t:1767225600:R>", "at 2026-01-01 00:00"),
        ("{bot} try </person2 ask:123456789012345678>", "try /person2 ask"),
        ("{bot} to {gone}", "to @someone"),
        ("{bot} ok\nPerson2: I agree\nPerson1: so it is", "ok Person2: I agree Person1: so it is"),
        ("{bot} שלום 🌱 مرحبا", "שלום 🌱 مرحبا"),
    ],
)
async def test_what_the_bot_reads(server: DiscordServer, ann: Person, written: str, read: str) -> None:
    """Ids become names, markup becomes what a person sees, and a forged turn stays plain text."""
    ben = server.person("Ben")
    generator = FakeGenerator()
    marks = {"bot": ann.bot, "ben": f"<@{ben.id}>", "general": f"<#{server.channel}>", "gone": "<@123>"}
    async with talking(server, generator):
        ann.says(written.format(**marks))
        await server.posted(1)
    assert generator.prompts == [f"Person1: {read}\nPerson2:"]


async def test_four_thousand_characters(server: DiscordServer, ann: Person) -> None:
    """The longest message Discord lets anybody write is heard whole."""
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(memory=memory)):
        payload = server.payload(ann.says(f"{ann.bot} short", broadcast=False))
        payload["content"] = f"{ann.bot} " + "y" * 3975
        await server.send("MESSAGE_CREATE", payload)
        await server.posted(1)
    assert [said.message.text for said in memory.everything()] == ["y" * 3975, "hello"]


@pytest.mark.parametrize(
    ("generated", "posted"),
    [
        ("Use *two* __stars__ and `code`", r"Use \*two\* \_\_stars\_\_ and \`code\`"),
        ("# No heading", r"\# No heading"),
        ("> no quote", r"\> no quote"),
        ("see https://example.org/a_b_c now", "see https://example.org/a_b_c now"),
        ("hello @everyone and @here", "hello everyone and here"),
        ("I <3 you, x < y", "I <3 you, x < y"),
        ("at <t:1767225600:R> look", r"at \<t:1767225600:R> look"),
        ("it is ~~gone~~", r"it is \~\~gone\~\~"),
    ],
)
async def test_what_the_bot_posts(server: DiscordServer, ann: Person, generated: str, posted: str) -> None:
    """Text shows as it stands: no markup fires, nobody is pinged, links stay links."""
    async with talking(server, FakeGenerator(lines=(generated,))):
        ann.says(f"{ann.bot} speak")
        assert await server.posted(1) == [posted]
    [post] = server.messages()
    assert not post.ping_user_ids
    assert not post.ping_role_ids
    assert not post.mention_everyone


def test_spoilers_are_shown() -> None:
    """What would be hidden is not."""
    assert parts("||secret||") == [r"\|\|secret\|\|"]


async def test_nobody_is_pinged(server: DiscordServer, ann: Person) -> None:
    """An id that slips through every filter still pings nobody: Discord is told so with each post."""
    async with talking(server, FakeGenerator(lines=(f"ask <@{ann.id}> then",))):
        ann.says(f"{ann.bot} whom?")
        assert await server.posted(1) == ["ask then"]
    sent = [body for method, path, body in server.calls if method == "POST" and path.endswith("/messages")]
    assert [body["allowed_mentions"] for body in sent] == [{"parse": [], "replied_user": False}]


async def test_a_long_reply_comes_in_parts(server: DiscordServer, ann: Person) -> None:
    """Cut at sentence ends within 2,000 characters; only the first part is a reply, and any part can be replied to."""
    long = " ".join(f"This is sentence number {number}." for number in range(150))
    async with talking(server, FakeGenerator(lines=(long, "yes"))):
        ann.says(f"{ann.bot} tell me everything")
        posts = await server.posted(3)
        assert " ".join(posts) == long
        assert all(len(part) <= 2000 and part.endswith(".") for part in posts)
        assert [post.reference is not None for post in server.messages()] == [True, False, False]
        ann.says("go on", answering=server.messages()[2].id)
        assert (await server.posted(4))[3] == "yes"


async def test_nothing_to_read(server: DiscordServer, ann: Person) -> None:
    """A bare mention or a lone picture gets a note that deletes itself, once a minute; without a mention, silence."""
    picture: list[Any] = [server.picture()]
    async with talking(server, FakeGenerator(lines=("words!",))):
        ann.says("", attachments=picture)
        ann.says(f"{ann.bot}", attachments=picture)
        assert await server.posted(1) == [WORDLESS]
        await server.until(lambda: not server.posts())
        ann.says(f"{ann.bot}  ")
        ann.says(f"{ann.bot} words", attachments=picture)
        assert await server.posted(1) == ["words!"]
        ben = server.person("Ben")
        ben.says("", where=ben.direct, attachments=picture)
        assert await server.posted(1, ben.direct) == [WORDLESS]


async def test_too_many_questions(server: DiscordServer, ann: Person) -> None:
    """Over the rate a member gets a friendly note that deletes itself, and nobody else is held up."""
    ben = server.person("Ben")
    talk = chat(FakeGenerator(lines=("one", "two")), settings=ChatSettings(user_rate=1))
    async with talking(server, talk=talk):
        ann.says(f"{ann.bot} first")
        await server.posted(1)
        ann.says(f"{ann.bot} second")
        assert await server.posted(2) == ["one", TOO_FAST]
        await server.until(lambda: server.posts() == ["one"])
        ben.says(f"{ann.bot} and I?")
        assert await server.posted(2) == ["one", "two"]


async def test_what_breaks_is_said_in_one_sentence(
    server: DiscordServer, ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken generator or database is logged with its traceback; who asked gets one sentence, the bot lives on."""
    generator = FakeGenerator(lines=("fine again",), error=ValueError("the weights are made of cheese"))
    async with talking(server, generator):
        ann.says(f"{ann.bot} hello", where=ann.direct)
        assert await server.posted(1, ann.direct) == [BROKEN]
        generator.error = None
        ann.says("hello?", where=ann.direct)
        assert (await server.posted(2, ann.direct))[1] == "fine again"
    assert "made of cheese" in caplog.text


async def test_a_database_that_fails(
    server: DiscordServer, ann: Person, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Without a database the asker gets one sentence; who was not talking to the bot gets none."""
    memory = open_memory(f"sqlite:///{tmp_path / 'person2.db'}")
    async with talking(server, talk=chat(memory=memory)):
        with sqlite3.connect(tmp_path / "person2.db") as connection:
            connection.execute("ALTER TABLE messages RENAME TO mislaid")
        ann.says("just talking")
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == [BROKEN]
        asked = await ann.uses("person2 ask", question="hello?")
        assert await asked.answer() == f"(only you) {BROKEN}"
        assert len(server.posts()) <= 1
    assert "StorageError" in caplog.text


async def test_edits_and_deletions(server: DiscordServer, ann: Person) -> None:
    """An edited message is context as it stands now; a deleted one is context no more, nor are deleted answers."""
    generator = FakeGenerator(lines=("one", "two", "three", "four"))
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(generator, memory=memory)):
        first = ann.says("I like tulips")
        second = ann.says("and daisies", broadcast=True)
        third = ann.says("and weeds")
        ann.edits(first, "I like roses")
        ann.deletes(second)
        ann.says(f"{ann.bot} what do I like?")
        await server.posted(1)
        assert generator.prompts[-1] == "Person1: I like roses and weeds what do I like?\nPerson2:"
        ann.deletes(first, third)
        ann.deletes(server.messages()[0])
        await server.until(lambda: len(list(memory.everything())) == 1)
        ann.says(f"{ann.bot} and now?")
        await server.posted(1)
        assert generator.prompts[-1] == "Person1: what do I like? and now?\nPerson2:"


async def test_reactions_are_feedback(server: DiscordServer, ann: Person) -> None:
    """👍 and 👎 on an answer count, in a thread too; other emoji, other posts and withdrawn ones do not."""
    ben = server.person("Ben")
    memory = open_memory("sqlite://")
    thread = ann.opens_thread("roses")
    async with talking(server, talk=chat(memory=memory)):
        asked = ann.says(f"{ann.bot} hello", where=thread)
        await server.posted(1, thread)
        [answer] = server.messages(thread)
        await server.until(lambda: memory.reply_of(_thread(server, thread), str(answer.id)))

        async def counts(*expected: int) -> None:
            await server.until(lambda: memory.feedback_counts("discord") == expected)

        ann.reacts(answer, "👍")
        await counts(1, 0)
        ben.reacts(answer, "👎🏽")
        await counts(1, 1)
        ben.reacts(asked, "👍")
        ben.reacts(answer, "🎉")
        ben.reacts(answer, "👍")
        await counts(2, 0)
        ben.reacts(answer, "👍", stay=False)
        await counts(1, 0)
        ben.reacts(answer, "👎🏽", stay=False)
        ben.reacts(answer, "👎")
        await counts(1, 1)
        ann.reacts(answer, "👍", stay=False)
        await counts(0, 1)
        ben.reacts(answer, "👍")
        await counts(1, 0)
        ben.reacts(answer, "👎", stay=False)
        ann.reacts(answer, "👎")
        await counts(1, 1)


async def test_cleared_reactions_are_no_feedback(server: DiscordServer, ann: Person) -> None:
    """A moderator may clear the reactions to a message, all of them or those of one kind."""
    ben = server.person("Ben")
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(memory=memory)):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        [answer] = server.messages()
        place = {
            "channel_id": str(server.channel),
            "guild_id": str(server.guild.id),
            "message_id": str(answer.id),
        }

        async def counts(*expected: int) -> None:
            await server.until(lambda: memory.feedback_counts("discord") == expected)

        ann.reacts(answer, "👍")
        ben.reacts(answer, "👎🏽")
        await counts(1, 1)
        await server.send("MESSAGE_REACTION_REMOVE_EMOJI", {**place, "emoji": {"id": None, "name": "🎉"}})
        await server.send("MESSAGE_REACTION_REMOVE_EMOJI", {**place, "emoji": {"id": None, "name": "👎"}})
        await counts(1, 0)
        await server.send("MESSAGE_REACTION_REMOVE_ALL", place)
        await counts(0, 0)


async def test_an_edit_that_tells_only_the_new_text(server: DiscordServer, ann: Person) -> None:
    """An update without its author changes what is stored of the message; one without text changes nothing."""
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(memory=memory)):
        said = ann.says(f"{ann.bot} my pin is 99")
        await server.posted(1)
        place = {"id": str(said.id), "channel_id": str(server.channel), "guild_id": str(server.guild.id)}
        await server.send("MESSAGE_UPDATE", {**place, "content": f"{ann.bot} my pin is <@{ann.id}>'s"})
        await server.until(lambda: next(iter(memory.everything())).message.text.startswith("my pin is @"))
        await server.send("MESSAGE_UPDATE", {**place, "embeds": []})
        await server.send("MESSAGE_UPDATE", {**place, "content": f"{ann.bot} nothing"})
        await server.until(lambda: next(iter(memory.everything())).message.text == "nothing")


@pytest.mark.parametrize("known", [True, False])
async def test_a_deleted_channel_is_forgotten(server: DiscordServer, ann: Person, known: bool, tmp_path: Path) -> None:
    """With a thread goes what was said in it, with a channel its threads, whether discord.py knew them or not."""
    memory = open_memory(f"sqlite:///{tmp_path / 'person2.db'}")
    thread = ann.opens_thread("roses")
    other = server.backend.create_channel(server.guild.id, "elsewhere").id
    async with talking(server, talk=chat(memory=memory)):
        ann.says(f"{ann.bot} here", where=server.channel)
        ann.says(f"{ann.bot} there", where=other)
        ann.says(f"{ann.bot} in the thread", where=thread)
        for place in (server.channel, other, thread):
            await server.posted(1, place)

        def stored() -> list[str]:
            return sorted(said.message.text for said in memory.everything())

        space = {"guild_id": str(server.guild.id if known else 1)}
        if not known:
            with sqlite3.connect(tmp_path / "person2.db") as connection:
                connection.execute("UPDATE conversations SET space = '1', key = replace(key, space, '1')")
        gone = {"id": str(thread), "parent_id": str(server.channel), "type": 11, **space}
        await server.send("THREAD_DELETE", gone)
        await server.until(lambda: stored() == ["hello", "hello", "here", "there"])
        await server.send("CHANNEL_DELETE", {"id": str(server.channel), "type": 0, "name": "general", **space})
        await server.until(lambda: stored() == ["hello", "there"])
        await server.send("GUILD_DELETE", {"id": str(server.guild.id)})
        ann.says("are you there?", where=ann.direct)
        await server.posted(1, ann.direct)
        assert "there" in stored()  # to leave a server is not to delete what was said in it


def _thread(server: DiscordServer, thread: int) -> Conversation:
    return Conversation(platform="discord", space=str(server.guild.id), channel=str(server.channel), thread=str(thread))


async def test_doctors_look(server: DiscordServer) -> None:
    """`check_credentials` tells doctor who the token is, where to invite it, and whether it may read messages."""
    found = await check_credentials(TOKEN, api_base=server.api)
    assert found.name == "Person2"
    assert found.message_content
    assert found.invite == (
        f"https://discord.com/oauth2/authorize?client_id={server.backend.application_id}"
        "&scope=bot+applications.commands&permissions=274877975552"
    )
    server.approved.message_content = False
    assert not (await check_credentials(TOKEN, api_base=server.api)).message_content
    with pytest.raises(PermanentPlatformError, match="copy the bot's token again"):
        await check_credentials("wrong", api_base=server.api)


async def test_order_is_kept(server: DiscordServer, ann: Person) -> None:
    """A burst is remembered as it was said, answers or not."""
    generator = FakeGenerator(lines=("ok",), delay=0.05)
    async with talking(server, generator):
        for number in range(12):
            ann.says(f"line {number}")
        ann.says(f"{ann.bot} done")
        await server.posted(1)
    assert generator.prompts == ["Person1: " + " ".join(f"line {n}" for n in range(12)) + " done\nPerson2:"]
