"""What Slack has besides messages and commands: edits, shared messages, feedback buttons, prompts, moved channels."""

import asyncio
from typing import Any

import pytest

from bots.slack.messages import conversation_at
from bots.slack.sending import FEEDBACK
from bots.slack.status import LOADING
from core.notices import WORDLESS
from tests.bots.slack_talk import talk
from tests.fakes import FakeGenerator
from tests.slack_server import BOT_USER, TEAM

ME = f"<@{BOT_USER}>"


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


SAYS: list[tuple[str, str, dict[str, Any], str]] = [
    ("an emoji after the mention", f"{ME} :tada:", {}, ":tada:"),
    ("/me", "waves at everybody", {"subtype": "me_message"}, "waves at everybody"),
    (
        "a shared message alone",
        "",
        {"attachments": [{"is_share": True, "text": "the shop is closed"}]},
        "the shop is closed",
    ),
    (
        "a bare mention with a shared message",
        ME,
        {"attachments": [{"is_share": True, "text": "the shop is closed"}]},
        "the shop is closed",
    ),
    (
        "blocks alone",
        "",
        {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "from a workflow"}}]},
        "from a workflow",
    ),
]


@pytest.mark.parametrize(("case", "text", "more", "words"), SAYS, ids=[row[0] for row in SAYS])
async def test_words_are_heard_in_whatever_they_come(
    transport: str, case: str, text: str, more: dict[str, Any], words: str
) -> None:
    """Said to the bot directly, all of these are words."""
    async with talk(transport) as t:
        await t.slack.says(text, channel="D1", **more)
        await t.slack.post(1)
        assert t.prompts == [f"Person1: {words}\nPerson2:"]


async def test_a_bare_mention_has_no_words(transport: str) -> None:
    """Only the mention: the member reads that the bot answers to words."""
    async with talk(transport) as t:
        await t.slack.says(ME)
        assert (await t.slack.post(1)).text == WORDLESS
        assert t.prompts == []


def edit(ts: str, old: str, new: str, **more: Any) -> dict[str, Any]:
    """The event of a message edited in the channel."""
    before = {"type": "message", "user": "UANN", "text": old, "ts": ts}
    return {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "channel": "C1",
        "channel_type": "channel",
        "ts": "1900000000.000100",
        "message": {**before, "text": new, **more},
        "previous_message": before,
    }


async def test_a_mention_that_is_edited_in_is_answered_once(transport: str) -> None:
    """Who adds the mention later is answered in the thread, once; further edits are taken over and not answered."""
    async with talk(transport, "three") as t:
        ts = await t.slack.says("what is 1 + 2?", ts=now(t.clock))
        await t.slack.event(edit(ts, "what is 1 + 2?", f"{ME} what is 1 + 2?"))
        assert (await t.slack.post(1)).thread == ts
        await t.slack.event(edit(ts, f"{ME} what is 1 + 2?", f"{ME} what is 1 + 3?"))
        assert [said.message.text for said in t.memory.everything()] == ["what is 1 + 3?", "three"]
        await t.slack.says(f"{ME} and 2 + 2?")
        await t.slack.post(2)
        assert len(t.prompts) == 2


async def test_an_edit_to_nothing_deletes_the_words(transport: str) -> None:
    """What was edited away is not stored any longer."""
    async with talk(transport) as t:
        ts = await t.slack.says("my secret")
        await t.slack.event(edit(ts, "my secret", ""))
        await t.slack.until_known(lambda: list(t.memory.everything()) == [])


async def test_an_unfurled_link_is_no_edit(transport: str) -> None:
    """Slack changes a message by adding what a link shows: its words stay, and it is not answered again."""
    async with talk(transport, "nice") as t:
        text = f"{ME} see https://a.example"
        ts = await t.slack.says(text, ts=now(t.clock))
        await t.slack.post(1)
        await t.slack.event(edit(ts, text, text, attachments=[{"from_url": "https://a.example", "text": "A page"}]))
        await t.slack.says("settle", channel="D1")
        await t.slack.post(2)
        assert "A page" not in str([said.message.text for said in t.memory.everything()])


async def test_buttons_are_thumbs(transport: str) -> None:
    """By setting, answers end in two buttons that count as thumbs, also for answers to commands."""
    async with talk(transport, "a joke", "another", buttons=True) as t:
        await t.slack.says("joke!", channel="D1")
        await t.slack.commands("ask another?")
        for number, (value, counted) in enumerate([("good", (1, 0)), ("bad", (1, 1))], 1):
            post = await t.slack.post(number)
            assert post.blocks[-1]["elements"][0]["type"] == "feedback_buttons"
            container = {"type": "message", "message_ts": post.ts, "channel_id": post.channel}
            action = {"type": "feedback_buttons", "action_id": FEEDBACK, "value": value}
            await t.slack.interacts("block_actions", container=container, actions=[action])
            await t.slack.until_known(
                lambda counted=counted: t.memory.feedback_counts("slack", TEAM) == counted  # type: ignore[misc]  # bound now
            )


async def test_without_the_setting_there_are_no_buttons(transport: str) -> None:
    """An answer is plain text."""
    async with talk(transport) as t:
        await t.slack.says("joke!", channel="D1")
        assert (await t.slack.post(1)).blocks == []


async def test_a_status_has_messages_that_take_turns(transport: str) -> None:
    """Beside “is thinking…” Slack shows one loading message after the other."""
    gate = asyncio.Event()
    async with talk(transport, generator=FakeGenerator(gate=gate)) as t:
        await t.slack.says(f"{ME} think")
        await t.slack.until(lambda: bool(t.slack.called("assistant.threads.setStatus")))
        assert t.slack.called("assistant.threads.setStatus")[0]["loading_messages"] == list(LOADING)
        gate.set()
        await t.slack.post(1)


async def test_a_conversation_beside_ones_work_begins_with_prompts(transport: str) -> None:
    """Who opens the assistant sees what could be said; its thread is a direct message like any other."""
    async with talk(transport, "fine") as t:
        thread = {"user_id": "UANN", "channel_id": "D1", "thread_ts": "1700000000.000100", "context": {}}
        await t.slack.event({"type": "assistant_thread_started", "assistant_thread": thread})
        await t.slack.until(lambda: len(t.slack.prompts) >= 3)
        await t.slack.says("how are you?", channel="D1", thread_ts="1700000000.000100")
        assert (await t.slack.post(1)).thread == "1700000000.000100"


async def test_a_channel_that_gets_another_id_is_the_same_channel(transport: str) -> None:
    """What was said and chosen under the old id is there under the new one."""
    async with talk(transport, "noted", "blue") as t:
        t.slack.admins.add("UANN")
        await t.slack.commands("settings temperature 0.5")
        await t.slack.post(1)
        ts = await t.slack.says(f"{ME} the door is blue")
        post = await t.slack.post(2)
        await t.slack.event({"type": "channel_id_changed", "old_channel_id": "C1", "new_channel_id": "C9"})
        moved = conversation_at("C9", space=TEAM)
        await t.slack.until_known(lambda: t.memory.channel_settings(moved).temperature == 0.5)
        post.channel = "C9"
        await t.slack.reacts("+1", post)
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))
        await t.slack.says("which colour?", channel="C9", thread_ts=ts)
        assert (await t.slack.post(3)).channel == "C9"
        assert t.prompts[-1] == "Person1: the door is blue\nPerson2: noted\nPerson1: which colour?\nPerson2:"
        assert t.generator.samplings[-1].temperature == 0.5


async def test_thumbs_keep_their_order(transport: str) -> None:
    """👍 and taken back, many times and at once: the last one holds."""
    async with talk(transport) as t:
        await t.slack.says("joke!", channel="D1")
        post = await t.slack.post(1)
        for _ in range(5):
            await t.slack.reacts("+1", post)
            await t.slack.reacts("+1", post, removed=True)
        assert t.memory.feedback_counts("slack") == (0, 0)


def now(clock: Any) -> str:
    """A timestamp of this moment by the bot's clock."""
    return f"{clock.now.timestamp():.0f}.000100"
