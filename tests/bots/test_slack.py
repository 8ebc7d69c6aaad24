"""Slack as members meet it: an unmodified slack-bolt app over real sockets, by Socket Mode and by signed HTTP."""

import pytest

from tests.bots.slack_talk import talk
from tests.slack_server import BOT_USER

ME = f"<@{BOT_USER}>"


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_mention_opens_a_thread(transport: str) -> None:
    """A mention in a channel is answered once, in a thread on that message, though Slack sends it twice."""
    async with talk(transport, "fine, thanks") as t:
        ts = await t.slack.says(f"{ME} how are you?")
        post = await t.slack.post(1)
        assert (post.channel, post.text, post.thread) == ("C1", "fine, thanks", ts)
        await t.slack.quiet()
        assert t.prompts == ["Person1: how are you?\nPerson2:"]


async def test_a_direct_message_is_answered_where_it_was_said(transport: str) -> None:
    """Direct messages are answered in the direct message, or in its thread where one was begun."""
    async with talk(transport, "hi Ann", "still here") as t:
        await t.slack.says("hello", channel="D1")
        assert ((await t.slack.post(1)).text, t.slack.posts[0].thread) == ("hi Ann", None)
        first = await t.slack.says("something else", channel="D1")
        await t.slack.post(2)
        await t.slack.says("in a thread", channel="D1", thread_ts=first)
        assert (await t.slack.post(3)).thread == first


async def test_a_thread_it_is_in_needs_no_mention(transport: str) -> None:
    """Follow-ups in a thread are answered without a mention, with the thread as context; strangers' threads are not."""
    async with talk(transport, "tea", "green") as t:
        ts = await t.slack.says(f"{ME} tea or coffee?")
        await t.slack.post(1)
        await t.slack.says("which kind?", thread_ts=ts, user="UBEN")
        assert (await t.slack.post(2)).thread == ts
        assert t.prompts[-1] == "Person1: tea or coffee?\nPerson2: tea\nPerson1: which kind?\nPerson2:"
        await t.slack.says("nobody asked you", thread_ts="1600000000.000100")
        await t.slack.says("just talking")
        await t.slack.quiet()


async def test_a_mention_is_said_into_the_channels_talk(transport: str) -> None:
    """Who mentions the bot in a channel expects it to know what was just said there."""
    async with talk(transport, "pizza") as t:
        await t.slack.says("what shall we eat?", user="UBEN")
        await t.slack.says("no idea")
        await t.slack.says(f"{ME} what do you think?")
        await t.slack.post(1)
        assert t.prompts == ["Person1: what shall we eat? no idea what do you think?\nPerson2:"]


async def test_a_thread_others_began_has_its_first_message_as_context(transport: str) -> None:
    """A mention inside a thread knows the channel message that the thread hangs from."""
    async with talk(transport, "blue") as t:
        root = await t.slack.says("which colour for the door?", user="UBEN")
        await t.slack.says("red?", thread_ts=root)
        await t.slack.says(f"{ME} and you?", thread_ts=root)
        assert (await t.slack.post(1)).thread == root
        assert t.prompts == ["Person1: which colour for the door? red? and you?\nPerson2:"]


async def test_ask_is_answered_through_the_response_url(transport: str) -> None:
    """`/person2 ask` is acknowledged at once and answered to the channel, with the question above the answer."""
    async with talk(transport, "forty-two") as t:
        assert await t.slack.commands("ask what is the answer?") == {}
        post = await t.slack.post(1)
        assert (post.channel, post.text, post.only_for) == ("C1", "forty-two", None)
        assert "Ann: what is the answer?" in str(post.blocks)


@pytest.mark.parametrize("words", ["", "help", "dance", "ask"])
async def test_an_empty_or_unknown_command_gets_help(transport: str, words: str) -> None:
    """Nothing, `help`, an unknown word or an empty question: help, for the asker alone."""
    async with talk(transport) as t:
        await t.slack.commands(words)
        post = await t.slack.post(1)
        assert "`/person2 ask QUESTION`" in post.text
        assert post.only_for is not None
