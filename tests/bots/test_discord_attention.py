"""When the bot speaks on Discord: by name, to whom, and once what is being typed is said."""

import asyncio

from core.chat import ChatSettings
from core.messages import Conversation
from core.policy import Answers, Rules
from tests.bots.discord_talk import talking
from tests.discord_server import DiscordServer, Person
from tests.fakes import FakeGenerator, chat


async def test_it_answers_to_the_name_that_members_see(server: DiscordServer, ann: Person) -> None:
    """The name of its account, standing as a word."""
    name = server.backend.bot_user.name
    talk = chat(FakeGenerator(), settings=ChatSettings(rules=Rules(answers=Answers.NAME)))
    async with talking(server, talk=talk):
        ann.says(f"{name}s are fun")
        ann.says(f"{name.upper()}, are you there?")
        assert await server.posted(1) == ["hello"]


async def test_members_with_an_ignored_role_are_not_heard(server: DiscordServer, ann: Person) -> None:
    """A role is ignored by its id; others are answered as ever."""
    role = server.backend.create_role(server.guild.id, "muted")
    muted = server.person("Mo", roles=[role.id])
    generator = FakeGenerator()
    talk = chat(generator, settings=ChatSettings(rules=Rules(ignored=frozenset({f"@{role.id}"}))))
    async with talking(server, talk=talk):
        muted.says(f"{muted.bot} hi")
        ann.says(f"{ann.bot} hello there")
        assert await server.posted(1) == ["hello"]
    assert generator.prompts == ["Person1: hello there\nPerson2:"]


async def test_what_is_being_typed_is_waited_for(server: DiscordServer, ann: Person) -> None:
    """One answer, to the last piece, though it came later than the pause."""
    generator = FakeGenerator()
    talk = chat(generator, settings=ChatSettings(burst=1.0))
    async with talking(server, talk=talk):
        ann.says(f"{ann.bot} so")
        where = Conversation(platform="discord", space=str(server.guild.id), channel=str(server.channel))
        await server.until(lambda: talk.memory.window(where, limit=1))
        await ann.begins_typing()
        await asyncio.sleep(1.5)  # longer than the pause
        ann.says("what about the roses?")
        assert await server.posted(1) == ["hello"]
    assert generator.prompts == ["Person1: so what about the roses?\nPerson2:"]
