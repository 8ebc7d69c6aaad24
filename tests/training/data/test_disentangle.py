"""Who answers whom: hand-written channels, the paper's metrics on worked examples, and the development logs."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import TrainingError
from core.messages import Conversation, Message
from training.data import disentangle
from training.data.disentangle import Disentangler
from training.data.disentangle.columns import read as read_columns
from training.data.disentangle.export_links import LinkRecall, channels, previous, previous_by_another, search
from training.data.disentangle.irc import Log, parse, read, read_gold
from training.data.disentangle.measure import measure
from training.data.disentangle.metrics import best_pairing, conversations, evaluate
from training.data.disentangle.names import Address, NameIndex
from training.data.disentangle.threads import Guess, decode
from training.data.disentangle.words import BUCKETS, Bags, Buckets, overlaps

DATA = Path(os.environ.get("PERSON2_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
IRC = DATA / "channels" / "irc_ubuntu"
PYSCRIPT = DATA / "channels" / "pyscript_discord_json"
needs_irc = pytest.mark.skipif(not IRC.exists(), reason=f"the annotated IRC logs are not at {IRC}")

START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ROOM = Conversation(platform="irc", channel="#help")

TWO_TALKS = """
0 ada    does anyone know how to mount an ntfs disk at boot?
0 grace  hi all, my sound card gives no sound since the upgrade
1 linus  ada: put a line for it into /etc/fstab
1 alan   grace: which sound card is it?
2 ada    linus: what do I write as the type, ntfs or ntfs-3g?
2 grace  alan: an intel hda one
3 linus  ada: ntfs-3g
3 alan   grace: run alsamixer and see whether the channel is muted
4 ada    linus: that worked, thanks!
4 grace  alan: it was muted indeed, thank you
5 linus  ada: you're welcome
"""
ANSWERS = [None, None, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def channel(script: str) -> list[Message]:
    """`minute author text` a line."""
    messages: list[Message] = []
    for number, line in enumerate(script.strip().splitlines()):
        minute, author, text = line.split(maxsplit=2)
        messages.append(
            Message(
                conversation=ROOM,
                id=f"m{number}",
                author=author,
                author_name=author,
                text=text,
                sent_at=START + timedelta(minutes=int(minute)),
            )
        )
    return messages


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


def test_hidden_reply_links_are_looked_for() -> None:
    """What a rule finds again is counted, to the message and by way of one's own messages."""
    messages = [
        _answering(message, to) if to else message
        for message, to in zip(channel(TWO_TALKS)[:5], (None, None, "m0", "m1", "m1"), strict=True)
    ]
    assert search([messages], previous) == LinkRecall(links=3, exact=0, through_own=0)
    assert search([messages], lambda hidden: [None, None, 0, 1, 0]) == LinkRecall(links=3, exact=2, through_own=2)
    own = channel("0 a hello\n0 b hi a\n0 b how are you?")
    own[2] = _answering(own[2], "m0")
    assert search([own], previous) == LinkRecall(links=1, exact=0, through_own=1)
    assert search([own], previous_by_another) == LinkRecall(links=1, exact=1, through_own=1)


@pytest.mark.skipif(not PYSCRIPT.exists(), reason=f"the PyScript Discord is not at {PYSCRIPT}")
def test_hidden_reply_links_of_a_real_discord(disentangler: Disentangler) -> None:
    """In the help channel it finds more of them than the message before does."""
    talk = channels([PYSCRIPT / "PyScript_General-python-help_972020231293771786.json"])
    ours, rule = search(talk, disentangler.links), search(talk, previous)
    assert ours.links == rule.links > 250
    assert ours.exact > 1.1 * rule.exact


def test_reply_links_of_the_platform_stand(disentangler: Disentangler) -> None:
    """A message that says what it answers is believed, also against the words; one out of sight answers nobody here."""
    messages = channel(TWO_TALKS)
    messages[7] = _answering(messages[7], "m0")
    messages[8] = _answering(messages[8], "gone")
    links = disentangler.links(messages)
    assert links[7] == 0
    assert links[8] is None


def _answering(message: Message, reply_to: str) -> Message:
    return Message(
        conversation=message.conversation,
        id=message.id,
        author=message.author,
        author_name=message.author_name,
        text=message.text,
        sent_at=message.sent_at,
        reply_to=reply_to,
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_channels_of_hardly_any_messages(disentangler: Disentangler, count: int) -> None:
    """An empty channel and one with a single message are no special case."""
    messages = channel(TWO_TALKS)[:count]
    assert disentangler.links(messages) == [None] * count
    assert list(disentangler.stream(messages)) == [(message, None) for message in messages]


def test_streaming_gives_what_the_batch_gives(disentangler: Disentangler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many blocks, `stream` yields every message once, in order, with the antecedent that `links` gives."""
    monkeypatch.setattr(disentangle, "BLOCK", 150)
    monkeypatch.setattr(disentangle, "BEHIND", 120)
    messages = _repeated(40)
    links = disentangler.links(messages)
    assert len(links) == len(messages)
    assert sum(link is not None for link in links) > len(messages) / 2
    assert list(disentangler.stream(messages)) == [
        (message, None if link is None else messages[link]) for message, link in zip(messages, links, strict=True)
    ]


def test_streaming_holds_a_bounded_number_of_messages(
    disentangler: Disentangler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read but not yet given back never exceeds a block and what lies beyond it."""
    monkeypatch.setattr(disentangle, "BLOCK", 100)
    taken = 0

    def source() -> Iterator[Message]:
        nonlocal taken
        for message in _repeated(60):
            taken += 1
            yield message

    for given, _ in enumerate(disentangler.stream(source())):
        assert taken - given <= 100 + disentangle.BEYOND


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


def test_links_make_conversations() -> None:
    """Linked lines hang together, also through a line of the context, which itself is not counted."""
    links = {1000: {990}, 1001: {1001}, 1002: {990}, 1003: {1001, 1002}, 1004: {1004}}
    assert sorted(map(sorted, conversations({line: sorted(to) for line, to in links.items()}))) == [
        [1000, 1001, 1002, 1003],
        [1004],
    ]


def test_the_metrics_of_a_worked_example() -> None:
    """Gold {0 1 2}{3}, predicted {0 1}{2 3}: computed by hand."""
    gold = {"log": {0: [0], 1: [0], 2: [1], 3: [3]}}
    auto = {"log": {0: [0], 1: [0], 2: [2], 3: [2]}}
    figures = evaluate(gold, auto)
    assert (figures.precision, figures.recall, figures.link_f) == (50, 50, 50)
    assert figures.one_to_one == 75  # {0 1 2} with {0 1}, {3} with {2 3}: three of four lines
    assert figures.exact_f == 0  # {0 1 2} is not found, and a conversation of one line does not count
    given_auto = 0.5 * 0 + 0.5 * 1  # bits: {0 1} lies in one gold conversation, {2 3} half in each
    given_gold = 0.75 * -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert figures.scaled_vi == pytest.approx(100 - 100 * (given_auto + given_gold) / 2)


def test_links_to_two_lines_count_twice() -> None:
    """A message that answers two lines has two gold links; one prediction can find only one of them."""
    figures = evaluate({"log": {0: [0], 1: [1], 2: [0, 1]}}, {"log": {0: [0], 1: [1], 2: [0]}})
    assert (figures.precision, figures.recall) == (100, 75)


def test_gold_against_itself_is_perfect() -> None:
    """Every figure is 100."""
    links = {"log": {0: [0], 1: [0], 2: [2], 3: [2]}}
    figures = evaluate(links, links)
    assert {figures.link_f, figures.scaled_vi, figures.one_to_one, figures.exact_f} == {100}


@pytest.mark.parametrize(
    ("gain", "best"),
    [([[5]], 5), ([[1, 2], [3, 5]], 6), ([[9, 8], [8, 0]], 16), ([[0, 0, 4], [0, 3, 4]], 7), ([[1], [7], [3]], 7)],
)
def test_best_pairing(gain: list[list[int]], best: int) -> None:
    """The assignment that one-to-one overlap rests on; greedy choice would fail the third case."""
    assert best_pairing(np.array(gain)) == best


def test_a_bad_annotation_is_named() -> None:
    """File and line of the fault."""
    with pytest.raises(TrainingError, match=r"gold\.txt, line 2 is no link"):
        read_gold(["1 2 -", "1 b -"], source=Path("gold.txt"))


def test_a_scorer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and a file of something else end in one sentence."""
    with pytest.raises(TrainingError, match="cannot be read"):
        Disentangler.load(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a scorer")
    with pytest.raises(TrainingError, match="cannot be read"):
        Disentangler.load(damaged)


@needs_irc
def test_irc_logs_keep_their_line_numbers() -> None:
    """Every line is a message, so that the annotation's numbers fit."""
    log = next(iter(read(IRC / "dev")))
    lines = (IRC / "dev" / f"{log.name}.ascii.txt").read_text(encoding="utf-8").splitlines()
    assert len(log.messages) == len(lines)
    assert min(log.gold) == 1000
    assert max(log.gold) < len(lines)


@needs_irc
def test_the_development_logs(disentangler: Disentangler, tmp_path: Path) -> None:
    """On three of the ten logs the figures stay where they were when the scorer was made."""
    for log in _first(IRC / "dev", 3):
        for kind in ("ascii", "annotation"):
            (tmp_path / f"{log.name}.{kind}.txt").symlink_to((IRC / "dev" / f"{log.name}.{kind}.txt").resolve())
    figures, _ = measure(disentangler, tmp_path)
    assert figures.lines == 750
    assert figures.link_f > 71
    assert figures.scaled_vi > 90.5
    assert figures.one_to_one > 78
    assert figures.exact_f > 24  # the first three logs are hard ones: all ten together reach 44


def _first(folder: Path, count: int) -> Sequence[Log]:
    return [log for log, _ in zip(read(folder), range(count), strict=False)]


def test_a_reply_link_may_reach_further_than_the_scorer() -> None:
    """The platform says so, and it stands, however many messages lie between."""
    talk = channel("\n".join(f"{n} {('ada', 'grace', 'linus')[n % 3]} a few words about thing {n}" for n in range(250)))
    talk[240] = replace(talk[240], reply_to=talk[3].id)
    assert Disentangler.load().links(talk)[240] == 3
