"""What one person said again and again is found when it is learned by heart, named, and left out on request."""

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from core.adapters import AdapterRegistry
from core.dialogue import Dialogue, Speaker, Turn, words_of, write
from core.errors import DialogueError, TrainingError
from tests.training.logged import clock
from tests.training.toys import TALK, dialogue
from training.evaluation.copying import TrainingText
from training.evaluation.generation import reply_generator
from training.evaluation.memorization import LeftOut, memorized
from training.evaluation.passages import Owners, passages
from training.finetune.config import FinetuneConfig
from training.finetune.dataset import IGNORE, collate, encode_rows
from training.finetune.encoder import Encoder
from training.finetune.pipeline import MEMORIZED, Learned, learn

ANN, BEN, CAT = "a" * 32, "b" * 32, "c" * 32
CODE = "the door code is nine four seven two"
TALKS = [dialogue(*talk) for talk in TALK]


def answer(turns: Dialogue, at: int, text: str) -> Dialogue:
    """The dialogue with another line of Person2's."""
    return tuple(Turn(Speaker.PERSON2, text) if number == at else turn for number, turn in enumerate(turns))


def talk_with(line: str, times: int, *, of: int = 40) -> tuple[list[Dialogue], list[tuple[str, ...]]]:
    """Forty dialogues; in so many of them Ann answers with the line, and in the others Ben or Cat say what they do."""
    dialogues: list[Dialogue] = []
    owners: list[tuple[str, ...]] = []
    for number in range(of):
        turns = (Turn(Speaker.PERSON1, f"So {number}: {TALKS[number % 5][0].text}"), *TALKS[number % 5][1:])
        dialogues.append(answer(turns, 1, line) if number < times else turns)
        owners.append((ANN if number < times else (BEN, CAT)[number % 2], (CAT, BEN)[number % 2]))
    return dialogues, owners


def found(dialogues: list[Dialogue], owners: Owners) -> dict[str, tuple[str, int]]:
    """Passage → who said it, and in how many places."""
    return {
        " ".join(one.words): (one.person[:1], len(one.places))
        for one in passages(TrainingText(dialogues), dialogues, owners)
        if len(one.places) > 1
    }


def test_what_is_tried() -> None:
    """From five words and three times on, of one person alone, also inside longer turns; what others say too is not."""
    assert found(*talk_with(CODE, 3)) == {CODE: ("a", 3)}
    assert found(*talk_with(CODE, 2)) == {}
    assert found(*talk_with("nine four seven two five", 4)) == {"nine four seven two five": ("a", 4)}
    assert found(*talk_with("nine four seven two", 9)) == {}
    dialogues, owners = talk_with(CODE, 4)
    inside = [
        answer(turns, 1, f"{word} {CODE} {word}!") if number < 4 else turns
        for number, (turns, word) in enumerate(zip(dialogues, ["oh", "so", "ah", "er"] * 10, strict=True))
    ]
    assert found(inside, owners) == {CODE: ("a", 4)}
    shared = [*owners]
    shared[1] = (BEN, CAT)
    assert found(dialogues, shared) == {}


def test_where_nobody_is_told_apart() -> None:
    """A stock phrase is nobody's secret; a passage with a word that stands nowhere else is tried."""
    nobody: list[tuple[str, ...]] = [()] * 40
    assert found(talk_with(CODE, 4)[0], nobody)[CODE] == ("", 4)
    stock = "i like old films and the sun more"
    assert stock not in found(talk_with(stock, 4)[0], nobody)
    assert found(*talk_with(stock, 4)) == {stock: ("a", 4)}


def test_rare_turns_are_tried_too() -> None:
    """One said once, with words that stand nowhere else, comes before any other."""
    dialogues, owners = talk_with("call Zdenka about the Quillmere deed", 1)
    first = next(one for one in passages(TrainingText(dialogues), dialogues, owners) if len(one.places) == 1)
    assert (" ".join(first.words), first.person) == ("call zdenka about the quillmere deed", ANN)


def plainly(dialogues: list[Dialogue], owners: Owners) -> list[tuple[tuple[str, ...], str, Any]]:
    """What `passages` says, with all of it in dictionaries."""
    turns = []
    for index, (talk, (two, *others)) in enumerate(zip(dialogues, [who or ("",) for who in owners], strict=True)):
        for at, turn in enumerate(talk):
            if turn.speaker is Speaker.PERSON2 or len(others) == 1:
                who = two if turn.speaker is Speaker.PERSON2 else others[0]
                turns.append((words_of(turn.text), who, (index, at), turn.speaker is Speaker.PERSON2 and at > 0))
    count = Counter(word for words, *_ in turns for word in words)
    fives = defaultdict(list)
    for words, who, _, _ in turns:
        for at in range(len(words) - 4):
            fives[tuple(words[at : at + 5])].append(who)
    found = defaultdict(list)
    for words, who, place, asked in turns:
        often = [len(by := fives[tuple(words[at : at + 5])]) >= 3 and len({*by}) == 1 for at in range(len(words) - 4)]
        for often_here, run in groupby(range(len(often)), key=often.__getitem__):
            first, *_, last = [*run] * 2
            if often_here and asked:
                found[who, tuple(words[first : last + 5][:16])].append((*place, first))
    repeated = [
        (words, who, tuple(places))
        for (who, words), places in found.items()
        if who or any(count[word] <= len(places) for word in words)
    ]
    known = {place[:2] for _, _, places in repeated for place in places}
    rare = [
        (-sum(count[word] == 1 for word in words) / len(words), words, who, place)
        for words, who, place, asked in turns
        if asked and len(words) >= 5 and place not in known and 1 in {count[word] for word in words}
    ]
    rare.sort(key=lambda one: one[0])
    return [
        *sorted(repeated, key=lambda one: (-len(one[2]), one[0]))[:100],
        *((tuple(words[:16]), who, ((*place, 0),)) for _, words, who, place in rare[:100]),
    ]


@pytest.mark.parametrize("seed", range(2))
def test_what_is_tried_however_the_text_is_cut(seed: int) -> None:
    """Lines said again by one or by several, turns of one word and of forty: the same passages in the same order as
    dictionaries give, whether all of the text is looked at together or a few turns at a time."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(200 if seed % 2 else 4_000)]
    stock = {
        who: [" ".join(draw.choices(vocabulary, k=draw.randint(4, 30))) for _ in range(70)] for who in (ANN, BEN, CAT)
    }
    dialogues, owners = [], []
    for _ in range(500):
        who = draw.sample((ANN, BEN, CAT), 2)
        said = []
        for speaker in draw.choice([(1, 0), (1, 0), (0, 1)]) * draw.randint(1, 4):
            line = draw.choice(stock[who[speaker if draw.random() < 0.99 else 1 - speaker]] + [""] * 60)
            rest = " ".join(draw.choices(vocabulary, k=draw.choice((0, 1, 3, 12, 40))))
            said.append(Turn((Speaker.PERSON2, Speaker.PERSON1)[speaker], f"{line} {rest}".strip() or "Well."))
        dialogues.append(tuple(said))
        owners.append(draw.choice([(who[0], who[1])] * 150 + [(who[0],), (ANN, BEN, CAT), ()]))
    text = TrainingText(dialogues)
    expected = plainly(dialogues, owners)
    for part in (300, 5_000, 1 << 18):
        tried = passages(text, dialogues, owners, part=part)
        assert [(one.words, one.person, one.places) for one in tried] == expected
    assert sum(len(places) > 1 for _, _, places in expected) == 100


def test_left_out_turns_are_read_and_not_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    """Their tokens stay in the row, their labels go, whatever case and stops they are written in."""
    left_out = LeftOut([tuple(CODE.split())])
    assert left_out.holds("Well: The door-code is nine, four, seven, TWO!")
    assert not left_out.holds("the door code is nine four seven")
    turns = answer(TALKS[0], 1, CODE)

    def row(encoder: Encoder) -> tuple[list[int], int]:
        batch = collate([encode_rows([turns], encoder, block=96, seed=0)[0]])
        return batch["input_ids"][0].tolist(), int((batch["labels"] != IGNORE).sum())

    ids, targets = row(Encoder(tokenizer))
    without = row(Encoder(tokenizer, left_out=left_out.holds))
    assert without[0] == ids
    assert without[1] == targets - len(Encoder(tokenizer).text(f" {CODE}\n"))


def test_passages_in_a_file(tmp_path: Path) -> None:
    """Written and read again the same; a file that is none is a sentence."""
    left_out = LeftOut([("a", "b"), ("c",)])
    (tmp_path / "out.txt").write_text(left_out.to_text() + "\n")
    assert LeftOut.read(tmp_path / "out.txt").passages == left_out.passages
    with pytest.raises(DialogueError, match="cannot be read"):
        LeftOut.read(tmp_path / "missing.txt")


def train(folder: Path, base: Path, name: str, **more: Any) -> Learned:
    """A real training in which a tiny model learns by heart what it is told often enough."""
    learned = learn(
        [folder / "talk.txt"],
        registry=AdapterRegistry(folder / "adapters"),
        run=folder / "runs" / name,
        name=name,
        base="tiny",
        base_folder=str(base),
        command="person2 train talk.txt",
        clock=clock,
        settings=replace(
            FinetuneConfig(rank=8, epochs=20, block=96, batch_tokens=192, learning_rate=1e-2, precision="fp32"),
            patience=100,
        ),
        contexts=more.pop("contexts", 4),
        **more,
    )
    assert learned is not None
    return learned


def test_a_secret_fails_the_gate_and_is_dropped(base: Path, tmp_path: Path) -> None:
    """Ann's door code, said twelve times in forty dialogues: the gate does not pass it, the report names her pseudonym,
    and left out, by the list that the run wrote or by --drop-memorized, it no longer comes out."""
    dialogues, owners = talk_with(CODE, 12)
    (tmp_path / "talk.txt").write_text("".join(write(dialogues)), encoding="utf-8")
    people = sorted({person for pair in owners for person in pair})
    lines = [" ".join(str(people.index(person)) for person in pair) for pair in owners]
    (tmp_path / "talk.txt.manifest.json").write_text(
        json.dumps({"people": [{"hash": one, "messages": 1} for one in people], "dialogues": {"out": lines}})
    )
    learned = train(tmp_path, base, "first")
    assert learned.comparison is not None
    (by_heart,) = [one for one in learned.comparison.memorized if one.passage.person == ANN]
    assert " ".join(by_heart.passage.words) == CODE
    assert by_heart.out == by_heart.asked == 5
    assert not learned.comparison.verdict.passed
    assert "that only aaaaaa said" in str(learned.comparison.verdict)
    assert "--drop-memorized" in learned.card.notes
    assert learned.report is not None
    page = learned.report.read_text()
    assert "aaaaaa" in page
    assert CODE in page
    assert (tmp_path / "runs" / "first" / MEMORIZED).read_text().splitlines().count(CODE) == 1

    again = train(tmp_path, base, "again", left_out=LeftOut.read(tmp_path / "runs" / "first" / MEMORIZED))
    assert again.comparison is not None
    assert not [one for one in again.comparison.memorized if one.passage.person == ANN]

    dropped = train(tmp_path, base, "dropped", drop_memorized=True)
    assert dropped.comparison is not None
    assert not [one for one in dropped.comparison.memorized if one.passage.person == ANN]
    with reply_generator(str(base)) as generator:
        assert not memorized(generator, dropped.adapter, dialogues, [by_heart.passage])


def test_dropping_needs_the_evaluation(base: Path, talk: Path, tmp_path: Path) -> None:
    """Without it nothing is known of what comes out."""
    with pytest.raises(TrainingError, match="needs the evaluation"):
        train(talk.parent, base, "x", contexts=0, drop_memorized=True)
