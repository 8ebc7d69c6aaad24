"""`/person2 …`, the shortcut and response URLs on Slack, by Socket Mode and by signed HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.memory import open_memory
from tests.bots.delays import store_posts_late
from tests.bots.slack_talk import talk
from tests.slack_server import BOT_ID, BOT_USER, Fault, SlackServer

ME = f"<@{BOT_USER}>"


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_ask_is_answered_to_the_channel(transport: str) -> None:
    """`ask` is acknowledged at once and answered with a post, with the question above the answer."""
    async with talk(transport, "forty-two") as t:
        assert await t.slack.commands("ask what is the answer?") == {}
        post = await t.slack.post(1)
        assert (post.channel, post.text, post.only_for) == ("C1", "forty-two", None)
        assert "Ann: what is the answer?" in str(post.blocks)


async def test_commands_may_be_private(transport: str) -> None:
    """With `visible_commands` off, the asker alone sees the answer."""
    async with talk(transport, "between us", visible_commands=False) as t:
        await t.slack.commands("ask a secret?")
        assert (await t.slack.post(1)).only_for is not None


@pytest.mark.parametrize("words", ["", "help", "dance", "ask"])
async def test_an_empty_or_unknown_command_gets_help(transport: str, words: str) -> None:
    """Nothing, `help`, an unknown word or an empty question: help, for the asker alone."""
    async with talk(transport) as t:
        await t.slack.commands(words)
        post = await t.slack.post(1)
        assert "`/person2 ask QUESTION`" in post.text
        assert post.only_for is not None


TABLE = [
    ("again", "haven't asked me anything here", True),
    ("reset", "A fresh start", False),
    ("voice", "Voice here: current", True),
    ("voice nobody", "Only members who may manage", True),
    ("consent yes", "Thank you", True),
    ("CONSENT show", "You said yes", True),
    ("consent no", "I won't learn", True),
    ("settings", "Only members who may manage", True),
    ("status", "Model fake;", True),
    ("forget-me", "cannot be undone", True),
    ("forget-me yes", "I deleted", True),
]


async def test_every_command_is_answered(transport: str) -> None:
    """The same table as everywhere: what is private or goes wrong is whispered, the rest is for the channel."""
    async with talk(transport) as t:
        for number, (words, answer, private) in enumerate(TABLE, 1):
            await t.slack.commands(words)
            post = await t.slack.post(number)
            assert answer in post.text
            assert (post.only_for is not None) is private, words


async def test_workspace_admins_change_settings(transport: str) -> None:
    """Who administers the workspace may set a channel up."""
    async with talk(transport) as t:
        t.slack.admins.add("UBEN")
        await t.slack.commands("settings ambient 0.5", user="UBEN")
        assert "ambient 0.5" in (await t.slack.post(1)).text


async def test_members_manage_their_own_direct_message(transport: str) -> None:
    """Nobody else is there whom the platform could call an admin; in a channel the same member is refused."""
    async with talk(transport) as t:
        await t.slack.commands("settings recall on", channel="DUANN")
        assert "recall on" in (await t.slack.post(1)).text
        await t.slack.commands("settings recall on")
        assert "Only members who may manage" in (await t.slack.post(2)).text


async def test_my_data_is_a_file_only_the_member_sees(transport: str) -> None:
    """`my-data` comes as a file by direct message; without the right to send files, as an ephemeral message."""
    async with talk(transport) as t:
        await t.slack.says("remember me")
        await t.slack.until_known(lambda: len(list(t.memory.everything())) == 1)
        await t.slack.commands("my-data")
        note = await t.slack.post(2)
        assert (t.slack.posts[0].channel, "as a file" in note.text) == ("DUANN", True)
        assert json.loads(next(iter(t.slack.files.values())))["messages"][0]["text"] == "remember me"
        t.slack.fail("files.getUploadURLExternal", Fault(error="missing_scope"))
        await t.slack.commands("my-data")
        post = await t.slack.post(3)
        assert "remember me" in post.text
        assert post.only_for is not None


async def test_again_takes_the_place_of_the_last_answer(transport: str) -> None:
    """`again` edits the post, as often as one likes, and knows answers given in threads."""
    async with talk(transport, "one", "two", "three") as t:
        await t.slack.says(f"{ME} count")
        post = await t.slack.post(1)
        for words in ("two", "three"):
            await t.slack.commands("again")
            await t.slack.until(lambda words=words: post.text == words)  # type: ignore[misc]  # bound now
        assert len(t.slack.posts) == 1
        assert [said.message.text for said in t.memory.everything()] == ["count", "three"]


async def test_again_after_a_restart(transport: str, tmp_path: Path) -> None:
    """Which answer was the last one is remembered, not only known."""
    server = SlackServer(transport)
    async with talk(transport, "one", server=server, memory=open_memory(f"sqlite:///{tmp_path}/person2.db")) as t:
        await t.slack.says(f"{ME} count")
        await t.slack.post(1)
    async with talk(transport, "two", server=server, memory=open_memory(f"sqlite:///{tmp_path}/person2.db")) as t:
        await t.slack.commands("again")
        await t.slack.until(lambda: [post.text for post in t.slack.posts] == ["two"])


async def test_a_member_may_be_quicker_than_the_database(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A post that is seen but not stored yet can be liked, answered anew and deleted."""
    store_posts_late(monkeypatch)
    async with talk(transport, "one", "two", "three") as t:
        await t.slack.says("count", channel="D1")
        post = await t.slack.post(1)
        await t.slack.reacts("+1", post)
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))
        await t.slack.says("count on", channel="D1")
        post = await t.slack.post(2)
        await t.slack.commands("again", channel="D1")
        await t.slack.until(lambda: post.text == "three")
        gone = {"type": "message", "subtype": "message_deleted", "channel": "D1", "deleted_ts": post.ts, "ts": "9.9"}
        await t.slack.event(gone)
        await t.slack.until_known(
            lambda: [said.message.text for said in t.memory.everything()] == ["count", "one", "count on"]
        )


@pytest.mark.parametrize("told", [True, False])
async def test_again_after_ask(transport: str, told: bool) -> None:
    """An answer said through a response URL is replaced like any other, whether Slack tells of the post or not."""
    async with talk(transport, "a <b> 🙂 joke https://x.example", "another", "a third") as t:
        t.slack.tells_of_responses = told
        t.slack.fail("chat.postMessage", Fault(error="not_in_channel"))
        await t.slack.commands("ask a joke?")
        post = await t.slack.post(1)
        for words in ("another", "a third"):
            await t.slack.commands("again")
            await t.slack.until(lambda words=words: post.text == words)  # type: ignore[misc]  # bound now
        assert "Ann: a joke?" in str(post.blocks)
        assert "a third" in str(post.blocks)
        assert len(t.slack.posts) == 1
        assert bool(t.slack.called("conversations.history")) is not told


async def test_the_shortcut_gives_another_answer(transport: str) -> None:
    """“Another answer” on a post of the bot replaces it; on anybody else's it says why not."""
    async with talk(transport, "one", "two") as t:
        ts = await t.slack.says(f"{ME} count")
        post = await t.slack.post(1)
        message = {"type": "message", "user": BOT_USER, "bot_id": BOT_ID, "ts": post.ts, "thread_ts": ts}
        shortcut: dict[str, Any] = {"callback_id": "another_answer", "channel": {"id": "C1", "name": "general"}}
        url = t.slack.response_url()
        await t.slack.interacts("message_action", message=message, response_url=url, **shortcut)
        await t.slack.until(lambda: post.text == "two")
        message = {"type": "message", "user": "UANN", "ts": ts}
        await t.slack.interacts("message_action", message=message, response_url=url, **shortcut)
        assert (await t.slack.post(2)).text == "That isn't an answer of mine."


async def test_a_post_that_cannot_be_edited_is_said_anew(transport: str) -> None:
    """Where Slack no longer allows an edit, the new answer is a new post."""
    async with talk(transport, "one", "two") as t:
        await t.slack.says("count", channel="D1")
        await t.slack.post(1)
        t.slack.fail("chat.update", Fault(error="edit_window_closed"))
        await t.slack.commands("again", channel="D1")
        assert (await t.slack.post(2)).text == "two"


@pytest.mark.parametrize("words", ["ask hello?", "help"])
async def test_an_expired_response_url_is_no_excuse(transport: str, words: str) -> None:
    """Where the response URL is used up or too old, the bot posts, or whispers what is private."""
    async with talk(transport, "hello") as t:
        url = t.slack.response_url()
        t.slack.response_uses.clear()
        await t.slack.commands(words, url=url)
        post = await t.slack.post(1)
        assert (post.channel, post.only_for) == ("C1", None if words.startswith("ask") else "UANN")


async def test_a_channel_it_is_not_in_gets_a_direct_message(transport: str) -> None:
    """Without response URL and without a seat in the channel, the asker is told directly."""
    async with talk(transport, "psst") as t:
        t.slack.fail("chat.postMessage", Fault(error="not_in_channel"))
        t.slack.fail("chat.postEphemeral", Fault(error="not_in_channel"))
        await t.slack.commands("ask hello?", url="")
        assert ((await t.slack.post(1)).channel, t.slack.posts[0].text) == ("DUANN", "psst")


async def test_a_redelivered_command_is_run_once(transport: str) -> None:
    """One trigger id, one answer."""
    async with talk(transport) as t:
        for _ in range(2):
            await t.slack.commands("ask once?", trigger="12345.T0001.trigger")
        await t.slack.post(1)
        await t.quiet()
        assert len(t.prompts) == 1


@pytest.mark.parametrize("told", [True, False])
async def test_an_answer_by_command_can_be_liked(transport: str, told: bool) -> None:
    """A reply said through a response URL learns its timestamp when Slack tells of the post, or by looking for it."""
    async with talk(transport, "a <b> joke") as t:
        t.slack.tells_of_responses = told
        t.slack.fail("chat.postMessage", Fault(error="not_in_channel"))
        await t.slack.commands("ask a joke?")
        await t.slack.reacts("+1", await t.slack.post(1))
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))


async def test_commands_and_talk_share_a_direct_message(transport: str) -> None:
    """`reset` by command begins the direct message anew."""
    async with talk(transport, "hi", "who?") as t:
        await t.slack.says("I am Ann", channel="D1")
        await t.slack.post(1)
        await t.slack.commands("reset", channel="D1")
        await t.slack.post(2)
        await t.slack.says("who am I?", channel="D1")
        await t.slack.post(3)
        assert t.prompts[-1] == "Person1: who am I?\nPerson2:"
