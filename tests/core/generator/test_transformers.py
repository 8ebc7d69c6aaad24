"""The reference generator with tiny random models: right whoever shares the batch, kind when it is full or stopped."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

from core.adapters.validation import CONFIG, WEIGHTS
from core.errors import AdapterError, GeneratorError, ModelError, Overloaded, Unavailable
from core.generator import Adapter, Completion, Generator, Sampling
from core.generator.transformers import TransformersGenerator, load
from core.generator.transformers.loader import load_base
from tests.models import tiny_adapter, tiny_model, tiny_tokenizer
from training.finetune.base import wants_bf16

GREEDY = Sampling(temperature=0, max_new_tokens=12, stop="", repetition_penalty=1)
DRAWN = Sampling(seed=5, max_new_tokens=12, stop="", top_k=40)
CONTEXT = 64
PROMPTS = ("hi", "Person1: hello there\nPerson2:", "x" * 300, "é🎉 مرحبا", "")
VOICES: dict[str, dict[str, Any]] = {
    "plain": {"seed": 1},
    "rslora": {"seed": 2, "use_rslora": True, "rank": 8},
    "attention": {"seed": 3, "targets": ["c_attn"], "rank": 2},
    "biased": {"seed": 4, "bias": "lora_only"},
    "low-bias": {"seed": 5, "lora_bias": True},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), positions=CONTEXT)


@pytest.fixture(scope="module")
def voices(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    root = tmp_path_factory.mktemp("voices")
    return {name: Adapter(id=name, path=tiny_adapter(root / name, base, **options)) for name, options in VOICES.items()}


@pytest.fixture
async def generator(base: Path) -> AsyncIterator[TransformersGenerator]:
    generator = load(base, device="cpu", max_batch=4, queue_limit=100)
    yield generator
    await generator.close()


class Gate:
    """Stands before the model: while it is shut, the owner thread waits in the middle of a step."""

    def __init__(self, generator: TransformersGenerator) -> None:
        self._forward = generator._batch.forward
        self._open = threading.Event()
        self.reached = threading.Event()
        generator._batch.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.reached.set()
        assert self._open.wait(20), "nobody opened the gate"
        return self._forward(*args, **kwargs)

    async def wait(self) -> None:
        """Until a step has begun."""
        assert await asyncio.to_thread(self.reached.wait, 20)

    def open(self) -> None:
        self._open.set()


def reference(base: Path, adapter: Adapter | None, prompt: str, tokens: int) -> str:
    """What transformers and peft write greedily by themselves, one request at a time."""
    tokenizer = tiny_tokenizer()
    model: Any = GPT2LMHeadModel.from_pretrained(base)
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


async def test_it_is_a_generator(generator: TransformersGenerator) -> None:
    """The port is implemented, and says what it runs."""
    port: Generator = generator
    status = port.status()
    assert port.context_length == CONTEXT
    assert (status.device, status.queued, status.running, status.adapters) == ("cpu float32", 0, 0, ())


async def test_greedy_replies_are_those_of_transformers(
    generator: TransformersGenerator, base: Path, voices: dict[str, Adapter]
) -> None:
    """Base and five kinds of adapter, mixed in one batch, against transformers and peft alone."""
    jobs = [(prompt, adapter) for prompt in PROMPTS[:4] for adapter in (None, *voices.values())]
    made = await asyncio.gather(*(generator.generate(p, sampling=GREEDY, adapter=a) for p, a in jobs))
    assert [one.text for one in made] == [reference(base, a, p, GREEDY.max_new_tokens) for p, a in jobs]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, replace(DRAWN, top_k=0, top_p=1, repetition_penalty=1.3)])
async def test_a_reply_does_not_depend_on_the_company(
    generator: TransformersGenerator, voices: dict[str, Adapter], sampling: Sampling
) -> None:
    """Alone, or in batches that rows of other lengths join and leave at odd moments: the same text."""
    jobs = [(p, a, 3 + 4 * i) for p in PROMPTS for i, a in enumerate((None, *voices.values()))]

    async def ask(prompt: str, adapter: Adapter | None, tokens: int) -> Completion:
        return await generator.generate(
            prompt, sampling=replace(sampling, max_new_tokens=tokens, seed=tokens), adapter=adapter
        )

    alone = [await ask(*job) for job in jobs]
    together = await asyncio.gather(*(ask(*job) for job in jobs))
    assert [one.text for one in alone] == [one.text for one in together]
    assert len({one.text for one in alone}) > len(jobs) // 2


async def test_seeds_make_the_text(base: Path) -> None:
    """The same seed says the same, another seed something else, and none draws a fresh one that is reported."""
    seeds = iter((11, 12))
    generator = load(base, device="cpu", fresh_seed=lambda: next(seeds))
    first, second = [await generator.generate("hi", sampling=replace(DRAWN, seed=None)) for _ in range(2)]
    again = await generator.generate("hi", sampling=replace(DRAWN, seed=11))
    assert (first.seed, second.seed) == (11, 12)
    assert first.text == again.text != second.text
    await generator.close()


async def test_every_prompt_length_up_to_the_context_and_beyond(generator: TransformersGenerator) -> None:
    """Nothing breaks at 64 of 64 tokens; the oldest go, the newest stay, and the reply has its room."""
    spelt = [f"{i % 10}" for i in range(CONTEXT + 20)]  # a token each
    lengths = (1, CONTEXT - 13, CONTEXT - 12, CONTEXT - 11, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + 20)
    made = await asyncio.gather(*(generator.generate("".join(spelt[:n]), sampling=GREEDY) for n in lengths))
    assert [one.prompt_tokens for one in made] == [min(n, CONTEXT - 12) for n in lengths]
    assert all(one.new_tokens <= 12 for one in made)
    tail = await generator.generate("".join(spelt[-(CONTEXT - 12) :]), sampling=GREEDY)
    assert made[-1].text == tail.text
    whole = await generator.generate("hello", sampling=replace(GREEDY, max_new_tokens=10_000))
    assert whole.prompt_tokens == 1
    assert whole.finish == "stop" or whole.new_tokens == CONTEXT - 1


async def test_stopping(generator: TransformersGenerator) -> None:
    """A reply ends before the stop text wherever that stands in it, or by its length."""
    free = await generator.generate("hi", sampling=GREEDY)
    assert (free.finish, free.new_tokens) == ("length", 12)
    for stop in (free.text[3], free.text[4:6], free.text[-1]):
        cut = await generator.generate("hi", sampling=replace(GREEDY, stop=stop))
        assert (cut.text, cut.finish) == (free.text[: free.text.index(stop)].rstrip("\ufffd"), "stop")


async def test_the_end_of_text_token_stops(base: Path, tmp_path: Path) -> None:
    """A model that wants to end, ends: no words, and not the token's name."""
    model = GPT2LMHeadModel.from_pretrained(base)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[0] * 50)  # the head is tied: token 0 wins
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    generator = load(tmp_path, device="cpu")
    made = await generator.generate("hi", sampling=GREEDY)
    assert (made.text, made.finish, made.new_tokens) == ("", "stop", 1)
    await generator.close()


async def test_control_tokens_in_a_prompt_are_plain_text(generator: TransformersGenerator) -> None:
    """Typing <|endoftext|> costs thirteen characters' worth of tokens and controls nothing."""
    assert generator.count_tokens("<|endoftext|>") > 5
    assert generator.count_tokens("") == 0


async def test_a_full_queue_refuses_kindly_and_at_once(base: Path) -> None:
    """One runs, two wait, the fourth hears that it should come back; those ahead are answered."""
    generator = load(base, device="cpu", max_batch=1, queue_limit=2)
    gate = Gate(generator)
    first = asyncio.create_task(generator.generate("0", sampling=DRAWN))
    await gate.wait()
    ahead = [first, *(asyncio.create_task(generator.generate(f"{n}", sampling=DRAWN)) for n in (1, 2))]
    await asyncio.sleep(0)
    assert (generator.status().running, generator.status().queued) == (1, 2)
    with pytest.raises(Overloaded, match=r"2 people are waiting .* try again in a moment"):
        await generator.generate("me too", sampling=DRAWN)
    gate.open()
    assert len(await asyncio.gather(*ahead)) == 3
    await generator.close()


async def test_cancelling_frees_the_place(base: Path) -> None:
    """A request nobody waits for leaves the queue at once and the batch after the current token."""
    generator = load(base, device="cpu", max_batch=2, queue_limit=10)
    gate = Gate(generator)
    tasks = [asyncio.create_task(generator.generate("hello", sampling=DRAWN)) for _ in range(5)]
    await gate.wait()
    assert (generator.status().running, generator.status().queued) == (2, 3)
    for index in (0, 3, 4):
        tasks[index].cancel()
    await asyncio.wait([tasks[0], tasks[3], tasks[4]])
    assert generator.status().queued == 1
    gate.open()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False, False, True, True]
    left = [one for one in done if isinstance(one, Completion)]
    assert left[0].text == left[1].text
    assert generator.status().queued == 0
    assert generator.status().completed == 2
    await generator.close()


async def test_closing_finishes_what_runs_and_refuses_the_rest(base: Path) -> None:
    """Close twice, then ask: one sentence each time, and the thread is gone."""
    generator = load(base, device="cpu", max_batch=1, queue_limit=10)
    gate = Gate(generator)
    tasks = [asyncio.create_task(generator.generate("hello", sampling=DRAWN)) for _ in range(3)]
    await gate.wait()
    closing = asyncio.gather(generator.close(), generator.close())
    await asyncio.wait(tasks[1:])
    gate.open()
    await closing
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], Completion)
    assert all(isinstance(one, Unavailable) for one in done[1:])
    for attempt in (generator.generate("x", sampling=DRAWN), generator.load(Adapter(id="x", path=Path("x")))):
        with pytest.raises(Unavailable, match="stopped"):
            await attempt
    await generator.unload("x")
    await generator.close()
    assert not generator._thread.is_alive()


async def test_a_failing_step_fails_its_requests_only(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread survives whatever torch raises, and the next request is answered."""
    before = await generator.generate("hi", sampling=GREEDY)
    broken: Callable[..., Any] = lambda *_, **__: 1 / 0  # noqa: E731 - the smallest thing that raises
    with monkeypatch.context() as patch:
        patch.setattr(generator._batch, "forward", broken)
        done = await asyncio.gather(*(generator.generate(p, sampling=GREEDY) for p in PROMPTS), return_exceptions=True)
    assert all(type(one) is GeneratorError for one in done)
    assert (await generator.generate("hi", sampling=GREEDY)).text == before.text


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1},
     {"max_new_tokens": 0}, {"repetition_penalty": 0}],
)  # fmt: skip
async def test_meaningless_settings_are_refused(generator: TransformersGenerator, wrong: dict[str, float]) -> None:
    """A sentence names the setting and what it should be."""
    with pytest.raises(GeneratorError, match=f"{next(iter(wrong))} is .*; it must be"):
        await generator.generate("hi", sampling=replace(GREEDY, **wrong))  # type: ignore[arg-type] # that is the test


async def test_adapters_come_and_go_while_others_speak(
    generator: TransformersGenerator, voices: dict[str, Adapter]
) -> None:
    """Loading, unloading and speaking at once: every reply is the one its own adapter gives."""
    right = {name: (await generator.generate("hi", sampling=GREEDY, adapter=a)).text for name, a in voices.items()}
    assert len(set(right.values())) == len(right)

    async def speak(name: str) -> bool:
        return (await generator.generate("hi", sampling=GREEDY, adapter=voices[name])).text == right[name]

    async def shuffle() -> None:
        for _ in range(5):
            for name, adapter in voices.items():
                await generator.unload(name)
                await generator.load(adapter)

    answers, _ = await asyncio.gather(asyncio.gather(*(speak(name) for name in voices for _ in range(8))), shuffle())
    assert all(answers)
    for name in voices:
        await generator.unload(name)
    await generator.unload("nobody")
    await generator.generate("hi", sampling=GREEDY)
    assert generator.status().adapters == ()


async def test_the_least_recently_used_adapter_gives_way(base: Path, voices: dict[str, Adapter]) -> None:
    """Two fit; five speak all the same, each as itself."""
    generator = load(base, device="cpu", max_adapters=2)
    right = {name: (await generator.generate("hi", sampling=GREEDY, adapter=a)).text for name, a in voices.items()}
    assert generator.status().adapters == ("biased", "low-bias")
    made = await asyncio.gather(
        *(generator.generate("hi", sampling=GREEDY, adapter=voices[name]) for name in sorted(voices) * 3)
    )
    assert [one.text for one in made] == [right[name] for name in sorted(voices) * 3]
    assert [one.adapter for one in made] == sorted(voices) * 3
    await generator.close()


async def test_adapters_of_another_base_are_refused_and_the_rest_go_on(
    generator: TransformersGenerator, voices: dict[str, Adapter], base: Path, tmp_path: Path
) -> None:
    """Wider, deeper, cut short, not finite, gone: a sentence each, and those loaded speak as before."""
    good = voices["plain"]
    before = await generator.generate("hi", sampling=GREEDY, adapter=good)
    wide = tiny_adapter(tmp_path / "wide", tiny_model(tmp_path / "w", width=48))
    deep = tiny_adapter(tmp_path / "deep", tiny_model(tmp_path / "d", layers=3))
    cut = tiny_adapter(tmp_path / "cut", base)
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-10])
    rotten = tiny_adapter(tmp_path / "rotten", base, strength=float("nan"))
    for folder, says in (
        (wide, f"made for {tmp_path / 'w'}, and the base here is {base}"),
        (deep, f"made for {tmp_path / 'd'}"),
        (cut, "damaged or cut short"),
        (rotten, "not finite"),
        (tmp_path / "gone", "is not in"),
    ):
        with pytest.raises(AdapterError, match=says):
            await generator.generate("hi", sampling=GREEDY, adapter=Adapter(id=folder.name, path=folder))
    after = await generator.generate("hi", sampling=GREEDY, adapter=good)
    assert after.text == before.text
    assert generator.status().adapters == ("plain",)


async def test_a_card_names_both_bases(generator: TransformersGenerator, base: Path, tmp_path: Path) -> None:
    """Same shape, other weights: only the card's fingerprint can tell, and the sentence names both bases."""
    other = tiny_model(tmp_path / "other", seed=9, positions=CONTEXT)
    folder = tiny_adapter(tmp_path / "voice", other)
    stranger = load(other, device="cpu")
    await stranger.close()
    card = {"id": "voice", "created_at": "2026-11-22T12:00:00Z", "base": "other", "base_fingerprint": ""}
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": stranger.fingerprint}))
    with pytest.raises(AdapterError, match=r"made for other \(gpt2 32x2x2.*and the base here is .*\(gpt2 32x2x2"):
        await generator.load(Adapter(id="voice", path=folder))
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": generator.fingerprint}))
    await generator.load(Adapter(id="voice", path=folder))


async def test_an_adapter_that_makes_infinities_hurts_itself_alone(
    generator: TransformersGenerator, base: Path, tmp_path: Path
) -> None:
    """Its own request fails with a sentence; its neighbours in the batch are answered as ever."""
    wild = Adapter(id="wild", path=tiny_adapter(tmp_path / "wild", base, strength=1e30))
    alone = await generator.generate("hi", sampling=GREEDY)
    done = await asyncio.gather(
        generator.generate("hi", sampling=GREEDY),
        generator.generate("hi", sampling=GREEDY, adapter=wild),
        generator.generate("hi", sampling=GREEDY),
        return_exceptions=True,
    )
    assert isinstance(done[1], GeneratorError)
    assert "not finite" in str(done[1])
    assert [one.text for one in (done[0], done[2]) if isinstance(one, Completion)] == [alone.text] * 2


async def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    """On a CPU the sums are float32, whatever the disk holds."""
    generator = load(tiny_model(tmp_path, dtype=torch.float16), device="cpu")
    assert generator.status().device == "cpu float32"
    assert (await generator.generate("hi", sampling=GREEDY)).new_tokens == 12
    await generator.close()


async def test_bfloat16_speaks_too(base: Path, voices: dict[str, Adapter]) -> None:
    """As on a GPU: base and adapters in bfloat16, alone and mixed in one batch, the same again each way.

    In company only where bfloat16 is native: elsewhere torch emulates it with kernels that round by the size of the
    batch, and who shares a batch is up to time.
    """
    generator = TransformersGenerator(load_base(base, device="cpu", dtype=torch.bfloat16), max_batch=4)
    assert generator.status().device == "cpu bfloat16"
    jobs = [None, *voices.values()]
    alone = [[(await generator.generate("hi", sampling=DRAWN, adapter=a)).text for a in jobs] for _ in range(2)]
    assert alone[0] == alone[1]
    first, second = [
        [one.text for one in await asyncio.gather(*(generator.generate("hi", sampling=DRAWN, adapter=a) for a in jobs))]
        for _ in range(2)
    ]
    assert first == second or not wants_bf16("auto")
    assert [len(set(texts)) for texts in (first, second)] == [len(jobs)] * 2
    dtypes = {weight.dtype for weight in generator._base.model.parameters()}
    assert dtypes == {torch.bfloat16}
    await generator.close()


def test_a_base_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an empty one, another architecture, damaged weights, an unknown name without a network."""
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
        (tmp_path / "mamba", "is a mamba model"),
        (cut, "cannot be loaded"),
        ("no/such-model", "neither in the local cache nor"),
    ]
    for base, says in table:
        with pytest.raises(ModelError, match=says) as caught:
            load(base, device="cpu")
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="no device 'abacus'"):
        load(cut, device="abacus")


def test_a_folder_never_asks_the_network(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a local folder opens no socket at all."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    async def once() -> None:
        generator = load(base, device="cpu")
        with monkeypatch.context() as patch:
            patch.setattr("socket.socket.connect", refuse)
            await generator.generate("hi", sampling=GREEDY)
        await generator.close()

    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("socket.getaddrinfo", refuse)
        load_check = load(base, device="cpu")
    asyncio.run(load_check.close())
    asyncio.run(once())


def test_the_fixture_adapters_are_what_peft_writes(voices: dict[str, Adapter]) -> None:
    """The tests' own adapters carry peft's two files."""
    assert all((adapter.path / name).is_file() for adapter in voices.values() for name in (CONFIG, WEIGHTS))
