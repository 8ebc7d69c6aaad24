"""What the port promises (`core.generator`), of every generator: the engine in its three ways of computing,
transformers, and an OpenAI-compatible server on loopback. What one of them alone does is tested in its own file."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from core.errors import GeneratorError, ModelError, Overloaded, Unavailable
from core.generator import Adapter, Completion, Generator, Sampling
from core.generator.persona import with_persona
from tests.generators import (
    CONTEXT,
    DRAWN,
    EXACT,
    GREEDY,
    KINDS,
    LOADS,
    LOCAL,
    PROMPTS,
    Running,
    reference,
    running,
)
from tests.models import tiny_model, tiny_tokenizer


async def test_it_is_a_generator(made: Running) -> None:
    """The port is implemented, and says what it runs."""
    port: Generator = made.generator
    status = port.status()
    assert port.context_length == CONTEXT
    assert status.model
    assert status.device
    assert (status.queued, status.running, status.completed, status.tokens, status.adapters) == (0, 0, 0, 0, ())


async def test_a_reply_says_how_it_came_about(made: Running, voices: dict[str, Adapter]) -> None:
    """Tokens, time, seed and adapter of each reply, and the sums of all."""
    await made.generator.load(voices["plain"])
    bare = await made.generator.generate("hi", sampling=DRAWN)
    tuned = await made.generator.generate("hi", sampling=DRAWN, adapter=voices["plain"])
    assert bare.text != tuned.text
    assert [one.adapter for one in (bare, tuned)] == [None, "plain"]
    for one in (bare, tuned):
        assert (one.prompt_tokens, one.seed) == (len(tiny_tokenizer()("hi")["input_ids"]), DRAWN.seed)
        assert 0 < one.new_tokens <= DRAWN.max_new_tokens
        assert one.seconds > 0
    status = made.generator.status()
    assert (status.completed, status.tokens) == (2, bare.new_tokens + tuned.new_tokens)
    assert status.adapters == ("plain",)


@pytest.mark.parametrize("kind", EXACT)
async def test_greedy_replies_are_those_of_transformers(kind: str, base: Path, voices: dict[str, Adapter]) -> None:
    """Base and five kinds of adapter, mixed in one batch, against transformers and peft alone."""
    jobs = [(prompt, adapter) for prompt in PROMPTS[:4] for adapter in (None, *voices.values())]
    async with running(kind, base) as made:
        done = await asyncio.gather(*(made.generator.generate(p, sampling=GREEDY, adapter=a) for p, a in jobs))
    assert [one.text for one in done] == [reference(base, a, p, GREEDY.max_new_tokens) for p, a in jobs]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sampling",
    [GREEDY, DRAWN, replace(DRAWN, top_k=0, top_p=1, repetition_penalty=1.3)],
    ids=["greedy", "top-k", "everything"],
)
async def test_a_reply_does_not_depend_on_the_company(
    kind: str, base: Path, voices: dict[str, Adapter], sampling: Sampling
) -> None:
    """Alone, or in batches of 3 and of 16 that others join and leave at odd moments: the same text."""
    jobs = [(p, a, 3 + 4 * i) for p in PROMPTS for i, a in enumerate((None, *voices.values()))]

    async def ask(made: Generator, prompt: str, adapter: Adapter | None, tokens: int) -> str:
        settings = replace(sampling, max_new_tokens=tokens, seed=tokens)
        return (await made.generate(prompt, sampling=settings, adapter=adapter)).text

    texts: list[list[str]] = []
    for batch in (1, 3, 16):
        async with running(kind, base, max_batch=batch) as made:
            for adapter in voices.values():
                await made.generator.load(adapter)
            texts.append(await asyncio.gather(*(ask(made.generator, *job) for job in jobs)))
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > len(jobs) // 2


@pytest.mark.parametrize("kind", KINDS)
async def test_seeds_make_the_text(kind: str, base: Path) -> None:
    """The same seed says the same, another seed something else, and none draws a fresh one that is reported."""
    async with running(kind, base, fresh_seed=iter((11, 12)).__next__) as made:
        unseeded = replace(DRAWN, seed=None)
        first, second = [await made.generator.generate("hi", sampling=unseeded) for _ in range(2)]
        again = await made.generator.generate("hi", sampling=replace(DRAWN, seed=11))
    assert (first.seed, second.seed) == (11, 12)
    assert first.text == again.text != second.text


async def test_candidates(made: Running) -> None:
    """At most as many as asked for; the first is what one alone would be; several are scored, one is not."""
    one = await made.generator.generate("hi", sampling=DRAWN)
    several = await made.generator.generate("hi", sampling=replace(DRAWN, best_of=4))
    assert [candidate.information for candidate in one.candidates] == [None]
    assert 1 <= len(several.candidates) <= 4
    assert several.candidates[0].text == several.text == one.text
    assert all((each.information is None) == (len(several.candidates) == 1) for each in several.candidates)


@pytest.mark.parametrize("local", LOCAL, indirect=True)
async def test_as_many_candidates_as_asked_for(local: Generator) -> None:
    """Where the model is here, each is drawn and scored."""
    several = await local.generate("hi", sampling=replace(DRAWN, best_of=4))
    assert len({candidate.text for candidate in several.candidates}) == 4
    assert all(isinstance(candidate.information, float) for candidate in several.candidates)


async def test_stopping(made: Running) -> None:
    """A reply ends before the stop text wherever that stands in it, or by its length."""
    free = await made.generator.generate("hi", sampling=GREEDY)
    assert (free.finish, free.new_tokens) == ("length", 12)
    for stop in (free.text[3], free.text[4:6], free.text[-1]):
        cut = await made.generator.generate("hi", sampling=replace(GREEDY, stop=stop))
        assert (cut.text, cut.finish) == (free.text[: free.text.index(stop)].rstrip("\ufffd"), "stop")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_text_token_stops(kind: str, base: Path, tmp_path: Path) -> None:
    """A model that wants to end, ends: no words, and not the token's name."""
    model = GPT2LMHeadModel.from_pretrained(base)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[0] * 50)  # the head is tied: token 0 wins
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    async with running(kind, tmp_path) as made:
        done = await made.generator.generate("hi", sampling=GREEDY)
    assert (done.text, done.finish, done.new_tokens) == ("", "stop", 1)


async def test_control_tokens_in_a_prompt_are_plain_text(made: Running) -> None:
    """Typing <|endoftext|> costs what thirteen characters cost, and a conversation goes on behind it."""
    assert made.generator.count_tokens("<|endoftext|>") > 4
    done = await made.generator.generate("<|endoftext|>", sampling=GREEDY)
    assert done.prompt_tokens > 4


async def test_counting_tokens(made: Running) -> None:
    """Nothing is none, and more text is never fewer."""
    counts = [made.generator.count_tokens("hello there, how are you?"[:length]) for length in (0, 1, 5, 11, 25)]
    assert counts[:2] == [0, 1]
    assert counts == sorted(counts)
    assert counts[-1] <= 25


async def test_a_persona_stands_before_the_conversation(made: Running) -> None:
    """Of a base without a chat template: as turns, and what it says is heard."""
    prompt, persona = "Person1: hi\nPerson2:", "I am Nemo."
    told = await made.generator.generate(prompt, sampling=GREEDY, persona=persona)
    framed = with_persona(prompt, persona, budget=CONTEXT - GREEDY.max_new_tokens, count=made.generator.count_tokens)
    assert "I am Nemo." in framed
    assert told.text == (await made.generator.generate(framed, sampling=GREEDY)).text
    assert told.text != (await made.generator.generate(prompt, sampling=GREEDY)).text


async def test_a_prompt_over_the_context_loses_its_oldest_part(made: Running) -> None:
    """What was said long ago makes no difference, and the reply has its room."""
    newest = "".join(f"Person{1 + n % 2}: {'word ' * n}\n" for n in range(12)) + "Person2:"
    older, oldest = [await made.generator.generate(front * 400 + newest, sampling=GREEDY) for front in ("a\n", "b\n")]
    assert older.text == oldest.text
    assert older.prompt_tokens + older.new_tokens <= CONTEXT
    assert older.new_tokens == 12


async def test_every_prompt_length_up_to_the_context_and_beyond(local: Generator) -> None:
    """Nothing breaks at the last position; the oldest tokens go, the newest stay, and the reply has its room."""
    spelt = [f"{i % 10}" for i in range(CONTEXT + 20)]  # a token each
    lengths = (1, CONTEXT - 13, CONTEXT - 12, CONTEXT - 11, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + 20)
    done = await asyncio.gather(*(local.generate("".join(spelt[:n]), sampling=GREEDY) for n in lengths))
    assert [one.prompt_tokens for one in done] == [min(n, CONTEXT - 12) for n in lengths]
    tail = await local.generate("".join(spelt[-(CONTEXT - 12) :]), sampling=GREEDY)
    assert done[-1].text == tail.text
    whole = await local.generate("hello", sampling=replace(GREEDY, max_new_tokens=10_000))
    assert whole.prompt_tokens == 1
    assert whole.finish == "stop" or whole.new_tokens == CONTEXT - 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_queue_refuses_kindly_and_at_once(kind: str, base: Path) -> None:
    """Three are taken on, the fourth hears that it should come back; those ahead are answered."""
    async with running(kind, base, max_batch=1, queue_limit=2) as made:
        made.gate.shut()
        first = asyncio.create_task(made.generator.generate("0", sampling=DRAWN))
        await made.gate.reached()
        ahead = [first, *(asyncio.create_task(made.generator.generate(f"{n}", sampling=DRAWN)) for n in (1, 2))]
        await asyncio.sleep(0)
        status = made.generator.status()
        assert status.running + status.queued == 3
        with pytest.raises(Overloaded, match=r"\d requests are waiting .* try again in a moment"):
            await made.generator.generate("me too", sampling=DRAWN)
        made.gate.open()
        assert len(await asyncio.gather(*ahead)) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_frees_the_place(kind: str, base: Path) -> None:
    """A request nobody waits for leaves the queue at once and the batch after the current token."""
    async with running(kind, base, max_batch=2, queue_limit=10) as made:
        made.gate.shut()
        tasks = [asyncio.create_task(made.generator.generate("hello", sampling=DRAWN)) for _ in range(5)]
        await made.gate.reached()
        status = made.generator.status()
        assert status.running + status.queued == 5
        for index in (0, 3, 4):
            tasks[index].cancel()
        await asyncio.wait([tasks[0], tasks[3], tasks[4]])
        status = made.generator.status()
        assert status.queued + status.running <= 3  # the first may be in a step; how many it took in varies
        made.gate.open()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False, False, True, True]
        left = [one.text for one in done if isinstance(one, Completion)]
        assert left[0] == left[1]
        assert made.generator.status().completed == 2
        assert made.generator.status().queued == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_finishes_what_runs_and_refuses_the_rest(kind: str, base: Path) -> None:
    """Close twice, then ask: one sentence each time, and the thread is gone."""
    async with running(kind, base, max_batch=1, queue_limit=10) as made:
        made.gate.shut()
        tasks = [asyncio.create_task(made.generator.generate("hello", sampling=DRAWN)) for _ in range(3)]
        await made.gate.reached()
        begun = made.generator.status().running
        closing = asyncio.gather(made.generator.close(), made.generator.close())
        await asyncio.sleep(0)  # to the refusals
        with pytest.raises(Unavailable, match="stopped"):
            await made.generator.generate("x", sampling=DRAWN)
        made.gate.open()
        await closing
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, Completion) for one in done] == [True] * begun + [False] * (3 - begun)
        assert all(isinstance(one, Completion | Unavailable) for one in done)
        for attempt in (
            made.generator.generate("x", sampling=DRAWN),
            made.generator.load(Adapter(id="x", path=Path("x"))),
        ):
            with pytest.raises(Unavailable, match="stopped"):
                await attempt
        await made.generator.unload("x")
        await made.generator.close()
    assert made.thread not in {thread.name for thread in threading.enumerate()}


async def test_a_failing_step_fails_its_requests_only(made: Running) -> None:
    """Whatever a kernel raises, its requests hear a sentence, nothing half computed is kept, the next is answered."""
    before = await made.generator.generate("hi", sampling=GREEDY, conversation="a")
    made.gate.broken = True
    done = await asyncio.gather(
        *(made.generator.generate(p, sampling=GREEDY, conversation="a") for p in PROMPTS), return_exceptions=True
    )
    made.gate.broken = False
    assert all(isinstance(one, GeneratorError) for one in done)
    assert "the model is broken" not in "".join(map(str, done))
    assert (await made.generator.generate("hi", sampling=GREEDY, conversation="a")).text == before.text


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1},
     {"max_new_tokens": 0}, {"repetition_penalty": 0}, {"best_of": 0}],
)  # fmt: skip
async def test_meaningless_settings_are_refused(made: Running, wrong: dict[str, float]) -> None:
    """A sentence names the setting and what it should be."""
    with pytest.raises(GeneratorError, match=f"{next(iter(wrong))} is .*; it must be"):
        await made.generator.generate("hi", sampling=replace(GREEDY, **wrong))  # type: ignore[arg-type] # that is the test


@pytest.mark.parametrize("kind", LOCAL)
async def test_half_precision_files(kind: str, tmp_path: Path) -> None:
    """They are read like any others."""
    half = tiny_model(tmp_path, dtype=torch.float16)
    async with running(kind, half) as made:
        assert (await made.generator.generate("hi", sampling=GREEDY)).new_tokens == 12


@pytest.mark.parametrize("kind", LOADS)
def test_a_base_that_cannot_be_had(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an empty one, another family, damaged weights, a name that is nowhere: a sentence each."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mamba").mkdir()
    (tmp_path / "mamba" / "config.json").write_text('{"model_type": "mamba"}')
    cut = tiny_model(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    table: list[tuple[str | Path, str]] = [
        (tmp_path / "nowhere", "there is no model folder"),
        ("./nowhere", "there is no model folder"),
        (tmp_path / "empty", r"has no config\.json"),
        (tmp_path / "mamba", "is a mamba model, and Person2 works with gpt2"),
        (cut, "cannot be loaded|are damaged"),
        ("no/such-model", "neither in the local cache nor"),
        ("no such model", "neither in the local cache nor .* not a valid hub name"),
    ]
    for name, says in table:
        with pytest.raises(ModelError, match=says) as caught:
            LOADS[kind](name)
        assert "\n" not in str(caught.value)
