"""Slack's limits and outages: every answer is posted, once, in its turn, and who cannot be answered there is told."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bots.slack.events import NOT_POSTED
from bots.slack.timeouts import SlackTimeouts
from core.memory import Memory, open_memory
from tests.bots.slack_talk import QUICK, talk
from tests.fakes import FakeGenerator
from tests.slack_server import BOT_USER, Fault, Limits, SlackServer

ME = f"<@{BOT_USER}>"
FASTER = 20.0
"""Slack's clock in these tests: what takes a second there takes a twentieth here."""
PACED = replace(QUICK, between_posts=1.0 / FASTER)


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def echo() -> FakeGenerator:
    """Answers each question with its own words."""
    return FakeGenerator(speak=lambda prompt: "re " + prompt.removesuffix("\nPerson2:").rpartition(" ")[2])


async def test_a_crowd_in_one_channel_is_answered_to_the_last(transport: str) -> None:
    """Sixteen mentions at once where Slack takes one post a second: sixteen answers, each under its question."""
    server = SlackServer(transport)
    server.limits = Limits(faster=FASTER)
    async with talk(transport, generator=echo(), server=server, timeouts=PACED) as t:
        asked = await asyncio.gather(
            *(t.slack.says(f"{ME} question {number}", user=f"U{number}") for number in range(16))
        )
        await t.slack.post(16)
        threads = {post.thread: post.text for post in t.slack.posts}
        assert threads == {ts: f"re {number}" for number, ts in enumerate(asked)}
        assert t.slack.limited.count("chat.postMessage") <= 3


async def test_a_workspace_that_posts_too_much_is_slowed_down() -> None:
    """Beyond the limit of a channel there is one of the workspace: a handful of refusals, no answer lost."""
    server = SlackServer("socket")
    server.limits = Limits(faster=FASTER, workspace_per_minute=300)
    async with talk("socket", generator=echo(), server=server, timeouts=PACED) as t:
        for number in range(120):
            await t.slack.says(f"question {number}", user=f"U{number}", channel=f"D{number}")
        await t.slack.post(120)
        assert sorted(post.text for post in t.slack.posts) == sorted(f"re {number}" for number in range(120))
        assert t.slack.limited.count("chat.postMessage") <= 60


async def test_a_refusal_holds_the_queue_of_its_channel(transport: str) -> None:
    """After a 429 nothing else is tried in that channel before the time is over, and answers stay in order."""
    async with talk(transport, generator=echo()) as t:
        t.slack.fail("chat.postMessage", Fault(status=429, error="ratelimited", headers={"Retry-After": "1"}))
        await t.slack.says("first", channel="D1")
        await t.slack.until(lambda: len(t.slack.called("chat.postMessage")) == 1)
        await t.slack.says("second", channel="D1")
        await t.slack.says("elsewhere", channel="D2")
        assert (await t.slack.post(1)).text == "re elsewhere"
        await t.slack.post(3)
        tried = [call["text"] for call in t.slack.called("chat.postMessage")]
        assert tried == ["re first", "re elsewhere", "re first", "re second"]


async def test_an_outage_loses_nothing(transport: str) -> None:
    """Slack refuses everything for a while: what was asked before and meanwhile is answered afterwards, once each."""
    async with talk(transport, generator=echo()) as t:
        await t.slack.says("before", channel="D1")
        await t.slack.post(1)
        t.slack.refusing = "service_unavailable"
        for number in range(5):
            await t.slack.says(f"meanwhile {number}", channel=f"D{number}")
        await t.slack.until(lambda: len(t.slack.calls) >= 60)
        t.slack.refusing = ""
        await t.slack.post(6)
        await t.slack.says("after", channel="D1")
        await t.slack.post(7)
        assert sorted(post.text for post in t.slack.posts) == sorted(
            ["re before", "re after", *(f"re {number}" for number in range(5))]
        )


LOST = [
    ("the line breaks", Fault(after=True, breaks=True)),
    ("a server error", Fault(after=True, status=500, error="internal_error")),
    ("an error of Slack's own", Fault(after=True, error="fatal_error")),
]


@pytest.mark.parametrize("keeps_metadata", [True, False])
@pytest.mark.parametrize("channel", ["C1", "D1"])
@pytest.mark.parametrize(("case", "fault"), LOST, ids=[row[0] for row in LOST])
async def test_a_post_whose_answer_was_lost_is_not_made_twice(
    case: str, fault: Fault, channel: str, keeps_metadata: bool
) -> None:
    """A post that Slack made without being able to say so is found again instead of repeated, also where the same
    words stand there already."""
    server = SlackServer("socket")
    server.keeps_metadata = keeps_metadata
    async with talk("socket", "hello", server=server) as t:
        await t.slack.says(f"{ME} one", channel=channel)
        await t.slack.post(1)
        t.slack.fail("chat.postMessage", replace(fault))
        await t.slack.says(f"{ME} two", channel=channel)
        await t.slack.post(2)
        await t.slack.reacts("+1", t.slack.posts[1])
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))
        await t.slack.says(f"{ME} three", channel=channel)
        await t.slack.post(3)
        assert len(t.slack.posts) == 3


async def test_what_cannot_be_posted_is_told_and_no_context(transport: str) -> None:
    """Where the bot may not post, the asker reads so in their direct messages; the answer leaves no trace."""
    async with talk(transport, "nobody reads this", "hello again") as t:
        t.slack.outside.add("C1")
        ts = await t.slack.says(f"{ME} hello?")
        post = await t.slack.post(1)
        assert (post.channel, post.text) == ("DUANN", NOT_POSTED)
        await t.slack.until(lambda: t.slack.statuses[-1:] == [""])
        assert [said.message.text for said in t.memory.everything()] == ["hello?"]
        t.slack.outside.clear()
        await t.slack.says(f"{ME} and now?", thread_ts=ts)
        assert (await t.slack.post(2)).text == "hello again"
        assert "nobody reads this" not in t.prompts[-1]


async def test_an_answer_given_up_leaves_no_sign_of_thinking(transport: str) -> None:
    """After so much patience an answer is given up: the sign goes, and nobody is left waiting."""
    impatient = replace(QUICK, reply=0.3, notice=0.3)
    async with talk(transport, "too late", timeouts=impatient) as t:
        t.slack.fail("chat.postMessage", *[Fault(status=503)] * 1000)
        await t.slack.says(f"{ME} hello?")
        await t.slack.until_known(lambda: [said.message.text for said in t.memory.everything()] == ["hello?"])
        await t.slack.until(lambda: t.slack.statuses[-1:] == [""])
        t.slack.faults.clear()
        await t.slack.says(f"{ME} and now?")
        await t.slack.post(1)


async def test_no_status_where_answers_queue_up() -> None:
    """A sign of thinking is a call, too: where posts wait, none is made."""
    server = SlackServer("socket")
    async with talk("socket", generator=echo(), server=server, timeouts=replace(QUICK, between_posts=0.5)) as t:
        for number in range(6):
            await t.slack.says(f"{ME} question {number}", user=f"U{number}")
            if number:
                await t.slack.until(lambda: len(t.slack.called("chat.postMessage")) >= 1)
        await t.slack.post(6)
        assert len(t.slack.statuses) < 6


@pytest.mark.parametrize("blocks", [True, False])
async def test_two_askers_with_the_same_answer_are_not_mixed_up(transport: str, blocks: bool) -> None:
    """Two commands answered with the same words, told of in the other order: an answer is the one of its asker, or of
    nobody where Slack does not say which it is."""
    server = SlackServer(transport)
    server.tells_of_responses, server.tells_of_blocks = False, blocks
    server.outside.add("C1")
    gate = asyncio.Event()
    async with talk(transport, generator=FakeGenerator(lines=("the same",), gate=gate), server=server) as t:
        for user in ("UANN", "UBEN"):
            await t.slack.commands("ask well?", user=user)
        gate.set()
        await t.slack.post(2)
        for post in reversed(t.slack.posts):
            await t.slack.tells_of(post)
        t.slack.outside.clear()
        for post in t.slack.posts:
            await t.slack.reacts("+1", post, user="UANN" if "Ann:" in str(post.blocks) else "UBEN")
        pairs = [("UANN", "UANN"), ("UBEN", "UBEN")] if blocks else []
        await t.slack.until_known(lambda: liked(t.memory) == pairs)


def liked(memory: Memory) -> list[tuple[str, str]]:
    """Who liked an answer, and whose question it answers."""
    query = """
        SELECT feedback.member, question.author FROM feedback
        JOIN messages AS reply ON reply.id = feedback.message_id
        JOIN messages AS question ON question.id = reply.answers ORDER BY feedback.member
    """
    with memory.borrowed() as engine, engine.connect() as connection:
        return [(str(member), str(author)) for member, author in connection.exec_driver_sql(query)]


async def test_visible_answers_to_commands_are_posts(transport: str) -> None:
    """Where the bot is a member its answer is a post whose timestamp it knows at once, whatever the response URL."""
    async with talk(transport, "forty-two") as t:
        t.slack.tells_of_responses = False
        await t.slack.commands("ask what is the answer?")
        await t.slack.reacts("+1", await t.slack.post(1))
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))
        assert [len(t.slack.called(name)) for name in ("chat.postMessage", "conversations.history")] == [1, 0]
        assert set(t.slack.response_uses.values()) == {5}


async def test_what_was_left_unanswered_is_answered_at_the_next_start(transport: str, tmp_path: Any) -> None:
    """Stopped while it thinks, the bot answers after it was started again: once, where it was asked."""
    url = f"sqlite:///{tmp_path}/person2.db"
    server = SlackServer(transport)
    stuck = FakeGenerator(gate=asyncio.Event())
    async with talk(transport, generator=stuck, server=server, memory=open_memory(url)) as t:
        ts = await t.slack.says(f"{ME} are you there?", ts=f"{t.clock.now.timestamp():.0f}.000100")
        await t.slack.commands("ask and here?")
        await t.slack.until_known(lambda: len(t.prompts) == 2)
    assert server.posts == []
    async with talk(transport, generator=echo(), server=server, memory=open_memory(url)) as t:
        await t.slack.post(2)
        await t.slack.says("settle", channel="D1")
        await t.slack.post(3)
        assert sorted((post.thread or "", post.text) for post in t.slack.posts[:2]) == [
            ("", "re here?"),
            (ts, "re there?"),
        ]


async def test_a_patient_bot_is_as_patient_as_it_says() -> None:
    """The real pace: one post a second a channel, half an hour for a reply, two minutes for a notice."""
    patience = SlackTimeouts()
    assert (patience.between_posts, patience.reply, patience.notice) == (1.0, 1800.0, 120.0)
