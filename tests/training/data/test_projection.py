"""Links and gaps by themselves: properties on any talk."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages import Conversation, Message
from training.data import reply_links
from training.data.projection import ProjectionRules, dialogues, person

START = datetime(2024, 1, 1, tzinfo=UTC)


def said(number: int, author: str, text: str = "", *, second: int | None = None, to: int | None = None) -> Message:
    return Message(
        conversation=Conversation(platform="discord", channel="1"),
        id=str(number),
        author=author,
        author_name=author,
        text=text or f"words number {number}",
        sent_at=START + timedelta(seconds=number * 10 if second is None else second),
        reply_to=None if to is None else str(to),
    )


class Guesses:
    """A linker that says what it was told to, for any segment."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        return [self._chance.choice([None, *range(max(0, at - 5), at)]) for at in range(len(messages))]


@settings(max_examples=150, deadline=None)
@given(
    authors=st.lists(st.sampled_from("ABCD"), min_size=1, max_size=40),
    seed=st.integers(0, 1000),
    hidden=st.sets(st.integers(0, 39), max_size=5),
)
def test_properties_of_any_talk(authors: list[str], seed: int, hidden: set[int]) -> None:
    """Whatever the links: sides alternate, one voice is the target, no target comes twice, counts add up."""
    messages = [said(n, "E" if n in hidden else author) for n, author in enumerate(authors)]
    allowed = frozenset(f"discord:{name}" for name in "ABCD")
    rules = ProjectionRules(gap=timedelta(hours=1), min_words=1, allowed=allowed)
    made = dialogues([messages], linker=Guesses(seed), rules=rules)
    targets: Counter[str] = Counter()
    by_words = {message.text: message for message in messages}
    for draft in made.drafts:
        lines = draft.text.splitlines()
        opened = len(lines) % 2  # Person2's opening, which is no target
        assert [line[:8] for line in lines] == ["Person2:"] * opened + ["Person1:", "Person2:"] * (len(lines) // 2)
        voices = set()
        for line in lines[1 + opened :: 2]:
            for words in line.removeprefix("Person2: ").split("words number ")[1:]:
                voices.add(by_words[f"words number {words.strip()}"].author)
                targets[words.strip()] += 1
        assert len(voices) == 1
        assert all(who in allowed for who, _ in draft.people)
    assert all(count == 1 for count in targets.values())
    assert made.dropped.total() + sum(draft.messages for draft in made.drafts) == len(messages)
    assert made.dropped["no consent"] == sum(person(message) not in allowed for message in messages)


def test_replies_reach_over_silence_and_guesses_do_not() -> None:
    """A reply link is believed across segments; the linker only within the gap."""
    morning = [said(0, "A"), said(1, "B")]
    evening = [said(2, "C", second=40000), said(3, "A", second=40010, to=1), said(4, "D", second=40020)]
    assert reply_links.parents([morning, evening], reply_links.Previous(), timedelta(hours=1)) == [None, 0, None, 1, 3]
    slow = [said(0, "A"), said(1, "B", second=5000), said(2, "C", second=5001)]
    assert reply_links.parents([slow], reply_links.Previous(), timedelta(minutes=30)) == [None, None, 1]


def test_a_reply_to_what_is_not_there_starts_anew() -> None:
    """It answers something, only not the message before."""
    assert reply_links.parents([[said(0, "A"), said(1, "B", to=99)]], reply_links.Previous(), timedelta(hours=1)) == [
        None,
        None,
    ]


def test_second_thoughts_follow_the_first() -> None:
    """Two answers of one person to one message are one answer in two lines."""
    talk = [said(0, "A"), said(1, "B", to=0), said(2, "B", to=0), said(3, "C", to=0)]
    assert reply_links.parents([talk], reply_links.Previous(), timedelta(hours=1)) == [None, 0, 1, 0]


class Counting:
    """Counts what it is shown and links nothing."""

    def __init__(self) -> None:
        self.shown = 0

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        self.shown += len(messages)
        return [None] * len(messages)


def test_the_linker_is_asked_only_in_crowds() -> None:
    """Two people need none; where a third comes in, it sees that place and what is around it."""
    pair = [said(n, "AB"[n % 2]) for n in range(200)]
    counting = Counting()
    assert reply_links.parents([pair], counting, timedelta(hours=1))[1:] == list(range(199))
    assert counting.shown == 0
    crowd = [*pair[:100], said(100, "C"), *(said(n, "AB"[n % 2]) for n in range(101, 200))]
    found = reply_links.parents([crowd], counting, timedelta(hours=1))
    assert 9 <= counting.shown <= 60
    assert found[100] is None
    assert found[50] == 49
