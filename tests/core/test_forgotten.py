"""Members who were forgotten are not named, unless somebody bears that name; their old words are not read again."""

import hashlib
import hmac
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.adapters import AdapterRegistry
from core.chat import ChatSettings
from core.errors import ExportError
from core.forgotten import Forgotten, digest_of, is_everyday, name_words, names_in
from core.memory import Memory, open_memory
from core.notices import UNSAYABLE
from tests.bots.discord_talk import talking
from tests.bots.slack_talk import talk
from tests.discord_server import serving
from tests.fakes import Clock, FakeGenerator, chat, said
from tests.slack_server import BOT_USER
from training.privacy.consent import PeopleKey
from training.privacy.forget import forget


def hashed(person: str) -> str:
    return hmac.new(b"key", person.encode(), hashlib.sha256).hexdigest()[:32]


def digest(words: str) -> str:
    return digest_of(hashed, "test", words)


def forget_member(memory: Memory, home: Path, platform: str, member: str) -> ChatSettings:
    """As the program does; gives the settings by which a chat knows of it."""
    receipt = forget(platform, member, memory=memory, registry=AdapterRegistry(home / "adapters"), home=home)
    assert receipt.left == ()
    return ChatSettings(people_hash=PeopleKey.at(home).of, user_rate=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Ben", "ben"),
        ("Ann Marie Smith", "ann marie smith"),
        ("~ Zoë 🌻 ~", "zoë"),
        ("x", ""),
        ("42", ""),
        ("🌻", ""),
        ("one two three four five", "one two three four"),
    ],
)
def test_what_a_name_is_looked_for_as(name: str, words: str) -> None:
    """Its words in lower case, without decoration; what has hardly a letter is no name."""
    assert name_words(name) == words


@pytest.mark.parametrize(
    ("texts", "everyday"),
    [
        (["I will go", "you will see", "it will rain"], True),
        (["hey ben", "ben!"], False),
        (["ask Ben", "where is Ben?", "hi ben", "so says Ben"], False),
        (["@will come", "will: hello", "thank you Will", "I will"], False),
        (["Will you come?", "Will it rain?", "Will we see?"], True),
        ([], False),
    ],
)
def test_whether_a_name_is_also_a_word(texts: list[str], everyday: bool) -> None:
    """By how it is used: seldom written as a name, and often enough to tell."""
    assert is_everyday("will" if "ill" in str(texts) else "ben", texts) is everyday


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ask Ben about it", ["ben"]),
        ("ask BEN!", ["ben"]),
        ("bend it like benjamin", []),
        ("Ann Marie Smith was here", ["ann marie smith"]),
        ("Ann Smith was here", []),
        ("I will do that", []),
        ("Will it rain? Will it snow?", []),
        ("that was Will again", ["will"]),
        ("will, come here", ["will"]),
        ("hello @will", ["will"]),
    ],
)
def test_names_in_a_text(text: str, found: list[str]) -> None:
    """As whole words, in any case; a name that is also an everyday word only where it is written as a name."""
    names = {digest("ben"): False, digest("ann marie smith"): False, digest("will"): True}
    assert list(names_in(text, names, digest)) == found


async def test_a_forgotten_name_is_not_said(url: str, tmp_path: Path) -> None:
    """The reply is drawn again, or a better draw taken; where all name them, silence is explained."""
    memory = open_memory(url)
    memory.remember(said("my roses", author="ben"))
    settings = forget_member(memory, tmp_path, "test", "ben")
    lines = ("Ben has roses.|Somebody has roses.", "Ask Ben!", "Ben.", "BEN", "Roses are red.")
    generator = FakeGenerator(lines=lines)
    talking = chat(generator, memory=memory, settings=settings)
    answers = []
    for question in ("who has roses?", "who?", "and?"):
        reply = await talking.hear(said(question))
        assert reply is not None
        answers.append(reply.text)
    assert answers == ["Somebody has roses.", UNSAYABLE, "Roses are red."]
    memory.close()


async def test_a_name_that_somebody_bears_may_be_said(tmp_path: Path) -> None:
    """Another member of that name is called by it, and so is the forgotten one who came back."""
    memory = open_memory("sqlite://")
    for author in ("ben", "ann"):
        memory.remember(said("hello", author=author))
    settings = forget_member(memory, tmp_path, "test", "ben")
    talking = chat(FakeGenerator(lines=("Hi Ben.",)), memory=memory, settings=settings)
    first = await talking.hear(said("hello"))
    await talking.hear(said("I am back", author="ben"))
    second = await talking.hear(said("hello again"))
    assert [reply.text for reply in (first, second) if reply] == [UNSAYABLE, "Hi Ben."]


async def test_a_name_that_is_a_word_is_still_a_word(tmp_path: Path) -> None:
    """Who calls themselves "the" cannot silence the bot by being forgotten."""
    memory = open_memory("sqlite://")
    memory.remember(said("hello", author="the"))
    for text in ("the roses", "all the time", "by the way"):
        memory.remember(said(text, author="ann"))
    settings = forget_member(memory, tmp_path, "test", "the")
    talking = chat(FakeGenerator(lines=("You water the roses.",)), memory=memory, settings=settings)
    reply = await talking.hear(said("and now?"))
    assert reply is not None
    assert reply.text == "You water the roses."


def test_no_name_is_kept(tmp_path: Path) -> None:
    """The files hold hashes, and other hashes under another key: nobody learns from them who was forgotten."""
    memory = open_memory(f"sqlite:///{tmp_path}/m.db")
    memory.remember(said("hello", author="benedict"))
    forget_member(memory, tmp_path, "test", "benedict")
    kept = set(memory.forgotten_names("test")) | set(memory.forgotten_members("test"))
    memory.close()
    assert len(kept) == 2
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"enedict" not in file.read_bytes()
    assert kept.isdisjoint({digest("benedict"), hashed("test:benedict")})


async def test_without_a_key_replies_are_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that cannot be read is told to the operator and stops no reply; nor does one that nobody needs."""

    def broken(person: str) -> str:
        raise ExportError("people.key is not a key")

    memory = open_memory("sqlite://")
    talking = chat(FakeGenerator(lines=("Ask Ben.",)), memory=memory, settings=ChatSettings(people_hash=broken))
    first = await talking.hear(said("who?"))
    memory.keep_forgotten("test", "member", {"digest": False}, Clock().now)
    second = await talking.hear(said("who?"))
    assert [reply.text for reply in (first, second) if reply] == ["Ask Ben.", "Ask Ben."]
    assert sum("people.key is not a key" in line for line in caplog.messages) == 1


async def test_on_discord(tmp_path: Path) -> None:
    """Ben is forgotten: nobody reads his name, and what he opened a thread with is not read again."""
    async with serving() as server:
        ann, ben = server.person("Ann"), server.person("Ben")
        memory = open_memory("sqlite://")
        opening = ben.says("my roses droop", broadcast=False)
        thread = ben.opens_thread("My roses", on=opening)
        async with talking(server, talk=chat(memory=memory)):
            ben.says("hello all")
            await server.until(lambda: memory.names_of("discord", str(ben.id)) == ["Ben"])
        settings = forget_member(memory, tmp_path, "discord", str(ben.id))
        generator = FakeGenerator(lines=("Ask Ben.|Ask somebody.",))
        async with talking(server, talk=chat(generator, memory=memory, settings=settings)):
            ann.says(f"{ann.bot} whom shall I ask?", where=thread)
            assert await server.posted(1, thread) == ["Ask somebody."]
        assert generator.prompts == ["Person1: whom shall I ask?\nPerson2:"]


async def test_on_slack(tmp_path: Path) -> None:
    """The same in a Slack channel."""
    memory = open_memory(f"sqlite:///{tmp_path}/m.db")
    async with talk("socket", memory=memory) as t:
        await t.slack.says("hello all", user="UBEN")
        await t.slack.until_known(lambda: memory.names_of("slack", "UBEN") == ["Ben"])
    memory = open_memory(f"sqlite:///{tmp_path}/m.db")
    settings = forget_member(memory, tmp_path, "slack", "UBEN")
    async with talk("socket", "Ask Ben.|Ask somebody.", memory=memory, settings=settings) as t:
        await t.slack.says(f"<@{BOT_USER}> whom shall I ask?")
        assert (await t.slack.post(1)).text == "Ask somebody."


def test_what_was_said_later_is_not_old(tmp_path: Path) -> None:
    """Who comes back after being forgotten is heard again."""
    memory = open_memory("sqlite://")
    message = said("my roses", author="ben")
    memory.remember(message)
    forget_member(memory, tmp_path, "test", "ben")
    found = Forgotten(memory, PeopleKey.at(tmp_path).of)
    (at,) = memory.forgotten_members("test").values()
    assert found.wrote_before(message)
    assert not found.wrote_before(said("I am back", author="ann"))
    assert not found.wrote_before(replace(message, sent_at=at + timedelta(seconds=1)))
