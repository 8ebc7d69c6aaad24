"""Messages in quick succession are one turn: what is waited for, and which message is answered."""

import asyncio
from dataclasses import dataclass, field

from core.bursts import LONGEST, TYPING, Bursts
from core.chat import ChatSettings
from core.messages import Kind, Message
from core.policy import Answers, Decision, Rules, Why
from tests.fakes import FakeGenerator, chat, said


@dataclass
class Time:
    """Seconds pass while somebody sleeps; `at` says what happens meanwhile, and when."""

    now: float = 0.0
    at: list[tuple[float, Message | str]] = field(default_factory=list)
    bursts: Bursts = field(init=False)

    def __post_init__(self) -> None:
        self.bursts = Bursts(1.5, sleep=self.sleep, clock=lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self.at and self.at[0][0] <= end:
            self.now, event = self.at.pop(0)
            if isinstance(event, Message):
                self.bursts.take(event, Decision(Why.NOT_ADDRESSED))
            else:
                self.bursts.typing(FIRST.conversation, event)
        self.now = end


FIRST = said("robo", kind=Kind.CHANNEL, id="first")
MORE = said("are you there", kind=Kind.CHANNEL, id="more")


async def waited(*meanwhile: tuple[float, Message | str]) -> tuple[bool, float]:
    """Whether the first message is the one that is answered, and when that is decided."""
    time = Time(at=list(meanwhile))
    burst = time.bursts.take(FIRST, Decision(Why.MENTION))
    assert burst is not None
    return await burst.ends_with(FIRST), time.now


async def test_a_pause_ends_a_burst() -> None:
    """Alone it is answered after the pause; another of the same member takes its place, one of somebody else's not."""
    assert await waited() == (True, 1.5)
    assert (await waited((1.0, MORE)))[0] is False
    assert await waited((1.0, said("hm", author="bob", kind=Kind.CHANNEL))) == (True, 1.5)
    assert await waited((1.0, said("@Bob can you", kind=Kind.CHANNEL, mentions_others=True))) == (True, 1.5)


async def test_typing_is_waited_for_but_not_for_ever() -> None:
    """Each sign of typing counts for a while, up to eight seconds in all."""
    assert await waited((1.0, "ann")) == (True, 1.0 + TYPING)
    assert await waited((1.0, "bob")) == (True, 1.5)
    assert await waited(*((second + 1.0, "ann") for second in range(20))) == (True, LONGEST)


async def test_fragments_are_answered_once_to_the_last() -> None:
    """One answer, whose prompt holds all of them; the last was not even addressed to the bot."""
    model = FakeGenerator()
    talk = chat(model, settings=ChatSettings(burst=0.05))
    pieces = [
        said("hey", kind=Kind.CHANNEL, mentions_bot=True),
        *(said(t, kind=Kind.CHANNEL) for t in ("so", "tell me")),
    ]
    replies = await asyncio.gather(*(talk.hear(piece) for piece in pieces))
    assert [reply.answers if reply else None for reply in replies] == [None, None, pieces[-1].id]
    assert model.prompts == ["Person1: hey so tell me\nPerson2:"]


async def test_two_members_who_ask_at_once_get_an_answer_each() -> None:
    """A burst is one member's, where it is they who are answered."""
    talk = chat(settings=ChatSettings(burst=0.05))
    asked = [said("hi", author=who, kind=Kind.CHANNEL, mentions_bot=True) for who in ("ann", "bob")]
    assert all(await asyncio.gather(*(talk.hear(message) for message in asked)))


async def test_people_who_talk_to_each_other_get_one_answer() -> None:
    """Where everything is answered, talk at once is answered once."""
    model = FakeGenerator()
    talk = chat(model, settings=ChatSettings(burst=0.05, rules=Rules(answers=Answers.ALL)))
    talked = [
        said(text, author=who, kind=Kind.CHANNEL) for who, text in (("ann", "cake?"), ("bob", "yes"), ("ann", "now"))
    ]
    replies = await asyncio.gather(*(talk.hear(message) for message in talked))
    assert [reply is not None for reply in replies] == [False, False, True]
    assert len(model.prompts) == 1


async def test_nothing_of_a_burst_is_owed_once_its_last_was_answered() -> None:
    """After a restart only what nobody answered is answered."""
    talk = chat(settings=ChatSettings(burst=0.05))
    first, second = (said(text, kind=Kind.CHANNEL, mentions_bot=True) for text in ("hey", "you"))
    replies = await asyncio.gather(talk.hear(first), talk.hear(second))
    assert replies[0] is None
    assert replies[1] is not None
    await talk.posted(replies[1], first.conversation, ["p1"])
    assert await chat(memory=talk.memory).unanswered("test") == []
