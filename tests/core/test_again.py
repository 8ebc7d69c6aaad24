"""Another answer: to what, for whom, in whose place."""

import asyncio
from dataclasses import replace

import pytest

from core.chat import Chat, ChatSettings
from core.composer import TEMPERATURE_STEP
from core.errors import GeneratorError, Overloaded
from core.messages import Kind, Message, Reply
from core.notices import DELETED, NOT_ALLOWED, NOT_MINE, NOT_YOURS, NOTHING_ASKED, TOO_FAST
from core.replies import LOST_FOR_WORDS
from tests.fakes import Clock, FakeGenerator, chat, said, until


async def answered(talk: Chat, question: Message, post: str) -> Reply:
    """Ask, and post the answer."""
    reply = await talk.hear(question)
    assert reply is not None
    await talk.posted(reply, question.conversation, [post])
    return reply


def live(talk: Chat, question: Message) -> list[str]:
    return [each.message.text for each in talk.memory.window(question.conversation, limit=20)]


async def test_again_gives_another_answer_in_place_of_the_first() -> None:
    """The first answer is not in the prompt of the second, and its posts are named for replacing. What was answered
    before is drawn again, at a higher temperature each time; where nothing else comes a short one is said once more."""
    model = FakeGenerator(lines=["first", "First.", "second", "first", "second", "first"])
    talk = chat(model)
    question = said("tell me")
    reply = await talk.hear(question)
    assert reply is not None
    await talk.posted(reply, question.conversation, ["p1"])
    another, replaced = await talk.again(question)
    assert (another.text, replaced) == ("second", ("p1",))
    assert set(model.prompts) == {"Person1: tell me\nPerson2:"}
    usual = talk.settings.sampling.temperature
    assert [round(sampling.temperature - usual, 2) for sampling in model.samplings] == [0, 0, TEMPERATURE_STEP]
    assert another.details is not None
    assert another.details["temperature"] == round(usual + TEMPERATURE_STEP, 2)
    await talk.posted(another, question.conversation, ["p1"])
    third, _ = await talk.again(question)
    assert (third.text, len(model.prompts)) == ("first", 6)


async def test_again_says_no_long_answer_twice_in_a_row() -> None:
    """An earlier one may come back; of the one to be replaced the bot says plainly that nothing else came."""
    long = "I have always liked the sea best."
    talk = chat(FakeGenerator(lines=[long, "The hills.", long]))
    question = said("sea or hills?")
    reply = await talk.hear(question)
    another = []
    for number in range(3):
        assert reply is not None
        await talk.posted(reply, question.conversation, [f"p{number}"])
        reply, _ = await talk.again(question)
        another.append(reply.text)
    assert another == ["The hills.", long, LOST_FOR_WORDS]


async def test_again_keeps_the_old_answer_when_the_model_is_busy() -> None:
    """Nothing is lost when there is no room for another answer."""
    model = FakeGenerator(lines=["first"])
    talk = chat(model)
    question = said("tell me")
    reply = await talk.hear(question)
    assert reply is not None
    await talk.posted(reply, question.conversation, ["p1"])
    model.error = Overloaded()
    another, replaced = await talk.again(question)
    assert another.notice
    assert replaced == ()
    assert [item.message.text for item in talk.memory.window(question.conversation, limit=5)] == ["tell me", "first"]


async def test_again_waits_for_an_answer_being_thought_of() -> None:
    """Who cannot wait for the first answer gets the second, not an error."""
    gate = asyncio.Event()
    model = FakeGenerator(lines=["one", "two"], gate=gate)
    talk = chat(model)
    question = said("tell me")
    first = asyncio.create_task(talk.hear(question))
    await until(lambda: bool(model.prompts))
    again = asyncio.create_task(talk.again(question))
    await asyncio.sleep(0)
    gate.set()
    reply = await first
    assert reply is not None
    await talk.posted(reply, question.conversation, ["p1"])
    another, replaced = await again
    assert (another.text, replaced) == ("two", ("p1",))


async def test_a_post_that_never_stands_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that a platform lost holds up the next command for a moment, once."""
    monkeypatch.setattr("core.pending.SETTLE_SECONDS", 0.1)
    talk = chat(FakeGenerator(lines=["one", "two"]))
    question = said("tell me")
    await talk.hear(question)
    another, replaced = await asyncio.wait_for(talk.again(question), 5)
    assert (another.text, replaced) == ("two", ())


async def test_a_command_may_mean_the_channel_with_its_threads() -> None:
    """Where threads take no commands, `again` finds an answer given in one, and `reset` empties them too."""
    model = FakeGenerator(lines=["one", "two", "three"])
    talk = chat(model)
    question = said("in a thread", kind=Kind.THREAD, thread="t1", joined_thread=True)
    channel = replace(question.conversation, thread=None, kind=Kind.CHANNEL)
    outside = replace(question, conversation=channel)
    reply = await talk.hear(question)
    assert reply is not None
    await talk.posted(reply, question.conversation, ["p1"])
    assert (await talk.again(outside))[0].notice
    another, replaced = await talk.again(outside, whole_channel=True)
    assert (another.text, replaced) == ("two", ("p1",))
    assert another.question is not None
    assert another.question.conversation == question.conversation
    await talk.posted(another, channel, ["p1"])
    await talk.reset(channel, whole_channel=True)
    assert (await talk.again(outside, whole_channel=True))[0].notice
    await talk.hear(said("still there?", kind=Kind.THREAD, thread="t1", joined_thread=True))
    assert model.prompts[-1] == "Person1: still there?\nPerson2:"


async def test_two_at_once_leave_one_answer() -> None:
    """A button pressed twice: the second replaces what the first put there."""
    talk = chat(FakeGenerator(lines=["one", "two", "three"], delay=0.01))
    question = said("tell me")
    where = question.conversation
    await answered(talk, question, "p1")

    async def press() -> None:
        reply, replaced = await talk.again(question, post="p1")
        assert replaced == ("p1",)
        await talk.posted(reply, where, replaced)

    await asyncio.gather(press(), press())
    assert live(talk, question) == ["tell me", "three"]


async def test_after_a_notice_the_newest_question_is_answered() -> None:
    """Not the answer before it, which is somebody else's: that one stands."""
    model = FakeGenerator(lines=["to ann", "to ben"])
    talk = chat(model)
    ann = said("ann asks", kind=Kind.CHANNEL, mentions_bot=True)
    ben = said("ben asks", author="ben", kind=Kind.CHANNEL, mentions_bot=True)
    await answered(talk, ann, "p1")
    model.error = GeneratorError("broken")
    notice = await talk.hear(ben)
    assert notice is not None
    assert notice.notice
    model.error = None
    reply, replaced = await talk.again(ben)
    assert reply.question is not None
    assert (reply.text, reply.question.id, replaced) == ("to ben", ben.id, ())
    assert live(talk, ann) == ["ann asks", "to ann", "ben asks", "to ben"]


@pytest.mark.parametrize(
    ("author", "admin", "post", "text"),
    [
        ("ann", False, "p1", "another"),
        ("ben", False, "p1", NOT_YOURS),
        ("ben", True, "p1", "another"),
        ("ann", False, None, "another"),
        ("ben", False, None, NOTHING_ASKED),
        ("ben", True, None, "another"),
        ("ann", False, "p9", NOT_MINE),
    ],
)
async def test_who_may_have_it_answered_again(author: str, admin: bool, post: str | None, text: str) -> None:
    """Members their own questions, who may manage the channel anybody's."""
    talk = chat(FakeGenerator(lines=["an answer", "another"]))
    question = said("ann asks", kind=Kind.CHANNEL, mentions_bot=True)
    await answered(talk, question, "p1")
    asker = said("", author=author, kind=Kind.CHANNEL)
    reply, replaced = await talk.again(asker, admin=admin, post=post)
    assert (reply.text, replaced) == (text, ("p1",) if text == "another" else ())


async def test_again_keeps_the_rules_of_the_channel() -> None:
    """The rate a minute counts it, and a channel that was closed meanwhile hears nothing more."""
    talk = chat(settings=ChatSettings(user_rate=2), clock=Clock())
    question = said("ann asks", kind=Kind.CHANNEL, mentions_bot=True)
    await answered(talk, question, "p1")
    texts = [(await talk.again(question))[0].text for _ in range(2)]
    talk.memory.change_settings(question.conversation, allowed=False)
    texts.append((await talk.again(question))[0].text)
    assert texts == ["hello", TOO_FAST, NOT_ALLOWED]


async def test_a_deleted_question_is_not_answered_again() -> None:
    """Deleted while the other answer is thought of: nothing is stored, and who asked is told."""
    gate = asyncio.Event()
    gate.set()
    model = FakeGenerator(lines=["one", "two"], gate=gate)
    talk = chat(model)
    question = said("tell me")
    await answered(talk, question, "p1")
    gate.clear()
    again = asyncio.create_task(talk.again(question))
    await until(lambda: len(model.prompts) == 2)
    await talk.removed(question.conversation, [question.id])
    gate.set()
    reply, replaced = await again
    assert (reply.text, reply.notice, replaced) == (DELETED, True, ())


async def test_another_answer_that_could_not_be_posted_changes_nothing() -> None:
    """The one that people see stays the one that counts."""
    talk = chat(FakeGenerator(lines=["one", "two"]))
    question = said("tell me")
    await answered(talk, question, "p1")
    reply, replaced = await talk.again(question)
    assert replaced == ("p1",)
    await talk.posted(reply, question.conversation, ())
    assert live(talk, question) == ["tell me", "one"]


async def test_other_threads_are_not_waited_for() -> None:
    """An answer being thought of for somebody else does not hold up who asks for another one."""
    gate = asyncio.Event()
    gate.set()
    model = FakeGenerator(lines=["one", "slow", "two"], gate=gate)
    talk = chat(model)
    question = said("tell me", kind=Kind.THREAD, thread="t1", mentions_bot=True)
    await answered(talk, question, "p1")
    gate.clear()
    other = said("me too", author="ben", kind=Kind.THREAD, thread="t2", mentions_bot=True)
    waiting = asyncio.create_task(talk.hear(other))
    await until(lambda: len(model.prompts) == 2)
    again = asyncio.create_task(talk.again(question, whole_channel=True))
    await until(lambda: len(model.prompts) == 3)
    gate.set()
    assert (await again)[0].text == "two"
    assert (await waiting) is not None
