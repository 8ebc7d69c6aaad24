"""The tool that makes the starter model, on corpora of a few lines and a network of a few thousand weights."""

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from core.dialogue import Speaker, Turn, prompt, render
from core.errors import TrainingError
from core.generator import END_OF_TEXT
from tests.training.fake_gpu import CUDA, pretended_cuda
from tests.training.toys import TALK, TEXTS, dialogue
from training.pretrain import (
    bpe,
    card,
    cli,
    contrast,
    corpora,
    devices,
    heldout,
    loop,
    rows,
)
from training.pretrain import network as net
from training.pretrain.schedule import Budget, Schedule, ScheduleKind


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.train(TEXTS * 3, vocabulary=400)


# Tokenizer


def test_a_prompt_is_the_beginning_of_what_was_trained(tokenizer: Tokenizer) -> None:
    """tokens(prompt) + tokens(reply) == tokens(whole), or the model would meet tokens it never saw."""
    for talk in TALK:
        turns = dialogue(*talk)
        for count in (1, 3):
            start, reply = prompt(turns[:count]), f" {turns[count].text}\n"
            assert start + reply == render(turns[: count + 1])
            assert tokenizer.encode(start).ids + tokenizer.encode(reply).ids == tokenizer.encode(start + reply).ids


@pytest.mark.parametrize("text", ["Hello 🙂 שלום", "tabs\tand  spaces", "¿Qué?", "\u200d", "Person2: Person1:"])
def test_every_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    """Byte-level: nothing is unknown."""
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_each_tag_is_one_token_even_when_control_tokens_are_read_as_words(tokenizer: Tokenizer) -> None:
    """A typed end of text falls apart into words; the tags stay what the model learned."""
    text = f"{Speaker.PERSON1}: {END_OF_TEXT}\n{Speaker.PERSON2}:"
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    tokens = copy.encode(text).tokens
    assert (tokens[0], tokens[-1]) == ("Person1:", "Person2:")
    assert END_OF_TEXT not in tokens
    assert copy.decode(copy.encode(text).ids) == text


def test_the_same_texts_give_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    """Otherwise nobody could make the model again."""
    assert bpe.train(TEXTS * 3, vocabulary=400).to_str() == tokenizer.to_str()


# Rows


def encoded(name: str, texts: list[str], tokenizer: Tokenizer) -> rows.EncodedCorpus:
    return rows.encode(name, texts, tokenizer)


def test_corpora_are_seen_in_proportion_to_their_weights(tokenizer: Tokenizer) -> None:
    """Weight 3 is three passes where weight 1 is one."""
    a = encoded("a", TEXTS[:2] * 20, tokenizer)
    b = encoded("b", TEXTS[2:] * 20, tokenizer)
    mixture = rows.Mixture({"a": (a, 3.0), "b": (b, 1.0)}, length=64, seed=0)
    mixture.batch(400)
    passes = mixture.passes()
    assert passes["a"] / passes["b"] == pytest.approx(3, rel=0.02)
    assert mixture.shares()["a"] == pytest.approx(3 * len(a.tokens) / (3 * len(a.tokens) + len(b.tokens)))


def test_rows_are_full_and_begin_where_a_dialogue_or_a_turn_begins(tokenizer: Tokenizer) -> None:
    """No padding; and position 0 always holds a tag, as in a prompt."""
    long = render([Turn(list(Speaker)[n % 2], f"This is turn {n} of a long talk.") for n in range(40)])
    corpus = encoded("a", [*TEXTS, long], tokenizer)
    batch = rows.Mixture({"a": (corpus, 1.0)}, length=48, seed=0).batch(200)
    tags = {tokenizer.token_to_id(tag) for tag in bpe.TAGS}
    assert batch.shape == (200, 49)
    assert set(batch[:, 0].tolist()) == tags
    read = "".join(tokenizer.decode(row, skip_special_tokens=False) for row in batch.tolist())
    assert all(f"turn {n} of a long talk" in read for n in range(40))


def test_two_dialogues_in_a_row_are_kept_apart_by_end_of_text(tokenizer: Tokenizer) -> None:
    """It is also what the model learns to stop with."""
    row = rows.Mixture({"a": (encoded("a", TEXTS, tokenizer), 1.0)}, length=120, seed=0).batch(1)[0]
    first, second, *_ = tokenizer.decode(row.tolist(), skip_special_tokens=False).split(END_OF_TEXT)
    assert first in TEXTS
    assert second.startswith("Person1:")


def test_a_mixture_goes_on_from_its_state(tokenizer: Tokenizer) -> None:
    """Also across the end of a pass, where a corpus is shuffled anew."""

    def fresh() -> rows.Mixture:
        a, b = encoded("a", TEXTS[:3], tokenizer), encoded("b", TEXTS[3:], tokenizer)
        return rows.Mixture({"a": (a, 1.0), "b": (b, 2.0)}, length=40, seed=7)

    one, other = fresh(), fresh()
    one.batch(50)
    other.restore(json.loads(json.dumps(one.state())))
    assert np.array_equal(one.batch(50), other.batch(50))


# Schedule


@pytest.mark.parametrize(
    ("shape", "progress", "factor"),
    [
        (ScheduleKind.TRAPEZOID, 0.0, 1.0),
        (ScheduleKind.TRAPEZOID, 0.5, 1.0),
        (ScheduleKind.TRAPEZOID, 0.8, 0.5),
        (ScheduleKind.TRAPEZOID, 1.0, 0.0),
        (ScheduleKind.COSINE, 0.0, 1.0),
        (ScheduleKind.COSINE, 0.5, 0.5),
        (ScheduleKind.COSINE, 1.0, 0.0),
    ],
)
def test_the_rate_over_a_run(shape: ScheduleKind, progress: float, factor: float) -> None:
    """A table, after the warm-up."""
    schedule = Schedule(shape=shape, warmup_steps=10, cool_fraction=0.4)
    assert schedule.factor(step=100, progress=progress) == pytest.approx(factor, abs=1e-9)
    assert schedule.factor(step=4, progress=0.0) == pytest.approx(0.5)


def test_a_shorter_budget_brings_the_cool_down_forward() -> None:
    """Progress is of the budget in force, so a resumed run may be told to end sooner."""
    schedule = Schedule(cool_fraction=0.3)
    assert not schedule.cooling(Budget(seconds=100).progress(step=0, seconds=60))
    assert schedule.cooling(Budget(seconds=80).progress(step=0, seconds=60))


NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [({"minutes": 2.0}, 120.0), ({"until": "12:30"}, 1_800.0 + 5), ({"until": "11:00"}, 23 * 3_600.0 + 5)],
)
def test_a_budget_of_time(said: dict[str, float | str], seconds: float) -> None:
    """Minutes are of the whole run; a time of day counts from now, earlier sessions (5 s) on top."""
    values = {"minutes": None, "until": None, "tokens": None, "steps": None, **said}
    assert cli.budget_of(**values, batch=100, spent=5.0, now=NOON) == Budget(seconds=seconds)  # type: ignore[arg-type]


def test_tokens_are_counted_in_whole_steps() -> None:
    """The last step may read a little more than was asked for."""
    budget = cli.budget_of(minutes=None, until=None, tokens=201, steps=None, batch=100, spent=0.0, now=NOON)
    assert budget == Budget(steps=3)


@pytest.mark.parametrize("said", [{}, {"minutes": 1.0, "steps": 3}, {"tokens": 1, "steps": 3}, {"until": "noon"}])
def test_a_budget_said_twice_or_not_at_all_is_refused(said: dict[str, float | str]) -> None:
    """One sentence names the options."""
    values = {"minutes": None, "until": None, "tokens": None, "steps": None, **said}
    with pytest.raises(TrainingError, match="--until"):
        cli.budget_of(**values, batch=100, spent=0.0, now=NOON)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cuda", "processor", "wanted", "chosen"),
    [
        (True, False, "auto", ("cuda", torch.bfloat16)),
        (True, False, "cpu", ("cpu", torch.float32)),
        (True, True, "cpu", ("cpu", torch.bfloat16)),
        (False, True, "auto", ("cpu", torch.bfloat16)),
        (False, False, "auto", ("cpu", torch.float32)),
    ],
)
def test_where_a_run_computes_and_in_which_precision(
    cuda: bool, processor: bool, wanted: str, chosen: tuple[str, torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's bfloat16 says nothing of the processor beside it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    device = devices.device_of(devices.Device(wanted))
    assert (device.type, devices.dtype_of(devices.Precision.AUTO, device)) == chosen
    if not cuda:
        with pytest.raises(TrainingError, match="no CUDA device"):
            devices.device_of(devices.Device.CUDA)


# Network and held-out figures

TINY = net.NetworkShape(width=64, layers=2, context=64, vocabulary=400)


def test_nats_are_the_cross_entropy_of_the_whole_model() -> None:
    """The chunked loss equals what transformers computes from the same tokens."""
    network = net.build(TINY, seed=0)
    tokens = torch.randint(0, 400, (3, 21), generator=torch.Generator().manual_seed(0))
    theirs = network(tokens, labels=tokens).loss * 3 * 20
    ours = net.nats(network, tokens[:, :-1], tokens[:, 1:], dtype=torch.float32)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_bits_per_byte_of_a_model_that_knows_nothing(tokenizer: Tokenizer) -> None:
    """A uniform model spends log2(vocabulary) bits on each token but the first, windows or not."""
    network = net.build(TINY, seed=0)
    torch.nn.init.zeros_(network.transformer.wte.weight)
    long = render([Turn(list(Speaker)[n % 2], f"This is turn {n}.") for n in range(40)])
    corpus = heldout.encode("x", [*TEXTS, long], tokenizer)
    counted = sum(len(tokens) - 1 for tokens in corpus.tokens)
    expected = counted * math.log2(400) / sum(len(text.encode()) for text in [*TEXTS, long])
    for context in (8, 64):
        found = heldout.bits_per_byte(network, corpus, context=context, dtype=torch.float32, device=torch.device("cpu"))
        assert found == pytest.approx(expected, rel=1e-5)


# Runs


def ticking() -> Iterator[float]:
    second = 0.0
    while True:
        second += 1.0
        yield second


def held_out(tokenizer: Tokenizer) -> tuple[heldout.HeldOutCorpus, ...]:
    return (heldout.encode("held", TEXTS, tokenizer),)


def trainer(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    muon: float = 0.01,
    task: contrast.ContrastiveTask | None = None,
    device: torch.device = torch.device("cpu"),
    dtype: torch.dtype = torch.float32,
) -> loop.Trainer:
    """A run of a tiny network over two mixtures, on a clock that ticks a second a look."""
    a, b = encoded("a", TEXTS[:3], tokenizer), encoded("b", TEXTS[3:], tokenizer)
    clock = ticking()
    return loop.Trainer(
        loop.Recipe(
            shape=net.NetworkShape(width=64, layers=2, context=64, vocabulary=400, dropout=0.1),
            rates=net.Rates(muon=muon, adam=0.003),
            schedule=Schedule(warmup_steps=3, cool_fraction=0.5),
            row=32,
            cool_row=64,
            batch=128,
            contrast=task,
        ),
        contrastive=_contrastive(tokenizer, task) if task else None,
        main=rows.Mixture({"a": (a, 1.0), "b": (b, 1.0)}, length=32, seed=1),
        cool=rows.Mixture({"b": (b, 1.0)}, length=64, seed=2),
        held_out=held_out(tokenizer),
        folder=folder,
        clock=lambda: next(clock),
        report=lambda line: None,
        device=device,
        dtype=dtype,
    )


def _contrastive(
    tokenizer: Tokenizer, task: contrast.ContrastiveTask, texts: list[str] = TEXTS
) -> contrast.ContrastiveData:
    tags = [found for tag in bpe.TAGS if (found := tokenizer.token_to_id(tag)) is not None]
    return contrast.ContrastiveData(
        {"a": (encoded("a", texts, tokenizer), 1.0)}, task, person2=tags[1], tags=tags, seed=3
    )


@pytest.mark.parametrize("muon", [0.01, 0.0])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(tmp_path: Path, tokenizer: Tokenizer, muon: float) -> None:
    """To the bit: weights, average, data position, random state (dropout is on), stops before and in the cool-down."""
    pace = loop.Pace(checkpoint=1e9, report=1e9)
    whole = trainer(tmp_path / "whole", tokenizer, muon=muon)
    whole.run(Budget(steps=12), pace)
    for stop in (4, 9):
        part = trainer(tmp_path / "parts", tokenizer, muon=muon)
        if stop > 4:
            part.resume()
        _stop_after(part, stop)
        part.save()
    last = trainer(tmp_path / "parts", tokenizer, muon=muon)
    last.resume()
    last.run(Budget(steps=12), pace)
    assert (last.step, last.tokens, last.cooled_from) == (12, 12 * 128, 6)
    for (name, one), (_, other) in zip(whole.network.named_parameters(), last.network.named_parameters(), strict=True):
        assert torch.equal(one, other), name
        assert torch.equal(whole.average.weights[name], last.average.weights[name]), name


def _stop_after(run: loop.Trainer, steps: int) -> None:
    """As a power cut would: in the middle of a run that was planned for twelve steps."""
    while run.step < steps:
        run.advance(Budget(steps=12).progress(step=run.step, seconds=0.0))


def test_a_checkpoint_of_another_recipe_is_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Going on with other rates would be another run."""
    trainer(tmp_path, tokenizer).save()
    with pytest.raises(TrainingError, match="rates"):
        trainer(tmp_path, tokenizer, muon=0.02).resume()


def test_a_contrastive_task_goes_on_where_it_stopped(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Every second step is one; to the bit the same whether or not the run was interrupted between two of them."""

    def run(folder: str) -> loop.Trainer:
        return trainer(tmp_path / folder, tokenizer, task=contrast.ContrastiveTask(candidates=3, window=40))

    whole, last = _whole_and_resumed(run)
    assert len(whole.found) == 4
    assert whole.found[-2:] == last.found
    assert _same(whole, last)


def _whole_and_resumed(run: Callable[[str], loop.Trainer]) -> tuple[loop.Trainer, loop.Trainer]:
    """Eight steps, and eight with a stop after five."""
    whole = run("whole")
    _stop_after(whole, 8)
    part = run("parts")
    _stop_after(part, 5)
    part.save()
    last = run("parts")
    last.resume()
    _stop_after(last, 8)
    return whole, last


def _same(one: loop.Trainer, other: loop.Trainer) -> bool:
    both = zip(one.network.named_parameters(), other.network.named_parameters(), strict=True)
    return all(torch.equal(first, second) for (_, first), (_, second) in both)


def test_on_a_gpu_nothing_meets_what_lies_elsewhere(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, both tasks, averages, measurements, a checkpoint on a pretended GPU: all as on the processor."""
    task = contrast.ContrastiveTask(candidates=3, window=40)
    with pretended_cuda(monkeypatch) as lies_there:
        with pytest.raises(RuntimeError, match="of cuda:0 and of cpu"):
            torch.zeros(2, device=CUDA) + torch.zeros(2)
        whole, last = _whole_and_resumed(lambda name: trainer(tmp_path / name, tokenizer, task=task, device=CUDA))
        assert _same(whole, last)
        assert all(lies_there(weight) for weight in [*last.network.parameters(), *last.average.weights.values()])
        scores = [last.measure(held_out(tokenizer), averaged=averaged) for averaged in (False, True)]
        assert torch.are_deterministic_algorithms_enabled()
    saved = torch.load(tmp_path / "parts" / loop.CHECKPOINT, weights_only=True)
    assert {"random", "own_random"} <= {name for name, value in saved.items() if isinstance(value, torch.Tensor)}
    here = trainer(tmp_path / "here", tokenizer, task=task)
    here.network.set_attn_implementation("eager")  # as there; the fused one sums in another order
    _stop_after(here, 8)
    assert _same(here, last)
    assert scores == [here.measure(held_out(tokenizer), averaged=averaged) for averaged in (False, True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_a_resumed_run_ends_where_an_uninterrupted_one_ends(
    tmp_path: Path, tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    """To the bit there too, with dropout and contrastive tasks."""
    task, cuda = contrast.ContrastiveTask(candidates=3, window=40), torch.device("cuda")
    whole, last = _whole_and_resumed(
        lambda name: trainer(tmp_path / name, tokenizer, task=task, device=cuda, dtype=dtype)
    )
    assert _same(whole, last)


def test_training_learns(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Five dialogues read over and over are soon foreseen; the average of the weights foresees them too."""
    run = trainer(tmp_path, tokenizer)
    corpus = heldout.encode("seen", TEXTS, tokenizer)
    before = run.measure([corpus])["seen"]
    run.run(Budget(steps=60), loop.Pace(checkpoint=1e9, report=1e9))
    after, averaged = run.measure([corpus])["seen"], run.measure([corpus], averaged=True)["seen"]
    assert after < 0.5 * before
    assert averaged < 0.8 * before


def test_the_command_makes_a_folder_that_transformers_loads(
    tmp_path: Path, talk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From two files to a model that answers, with a card that names what it read and how it was made."""
    prose = tmp_path / "book.txt"
    prose.write_text("It was a dark and stormy night.\n\nThe rain fell.\n" * 30, encoding="utf-8")
    about = tmp_path / "about.toml"
    about.write_text(
        'title = "Toy"\nsummary = "For tests."\nnotes = "It knows little."\n'
        '[licences]\ntalk = "MIT"\n[decoding]\ntop_p = 0.9\n'
    )
    out = tmp_path / "out"
    options = ["--train", f"{talk}=2", "--prose", f"{prose}=0.5", "--cool", f"{talk}=1", "--hold-out", str(talk)]
    options += ["--run", str(tmp_path / "run"), "--about", str(about), "--vocabulary", "400", "--width", "64"]
    options += ["--layers", "1", "--context", "64", "--row", "32", "--cool-row", "64", "--batch", "128"]
    options += ["--precision", "float32", "--warmup", "2"]

    def command(*more: str) -> None:
        monkeypatch.setattr("sys.argv", ["pretrain", str(out), *options, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0, capsys.readouterr().err

    command("--steps", "6")
    command("--steps", "8", "--resume")
    summary = json.loads((out / card.CARD).read_text())
    (made,) = json.loads((out / card.RUNS).read_text())
    assert (made["steps"], made["tokens"], made["cooled_from"]) == (8, 8 * 128, 5)
    assert [line.split()[-2:] for line in made["commands"]] == [["--steps", "6"], ["8", "--resume"]]
    assert [(i["name"], i["weight"], i["cool_weight"], i["licence"], i["held_out"]) for i in made["ingredients"]] == [
        ("talk", 2.0, 1.0, "MIT", 4),
        ("book", 0.5, 0.0, "not stated", 0),
    ]
    assert made["ingredients"][0]["sha256"] == corpora.load(corpora.CorpusSource(path=talk, weight=1)).sha256
    readme = (out / "README.md").read_text()
    assert readme.startswith("---\nlanguage: en\n")
    assert readme.index("# Toy") < readme.index("For tests.") < readme.index("## Held out")
    assert "It knows little." in readme

    tokenizer = AutoTokenizer.from_pretrained(out)
    same = GPT2Tokenizer.from_pretrained(out)
    text = render(dialogue(*TALK[0]))
    assert tokenizer(text).input_ids == same(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token == END_OF_TEXT
    model = GPT2LMHeadModel.from_pretrained(out, dtype=torch.float32)
    assert model.dtype == torch.float32
    assert model.config.activation_function == "gelu_new"
    assert model.generation_config.top_p == 0.9
    corpus = heldout.encode(
        "x", corpora.load(corpora.CorpusSource(path=talk, weight=1, hold_out=True)).held_out, bpe.load(out)
    )
    score = heldout.bits_per_byte(model, corpus, context=64, dtype=torch.float32, device=torch.device("cpu"))
    assert score == pytest.approx(summary["bits_per_byte"]["talk, every 10th"], abs=2e-3)

    before = (out / "model.safetensors").read_bytes()
    command("--export-only")
    assert (out / "model.safetensors").read_bytes() == before
    command("--export-only", "--use-average")
    assert (out / "model.safetensors").read_bytes() != before


def test_a_run_goes_on_from_a_finished_model_and_its_card_tells_of_both(
    tmp_path: Path, talk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run begins with the first one’s weights and tokenizer, in as many layers or more, or is refused."""
    small = ["--train", str(talk), "--context", "64", "--row", "32", "--cool-row", "64", "--batch", "128"]
    small += ["--vocabulary", "400", "--precision", "float32", "--warmup", "2"]

    def command(name: str, *more: str) -> int:
        options = [str(tmp_path / name), *small, "--run", str(tmp_path / f"run-{name}"), *more]
        monkeypatch.setattr("sys.argv", ["pretrain", *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    shape = ["--width", "64", "--layers", "1"]
    assert command("first", *shape, "--steps", "5") == 0
    assert command("first", *shape, "--steps", "5", "--run", str(tmp_path / "another-run")) == 1
    assert "give another OUT" in capsys.readouterr().err.splitlines()[-1]
    # A rate of nothing: what comes out is what went in.
    still = ["--muon-rate", "0", "--adam-rate", "0", "--contrast", str(talk)]
    assert command("second", *shape, *still, "--steps", "2", "--start", str(tmp_path / "first")) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one, two = json.loads((tmp_path / "second" / card.RUNS).read_text())
    assert (one["steps"], two["steps"], two["recipe"]["contrast"]["every"]) == (5, 2, 2)
    readme = (tmp_path / "second" / "README.md").read_text()
    assert "trained from scratch in 2 runs" in readme
    assert readme.index("--steps 5") < readme.index("--steps 2")
    assert "Of 2 steps one told true replies from others" in readme

    learned = ["--start", str(tmp_path / "first"), *shape, "--steps", "3"]
    assert command("ahead", *learned) == 0
    again = ["--run", str(tmp_path / "run-ahead"), "--export-only", "--start-share", "0.25"]
    assert command("between", *learned, *again) == 0
    ahead, between = (load_file(tmp_path / name / "model.safetensors") for name in ("ahead", "between"))
    for name, weight in between.items():
        assert torch.allclose(weight.float(), 0.75 * ahead[name].float() + 0.25 * first[name].float(), atol=2e-3)
    assert not torch.equal(ahead["transformer.wte.weight"], between["transformer.wte.weight"])
    assert "moved 25% of the way back" in (tmp_path / "between" / "README.md").read_text()

    # More layers: the new ones pass on what they read, until they have learned something.
    for name, rates in {"deep": still, "deeper": []}.items():
        grown = ["--width", "64", "--layers", "3", "--steps", "2", "--start", str(tmp_path / "first"), *rates]
        assert command(name, *grown) == 0
    shallow, deep, deeper = (
        GPT2LMHeadModel.from_pretrained(tmp_path / name, dtype=torch.float32) for name in ("first", "deep", "deeper")
    )
    read = torch.arange(30)[None] * 7
    assert deep.config.n_layer == 3
    assert torch.equal(deep(read).logits, shallow(read).logits)
    assert not torch.equal(deeper(read).logits, shallow(read).logits)
    learned_by = deeper.state_dict()["transformer.h.2.mlp.c_proj.weight"]  # h.1 and h.2 are copies of h.0
    assert learned_by.abs().max() > 0

    wide = ["--width", "128", "--layers", "1", "--steps", "2", "--start", str(tmp_path / "first")]
    assert command("third", *wide) == 1
    assert "another shape" in capsys.readouterr().err.splitlines()[-1]
    fewer = ["--width", "64", "--layers", "1", "--steps", "2", "--start", str(tmp_path / "deep")]
    assert command("fourth", *fewer) == 1
    assert "another shape" in capsys.readouterr().err.splitlines()[-1]


def test_a_contrastive_task_fits_the_context(tokenizer: Tokenizer) -> None:
    """The dialogue is cut so that a reply behind it has its positions; one with no whole answer in it is refused."""
    assert contrast.ContrastiveTask().fitted(512) == contrast.ContrastiveTask()
    long = [render(dialogue(*(f"Good {n}." for n in range(40))))] * 9
    batch = _contrastive(tokenizer, contrast.ContrastiveTask().fitted(80), long).batch(0, 400)
    assert 32 < int(batch.positions.max()) < 80
    with pytest.raises(TrainingError, match="fewer than two dialogues of a fit 3 tokens"):
        _contrastive(tokenizer, contrast.ContrastiveTask(window=3), long).batch(0, 400)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--train", "nowhere.txt", "--steps", "1"], "cannot be read"),
        (["--steps", "1"], "name at least one dialogue file"),
        (["--train", "{talk}", "--held-out", "{talk}", "--steps", "1"], "both trained on and held out"),
        (["--train", "{talk}", "--train", "{talk}=2", "--steps", "1"], "named twice"),
        (["--train", "{talk}", "--cool", "other.txt=1", "--steps", "1"], "--train does not name"),
        (["--train", "{talk}", "--contrast", "other.txt=1", "--steps", "1"], "--train does not name"),
        (
            [
                "--train",
                "{talk}",
                "--contrast",
                "{talk}=1",
                "--context",
                "40",
                "--row",
                "8",
                "--cool-row",
                "8",
                "--steps",
                "1",
            ],
            "raise --context to 64",
        ),
        (["--train", "{talk}", "--start", "nowhere", "--steps", "1"], "names a folder that this tool wrote"),
        (["--train", "{talk}", "--vocabulary", "100", "--steps", "1"], "cannot hold every byte"),
        (["--train", "{talk}", "--resume", "--steps", "1"], "no checkpoint"),
        (["--train", "{talk}", "--width", "100", "--steps", "1"], "not a multiple of 64"),
        (["--train", "{talk}", "--start-share", "0.5", "--steps", "1"], "name that folder too"),
        (["--train", "{talk}"], "exactly one of"),
    ],
)
def test_wrong_use_is_answered_with_one_sentence(
    options: list[str],
    said: str,
    tmp_path: Path,
    talk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback, exit status 1."""
    filled = [option.format(talk=talk) for option in options]
    small = ["--run", str(tmp_path / "run"), "--vocabulary", "400", "--width", "64", "--layers", "1"]
    monkeypatch.setattr("sys.argv", ["pretrain", str(tmp_path / "out"), *small, *filled])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_the_loss_in_one_pass_has_the_gradient_of_cross_entropy(dtype: torch.dtype, near: float) -> None:
    """Beside transformers' own logits and torch's loss, more than a chunk long, with targets that do not count."""
    network = net.build(net.NetworkShape(width=64, layers=2, context=64, vocabulary=600), seed=0)
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 600, (12, 61), generator=random)
    inputs, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[:, :7] = net.IGNORED
    wanted = torch.nn.functional.cross_entropy(
        network(inputs).logits.flatten(0, 1), targets.flatten(), ignore_index=net.IGNORED, reduction="sum"
    )
    gradients = torch.autograd.grad(wanted / 100, list(network.parameters()))
    found = net.nats(network, inputs, targets, dtype=dtype)
    value = float(found.detach())
    assert value == pytest.approx(float(wanted.detach()), rel=near / 10)
    for right, ours in zip(gradients, torch.autograd.grad(found / 100, list(network.parameters())), strict=True):
        assert float((right - ours).norm() / right.norm()) < near
    with torch.no_grad():
        assert float(net.nats(network, inputs, targets, dtype=dtype)) == pytest.approx(value, rel=near / 10)
