"""Who answers whom in channels written by hand."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import TrainingError
from core.messages import Message
from models.disentangler.recipe.irc import parse
from tests.training.data.talks import ANSWERS, ROOM, TWO_TALKS, channel
from training.data import disentangle
from training.data.disentangle import Disentangler
from training.data.disentangle.columns import read as read_columns
from training.data.disentangle.names import Address, NameIndex
from training.data.disentangle.threads import Guess, decode
from training.data.disentangle.words import BUCKETS, Bags, Buckets, overlaps


@pytest.fixture(scope="module")
def disentangler() -> Disentangler:
    return Disentangler.load()


def test_two_interleaved_talks_come_apart(disentangler: Disentangler) -> None:
    """People who address each other by name are linked to the line they answer."""
    assert disentangler.links(channel(TWO_TALKS)) == ANSWERS


def test_an_answer_without_a_name_goes_to_the_one_who_asked(disentangler: Disentangler) -> None:
    """A bare answer follows the question; a line that goes on belongs to the line before it by the same person."""
    script = """
    0 ada    which editor do you use for python?
    0 grace  I use vim
    1 ada    does it have completion?
    1 grace  yes, with a plugin
    2 ada    thanks
    """
    assert disentangler.links(channel(script)) == [None, 0, 1, 2, 3]


def test_system_lines_start_and_end_nothing(disentangler: Disentangler) -> None:
    """Joins and renames answer nobody and are answered by nobody; the talk around them is as before."""
    lines = [
        f"[12:0{line[0]}] <{line.split()[1]}> {line.split(maxsplit=2)[2]}" for line in TWO_TALKS.strip().splitlines()
    ]
    noisy = [line for said in lines for line in (said, "=== visitor [~v@example.org]  has joined #help")]
    assert disentangler.links(parse(noisy, name="noisy")) == [
        answer for said in ANSWERS for answer in (None if said is None else 2 * said, None)
    ]


def test_a_rename_keeps_one_person(disentangler: Disentangler) -> None:
    """After “=== ada is now known as ada_afk” both nicks are one author."""
    messages = parse(["[10:00] <ada> hello", "=== ada is now known as ada_afk", "[10:01] <ada_afk> back"], name="log")
    columns = read_columns(messages, buckets=Buckets(), common=np.zeros(BUCKETS, bool))
    assert columns.author.tolist() == [0, 0]
    assert columns.line.tolist() == [0, 2]


def test_a_clock_set_back_does_not_stop_time(disentangler: Disentangler) -> None:
    """Where a log jumps back, time goes on from there; a long silence counts as a short one."""
    messages = parse(["[10:00] <a> x", "[10:01] <a> x", "[09:30] <a> x", "[09:31] <a> x", "[11:00] <a> x"], name="log")
    columns = read_columns(messages, buckets=Buckets(), common=np.zeros(BUCKETS, bool))
    assert columns.minute.tolist() == [0, 1, 1, 2, 3]


def test_a_likely_thread_outweighs_a_likely_start() -> None:
    """Two messages of one thread, each less likely than "answers nobody", together win when loyalty counts."""
    option = np.array([[-1, -1], [0, -1], [1, 0]], np.int32)
    chance = np.array([[1, 0, 0], [0.1, 0.9, 0], [0.4, 0.35, 0.25]], np.float32)
    assert decode(Guess(option, chance), 0, loyalty=0.0) == [0, 0, 2]
    assert decode(Guess(option, chance), 0, loyalty=2.0) == [0, 0, 1]


def test_reply_links_of_the_platform_stand(disentangler: Disentangler) -> None:
    """A message that says what it answers is believed, also against the words; one out of sight answers nobody here."""
    messages = channel(TWO_TALKS)
    messages[7] = replace(messages[7], reply_to="m0")
    messages[8] = replace(messages[8], reply_to="gone")
    links = disentangler.links(messages)
    assert links[7] == 0
    assert links[8] is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_channels_of_hardly_any_messages(disentangler: Disentangler, count: int) -> None:
    """An empty channel and one with a single message are no special case."""
    messages = channel(TWO_TALKS)[:count]
    assert disentangler.links(messages) == [None] * count


def test_a_long_channel_is_decided_block_by_block(disentangler: Disentangler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many blocks every message gets its link, as an index over the whole channel."""
    monkeypatch.setattr(disentangle, "BLOCK", 150)
    monkeypatch.setattr(disentangle, "BEHIND", 120)
    links = disentangler.links(_repeated(40))
    found = [
        [None if link is None else link - start for link in links[start : start + len(ANSWERS)]]
        for start in range(0, len(links), len(ANSWERS))
    ]
    assert len(found) == 40
    assert sum(one == ANSWERS for one in found) > 30


def _repeated(times: int) -> list[Message]:
    """The two talks over and over, by other people each time, ten minutes apart."""
    messages: list[Message] = []
    for round_number in range(times):
        for message in channel(TWO_TALKS):
            messages.append(  # noqa: PERF401 - a comprehension would hide the shape
                Message(
                    conversation=ROOM,
                    id=f"{round_number}.{message.id}",
                    author=f"{message.author}{round_number}",
                    author_name=f"{message.author}{round_number}",
                    text=message.text.replace(":", f"{round_number}:", 1),
                    sent_at=message.sent_at + timedelta(minutes=10 * round_number),
                )
            )
    return messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00",
        ":",
        "@",
        "!",
        "a" * 1_000_000,
        "word " * 100_000,
        "🙂" * 50,
        "ada:ada,ada ada",
        "\ud800",
        "@ada @ @",
    ],
)
def test_strange_texts_are_no_trouble(disentangler: Disentangler, text: str) -> None:
    """Empty, huge and odd messages get a link or none, and their neighbours keep theirs."""
    messages = channel(TWO_TALKS)
    odd = Message(conversation=ROOM, id="odd", author="x", author_name="x", text=text, sent_at=messages[-1].sent_at)
    links = disentangler.links([*messages, odd])
    assert links[: len(ANSWERS)] == ANSWERS
    assert links[-1] is None or 0 <= links[-1] < len(messages)


@pytest.mark.parametrize(
    ("text", "address", "people"),
    [
        ("ada: look at this", Address.NAMED, [0]),
        ("ada, look at this", Address.NAMED, [0]),
        ("ada : look at this", Address.NAMED, [0]),
        ("@grace hopper what do you think?", Address.NAMED, [1]),
        ("!sound | ada", Address.NAMED, [0]),
        ("ask |linus| or ada", Address.MENTION, [2, 0]),
        ("ask linus", Address.MENTION, [2]),
        ("lin: see above", Address.NAMED, [2]),
        ("bob: hello", Address.STRANGER, []),
        ("help me please", Address.NOBODY, []),
        ("help: what now", Address.NAMED, [3]),
        ("the adapter is broken", Address.NOBODY, []),
    ],
)
def test_names(text: str, address: Address, people: list[int]) -> None:
    """How people write each other's names, and that an everyday word is a name only in front of a colon."""
    names = NameIndex(
        [("ada", 0), ("Grace Hopper", 1), ("|linus|", 2), ("help", 3)], is_common={"help", "the"}.__contains__
    )
    assert names.targets(text, author=9) == (address, people)


def test_shared_words_count_by_weight() -> None:
    """Messages that share a telling word overlap at their distance; common words are left out."""
    telling = np.zeros(BUCKETS, np.float32)
    buckets = Buckets()
    telling[buckets["fstab"]], telling[buckets["the"]] = 5.0, 0.5
    bags = Bags.of([[buckets["fstab"], buckets["the"]], [buckets["the"]], [buckets["fstab"]]])
    shared, rarest = overlaps(bags, telling, reach=2)
    assert shared.tolist() == [[0, 0], [0, 0], [0, 5]]
    assert rarest.tolist() == [[0, 0], [0, 0], [0, 5]]


def test_a_scorer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and a file of something else end in one sentence."""
    with pytest.raises(TrainingError, match="cannot be read"):
        Disentangler.load(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a scorer")
    with pytest.raises(TrainingError, match="cannot be read"):
        Disentangler.load(damaged)


def test_a_reply_link_may_reach_further_than_the_scorer() -> None:
    """The platform says so, and it stands, however many messages lie between."""
    talk = channel("\n".join(f"{n} {('ada', 'grace', 'linus')[n % 3]} a few words about thing {n}" for n in range(250)))
    talk[240] = replace(talk[240], reply_to=talk[3].id)
    assert Disentangler.load().links(talk)[240] == 3
