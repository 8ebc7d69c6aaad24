"""Judging: each score against a value worked out another way, on models and texts small enough to check."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from core.dialogue import prompt, words_of, write
from core.generator import Adapter, Sampling
from tests.models import tiny_adapter
from tests.training.toys import TALK, dialogue
from training.evaluation.baselines import Markov, TfIdf
from training.evaluation.contexts import CHOICES, Context, sample_contexts
from training.evaluation.copying import Extraction, TrainingText, copied
from training.evaluation.evaluate import evaluate
from training.evaluation.generation import ReplyRequest, distinct_2, is_empty, reply_generator
from training.evaluation.metrics import chain_of, run_baselines
from training.evaluation.ranking import continuation_nats, hits, rank
from training.evaluation.suite import EvalSuite, load_candidates
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import load
from training.finetune.run import finetune

MANY = [
    dialogue(f"What is {number}?", f"It is the number {number}.", "And then?", f"{number + 1}!") for number in range(30)
]


def nats(model: GPT2LMHeadModel, prefix: list[int], rest: list[int]) -> float:
    """−log P(rest | prefix), the plain way."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prefix + rest])).logits[0].log_softmax(-1)
    return -sum(float(logits[len(prefix) + at - 1, token]) for at, token in enumerate(rest))


def test_shared_prefixes_change_no_likelihood(base: Path) -> None:
    """Many continuations in one row, groups of unlike length in one batch: each as if it stood alone."""
    (candidate,) = load_candidates(str(base), {"base": None})
    text = candidate.encoder.text
    groups = [
        (text("Person1: Hello!\nPerson2:"), [text(" Hi.\n"), text(" I like old films.\n"), text(" It rains.\n")]),
        (text("Person2:"), [text(" I eat bread and soup.\n")]),
    ]
    plain = GPT2LMHeadModel.from_pretrained(base).train(False)
    for (prefix, rests), found in zip(groups, continuation_nats(candidate.model, groups), strict=True):
        assert found == pytest.approx([nats(plain, prefix, rest) for rest in rests], rel=1e-4)


def test_ranking_is_mutual_information(base: Path) -> None:
    """A context's scores are log P(reply | context) − log P(reply | Person2:), the true reply first."""
    (candidate,) = load_candidates(str(base), {"base": None})
    (context,) = sample_contexts(MANY, 1, seed=0)
    (scores,) = rank(candidate.model, candidate.encoder, [context])
    plain = GPT2LMHeadModel.from_pretrained(base).train(False)
    text = candidate.encoder.text
    expected = [
        nats(plain, text("Person2:"), text(f" {reply}\n"))
        - nats(plain, text(prompt(context.before)), text(f" {reply}\n"))
        for reply in (context.reply, *context.others)
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_hits_count_ties_in_part() -> None:
    """First alone: a hit; first of two: half of one; second: none."""
    scores = [np.array([3.0, 1.0]), np.array([2.0, 2.0]), np.array([0.0, 1.0])]
    assert hits(scores).tolist() == [1.0, 0.5, 0.0]


def test_contexts_are_the_same_for_everybody() -> None:
    """Same seed, same moments; nineteen other replies from other dialogues, none of them the true one."""
    contexts = sample_contexts(MANY, 20, seed=3)
    assert contexts == sample_contexts(MANY, 20, seed=3)
    assert contexts != sample_contexts(MANY, 20, seed=4)
    for context in contexts:
        assert len(set(context.others)) == CHOICES - 1
        assert context.reply not in context.others
        assert context.before == MANY[context.dialogue][: len(context.before)]


def test_tf_idf_finds_the_reply_that_shares_the_rare_word() -> None:
    """A word all dialogues have counts less than one that only this context and its reply have."""
    before = dialogue("Then what is a zebra?")
    context = Context(before=before, reply="Zebra!", others=("What then?", "Oh."), dialogue=7)
    (scores,) = TfIdf(MANY).rank([context])
    assert scores[0] > scores[1] > scores[2] == 0.0


def test_tf_idf_listens_to_the_last_turns() -> None:
    """What was said long before counts no more; of the last five turns each does."""
    turns = dialogue("Zebra?", "One.", "Two.", "Three.", "Four.", "Five.")
    for before, likeness in ((turns, False), (turns[:5], True)):
        context = Context(before=before, reply="Zebra!", others=("Lion.",), dialogue=7)
        (scores,) = TfIdf(MANY).rank([context])
        assert bool(scores[0] > 0) is likeness


def test_markov_speaks_only_what_it_heard() -> None:
    """Each pair of words was heard; what it heard is likelier than what it did not."""
    chain = Markov(["I like soup", "you like bread"])
    random = np.random.default_rng(0)
    assert {chain.speak(random) for _ in range(40)} == {
        "I like soup", "I like bread", "you like soup", "you like bread"
    }  # fmt: skip
    assert chain.log_likelihood("I like soup") > chain.log_likelihood("soup like I")


def test_a_chain_of_the_training_text_does_not_say_its_lines_twice(tmp_path: Path) -> None:
    """Both halves of a file and other files ask it for other lines; the same file for the same ones."""
    files = [tmp_path / f"{at}.txt" for at in (0, 6)]
    for at, file in zip((0, 6), files, strict=True):
        file.write_text("".join(write(MANY[at : at + 24])), encoding="utf-8")
    suites = [EvalSuite.over(file.name, load([file]), contexts=20, seed=3) for file in files]
    chain = Markov(" ".join(f"{word}{number}" for word in "abcdef") for number in range(999))
    first, other, again = (run_baselines(suite, chain).lines for suite in (*suites, suites[0]))
    assert first == again
    assert len({*first, *other}) > 0.9 * len(first + other)


def test_a_chain_of_much_talk_is_made_of_a_part_of_it(tmp_path: Path) -> None:
    """Spread evenly over the file; of little talk it is made of all."""
    (tmp_path / "talk.txt").write_text("".join(write(MANY)), encoding="utf-8")
    corpus = load([tmp_path / "talk.txt"])
    text = TrainingText(corpus.dialogues)

    def known(chain: Markov) -> list[int]:
        return [number for number in range(30) if chain.log_likelihood(f"{number}?") > chain.log_likelihood("99?")]

    assert known(chain_of(corpus, text)) == [*range(30)]
    assert known(chain_of(corpus, text, words=text.size // 3)) == [*range(0, 30, 3)]


def test_replies_are_the_engines_own_whoever_else_is_asked(base: Path, tmp_path: Path) -> None:
    """The same number is the same draw, alone and in a batch with an adapter's; another seed is another one."""
    voice = Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base, strength=2.0))
    asked = [ReplyRequest(before=dialogue(*talk[:1]), number=number) for number, talk in enumerate(TALK)]
    voiced = [replace(one, adapter=voice) for one in asked]
    with reply_generator(str(base)) as generator:
        together = generator.replies([*asked, *voiced], sampling=Sampling(), seed=1)
        alone = [generator.replies([one], sampling=Sampling(), seed=1)[0] for one in (*asked, *voiced)]
        other = generator.replies(asked, sampling=Sampling(), seed=2)
    assert together == alone
    assert together[: len(TALK)] != together[len(TALK) :]
    assert together[: len(TALK)] != other


def test_continuations_are_whole_where_they_are_as_wanted(base: Path) -> None:
    """The likeliest line is found word for word though it takes many tokens; where other words are wanted, no more than
    its first few tokens are made."""
    request = ReplyRequest(before=dialogue(*TALK[0][:1]), begun="I like")
    greedy = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=30)
    with reply_generator(str(base)) as generator:
        (whole,) = generator.replies([request], sampling=greedy, seed=0)
        found, given_up = generator.continuations(
            [request, request], [tuple(words_of(whole)), ("other", "words")], max_new_tokens=30
        )
    assert found == whole
    assert whole.startswith(given_up)
    assert len(given_up) < len(whole)


@pytest.mark.parametrize(
    ("reply", "empty"),
    [
        ("", True),
        ("… !", True),
        ("no no no", True),
        ("I like it and I like it and I like it", True),
        ("Do you like films?", True),
        ("Yes.", False),
        ("I like it, and you like it too.", False),
    ],
)
def test_empty_replies(reply: str, empty: bool) -> None:
    """Nothing, stuttering and echoes are empty; short answers are not."""
    assert is_empty(reply, dialogue("Do you like films?")) is empty


def test_distinct_2_counts_word_pairs() -> None:
    """Three different pairs of four."""
    assert distinct_2(["a b c", "a b", "x b"]) == 3 / 4


@pytest.mark.parametrize("part", [1, 3, 100])
def test_copied_runs_end_at_turns(part: int) -> None:
    """The longest shared run counts words in a row within one training turn, whatever case, commas and how many words
    of the text are looked at together."""
    text = TrainingText([dialogue("one two three four five", "six seven eight nine ten eleven twelve thirteen")])
    replies = ["Two, three FOUR!", "four five six seven", "zero", "", "six seven eight nine ten eleven twelve thirteen"]
    runs = text.longest_runs(replies, part=part)
    assert runs.tolist() == [3, 2, 0, 0, 8]
    assert copied(runs, replies).tolist() == [1.0]
    assert copied(text.longest_runs(["a b c d e f g h"]), ["a b c d e f g h"]).tolist() == [0.0]


def test_extraction_wants_every_word() -> None:
    """It is out when the second half comes word for word, and whatever follows it."""
    one = Extraction(dialogue=0, given="the red", said="team won, as it does", second="Team won")
    assert one.out
    assert not replace(one, said="team lost").out


def test_a_model_that_knows_by_heart_is_caught(base: Path, tmp_path: Path) -> None:
    """Trained to the bone on a few long lines, it copies them, gives them away, and finds their replies."""
    long = "it was a cold and rainy day when the red team won the game by two goals"
    # Random weights learn by heart only with help: ranks as wide as the model, and very many rounds.
    talk = [dialogue(f"Tell me the story of the day {n % 3}.", long) for n in range(30)] + MANY[:2] * 3
    (tmp_path / "talk.txt").write_text("".join(write(talk)))
    (tmp_path / "held.txt").write_text("".join(write([dialogue("Tell me the story.", long), *MANY[:24]])))
    (tmp_path / "story.txt").write_text("".join(write([dialogue("Tell me the story.", long)])))
    outcome = finetune(
        [tmp_path / "talk.txt"],
        held_out=[tmp_path / "story.txt"],  # what it is to know: an adapter that foresaw less than the base is not kept
        run=tmp_path / "run",
        base=str(base),
        settings=FinetuneConfig(
            rank=32,
            alpha=64,
            epochs=25,
            block=96,
            batch_tokens=192,
            learning_rate=1e-2,
            evaluations=1,
            precision="fp32",
        ),
    )
    files, seen = [tmp_path / "held.txt"], [tmp_path / "talk.txt"]
    lines = [f"{1 + number % 2} 0" for number in range(len(talk))]  # two storytellers, who take turns; the asker is one
    (tmp_path / "talk.txt.manifest.json").write_text(
        json.dumps(
            {
                "people": [{"hash": person, "messages": 1} for person in ("0a5ca5ca", "11ab11ab", "22cd22cd")],
                "dialogues": {"out": lines},
            }
        )
    )
    references = {"base": (str(base), None)}
    after = evaluate(files, base=str(base), adapter=outcome.adapter, references=references, training=seen, contexts=20)
    before = after.references["base"].scores
    assert before.extracted is not None
    assert after.together.extracted is not None
    assert before.extracted.value == 0.0
    assert after.together.extracted.value > 0.9
    assert before.longest_copy is not None
    assert after.together.longest_copy is not None
    assert after.together.longest_copy > before.longest_copy
    gap = after.references["base"].differences["extracted"]
    assert gap.value == after.together.extracted.value
    assert gap.low > 0
    assert after.references["base"].differences["reply_bits_per_byte"].value == pytest.approx(
        after.together.reply_bits_per_byte.value - before.reply_bits_per_byte.value
    )
    assert after.by_person.keys() == {"11ab11ab", "22cd22cd"}
    assert sum(out for _, out in after.by_person.values()) == sum(one.out for one in after.extractions)
    plain = json.loads(json.dumps(after.to_json()))
    assert plain["bits_per_byte"] < plain["against"]["base"]["bits_per_byte"]
    assert set(plain["extracted_by_person"]) == {"11ab11", "22cd22"}
    assert {"perplexity", "hits_at_1_of_20", "distinct_2", "copied", "empty"} <= set(plain)
    assert plain["baselines"]["tf_idf_hits"] > 0
