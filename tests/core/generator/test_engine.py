"""The engine with tiny random models: the port's conduct, mixed voices, kept conversations, bounds that hold."""

import asyncio
import json
import threading
from collections import abc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from core.adapters.validation import CONFIG, WEIGHTS
from core.errors import AdapterError, GeneratorError, ModelError, Overloaded, Unavailable
from core.generator import INFORMATION, SEED_STEP, Adapter, Completion, Generator, Sampling, engine, transformers
from core.generator.engine import Engine
from core.generator.engine.model import Chunk
from tests.models import tiny_adapter, tiny_base, tiny_model, tiny_tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=12, stop="", repetition_penalty=1)
DRAWN = Sampling(seed=5, max_new_tokens=12, stop="", top_k=40)
CONTEXT = 128
PROMPTS = ("hi", "Person1: hello there\nPerson2:", "x" * 300, "é🎉 مرحبا", "")
VOICES: dict[str, dict[str, Any]] = {
    "plain": {"seed": 1},
    "rslora": {"seed": 2, "use_rslora": True, "rank": 8, "alpha_pattern": {"c_fc": 3}},
    "attention": {"seed": 3, "targets": ["c_attn"], "rank": 2},
    "biased": {"seed": 4, "bias": "all", "rank_pattern": {"mlp.c_proj": 3}},
    "low-bias": {"seed": 5, "lora_bias": True},
}
KINDS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8", "kernels": "torch"},
    "compiled": {"precision": "int8"},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), width=64, positions=CONTEXT)


@pytest.fixture(scope="module")
def voices(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    root = tmp_path_factory.mktemp("voices")
    return {name: Adapter(id=name, path=tiny_adapter(root / name, base, **options)) for name, options in VOICES.items()}


@pytest.fixture
async def exact(base: Path) -> AsyncIterator[Engine]:
    made = engine.load(base, precision="fp32", max_batch=8, queue_limit=100, prefill_chunk=32)
    yield made
    await made.close()


class Gate:
    """Stands before the model: while it is shut, the engine's thread waits in the middle of a step."""

    def __init__(self, made: Engine) -> None:
        model: Any = made.model
        self._forward = model.forward
        self._open = threading.Event()
        self._reached = threading.Event()
        self.rows: list[int] = []
        model.forward = self

    def __call__(self, chunks: abc.Sequence[Chunk]) -> Tensor:
        self._reached.set()
        assert self._open.wait(20), "nobody opened the gate"
        self.rows.append(sum(len(chunk.tokens) for chunk in chunks))
        logits: Tensor = self._forward(chunks)
        return logits

    async def wait(self) -> None:
        """Until a step has begun."""
        assert await asyncio.to_thread(self._reached.wait, 20)

    def open(self) -> None:
        self._open.set()


def reference(base: Path, adapter: Adapter | None, prompt: str, tokens: int) -> str:
    """What transformers and peft write greedily by themselves, one request at a time."""
    tokenizer = tiny_tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter.path))
    model.eval()
    ids = tokenizer(prompt)["input_ids"][-(CONTEXT - tokens) :]
    with torch.inference_mode():
        made = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
    return str(tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)).rstrip("\ufffd")


async def test_it_is_a_generator(exact: Engine) -> None:
    """The port is implemented, and says what it runs."""
    port: Generator = exact
    status = port.status()
    assert port.context_length == CONTEXT
    assert (status.device, status.queued, status.running) == ("cpu fp32, torch kernels, 1 threads", 0, 0)


async def test_greedy_replies_are_those_of_transformers(exact: Engine, base: Path, voices: dict[str, Adapter]) -> None:
    """Base and five kinds of adapter, mixed in one batch, against transformers and peft alone."""
    jobs = [(prompt, adapter) for prompt in PROMPTS[:4] for adapter in (None, *voices.values())]
    made = await asyncio.gather(*(exact.generate(p, sampling=GREEDY, adapter=a) for p, a in jobs))
    assert [one.text for one in made] == [reference(base, a, p, GREEDY.max_new_tokens) for p, a in jobs]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
async def test_other_families_speak_as_in_transformers(family: str, tmp_path: Path) -> None:
    """Base and adapter in one batch, greedily, up to a window beyond the context."""
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96}
    other = tiny_base(tmp_path / "base", family, positions=CONTEXT, **sizes)
    adapters = [None, Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", other))]
    jobs = [(prompt, adapter) for prompt in (*PROMPTS[:4], "1234567890" * 20) for adapter in adapters]
    right = [reference(other, adapter, prompt, GREEDY.max_new_tokens) for prompt, adapter in jobs]
    made = engine.load(other, precision="fp32", prefill_chunk=32)
    done = await asyncio.gather(*(made.generate(p, sampling=GREEDY, adapter=a) for p, a in jobs))
    await made.close()
    assert [one.text for one in done] == right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", [GREEDY, replace(DRAWN, top_k=0, top_p=0.95, repetition_penalty=1.3)])
async def test_a_reply_does_not_depend_on_the_company(
    base: Path, voices: dict[str, Adapter], sampling: Sampling, kind: str
) -> None:
    """Alone, or in batches of 3 and of 16 that others join and leave at odd moments: the same text."""
    jobs = [(p, a, 3 + 4 * i) for p in PROMPTS for i, a in enumerate((None, *voices.values()))]

    async def ask(made: Engine, prompt: str, adapter: Adapter | None, tokens: int) -> str:
        settings = replace(sampling, max_new_tokens=tokens, seed=tokens)
        return (await made.generate(prompt, sampling=settings, adapter=adapter)).text

    texts: list[list[str]] = []
    for batch in (1, 3, 16):
        made = engine.load(base, max_batch=batch, prefill_chunk=32, **KINDS[kind])
        texts.append(await asyncio.gather(*(ask(made, *job) for job in jobs)))
        await made.close()
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > len(jobs) // 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_is_read_once(base: Path, voices: dict[str, Adapter], kind: str) -> None:
    """Turn by turn, what was read or said before is not computed again, and the replies are those of a stranger."""
    kept = engine.load(base, **KINDS[kind])
    fresh = engine.load(base, **KINDS[kind])
    for adapter in (None, voices["plain"]):
        prompt = "Person1: hello there\nPerson2:"
        for turn in range(4):
            settings = replace(GREEDY, max_new_tokens=6)
            before = kept.status().cached_tokens
            mine = await kept.generate(prompt, sampling=settings, adapter=adapter, conversation="talk")
            theirs = await fresh.generate(prompt, sampling=settings, adapter=adapter)
            assert mine.text == theirs.text
            reused = kept.status().cached_tokens - before
            assert (reused > 0) == (turn > 0)  # another adapter's keys and values are of no use
            assert reused < mine.prompt_tokens
            prompt += f"{mine.text}\nPerson1: and {turn}\nPerson2:"
    assert fresh.status().cached_tokens == 0
    await kept.close()
    await fresh.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_beginning_that_several_share_is_read_once(base: Path, voices: dict[str, Adapter], kind: str) -> None:
    """A persona in front of another channel's talk is not read again, and says what it would say if it were."""
    persona = "Person1: who are you?\nPerson2: a pirate, and a very old one at that\n" * 2
    made, fresh = engine.load(base, **KINDS[kind]), engine.load(base, **KINDS[kind])
    short = replace(GREEDY, max_new_tokens=6)
    first = f"{persona}Person1: hi\nPerson2:"
    await made.generate(first, sampling=short, conversation="one")
    for line, adapter, kept in (("ahoy", None, True), ("hello there", None, True), ("ahoy", voices["plain"], False)):
        prompt, before = f"{persona}Person1: {line}\nPerson2:", made.status().cached_tokens
        mine = await made.generate(prompt, sampling=short, adapter=adapter, conversation=line)
        assert mine.text == (await fresh.generate(prompt, sampling=short, adapter=adapter)).text
        assert (made.status().cached_tokens - before > made.count_tokens(persona) // 2) == kept
    await made.close()
    await fresh.close()


async def test_the_window_slides(exact: Engine) -> None:
    """A conversation that outgrows the context goes on: every reply is that of the newest tokens alone."""
    talk = ""
    for turn in range(12):
        talk += f"Person1: {'word ' * 8}{turn}\nPerson2:"
        mine = await exact.generate(talk, sampling=GREEDY, conversation="long")
        theirs = await exact.generate(talk, sampling=GREEDY)
        assert mine.text == theirs.text
        assert mine.prompt_tokens + mine.new_tokens <= CONTEXT
        talk += f"{mine.text}\n"
    assert exact.count_tokens(talk) > 2 * CONTEXT


@pytest.mark.parametrize("kind", KINDS)
async def test_the_memory_bound_holds(base: Path, kind: str) -> None:
    """Many more conversations than fit: the least recently used give way, and a waiting one gets its turn."""
    made = engine.load(base, max_batch=8, cache_mb=1, **KINDS[kind])
    limit = 1_000_000
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, made._pool.used)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    cache = made.model.cache_bytes(CONTEXT)
    names = [f"{n}" for n in range(2 * limit // cache + 3)]
    done = await asyncio.gather(
        *(made.generate("x" * 300, sampling=DRAWN, conversation=name) for name in names), return_exceptions=True
    )
    done += [await made.generate("x" * 300, sampling=DRAWN, conversation=names[-1])]
    watching.cancel()
    assert all(isinstance(one, Completion) for one in done)
    assert limit - 2 * cache < most <= limit
    assert made.status().cached_tokens > 0
    await made.close()


async def test_what_nobody_uses_is_given_back(base: Path) -> None:
    """A conversation that says nothing for long loses its keys and values, and speaks on as if it had them."""
    made = engine.load(base, idle_seconds=0.05)
    first = await made.generate("hello", sampling=GREEDY, conversation="a")
    while made._pool.used:  # noqa: ASYNC110 - a test that hangs here has found the fault
        await asyncio.sleep(0.01)
    again = await made.generate("hello", sampling=GREEDY, conversation="a")
    assert (again.text, made.status().cached_tokens) == (first.text, 0)
    await made.close()


async def test_one_that_cannot_be_begun_fails_alone(exact: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its memory raises, the request hears a sentence once, and those behind it are answered."""
    before = await exact.generate("hi", sampling=GREEDY)
    new_cache = exact.model.new_cache
    calls = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(exact.model, "new_cache", lambda tokens: new_cache(tokens) if next(calls) else 1 / 0)
        done = await asyncio.gather(*(exact.generate("hi", sampling=GREEDY) for _ in range(3)), return_exceptions=True)
    assert type(done[0]) is GeneratorError
    assert [one.text for one in done[1:] if isinstance(one, Completion)] == [before.text] * 2
    assert exact._pool.used == 0


async def test_a_long_prompt_does_not_stall_the_others(base: Path) -> None:
    """While somebody speaks, a newcomer's prompt is read a chunk a step."""
    made = engine.load(base, precision="fp32", prefill_chunk=16)
    gate = Gate(made)
    first = asyncio.create_task(made.generate("hi", sampling=replace(GREEDY, max_new_tokens=30)))
    await gate.wait()
    second = asyncio.create_task(made.generate("1234567890" * 10, sampling=replace(GREEDY, max_new_tokens=1)))
    await asyncio.sleep(0.05)
    gate.open()
    await asyncio.gather(first, second)
    assert 16 < max(gate.rows) <= 17 + 1
    await made.close()


async def test_seeds_make_the_text(base: Path) -> None:
    """The same seed says the same, another seed something else, and none draws a fresh one that is reported."""
    seeds = iter((11, 12))
    made = engine.load(base, fresh_seed=lambda: next(seeds))
    first, second = [await made.generate("hi", sampling=replace(DRAWN, seed=None)) for _ in range(2)]
    again = await made.generate("hi", sampling=replace(DRAWN, seed=11))
    assert (first.seed, second.seed) == (11, 12)
    assert first.text == again.text != second.text
    await made.close()


def information(base: Path, adapter: Adapter, prompt: str, said: list[int]) -> float:
    """log P(reply | prompt) − λ log P(reply | last line), by transformers and peft."""
    tokenizer = tiny_tokenizer()
    loaded: Any = GPT2LMHeadModel.from_pretrained(base)
    model = PeftModel.from_pretrained(loaded, str(adapter.path)).eval()
    sums = []
    for front in (prompt, prompt.rsplit("\n", 1)[-1]):
        ids = tokenizer(front)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*ids, *said]])).logits[0, len(ids) - 1 : -1]
        sums.append(float(logits.log_softmax(1)[range(len(said)), said].sum()))
    return sums[0] - INFORMATION * sums[1]


async def test_candidates_are_what_each_seed_says_scored_by_the_prompt(
    exact: Engine, base: Path, voices: dict[str, Adapter]
) -> None:
    """What each seed says by itself is drawn, in order; transformers and peft agree how much the prompt says of it."""
    prompt, voice = PROMPTS[1], voices["rslora"]
    settings = replace(DRAWN, top_k=0, temperature=2.0, max_new_tokens=6)
    seeds = [5 + number * SEED_STEP for number in range(5)]
    each = [await exact.generate(prompt, sampling=replace(settings, seed=seed), adapter=voice) for seed in seeds]
    several = await exact.generate(prompt, sampling=replace(settings, seed=5, best_of=5), adapter=voice)
    assert len({one.text for one in each}) == 5
    assert [one.text for one in several.candidates] == [one.text for one in each]
    assert (several.text, several.seed, each[0].candidates[0].information) == (each[0].text, 5, None)
    other = transformers.load(base, device="cpu")
    same = await other.generate(prompt, sampling=replace(settings, seed=5, best_of=5), adapter=voice)
    await other.close()
    assert [one.text for one in same.candidates] == [one.text for one in several.candidates]
    scores = [[one.information for one in made.candidates] for made in (several, same)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    tokenizer = tiny_tokenizer()
    for candidate in several.candidates:
        said = tokenizer(candidate.text)["input_ids"]
        if tokenizer.decode(said) == candidate.text and len(said) == 6:  # its tokens are those that were drawn
            assert candidate.information == pytest.approx(information(base, voice, prompt, said), abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_best_of_several_does_not_depend_on_the_company(
    base: Path, voices: dict[str, Adapter], kind: str
) -> None:
    """Alone or in a crowd, new or in a conversation that is kept, with little memory or much: the same reply."""
    prompts = [f"Person1: {'so ' * number}tell me\nPerson2:" for number in range(0, 30, 4)]
    texts = []
    for batch, megabytes in ((1, 640), (8, 640), (8, 2)):
        made = engine.load(base, max_batch=batch, cache_mb=megabytes, prefill_chunk=16, **KINDS[kind])
        settings = replace(DRAWN, best_of=3, temperature=1.5)
        for _ in range(2):
            found = await asyncio.gather(
                *(made.generate(p, sampling=settings, adapter=voices["plain"], conversation=p) for p in prompts)
            )
            texts.append([one.text for one in found])
        assert made.status().running == 0
        await made.close()
        assert made._pool.used == 0
    assert all(each == texts[0] for each in texts)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_prompt_length_up_to_the_context_and_beyond(base: Path, kind: str) -> None:
    """Nothing breaks at the last position; the oldest tokens go, the newest stay, and the reply has its room."""
    made = engine.load(base, **KINDS[kind])
    spelt = [f"{i % 10}" for i in range(CONTEXT + 20)]  # a token each
    lengths = (1, CONTEXT - 13, CONTEXT - 12, CONTEXT - 11, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + 20)
    done = await asyncio.gather(*(made.generate("".join(spelt[:n]), sampling=GREEDY) for n in lengths))
    assert [one.prompt_tokens for one in done] == [min(n, CONTEXT - 12) for n in lengths]
    tail = await made.generate("".join(spelt[-(CONTEXT - 12) :]), sampling=GREEDY)
    assert done[-1].text == tail.text
    whole = await made.generate("hello", sampling=replace(GREEDY, max_new_tokens=10_000))
    assert whole.prompt_tokens == 1
    assert whole.finish == "stop" or whole.new_tokens == CONTEXT - 1
    await made.close()


async def test_stopping(exact: Engine) -> None:
    """A reply ends before the stop text wherever that stands in it, or by its length."""
    free = await exact.generate("hi", sampling=GREEDY)
    assert (free.finish, free.new_tokens) == ("length", 12)
    for stop in (free.text[3], free.text[4:6], free.text[-1]):
        cut = await exact.generate("hi", sampling=replace(GREEDY, stop=stop))
        assert (cut.text, cut.finish) == (free.text[: free.text.index(stop)].rstrip("\ufffd"), "stop")


async def test_control_tokens_in_a_prompt_are_plain_text(exact: Engine) -> None:
    """Typing <|endoftext|> costs thirteen characters' worth of tokens and controls nothing."""
    assert exact.count_tokens("<|endoftext|>") > 5
    assert exact.count_tokens("") == 0


async def test_a_full_queue_refuses_kindly_and_at_once(base: Path) -> None:
    """One runs, two wait, the fourth hears that it should come back; those ahead are answered."""
    made = engine.load(base, max_batch=1, queue_limit=2)
    gate = Gate(made)
    first = asyncio.create_task(made.generate("0", sampling=DRAWN))
    await gate.wait()
    ahead = [first, *(asyncio.create_task(made.generate(f"{n}", sampling=DRAWN)) for n in (1, 2))]
    await asyncio.sleep(0)
    assert (made.status().running, made.status().queued) == (1, 2)
    with pytest.raises(Overloaded, match=r"2 people are waiting .* try again in a moment"):
        await made.generate("me too", sampling=DRAWN)
    gate.open()
    assert len(await asyncio.gather(*ahead)) == 3
    await made.close()


async def test_cancelling_frees_the_place(base: Path) -> None:
    """A request nobody waits for leaves the queue at once and the batch after the current token."""
    made = engine.load(base, max_batch=2, queue_limit=10)
    gate = Gate(made)
    tasks = [asyncio.create_task(made.generate("hello", sampling=DRAWN)) for _ in range(5)]
    await gate.wait()
    assert made.status().running + made.status().queued == 5
    for index in (0, 3, 4):
        tasks[index].cancel()
    await asyncio.wait([tasks[0], tasks[3], tasks[4]])
    assert made.status().queued + made.status().running <= 3  # the first may be in a step; how many it took in varies
    gate.open()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False, False, True, True]
    assert made.status().completed == 2
    await made.close()
    assert made._pool.used == 0


async def test_closing_finishes_what_runs_and_refuses_the_rest(base: Path) -> None:
    """Close twice, then ask: one sentence each time, and the thread is gone."""
    made = engine.load(base, max_batch=1, queue_limit=10)
    gate = Gate(made)
    tasks = [asyncio.create_task(made.generate("hello", sampling=DRAWN)) for _ in range(3)]
    await gate.wait()
    closing = asyncio.gather(made.close(), made.close())
    await asyncio.wait(tasks[1:])
    gate.open()
    await closing
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], Completion)
    assert all(isinstance(one, Unavailable) for one in done[1:])
    for attempt in (made.generate("x", sampling=DRAWN), made.load(Adapter(id="x", path=Path("x")))):
        with pytest.raises(Unavailable, match="stopped"):
            await attempt
    await made.unload("x")
    await made.close()
    assert not made._thread.is_alive()


async def test_a_failing_step_fails_its_requests_only(exact: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread survives whatever a kernel raises, nothing half computed is kept, and the next one is answered."""
    before = await exact.generate("hi", sampling=GREEDY, conversation="a")
    with monkeypatch.context() as patch:
        patch.setattr(exact.model, "forward", lambda chunks: 1 / 0)
        done = await asyncio.gather(
            *(exact.generate(p, sampling=GREEDY, conversation="a") for p in PROMPTS), return_exceptions=True
        )
    assert all(type(one) is GeneratorError for one in done)
    assert (await exact.generate("hi", sampling=GREEDY, conversation="a")).text == before.text


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1},
     {"max_new_tokens": 0}, {"repetition_penalty": 0}],
)  # fmt: skip
async def test_meaningless_settings_are_refused(exact: Engine, wrong: dict[str, float]) -> None:
    """A sentence names the setting and what it should be."""
    with pytest.raises(GeneratorError, match=f"{next(iter(wrong))} is .*; it must be"):
        await exact.generate("hi", sampling=replace(GREEDY, **wrong))  # type: ignore[arg-type] # that is the test


@pytest.mark.parametrize("kind", KINDS)
async def test_adapters_come_and_go_while_others_speak(base: Path, voices: dict[str, Adapter], kind: str) -> None:
    """Loading, unloading and speaking at once: every reply is the one its own adapter gives."""
    made = engine.load(base, max_adapters=3, **KINDS[kind])
    right = {name: (await made.generate("hi", sampling=GREEDY, adapter=a)).text for name, a in voices.items()}
    assert len(set(right.values())) == len(right)
    assert len(made.status().adapters) == 3  # the least recently used gave way

    async def speak(name: str) -> bool:
        return (await made.generate("hi", sampling=GREEDY, adapter=voices[name], conversation=name)).text == right[name]

    async def shuffle() -> None:
        for _ in range(5):
            for name, adapter in voices.items():
                await made.unload(name)
                await made.load(adapter)

    answers, _ = await asyncio.gather(asyncio.gather(*(speak(name) for name in voices for _ in range(8))), shuffle())
    assert all(answers)
    for name in voices:
        await made.unload(name)
    await made.unload("nobody")
    assert made.status().adapters == ()
    await made.close()


async def test_an_id_may_come_back_with_other_weights(exact: Engine, voices: dict[str, Adapter]) -> None:
    """The folder counts too: the new weights speak, and nothing the old ones computed is used."""
    before = await exact.generate("hi", sampling=GREEDY, adapter=voices["plain"], conversation="a")
    other = Adapter(id="plain", path=voices["rslora"].path)
    after = await exact.generate("hi", sampling=GREEDY, adapter=other, conversation="a")
    right = await exact.generate("hi", sampling=GREEDY, adapter=voices["rslora"])
    assert after.text == right.text != before.text


async def test_adapters_that_cannot_be_served_say_so(
    exact: Engine, voices: dict[str, Adapter], base: Path, tmp_path: Path
) -> None:
    """Foreign, damaged, of other kinds: a sentence each, and those loaded speak as before."""
    good = voices["plain"]
    before = await exact.generate("hi", sampling=GREEDY, adapter=good)
    wide = tiny_adapter(tmp_path / "wide", tiny_model(tmp_path / "w", width=32))
    deep = tiny_adapter(tmp_path / "deep", tiny_model(tmp_path / "d", width=64, layers=3))
    cut = tiny_adapter(tmp_path / "cut", base)
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-10])
    rotten = tiny_adapter(tmp_path / "rotten", base, strength=float("nan"))
    head = tiny_adapter(tmp_path / "head", base, targets=["c_attn", "lm_head"])
    dora = tiny_adapter(tmp_path / "dora", base, use_dora=True)
    pissa = tiny_adapter(tmp_path / "pissa", base)
    config = json.loads((pissa / CONFIG).read_text())
    (pissa / CONFIG).write_text(json.dumps(config | {"init_lora_weights": "pissa_niter_4"}))
    for folder, says in (
        (wide, "does not fit this base"),
        (deep, "does not fit this base"),
        (cut, "damaged or cut short"),
        (rotten, "not finite"),
        (head, "changes .*lm_head"),
        (dora, "DoRA"),
        (pissa, "pissa_niter_4, which changes the base"),
        (tmp_path / "gone", "is not a folder"),
    ):
        with pytest.raises(AdapterError, match=says) as caught:
            await exact.generate("hi", sampling=GREEDY, adapter=Adapter(id=folder.name, path=folder))
        assert "\n" not in str(caught.value)
    after = await exact.generate("hi", sampling=GREEDY, adapter=good)
    assert after.text == before.text
    assert exact.status().adapters == ("plain",)


async def test_a_card_names_the_base(exact: Engine, base: Path, tmp_path: Path) -> None:
    """Same config, other weights: only the card's fingerprint can tell."""
    other = tiny_model(tmp_path / "other", seed=9, width=64, positions=CONTEXT)
    folder = tiny_adapter(tmp_path / "voice", other)
    stranger = engine.load(other, kernels="torch")
    await stranger.close()
    card = {"id": "voice", "created_at": "2026-11-22T12:00:00Z", "base": "other"}
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": stranger.fingerprint}))
    with pytest.raises(AdapterError, match=r"made for other \(gpt2 64x2x2"):
        await exact.load(Adapter(id="voice", path=folder))
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": exact.fingerprint}))
    await exact.load(Adapter(id="voice", path=folder))


@pytest.mark.parametrize("kind", KINDS)
async def test_an_adapter_that_makes_infinities_hurts_itself_alone(base: Path, tmp_path: Path, kind: str) -> None:
    """Its own request fails with a sentence; its neighbours in the batch are answered as ever."""
    made = engine.load(base, **KINDS[kind])
    wild = Adapter(id="wild", path=tiny_adapter(tmp_path / "wild", base, strength=1e30))
    alone = await made.generate("hi", sampling=GREEDY)
    done = await asyncio.gather(
        made.generate("hi", sampling=GREEDY),
        made.generate("hi", sampling=GREEDY, adapter=wild),
        made.generate("hi", sampling=GREEDY),
        return_exceptions=True,
    )
    assert isinstance(done[1], GeneratorError)
    assert "not finite" in str(done[1])
    assert [one.text for one in (done[0], done[2]) if isinstance(one, Completion)] == [alone.text] * 2
    await made.close()


async def test_every_way_weights_lie_on_disk(exact: Engine, base: Path, tmp_path: Path) -> None:
    """Without the prefix, in two files with an index, as a checked pickle, in half precision, with GPT-2's own
    tokenizer files: the same model speaks."""
    said = (await exact.generate("hi", sampling=GREEDY)).text
    tensors = load_file(base / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}

    def folder(name: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in ("config.json", "tokenizer.json"):
            (made / file).write_bytes((base / file).read_bytes())
        return made

    save_file(bare, folder("bare") / "model.safetensors")
    names = sorted(tensors)
    split = folder("split")
    files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, split / file)
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    torch.save(tensors, folder("pickle") / "pytorch_model.bin")
    own = folder("own")
    (own / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    model = json.loads((own / "tokenizer.json").read_text())["model"]
    (own / "tokenizer.json").unlink()
    (own / "vocab.json").write_text(json.dumps(model["vocab"]))
    (own / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n")
    for name in ("bare", "split", "pickle", "own"):
        made = engine.load(tmp_path / name, precision="fp32")
        assert (await made.generate("hi", sampling=GREEDY)).text == said, name
        await made.close()
    half = engine.load(tiny_model(tmp_path / "half", dtype=torch.float16), precision="fp32")
    assert (await half.generate("hi", sampling=GREEDY)).new_tokens == 12
    await half.close()


def test_a_base_that_cannot_be_had(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an empty one, another architecture, damaged weights, an unknown name without a model: sentences."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "falcon").mkdir()
    (tmp_path / "falcon" / "config.json").write_text('{"model_type": "falcon"}')
    cut = tiny_model(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    odd = tiny_model(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"scale_attn_by_inverse_layer_idx": True}))
    table: list[tuple[str | Path, str]] = [
        (tmp_path / "nowhere", "there is no model folder"),
        (tmp_path / "empty", r"has no config\.json"),
        (tmp_path / "falcon", "is a falcon model, and Person2 works with gpt2"),
        (cut, "are damaged"),
        (odd, "scale_attn_by_inverse_layer_idx=True, which the engine lacks"),
        ("no/such-model", "neither in the local cache nor"),
    ]
    for name, says in table:
        with pytest.raises(ModelError, match=says) as caught:
            engine.load(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="PERSON2_CACHE_MB is 0, but one whole conversation"):
        engine.load(base, cache_mb=0)
    with pytest.raises(ModelError, match="PERSON2_MAX_BATCH is 0"):
        engine.load(base, max_batch=0)
