"""The opening post of a thread that the bot is mentioned in late: looked up once, and stored as any heard message."""

from datetime import timedelta

import discord
import pytest
from simcord.backend.models.channel import Overwrite
from simcord.enums import OverwriteType

from core.chat import ChatSettings
from core.memory import Memory, open_memory
from core.policy import Rules
from tests.bots.discord_talk import talking
from tests.bots.slack_talk import talk
from tests.discord_server import DiscordServer, Person, forum
from tests.fakes import Clock, FakeGenerator, chat
from tests.slack_server import BOT_USER, Fault

ME = f"<@{BOT_USER}>"


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def stored(memory: Memory) -> list[tuple[str, str]]:
    return [(said.message.author_name, said.message.text) for said in memory.everything()]


def looks(server: DiscordServer, message: int) -> int:
    """How often the bot looked that message up."""
    return len([path for method, path, _ in server.calls if method == "GET" and path.endswith(f"/messages/{message}")])


@pytest.mark.parametrize("place", ["forum", "thread"])
async def test_what_opened_a_thread_on_discord(server: DiscordServer, ann: Person, place: str) -> None:
    """Said before the bot was there, it is read with the first question, once; after a restart it is remembered."""
    ben = server.person("Ben")
    memory, generator = open_memory("sqlite://"), FakeGenerator(lines=("Water them.", "Daily.", "Yes."))
    if place == "forum":
        opening = ben.posts_in(forum(server), "My roses", "my roses droop")
        thread = opening.id
    else:
        opening = ben.says("my roses droop", broadcast=False)
        thread = ben.opens_thread("My roses", on=opening)
    async with talking(server, talk=chat(generator, memory=memory)):
        ann.says("oh no", where=thread)
        ann.says(f"{ann.bot} what to do?", where=thread)
        await server.posted(1, thread)
        ann.says("how often?", where=thread)
        await server.posted(2, thread)
        await server.until(lambda: len(stored(memory)) == 6)
    async with talking(server, talk=chat(generator, memory=memory)):
        ann.says("even in winter?", where=thread)
        await server.posted(3, thread)
    assert generator.prompts[0] == "Person1: my roses droop oh no what to do?\nPerson2:"
    assert generator.prompts[2].startswith("Person1: my roses droop oh no what to do?\nPerson2: Water them.\n")
    assert stored(memory).count(("Ben", "my roses droop")) == 1
    assert looks(server, opening.id) == 1


async def test_an_opening_that_the_bot_heard_is_not_looked_up(server: DiscordServer, ann: Person) -> None:
    """What is stored already is neither asked for nor stored again."""
    memory, generator = open_memory("sqlite://"), FakeGenerator()
    async with talking(server, talk=chat(generator, memory=memory)):
        opening = ann.says("my roses droop")
        await server.until(lambda: stored(memory))
        thread = ann.opens_thread("My roses", on=opening)
        ann.says(f"{ann.bot} what to do?", where=thread)
        await server.posted(1, thread)
    assert generator.prompts == ["Person1: my roses droop what to do?\nPerson2:"]
    assert looks(server, opening.id) == 0


async def test_without_the_permission_nothing_is_looked_up(server: DiscordServer, ann: Person) -> None:
    """Where the bot may not read the history it does not ask; it answers what it was asked."""
    generator = FakeGenerator()
    opening = ann.says("my roses droop", broadcast=False)
    thread = ann.opens_thread("My roses", on=opening)
    deny = discord.Permissions(read_message_history=True).value
    server.backend.set_overwrite(
        server.channel, Overwrite(target_id=server.guild.id, type=OverwriteType.ROLE, deny=deny)
    )
    async with talking(server, generator):
        ann.says(f"{ann.bot} what to do?", where=thread)
        await server.posted(1, thread)
    assert generator.prompts == ["Person1: what to do?\nPerson2:"]
    assert looks(server, opening.id) == 0


@pytest.mark.parametrize("author", ["ignored", "of an ignored role", "a bot", "too long ago", "gone"])
async def test_openings_that_are_not_read(server: DiscordServer, ann: Person, author: str) -> None:
    """An opening is stored where its author's message would be, while it is within its retention, and stands."""
    ben = server.person("Ben", bot=author == "a bot")
    memory, generator = open_memory("sqlite://"), FakeGenerator()
    role = server.backend.create_role(server.guild.id, "muted")
    if author == "of an ignored role":
        ben = server.person("Bo", roles=[role.id])
    ignored = frozenset({f"@{role.id}", *([str(ben.id)] if author == "ignored" else ())})
    clock = Clock()
    opening = ben.says("my roses droop", broadcast=False)
    thread = ann.opens_thread("My roses", on=opening)
    if author == "gone":
        ben.deletes(opening)
    if author == "too long ago":
        clock.now = discord.utils.snowflake_time(opening.id) + timedelta(days=8)
    rules = ChatSettings(rules=Rules(ignored=ignored), retention_days=7)
    async with talking(server, talk=chat(generator, memory=memory, settings=rules, clock=clock)):
        ann.says(f"{ann.bot} what to do?", where=thread)
        await server.posted(1, thread)
    assert generator.prompts == ["Person1: what to do?\nPerson2:"]
    assert "my roses droop" not in str(stored(memory))


async def test_where_roles_are_ignored_others_are_read(server: DiscordServer, ann: Person) -> None:
    """Discord's history does not tell an author's roles: they are asked for."""
    roles = [server.backend.create_role(server.guild.id, name).id for name in ("muted", "gardener")]
    generator = FakeGenerator()
    rules = ChatSettings(rules=Rules(ignored=frozenset({f"@{roles[0]}"})))
    opening = server.person("Ben", roles=roles[1:]).says("my roses droop", broadcast=False)
    thread = ann.opens_thread("My roses", on=opening)
    async with talking(server, talk=chat(generator, settings=rules)):
        ann.says(f"{ann.bot} what to do?", where=thread)
        await server.posted(1, thread)
    assert generator.prompts == ["Person1: my roses droop what to do?\nPerson2:"]


async def test_an_opening_is_edited_deleted_and_forgotten_like_any_message(server: DiscordServer, ann: Person) -> None:
    """The words change with the post, go with it, and go with their author."""
    ben = server.person("Ben")
    memory = open_memory("sqlite://")
    first, second = ben.says("my roses droop", broadcast=False), ben.says("my lilies", broadcast=False)
    threads = [ben.opens_thread("Flowers", on=opening) for opening in (first, second)]
    async with talking(server, talk=chat(FakeGenerator(), memory=memory)):
        for thread in threads:
            ann.says(f"{ann.bot} what to do?", where=thread)
            await server.posted(1, thread)
        ben.edits(first, "my tulips droop")
        await server.until(lambda: ("Ben", "my tulips droop") in stored(memory))
        ben.deletes(first)
        await server.until(lambda: ("Ben", "my tulips droop") not in stored(memory))
        assert ("Ben", "my lilies") in stored(memory)
        memory.forget("discord", str(ben.id))
        assert "Ben" not in str(stored(memory))


async def test_what_opened_a_thread_on_slack(transport: str) -> None:
    """The message that a thread hangs from is read with the first mention in it, with the names in it; a role that is
    ignored is Discord's, and nobody here has it."""
    a_role_elsewhere = ChatSettings(rules=Rules(ignored=frozenset({"@77"})))
    async with talk(transport, "blue", "sky blue", settings=a_role_elsewhere) as t:
        root = await t.slack.says("<@UANN> which colour for the door?", user="UBEN", told=False)
        await t.slack.says(f"{ME} and you?", thread_ts=root)
        await t.slack.post(1)
        await t.slack.says("which blue?", thread_ts=root)
        await t.slack.post(2)
        assert t.prompts[0] == "Person1: @Ann which colour for the door? and you?\nPerson2:"
        assert t.prompts[1].startswith("Person1: @Ann which colour for the door? and you?\nPerson2: blue\n")
        assert stored(t.memory).count(("Ben", "@Ann which colour for the door?")) == 1
        assert t.slack.called("conversations.replies") == [{"channel": "C1", "ts": root, "limit": "1"}]


@pytest.mark.parametrize("error", ["missing_scope", "thread_not_found", "ratelimited"])
async def test_a_thread_that_slack_does_not_show(transport: str, error: str) -> None:
    """Without the scope, or where Slack has no time, the question is answered all the same."""
    async with talk(transport, "blue") as t:
        t.slack.fail("conversations.replies", *[Fault(error=error, status=429 if error == "ratelimited" else 200)] * 9)
        root = await t.slack.says("which colour for the door?", user="UBEN", told=False)
        await t.slack.says(f"{ME} and you?", thread_ts=root)
        await t.slack.post(1)
        assert t.prompts == ["Person1: and you?\nPerson2:"]
