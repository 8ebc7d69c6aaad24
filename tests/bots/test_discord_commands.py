"""Slash commands, context menus and buttons on Discord, over real sockets: who sees what, and in time."""

import asyncio
import json
from typing import Any

import pytest

from bots.discord import DiscordTimeouts
from core.chat import ChatSettings
from core.memory import open_memory
from core.messages import Conversation
from core.notices import TOO_FAST
from tests.bots.delays import store_posts_late
from tests.bots.discord_talk import HURRIED, talking
from tests.discord_server import DiscordServer, Person
from tests.fakes import FakeGenerator, chat

MANAGE_CHANNELS = 1 << 4
"""https://discord.com/developers/docs/topics/permissions"""


@pytest.fixture
def eve(server: DiscordServer) -> Person:
    """Eve may manage channels."""
    return server.admin("Eve")


@pytest.mark.parametrize(
    ("words", "options", "answer"),
    [
        ("ask", {"question": "How are you?"}, "> How are you?\nhello"),
        ("again", {}, "(only you) You haven't asked me anything here yet."),
        ("reset", {}, "A fresh start: from now on I ignore what was said before."),
        ("voice", {}, "(only you) Voice here: current. Available: current, none, garden."),
        ("voice", {"name": "garden"}, "(only you) Only members who may manage this channel can choose its voice."),
        ("consent", {"choice": "yes"}, "(only you) Thank you: from now on I may learn from what you write."),
        ("consent", {}, "(only you) You haven't said yes or no. I learn only from people who said yes."),
        ("forget-me", {}, "(only you) This deletes everything stored about you, my answers to you included"),
        ("forget-me", {"choice": "yes"}, "(only you) Done: I deleted 0 of your messages and 0 of my answers."),
        ("my-data", {}, "(only you) Everything stored about you: 0 messages."),
        ("settings", {}, "(only you) Only members who may manage this channel can do that."),
        ("status", {}, "(only you) Model fake;"),
        ("help", {}, "(only you) Mention me, reply to me, write to me directly, or use a command:"),
    ],
)
async def test_each_command(
    server: DiscordServer, ann: Person, words: str, options: dict[str, Any], answer: str
) -> None:
    """Every subcommand answers; private matters only to the one who asked."""
    async with talking(server):
        used = await ann.uses(f"person2 {words}", **options)
        assert (await used.answer()).startswith(answer)
    assert len(used.answers) == 1


@pytest.mark.parametrize("settings", ["person2 settings", "person2-settings"])
async def test_admins_change_settings(server: DiscordServer, ann: Person, eve: Person, settings: str) -> None:
    """Who may manage the channel changes it, by the subcommand or by the command Discord hides from the others."""
    async with talking(server):
        shown = await eve.uses(settings)
        assert (await shown.answer()).startswith("(only you) Settings here: answers default")
        changed = await eve.uses(settings, name="temperature", value="0.3")
        assert "temperature 0.3" in await changed.answer()
        wrong = await eve.uses(settings, name="ambient", value="often")
        assert await wrong.answer() == "(only you) ambient must be a number from 0 to 1."
        voice = await eve.uses("person2 voice", name="garden")
        assert await voice.answer() == "From now on I use the voice “garden” here."
        assert eve.may_use("person2-settings")
        assert not ann.may_use("person2-settings")
        assert ann.may_use("person2")


async def test_members_and_roles_that_are_left_out(server: DiscordServer, ann: Person, eve: Person) -> None:
    """An admin names them by a mention, as everybody does on Discord."""
    muted = server.backend.create_role(server.guild.id, "muted").id
    ben, carl = server.person("Ben"), server.person("Carl", roles=[muted])
    async with talking(server):
        for named in (f"<@{ben.id}>", f"<@&{muted}>"):
            changed = await eve.uses("person2 settings", name="ignore", value=named)
            assert "From now on I ignore" in await changed.answer()
        for person in (ben, carl, ann):
            person.says(f"{ann.bot} hello")
        await server.posted(1)
        asked = await carl.uses("person2 ask", question="hello?")
        assert (await asked.answer()).startswith("(only you) ")
        assert server.posts() == ["hello"]


async def test_settings_of_ones_own_direct_messages(server: DiscordServer, ann: Person) -> None:
    """In a direct message everybody is at home."""
    async with talking(server):
        changed = await ann.uses("person2 settings", where=ann.direct, name="temperature", value="1")
        assert "temperature 1" in await changed.answer()


async def test_suggestions(server: DiscordServer, eve: Person) -> None:
    """Voices are offered while one types, and fitting values for a setting."""
    async with talking(server):
        assert await eve.types("person2 voice", "name", "") == ["current", "none", "garden"]
        assert await eve.types("person2 voice", "name", "gar") == ["garden"]
        assert await eve.types("person2 settings", "value", "", name="allowed") == ["yes", "no", "default"]
        assert await eve.types("person2 settings", "value", "", name="reset") == ["anyone", "admins", "default"]
        assert await eve.types("person2 settings", "value", "", name="temperature") == ["default"]
        assert await eve.types("person2 settings", "value", "n", name="voice") == ["current", "none", "garden"]


async def test_the_menu(server: DiscordServer, ann: Person) -> None:
    """What is registered: one group for everywhere, one admin command for servers, two context menus; sent once."""
    async with talking(server):
        await server.until(lambda: server.backend.commands.get(None))
        menu = server.backend.commands[None]
        assert {(name, int(kind)) for name, kind in menu} == {
            ("person2", 1),
            ("person2-settings", 1),
            ("Person2: another answer", 3),
            ("Person2: why?", 3),
        }
        group = menu["person2", 1]
        assert (group["contexts"], group["integration_types"]) == ([0, 1, 2], [0, 1])
        assert group["default_member_permissions"] is None
        assert int(menu["person2-settings", 1]["default_member_permissions"]) == MANAGE_CHANNELS
        assert all(option["description"] for option in group["options"])
        consent = next(option for option in group["options"] if option["name"] == "consent")
        assert [choice["value"] for choice in consent["options"][0]["choices"]] == ["yes", "no", "show"]
        await server.close(4000)
        await server.until(lambda: server.session.socket)
        assert sum(path.endswith("/commands") for _, path, _ in server.calls) == 1


async def test_my_data(server: DiscordServer, ann: Person) -> None:
    """A file that only the member sees, with what they said and were answered."""
    async with talking(server, FakeGenerator(lines=("Hello Ann",))):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        used = await ann.uses("person2 my-data")
        assert await used.answer() == "(only you) Everything stored about you: 1 messages."
        [file] = used.answers[0].attachments
        stored = json.loads(server.backend.cdn.get(file["url"]) or b"")
    assert file["filename"] == "person2-my-data.json"
    assert [(said["text"], said["answers"]) for said in stored["messages"]] == [("hello", ["Hello Ann"])]


async def test_forget_me_asks_first(server: DiscordServer, ann: Person) -> None:
    """The question comes with a button; only that deletes."""
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(memory=memory)):
        ann.says(f"{ann.bot} my secret")
        await server.posted(1)
        used = await ann.uses("person2 forget-me")
        await used.answer()
        assert len(list(memory.everything())) == 2
        pressed = ann.clicks(used.answers[0], "person2:forget")
        assert await pressed.answer() == "(only you) Done: I deleted 1 of your messages and 1 of my answers."
        assert not list(memory.everything())


async def test_another_answer(server: DiscordServer, ann: Person) -> None:
    """`again` puts another answer in the place of the last one; a third one goes there too."""
    async with talking(server, FakeGenerator(lines=("Maybe.", "Certainly.", "Never."))):
        ann.says(f"{ann.bot} will it rain?")
        await server.posted(1)
        again = await ann.uses("person2 again")
        assert await again.answer() == "(only you) Done: I replaced it with another answer."
        assert server.posts() == ["Certainly."]
        picked = await ann.picks("Person2: another answer", server.messages()[0])
        assert "another answer" in await picked.answer()
        assert server.posts() == ["Never."]


async def test_a_member_may_be_quicker_than_the_database(
    server: DiscordServer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post that is seen but not stored yet can be liked, asked about, replied to, answered anew and deleted."""
    store_posts_late(monkeypatch)
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(FakeGenerator(lines=("one", "two", "three")), memory=memory)):
        ann.says(f"{ann.bot} count")
        await server.posted(1)
        ann.reacts(server.messages()[0], "👍")
        told = await ann.picks("Person2: why?", server.messages()[0])
        assert "model: fake" in await told.answer()
        await server.until(lambda: memory.feedback_counts("discord") == (1, 0))
        payload = server.payload(ann.says("and on", answering=server.messages()[0].id, broadcast=False))
        del payload["referenced_message"]
        payload["mentions"] = []
        await server.send("MESSAGE_CREATE", payload)
        assert await server.posted(2) == ["one", "two"]
        again = await ann.uses("person2 again")
        await server.until(lambda: server.posts() == ["one", "three"])
        ann.deletes(next(message for message in server.messages() if message.content == "three"))
        await again.answer()
        await server.until(lambda: [said.message.text for said in memory.everything()] == ["count", "one", "and on"])


async def test_a_question_is_shown_above_its_answer(server: DiscordServer, ann: Person) -> None:
    """Nobody else sees what follows a slash command: it is quoted, shortened, harmless, and kept by another answer."""
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        used = await ann.uses("person2 ask", question=f"is *this*\n@everyone {'very ' * 100}long?")
        answer = await used.answer()
        assert answer.startswith(r"> is \*this\* @")
        assert answer.endswith("very…\none")
        assert len(answer) < 400
        await (await ann.uses("person2 again")).answer()
        assert server.posts() == [answer.replace("\none", "\ntwo")]
    assert not server.messages()[0].mention_everyone


async def test_an_answer_deleted_while_it_is_replaced(server: DiscordServer, ann: Person) -> None:
    """A moderator who deletes an answer just as it is being replaced wants none of it: it is not posted anew."""
    eve = server.admin("Eve")
    memory = open_memory("sqlite://")
    gate = asyncio.Event()
    gate.set()
    generator = FakeGenerator(lines=("Maybe.", "Certainly."), gate=gate)
    async with talking(server, talk=chat(generator, memory=memory)):
        ann.says(f"{ann.bot} will it rain?")
        await server.posted(1)
        gate.clear()
        again = await ann.uses("person2 again")
        await server.until(lambda: len(generator.prompts) == 2)
        eve.deletes(server.messages()[0])
        gate.set()
        assert await again.answer() == "(only you) That answer was deleted in the meantime."
        assert not server.posts()
        await server.until(lambda: [said.message.text for said in memory.everything()] == ["will it rain?"])


async def test_a_part_deleted_while_it_is_removed(server: DiscordServer, ann: Person) -> None:
    """Where a moderator was quicker to delete what we were about to remove, that is their deletion, not ours."""
    long = " ".join(f"This is sentence number {number}." for number in range(150))
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(FakeGenerator(lines=(long, "Short.")), memory=memory)):
        ann.says(f"{ann.bot} tell me")
        await server.posted(3)
        last = server.messages()[2]
        server.fail("DELETE", f"/channels/{server.channel}/messages/{last.id}", 404, code=10008, lost=True)
        await (await ann.uses("person2 again")).answer()
        await server.until(lambda: server.posts() == ["Short."])
        where = Conversation(platform="discord", space=str(server.guild.id), channel=str(server.channel))
        await server.until(lambda: memory.reply_of(where, str(last.id)) is None)


async def test_another_answer_of_another_length(server: DiscordServer, ann: Person) -> None:
    """Three parts become one, one becomes three: posts left over go, missing ones come, nothing is forgotten."""
    long = " ".join(f"This is sentence number {number}." for number in range(150))
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(FakeGenerator(lines=(long, "Short.", long)), memory=memory)):
        ann.says(f"{ann.bot} tell me")
        await server.posted(3)
        await (await ann.uses("person2 again")).answer()
        await server.until(lambda: server.posts() == ["Short."])
        await (await ann.uses("person2 again")).answer()
        assert " ".join(server.posts()) == long
        texts = [said.message.text for said in memory.everything()]
    assert texts == ["tell me", long]


async def test_another_answer_when_the_first_is_gone(server: DiscordServer, ann: Person) -> None:
    """A post that can no longer be edited is answered anew, for all to see."""
    async with talking(server, FakeGenerator(lines=("Maybe.", "Certainly."))):
        ann.says(f"{ann.bot} will it rain?")
        await server.posted(1)
        server.fail("PATCH", f"/channels/{server.channel}/messages/*", 404, code=10008)
        again = await ann.uses("person2 again")
        assert await again.answer() == "Certainly."


async def test_why(server: DiscordServer, ann: Person) -> None:
    """The context menu tells how an answer was made, and only about answers."""
    async with talking(server, FakeGenerator(lines=("Because.",))):
        asked = ann.says(f"{ann.bot} why?")
        await server.posted(1)
        told = await (await ann.picks("Person2: why?", server.messages()[0])).answer()
        assert told.startswith("(only you) ")
        for fact in ("model: fake", "adapter: none", "temperature: 0.7", "turns of context: 1", "mentioned"):
            assert fact in told
        other = await ann.picks("Person2: why?", asked)
        assert await other.answer() == "(only you) I have no record of that answer."


async def test_buttons(server: DiscordServer, ann: Person) -> None:
    """By option an answer carries 👍 👎 🔁; they do what reactions and `again` do."""
    memory = open_memory("sqlite://")
    generator = FakeGenerator(lines=("Maybe.", "Certainly."))
    async with talking(server, talk=chat(generator, memory=memory), buttons=True):
        ann.says(f"{ann.bot} will it rain?")
        await server.posted(1)
        [post] = server.messages()
        ids = [button["custom_id"] for button in post.components[0]["components"]]
        assert ids == ["person2:like", "person2:dislike", "person2:again"]
        assert await ann.clicks(post, "person2:like").answer() == "(only you) Thank you for the feedback."
        assert memory.feedback_counts("discord") == (1, 0)
        await ann.clicks(post, "person2:dislike").answer()
        assert memory.feedback_counts("discord") == (0, 1)
        pressed = ann.clicks(post, "person2:again")
        await server.until(lambda: server.posts() == ["Certainly."] and pressed.record.responded)
        assert server.messages()[0].components
        assert not pressed.answers


async def test_a_slow_other_answer(server: DiscordServer, ann: Person) -> None:
    """By command one sees alone that the bot thinks; a button just waits. Both replace the answer in the end."""
    generator = FakeGenerator(lines=("Maybe.", "Certainly.", "Never."), delay=0.2)
    async with talking(server, generator, timeouts=DiscordTimeouts(defer_after=0.05), buttons=True):
        ann.says(f"{ann.bot} will it rain?")
        await server.posted(1)
        again = await ann.uses("person2 again")
        await server.until(lambda: again.record.deferred and again.record.ephemeral)
        assert await again.answer() == "(only you) Done: I replaced it with another answer."
        assert server.posts() == ["Certainly."]
        pressed = ann.clicks(server.messages()[0], "person2:again")
        await server.until(lambda: pressed.record.deferred)
        assert not pressed.record.loading
        await server.until(lambda: server.posts() == ["Never."])
        assert not pressed.answers


async def test_a_slow_answer_is_deferred(server: DiscordServer, ann: Person) -> None:
    """Within 3 s Discord hears that we think, for all to see; the answer follows in its place."""
    long = " ".join(f"This is sentence number {number}." for number in range(100))
    timeouts = DiscordTimeouts(defer_after=0.05)
    async with talking(server, FakeGenerator(lines=(long,), delay=0.4), timeouts=timeouts):
        used = await ann.uses("person2 ask", question="hm?")
        await server.until(lambda: used.record.deferred)
        assert not used.answers
        assert not used.record.ephemeral
        await server.until(lambda: len(used.answers) == 2)
        assert " ".join(message.content for message in used.answers) == f"> hm?\n{long}"
        assert [message.is_ephemeral for message in used.answers] == [False, False]


async def test_a_slow_refusal_is_still_private(server: DiscordServer, ann: Person) -> None:
    """A wait that all could see is taken back when what comes of it is for one member only."""
    generator = FakeGenerator(delay=0.2, error=ValueError("cheese"))
    async with talking(server, generator, timeouts=DiscordTimeouts(defer_after=0.05)):
        used = await ann.uses("person2 ask", question="hm?")
        assert (await used.answer()).startswith("(only you) Something went wrong")
        assert not server.posts()


async def test_an_expired_interaction(server: DiscordServer, ann: Person) -> None:
    """Too late for the token, the answer comes as a normal message; a private one comes directly or not at all."""
    async with talking(server, FakeGenerator(lines=("Here I am.", "Still here."))):
        await server.until(lambda: server.backend.commands.get(None))
        server.fail("POST", "/interactions/*", 404, code=10062, times=2)
        await ann.uses("person2 ask", question="anybody?")
        assert await server.posted(1) == ["> anybody?\nHere I am."]
        await ann.uses("person2 status")
        assert (await server.posted(1, ann.direct))[0].startswith("Model fake")
        ann.says("go on", answering=server.messages()[0].id)
        assert await server.posted(2) == ["> anybody?\nHere I am.", "Still here."]


async def test_an_answer_after_fifteen_minutes(server: DiscordServer, ann: Person) -> None:
    """Once the token is spent there is no use in trying it: a normal message right away."""
    timeouts = DiscordTimeouts(defer_after=0.05, interaction_token=0.1)
    async with talking(server, FakeGenerator(lines=("At last.",), delay=0.3), timeouts=timeouts):
        used = await ann.uses("person2 ask", question="when?")
        assert await server.posted(1) == ["> when?\nAt last."]
        assert used.record.loading
        assert not [path for _, path, _ in server.calls if path.startswith("/webhooks/")]


async def test_an_answer_whose_token_died_meanwhile(server: DiscordServer, ann: Person) -> None:
    """A token that Discord no longer knows at the follow-up leads to a normal message too."""
    async with talking(
        server, FakeGenerator(lines=("At last.",), delay=0.3), timeouts=DiscordTimeouts(defer_after=0.05)
    ):
        used = await ann.uses("person2 ask", question="when?")
        await server.until(lambda: used.record.deferred)
        server.backend.advance_clock(16 * 60)
        assert await server.posted(1) == ["> when?\nAt last."]


async def test_a_replayed_command_runs_once(server: DiscordServer, ann: Person) -> None:
    """The same interaction delivered twice is answered once."""
    generator = FakeGenerator(lines=("one", "two"))
    async with talking(server, generator):
        used = await ann.uses("person2 ask", question="hm?")
        await server.send("INTERACTION_CREATE", used.payload)
        assert await used.answer() == "> hm?\none"
        other = await ann.uses("person2 ask", question="and?")
        assert await other.answer() == "> and?\ntwo"
    assert len(generator.prompts) == 2


async def test_too_many_questions(server: DiscordServer, ann: Person) -> None:
    """Over the rate the sentence is for the asker alone."""
    talk = chat(FakeGenerator(lines=("one",)), settings=ChatSettings(user_rate=1))
    async with talking(server, talk=talk):
        assert await (await ann.uses("person2 ask", question="first")).answer() == "> first\none"
        assert await (await ann.uses("person2 ask", question="second")).answer() == f"(only you) {TOO_FAST}"


async def test_a_command_without_optional_fields(server: DiscordServer, ann: Person) -> None:
    """What Discord documents as optional may be missing from an interaction."""
    async with talking(server, FakeGenerator(lines=("one",)), timeouts=HURRIED):
        used = await ann.uses("person2 reset")
        await used.answer()
        fresh = await ann.uses("person2 help")
        await fresh.answer()
        record, payload = server.interaction_like(fresh.payload)
        for optional in ("channel", "attachment_size_limit", "context", "entitlements", "locale", "guild_locale"):
            payload.pop(optional, None)
        await server.send("INTERACTION_CREATE", payload)
        await server.until(lambda: record.responded)
