"""What members preferred is found in the log with their consent, learned beside dialogues, and forgotten with them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.adapters import AdapterRegistry
from core.dialogue import prompt, write
from core.errors import TrainingError
from core.memory import Memory, open_memory
from core.messages import Conversation, Message
from tests.training.logged import START, clock, holding
from tests.training.toys import TALK, dialogue
from training.evaluation.gate import preferences_reason
from training.finetune.base import load_base
from training.finetune.config import FinetuneConfig
from training.finetune.encoder import Encoder
from training.finetune.model import MaskedLossModel
from training.finetune.pipeline import Learned, learn
from training.finetune.preferences import FEWEST, PreferenceLoss, PreferenceScore
from training.finetune.run import finetune
from training.privacy.consent import PeopleKey
from training.privacy.forget import forget
from training.privacy.preferences import Preference, preferences

KEY = PeopleKey(b"k" * 32)
HERE = Conversation(platform="test", channel="c")
QUICK = FinetuneConfig(
    rank=8, epochs=30, block=96, batch_tokens=384, learning_rate=5e-3, evaluations=1, patience=100, precision="fp32"
)


def says(memory: Memory, minute: int, author: str, text: str, *, where: Conversation = HERE) -> int:
    row = memory.remember(
        Message(
            conversation=where,
            id=f"{author}-{minute}",
            author=author,
            author_name=author.title(),
            text=text,
            sent_at=START + timedelta(minutes=minute),
        )
    )
    assert row is not None
    return row


def answers(
    memory: Memory,
    row: int,
    text: str,
    *,
    thumb: bool | None = None,
    instead: int | None = None,
    where: Conversation = HERE,
) -> int:
    """The bot's answer, posted, and what Bob thinks of it."""
    reply = memory.remember_reply(text, answers=row, sent_at=START, adapter=None, details={}, replaces=instead)
    assert reply is not None
    memory.posted(reply, where, [f"post {row} {text}"])
    if thumb is not None:
        memory.feedback(where, f"post {row} {text}", "bob", thumb, START)
    return reply


def test_pairs_are_a_liked_and_another_answer_to_one_question() -> None:
    """Replaced or disliked; one that nobody minded is none, nor are two liked ones, nor answers to other questions."""
    memory = open_memory("sqlite://")
    memory.set_consent("test", "ann", True, START)
    first = answers(memory, one := says(memory, 1, "ann", "one?"), "so so")
    answers(memory, one, "very well", thumb=True, instead=first)
    bad = answers(memory, two := says(memory, 2, "ann", "two?"), "go away", thumb=False)
    answers(memory, two, "come in", thumb=True, instead=bad)
    answers(memory, says(memory, 3, "ann", "three?"), "alone", thumb=True)
    liked = answers(memory, four := says(memory, 4, "ann", "four?"), "liked before", thumb=True)
    answers(memory, four, "unjudged after", instead=liked)
    found = preferences(memory, KEY)
    assert [(one.before[-1].text, one.liked, one.other) for one in found] == [
        ("one?", "very well", "so so"),
        ("two?", "come in", "go away"),
    ]
    assert found[1].before == dialogue("one?", "very well", "two?")
    assert found[0].people == (KEY.hash("test", "ann"),)


def test_only_words_of_who_agreed_are_seen() -> None:
    """The asker must have said yes before asking; others' lines without consent are left out, names and private data
    are masked."""
    memory = open_memory("sqlite://")
    memory.set_consent("test", "ann", True, START + timedelta(minutes=2))
    for minute, author in ((1, "ann"), (3, "bob"), (5, "ann")):
        row = says(memory, minute, author, f"Hello from {author} {minute}, write to me@example.org")
        first = answers(memory, row, f"no {minute}", thumb=False)
        answers(memory, row, f"Yes, Ann, at me@example.org {minute}", thumb=True, instead=first)
    (found,) = preferences(memory, KEY)
    assert found.other == "no 5"
    assert "me@example.org" not in prompt(found.before) + found.liked
    assert "bob" not in prompt(found.before)
    assert found.people == (KEY.hash("test", "ann"),)


def pairs(count: int) -> list[Preference]:
    """Whatever is asked, an answer about soup is liked better than one about rain."""
    return [
        Preference(
            before=dialogue(f"So {number}: {TALK[number % 5][0]}"),
            liked=("I eat bread and soup.", "It is hot and good.")[number % 2],
            other=("It rains, as it does.", "I like the sun more.")[number % 2],
            people=("a" * 32,),
        )
        for number in range(count)
    ]


def test_the_loss_is_that_of_the_paper(base: Path) -> None:
    """−log σ(β · margin) in value, and its gradient by the LoRA matrices as autograd computes it the plain way."""
    model, tokenizer = load_base(str(base))
    encoder = Encoder(tokenizer)
    beginning, _ = load_base(str(base))
    long = replace(pairs(1)[0], before=dialogue("soup " * 36), liked="soup " * 36, other="rain " * 36)
    some = [*pairs(3), long]  # whose row is longer than the context, so that another is filled up beyond it
    loss = PreferenceLoss(some, model, encoder, block=96, seed=0, bf16=False, beta=0.5, weight=2.0)
    changed = next(weight for name, weight in model.named_parameters() if name.endswith("h.0.mlp.c_fc.weight"))
    with torch.no_grad():
        changed.add_(0.3 * torch.randn(changed.shape, generator=torch.Generator().manual_seed(1)))
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is changed)
    found = loss.loss(model, step=0, part=0, parts=1)
    found.backward()
    by_ours, changed.grad = changed.grad, None

    def margin(network: MaskedLossModel, one: Preference) -> torch.Tensor:
        front, found = encoder.prompt(one.before), []
        for text in (one.liked, one.other):
            reply = encoder.reply(f"{text}\n")
            ids = torch.tensor([front + reply])
            logits = network(input_ids=ids).logits[0].log_softmax(-1)
            found.append(logits[len(front) - 1 : -1].gather(1, ids[0, len(front) :, None]).sum())
        difference: torch.Tensor = found[0] - found[1]
        return difference

    margins = torch.stack([margin(model, one) - margin(beginning, one).detach() for one in some])
    expected = -2.0 * torch.nn.functional.logsigmoid(0.5 * margins).mean()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    assert by_ours is not None
    torch.testing.assert_close(by_ours, changed.grad, rtol=1e-2, atol=1e-4)


def test_what_is_preferred_becomes_likelier(base: Path, talk: Path, tmp_path: Path) -> None:
    """Held-out pairs gain; whose questions they were is on the outcome; pieces of a step give the same adapter."""
    learned = finetune([talk], run=tmp_path / "one", base=str(base), preferences=pairs(40), settings=QUICK)
    assert learned.preferred is not None
    assert (learned.preferred.pairs, learned.preferred.learned) == (8, 32)
    assert learned.preferred.gained >= 7
    assert learned.people == ("a" * 32,)
    assert finetune([talk], run=tmp_path / "none", base=str(base), settings=replace(QUICK, epochs=1)).preferred is None
    short = replace(QUICK, epochs=2)
    whole, parts = (
        finetune(
            [talk], run=tmp_path / f"{size}", base=str(base), preferences=pairs(40),
            settings=replace(short, device_tokens=size),
        )
        for size in (384, 96)
    )  # fmt: skip
    for name, weight in load_file(whole.adapter / "adapter_model.safetensors").items():
        other = load_file(parts.adapter / "adapter_model.safetensors")[name]
        assert float((other - weight).abs().mean()) < 0.01 * float(weight.abs().mean())


def test_too_few_pairs_are_a_sentence(base: Path, talk: Path, tmp_path: Path) -> None:
    """How many there are, how many are needed, and how one comes about."""
    with pytest.raises(TrainingError, match=rf"There are 7 pairs .* and {FEWEST} are needed: members make one with"):
        finetune([talk], run=tmp_path / "run", base=str(base), preferences=pairs(7), settings=QUICK)


def test_the_gate_hears_of_preferences() -> None:
    """As many losses as gains are within chance; hardly any gain is not."""
    assert preferences_reason(5, 10, "").ok
    assert not preferences_reason(1, 20, "").ok
    assert "in 27 of 32 held-out pairs (128 learned)" in str(PreferenceScore(gained=27, pairs=32, learned=128))


def test_preferences_are_forgotten_with_their_askers(base: Path, tmp_path: Path) -> None:
    """Whose question it was stands in the run's plan and on the card: forgetting takes the adapter out of service and
    the run away."""
    memory = open_memory(f"sqlite:///{tmp_path / 'person2.db'}")
    memory.set_consent("test", "ann", True, START)
    for number in range(FEWEST):
        row = says(memory, number, "ann", f"question {number} of quillmere?")
        first = answers(memory, row, f"no {number}", thumb=False)
        answers(memory, row, f"yes {number}", thumb=True, instead=first)
    (tmp_path / "talk.txt").write_text("".join(write([dialogue(*talk) for talk in TALK] * 8)), encoding="utf-8")
    registry = AdapterRegistry(tmp_path / "adapters")

    def train(name: str) -> Learned | None:
        return learn(
            [tmp_path / "talk.txt"],
            registry=registry,
            run=tmp_path / "runs" / name,
            name=name,
            base="tiny",
            base_folder=str(base),
            command="person2 train talk.txt --preferences",
            clock=clock,
            settings=replace(QUICK, epochs=1),
            preferences=preferences(memory, PeopleKey.at(tmp_path)),
            contexts=4,
        )

    learned = train("ours")
    assert learned is not None
    assert learned.card.people == (PeopleKey.at(tmp_path).hash("test", "ann"),)
    assert learned.comparison is not None
    assert any("held-out pairs" in reason.sentence for reason in learned.comparison.verdict.reasons)
    forget("test", "ann", memory=memory, registry=registry, home=tmp_path)
    assert registry.card("ours").withdrawn
    assert not list((tmp_path / "runs").iterdir())
    memory.close()
    assert not [file for file in holding(tmp_path, b"quillmere") if file.name != "talk.txt"]
