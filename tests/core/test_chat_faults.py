"""What goes wrong around an answer: deleted questions, failing models, posts that nobody saw, restarts, edits."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.chat import Chat, ChatSettings
from core.errors import GeneratorError, Overloaded
from core.memory import Memory, open_memory
from core.messages import Conversation, Kind, Message, Reply
from core.notices import BROKEN, CROWDED, LEFT, MISSED, WORDLESS
from core.policy import MAX_AMBIENT, MAX_RAPID, Rules
from tests.fakes import Clock, FakeGenerator, chat, said, until

AMBIENT = ChatSettings(rules=Rules(ambient_chance=1, cool_down=timedelta(0)))


def live(memory: Memory, where: Conversation) -> list[str]:
    return [each.message.text for each in memory.window(where, limit=20)]


async def tell(talk: Chat, message: Message, *, posts: tuple[str, ...] = ("p",)) -> str | None:
    """Hear a message and post what comes; the text."""
    reply = await talk.hear(message)
    if reply is not None:
        await talk.posted(reply, message.conversation, [f"{message.id}-{post}" for post in posts])
    return reply.text if reply is not None else None


# A question that is gone


async def test_a_deleted_question_is_not_answered() -> None:
    """Deleted while the answer is thought of: nothing is posted, and Ben's words, stored next, get no answer of it."""
    gate = asyncio.Event()
    model = FakeGenerator(lines=["secret of ann"], gate=gate)
    talk = chat(model)
    question = said("ann asks")
    answering = asyncio.create_task(talk.hear(question))
    await until(lambda: bool(model.prompts))
    await talk.removed(question.conversation, [question.id])
    ben = said("ben talks", author="ben", kind=Kind.CHANNEL, channel="c2")
    await talk.hear(ben)
    gate.set()
    assert await answering is None
    assert live(talk.memory, ben.conversation) == ["ben talks"]
    assert talk.memory.export("test", "ben")["messages"][0]["answers"] == []


async def test_forgetting_while_an_answer_is_thought_of() -> None:
    """Who is forgotten gets no answer that would be stored after all."""
    gate = asyncio.Event()
    model = FakeGenerator(gate=gate)
    talk = chat(model)
    question = said("ann asks")
    answering = asyncio.create_task(talk.hear(question))
    await until(lambda: bool(model.prompts))
    talk.memory.forget("test", "ann")
    gate.set()
    assert await answering is None
    assert live(talk.memory, question.conversation) == []


async def test_a_deletion_may_overtake_its_message() -> None:
    """What was deleted before it was told of is neither stored nor answered."""
    talk = chat()
    message = said("never mind")
    await talk.removed(message.conversation, [message.id])
    assert await talk.hear(message) is None
    assert live(talk.memory, message.conversation) == []


# Notices


async def test_nobody_hears_of_an_ambient_answer_that_failed() -> None:
    """It was nobody's wish, so it is nobody's matter."""
    for error in (GeneratorError("broken"), Overloaded()):
        model = FakeGenerator(error=error)
        talk = chat(model, settings=AMBIENT)
        assert await talk.hear(said("lovely weather", kind=Kind.CHANNEL)) is None
        assert len(model.prompts) == 1
    silent = chat(FakeGenerator(lines=[""]), settings=AMBIENT)
    assert await silent.hear(said("lovely weather", kind=Kind.CHANNEL)) is None


async def test_one_notice_a_minute() -> None:
    """A member who goes on asking reads it once; another member, and the next minute, read it again."""
    clock = Clock()
    talk = chat(FakeGenerator(error=GeneratorError("broken")), clock=clock, settings=ChatSettings(user_rate=0))

    async def ask(author: str) -> str | None:
        reply = await talk.hear(said("hi", author=author, kind=Kind.CHANNEL, mentions_bot=True))
        return reply.text if reply else None

    assert [await ask("ann"), await ask("ann"), await ask("ben")] == [BROKEN, None, BROKEN]
    clock.move(seconds=61)
    assert await ask("ann") == BROKEN


async def test_a_crowd_is_told_once() -> None:
    """Twenty people at once: one of them reads that it is crowded, and a moment later another one."""
    clock = Clock()
    talk = chat(FakeGenerator(error=Overloaded()), clock=clock)

    async def everybody() -> list[str]:
        questions = [said("hi", author=f"p{n}", kind=Kind.CHANNEL, mentions_bot=True) for n in range(20)]
        return [reply.text for reply in await asyncio.gather(*map(talk.hear, questions)) if reply]

    assert await everybody() == [CROWDED]
    clock.move(seconds=61)
    assert await everybody() == [CROWDED]


async def test_a_command_is_always_answered() -> None:
    """Who uses one waits for it, and is alone with what comes."""
    talk = chat(FakeGenerator(error=GeneratorError("broken")))
    replies = [await talk.ask(said("hi")) for _ in range(2)]
    assert [reply.text for reply in replies if reply] == [BROKEN, BROKEN]


async def test_a_picture_is_answered_with_words_once() -> None:
    """Three pictures in a row are no reason for three sentences."""
    talk = chat()
    assert [await tell(talk, said("")) for _ in range(3)] == [WORDLESS, None, None]


async def test_the_log_has_one_line_and_the_first_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is down for an hour fills no log."""

    def fail(prompt: str) -> str:
        raise GeneratorError("http://10.0.0.7 said\n<html> 100% wrong")

    talk = chat(FakeGenerator(speak=fail), settings=ChatSettings(user_rate=0))
    for _ in range(5):
        await talk.hear(said("hi"))
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == [
        "no reply in test//c1/: GeneratorError: http://10.0.0.7 said <html> 100% wrong"
    ] * 5
    assert [record.exc_info is not None for record in told] == [True, False, False, False, False]


# Replies that nobody saw


async def test_what_could_not_be_posted_was_never_said() -> None:
    """It is no context, nothing to learn from, nothing that `again` would replace; the next answer counts."""
    model = FakeGenerator(lines=["unseen", "seen"])
    talk = chat(model)
    question = said("tell me")
    assert await tell(talk, question, posts=()) == "unseen"
    assert await tell(talk, said("well?")) == "seen"
    assert model.prompts[-1] == "Person1: tell me well?\nPerson2:"
    assert [each.message.text for each in talk.memory.everything()] == ["tell me", "well?", "seen"]


async def test_what_stands_under_no_known_id_was_said() -> None:
    """Some platforms give posts no ids."""
    talk = chat()
    question = said("tell me")
    reply = await talk.hear(question)
    assert reply is not None
    await talk.posted(reply, question.conversation, (), stands=True)
    assert live(talk.memory, question.conversation) == ["tell me", "hello"]


# Restarts


def restarted(home: Path, generator: FakeGenerator, clock: Callable[..., object] | None = None) -> Chat:
    """A new process over the same database."""
    return chat(generator, memory=open_memory(f"sqlite:///{home / 'm.db'}"), clock=clock)  # type: ignore[arg-type]  # a Clock


async def resumed(talk: Chat) -> list[tuple[str, str]]:
    """What the platform posts after its start: question and reply."""
    done: list[tuple[str, str]] = []
    for question in await talk.unanswered("test"):
        reply = await talk.resume(question)
        if reply is not None:
            done.append((question.message.text, reply.text))
            await talk.posted(reply, question.message.conversation, [f"late-{question.row}"])
    return done


async def killed(task: "asyncio.Task[Reply | None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_left_unanswered_is_answered_once(tmp_path: Path) -> None:
    """Killed while it thought: the next process answers what was for it and what was asked by command, nothing else."""
    gate = asyncio.Event()
    talk = restarted(tmp_path, FakeGenerator(gate=gate))
    public = {"kind": Kind.CHANNEL, "channel": "c2"}
    tasks = [
        asyncio.create_task(talk.hear(said("direct"))),
        asyncio.create_task(talk.hear(said("mentioned", mentions_bot=True, **public))),  # type: ignore[arg-type]
        asyncio.create_task(talk.hear(said("not for it", **public))),  # type: ignore[arg-type]
        asyncio.create_task(talk.ask(said("by command", **public))),  # type: ignore[arg-type]
    ]
    await until(lambda: len(talk.generator.prompts) >= 2)  # type: ignore[attr-defined]  # the fake's
    await until(lambda: len(live(talk.memory, said("", **public).conversation)) == 3)  # type: ignore[arg-type]
    for task in tasks:
        await killed(task)
    late = restarted(tmp_path, FakeGenerator(lines=["sorry I am late"]))
    questions = [(each.message.text, each.by_command) for each in await late.unanswered("elsewhere")]
    assert questions == []
    assert sorted(await resumed(late)) == [
        ("by command", "sorry I am late"),
        ("direct", "sorry I am late"),
        ("mentioned", "sorry I am late"),
    ]
    assert await resumed(restarted(tmp_path, FakeGenerator())) == []


async def test_a_reply_that_was_composed_is_posted_as_it_was(tmp_path: Path) -> None:
    """Killed between composing and posting: the same row again, so that a platform sees whether it stands."""
    talk = restarted(tmp_path, FakeGenerator(lines=["composed"]))
    reply = await talk.hear(said("hi"))
    assert reply is not None
    late = restarted(tmp_path, FakeGenerator(lines=["another"]))
    (question,) = await late.unanswered("test")
    again = await late.resume(question)
    assert again is not None
    assert (again.text, again.row, again.resumed, reply.resumed) == ("composed", reply.row, True, False)


async def test_old_questions_and_those_that_end_the_process_are_let_go(tmp_path: Path) -> None:
    """After ten minutes nobody waits any more; and a question that ended five processes that tried it again is not
    tried a sixth time."""
    clock = Clock()
    talk = restarted(tmp_path, FakeGenerator(lines=["unseen"]), clock)
    old = replace(said("old"), sent_at=clock() - timedelta(minutes=11))
    await talk.hear(old)
    await talk.hear(said("deadly", channel="c2"))
    for _ in range(5):
        another = restarted(tmp_path, FakeGenerator(), clock)
        (question,) = await another.unanswered("test")
        assert question.message.text == "deadly"
        assert await another.resume(question) is not None  # and never posted
    last = restarted(tmp_path, FakeGenerator(), clock)
    assert await last.unanswered("test") == []
    assert live(last.memory, old.conversation) == ["old"]


async def test_who_cannot_be_answered_late_is_told_so(tmp_path: Path) -> None:
    """Once, whatever the reason is."""
    gate = asyncio.Event()
    talk = restarted(tmp_path, FakeGenerator(gate=gate))
    task = asyncio.create_task(talk.hear(said("hi")))
    await until(lambda: bool(talk.generator.prompts))  # type: ignore[attr-defined]
    await killed(task)
    assert await resumed(restarted(tmp_path, FakeGenerator(error=Overloaded()))) == [("hi", MISSED)]
    assert await resumed(restarted(tmp_path, FakeGenerator())) == []


async def test_what_this_process_answers_is_not_resumed(tmp_path: Path) -> None:
    """What was said before a platform asks, and what it was given before it connects again."""
    names = asyncio.Event()
    talk = restarted(tmp_path, FakeGenerator())
    stored: list[bool] = []

    async def complete() -> Message:
        await names.wait()
        return said("hi")

    task = asyncio.create_task(talk.hear(said("hi"), heard=lambda: stored.append(True), complete=complete))
    await until(lambda: bool(stored))
    assert await talk.unanswered("test") == []
    await killed(task)
    late = restarted(tmp_path, FakeGenerator())
    (question,) = await late.unanswered("test")
    assert await late.unanswered("test") == []
    assert (await late.resume(question)) is not None


async def test_stopping_finishes_what_is_being_said(tmp_path: Path) -> None:
    """What is on its way is posted; what comes meanwhile is stored, and answered by the next process."""
    gate = asyncio.Event()
    talk = restarted(tmp_path, FakeGenerator(gate=gate, lines=["on time"]))
    question = said("first")
    first = asyncio.create_task(talk.hear(question))
    await until(lambda: bool(talk.generator.prompts))  # type: ignore[attr-defined]
    draining = asyncio.create_task(talk.drain(60))
    await until(lambda: talk.draining)
    assert await talk.hear(said("second", author="ben")) is None
    gate.set()
    reply = await first
    assert reply is not None
    assert not draining.done()
    await talk.posted(reply, question.conversation, ["p1"])
    assert await draining
    assert await resumed(restarted(tmp_path, FakeGenerator(lines=["late"]))) == [("second", "late")]


async def test_stopping_does_not_wait_for_ever() -> None:
    """A reply that takes longer than the grace is left to the next process."""
    gate = asyncio.Event()
    model = FakeGenerator(gate=gate)
    talk = chat(model)
    task = asyncio.create_task(talk.hear(said("hi")))
    await until(lambda: bool(model.prompts))
    assert not await talk.drain(0.01)
    await killed(task)


# Threads and replies, looked up here


async def test_a_follow_up_in_a_new_thread_is_heard_during_the_first_answer() -> None:
    """The bot takes part in a thread as soon as it thinks there."""
    gate = asyncio.Event()
    model = FakeGenerator(lines=["one", "two"], gate=gate)
    talk = chat(model)
    first = asyncio.create_task(talk.hear(said("hi", kind=Kind.THREAD, thread="t1", mentions_bot=True)))
    await until(lambda: bool(model.prompts))
    second = asyncio.create_task(talk.hear(said("and you?", kind=Kind.THREAD, thread="t1")))
    await until(lambda: len(live(talk.memory, said("", kind=Kind.THREAD, thread="t1").conversation)) == 2)
    gate.set()
    assert [reply.text for reply in await asyncio.gather(first, second) if reply] == ["one", "two"]


async def test_a_thread_goes_on_without_mentions() -> None:
    """No platform needs to know which threads we are in; elsewhere nothing is answered, nor what is for others."""
    talk = chat()
    assert await tell(talk, said("hi", kind=Kind.THREAD, thread="t1", mentions_bot=True)) == "hello"
    assert await tell(talk, said("go on", kind=Kind.THREAD, thread="t1")) == "hello"
    assert await tell(talk, said("ben?", kind=Kind.THREAD, thread="t1", mentions_others=True)) is None
    assert await tell(talk, said("go on", kind=Kind.THREAD, thread="t2")) is None


async def test_a_thread_can_be_left() -> None:
    """By the command, or by its word where threads take no commands; a mention brings the bot back."""
    talk = chat()

    async def thread(text: str, *, named: bool = False) -> str | None:
        return await tell(talk, said(text, kind=Kind.THREAD, thread="t1", mentions_bot=named))

    assert [await thread("hi", named=True), await thread("go on")] == ["hello", "hello"]
    assert await thread(" Reset ", named=True) == LEFT
    assert await thread("go on") is None
    assert [await thread("hi", named=True), await thread("go on")] == ["hello", "hello"]
    await talk.reset(said("", kind=Kind.THREAD, thread="t1").conversation)
    assert await thread("go on") is None


async def test_a_reply_to_a_post_is_known_before_the_platform_confirms_it() -> None:
    """Who answers a post of ours at once is answered, and holds up nobody else of the channel."""
    talk = chat(FakeGenerator(lines=["one", "two"]))
    question = said("hi", kind=Kind.CHANNEL, mentions_bot=True)
    reply = await talk.hear(question)
    assert reply is not None
    quick = asyncio.create_task(talk.hear(said("really?", kind=Kind.CHANNEL, reply_to="p1")))
    other = said("by the way", author="ben", kind=Kind.CHANNEL)
    assert await talk.hear(other) is None
    await talk.posted(reply, question.conversation, ["p1"])
    answer = await quick
    assert answer is not None
    assert answer.text == "two"
    await talk.posted(answer, question.conversation, ["p2"])
    assert await talk.hear(said("and ben?", kind=Kind.CHANNEL, reply_to=other.id)) is None


async def test_messages_are_stored_in_the_order_of_the_calls() -> None:
    """Names that take a while to look up hold up no later message, and are there before anything is answered."""
    model = FakeGenerator()
    talk = chat(model)
    names = asyncio.Event()
    first, second = said("look, @someone", kind=Kind.CHANNEL), said("what?", kind=Kind.CHANNEL, mentions_bot=True)
    stored: list[str] = []

    async def complete() -> Message:
        await names.wait()
        return replace(first, text="look, @Ben", author_name="Ann B.")

    one = asyncio.create_task(talk.hear(first, heard=lambda: stored.append("first"), complete=complete))
    two = asyncio.create_task(talk.hear(second, heard=lambda: stored.append("second")))
    await until(lambda: len(stored) == 2)
    names.set()
    await asyncio.gather(one, two)
    assert stored == ["first", "second"]
    assert model.prompts == ["Person1: look, @Ben what?\nPerson2:"]
    assert talk.memory.window(first.conversation, limit=5)[0].message.author_name == "Ann B."


# Edits


async def test_edits() -> None:
    """What is edited is context as it reads now; edited to nothing, it is gone."""
    model = FakeGenerator()
    talk = chat(model)
    message = said("I like tea", kind=Kind.CHANNEL)
    await talk.hear(message)
    assert await talk.edited(replace(message, text="I like cake")) is None
    assert live(talk.memory, message.conversation) == ["I like cake"]
    assert await talk.edited(replace(message, text="")) is None
    assert live(talk.memory, message.conversation) == []


async def test_an_edit_that_adds_the_mention_is_heard_once() -> None:
    """Somebody forgot to name the bot, and does so; editing on asks for no further answer."""
    model = FakeGenerator(lines=["one", "two"])
    talk = chat(model)
    message = said("how are you", kind=Kind.CHANNEL)
    await talk.hear(message)
    named = replace(message, text="how are you?", mentions_bot=True)
    reply = await talk.edited(named)
    assert reply is not None
    assert reply.text == "one"
    await talk.posted(reply, message.conversation, ["p1"])
    assert await talk.edited(replace(named, text="how are you??")) is None
    assert model.prompts == ["Person1: how are you?\nPerson2:"]
    assert live(talk.memory, message.conversation) == ["how are you??", "one"]


async def test_an_edit_may_open_a_thread() -> None:
    """Where a mention is answered in a thread, the message and its answer are that thread's from then on."""
    talk = chat()
    message = said("how are you", kind=Kind.CHANNEL)
    await talk.hear(message)
    thread = replace(message.conversation, thread=message.id, kind=Kind.THREAD)
    reply = await talk.edited(replace(message, mentions_bot=True, conversation=thread))
    assert reply is not None
    assert live(talk.memory, thread) == ["how are you", "hello"]
    assert await tell(talk, replace(said("go on"), conversation=thread)) == "hello"


async def test_an_edit_of_an_answered_message_is_not_answered_again() -> None:
    """Nor one of a message that is being answered: its new words are answered where there is still time."""
    gate = asyncio.Event()
    model = FakeGenerator(gate=gate)
    talk = chat(model)
    message = said("hi", kind=Kind.CHANNEL, mentions_bot=True)
    answering = asyncio.create_task(talk.hear(message))
    await until(lambda: bool(model.prompts))
    assert await talk.edited(replace(message, text="hi!")) is None
    gate.set()
    assert await answering is not None
    assert await talk.edited(replace(message, text="hi!!")) is None
    assert len(model.prompts) == 1


async def test_words_added_to_a_picture_are_heard() -> None:
    """It was not stored, for it said nothing; an old one, edited months later, stays unheard."""
    clock = Clock()
    talk = chat(clock=clock)
    picture = said("", kind=Kind.CHANNEL)
    assert await tell(talk, picture) is None
    named = replace(picture, text="is this a cat?", mentions_bot=True)
    assert await talk.edited(replace(named, id="old", sent_at=clock() - timedelta(days=60))) is None
    reply = await talk.edited(named)
    assert reply is not None
    assert reply.text == "hello"


# Loops


async def test_ambient_answers_end_where_nobody_else_speaks() -> None:
    """Two bots that call each other people; somebody else's word starts it anew."""
    talk = chat(settings=AMBIENT)
    other = [await tell(talk, said(f"line {n}", author="bot", kind=Kind.CHANNEL)) for n in range(6)]
    assert other == ["hello"] * MAX_AMBIENT + [None] * (6 - MAX_AMBIENT)
    assert await tell(talk, said("hm", kind=Kind.CHANNEL)) == "hello"


async def test_a_loop_of_two_bots_ends() -> None:
    """Each line comes at once upon ours, and the model is too slow for the rate a minute to stop it; who types is
    answered on and on."""
    clock = Clock()
    talk = chat(FakeGenerator(lines=["how do you do?"]), clock=clock)

    async def exchange(seconds: float) -> bool:
        clock.move(seconds=seconds)
        message = said("I am fine, and how do you do?", author="somebody")
        reply = await talk.hear(message)
        clock.move(seconds=6)  # the model thinks
        if reply is not None:
            await talk.posted(reply, message.conversation, [message.id])
        return reply is not None

    assert all([await exchange(3) for _ in range(3 * MAX_RAPID)])
    quick = [await exchange(0.5) for _ in range(2 * MAX_RAPID)]
    assert 0 < sum(quick) <= MAX_RAPID
    assert not any(quick[MAX_RAPID:])
