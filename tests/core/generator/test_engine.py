"""What the engine alone does: kept conversations, bounds that hold, every family, and all kinds of files."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from core.errors import GeneratorError, ModelError
from core.generator import INFORMATION, SEED_STEP, Adapter, Completion, engine, transformers
from core.generator.engine import Engine
from core.generator.engine.model import Chunk
from tests.fakes import until
from tests.generators import CONTEXT, DRAWN, ENGINES, GREEDY, PROMPTS, Gate, before_step, reference
from tests.models import tiny_adapter, tiny_base, tiny_model, tiny_tokenizer


@pytest.fixture
async def exact(base: Path) -> AsyncIterator[Engine]:
    made = engine.load(base, precision="fp32", max_batch=8, queue_limit=100, prefill_chunk=32)
    yield made
    await made.close()


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


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_conversation_is_read_once(base: Path, voices: dict[str, Adapter], kind: str) -> None:
    """Turn by turn, what was read or said before is not computed again, and the replies are those of a stranger."""
    kept = engine.load(base, **ENGINES[kind])
    fresh = engine.load(base, **ENGINES[kind])
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


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_beginning_that_several_share_is_read_once(base: Path, voices: dict[str, Adapter], kind: str) -> None:
    """A persona in front of another channel's talk is not read again, and says what it would say if it were."""
    persona = "Person1: who are you?\nPerson2: a pirate, and a very old one at that\n" * 2
    made, fresh = engine.load(base, **ENGINES[kind]), engine.load(base, **ENGINES[kind])
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


@pytest.mark.parametrize("kind", ENGINES)
async def test_the_memory_bound_holds(base: Path, kind: str) -> None:
    """Many more conversations than fit: the least recently used give way, and a waiting one gets its turn."""
    made = engine.load(base, max_batch=8, cache_mb=1, **ENGINES[kind])
    limit = 1_000_000
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, made.cache_used)
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
    while made.cache_used:  # noqa: ASYNC110 - a test that hangs here has found the fault
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
    assert exact.cache_used == 0


async def test_a_long_prompt_does_not_stall_the_others(base: Path) -> None:
    """While somebody speaks, a newcomer's prompt is read a chunk a step."""
    made = engine.load(base, precision="fp32", prefill_chunk=16)
    gate, rows = Gate(), []

    def before(chunks: list[Chunk]) -> None:
        rows.append(sum(len(chunk.tokens) for chunk in chunks))
        gate()

    before_step(made, before)
    gate.shut()
    first = asyncio.create_task(made.generate("hi", sampling=replace(GREEDY, max_new_tokens=30)))
    await gate.reached()
    second = asyncio.create_task(made.generate("1234567890" * 10, sampling=replace(GREEDY, max_new_tokens=1)))
    await until(lambda: made.status().queued == 1)
    gate.open()
    await asyncio.gather(first, second)
    assert 16 < max(rows) <= 17 + 1
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


@pytest.mark.parametrize("kind", ENGINES)
async def test_the_best_of_several_does_not_depend_on_the_company(
    base: Path, voices: dict[str, Adapter], kind: str
) -> None:
    """Alone or in a crowd, new or in a conversation that is kept, with little memory or much: the same reply."""
    prompts = [f"Person1: {'so ' * number}tell me\nPerson2:" for number in range(0, 30, 4)]
    texts = []
    for batch, megabytes in ((1, 640), (8, 640), (8, 2)):
        made = engine.load(base, max_batch=batch, cache_mb=megabytes, prefill_chunk=16, **ENGINES[kind])
        settings = replace(DRAWN, best_of=3, temperature=1.5)
        for _ in range(2):
            found = await asyncio.gather(
                *(made.generate(p, sampling=settings, adapter=voices["plain"], conversation=p) for p in prompts)
            )
            texts.append([one.text for one in found])
        assert made.status().running == 0
        await made.close()
        assert made.cache_used == 0
    assert all(each == texts[0] for each in texts)


async def test_an_id_may_come_back_with_other_weights(exact: Engine, voices: dict[str, Adapter]) -> None:
    """The folder counts too: the new weights speak, and nothing the old ones computed is used."""
    before = await exact.generate("hi", sampling=GREEDY, adapter=voices["plain"], conversation="a")
    other = Adapter(id="plain", path=voices["rslora"].path)
    after = await exact.generate("hi", sampling=GREEDY, adapter=other, conversation="a")
    right = await exact.generate("hi", sampling=GREEDY, adapter=voices["rslora"])
    assert after.text == right.text != before.text


async def test_trained_norms_are_served(exact: Engine, base: Path, tmp_path: Path) -> None:
    """An adapter with all biases, those of the layer norms too, speaks as in peft."""
    voice = Adapter(id="biased", path=tiny_adapter(tmp_path / "biased", base, seed=4, bias="all"))
    made = await exact.generate("hi", sampling=GREEDY, adapter=voice)
    assert made.text == reference(base, voice, "hi", GREEDY.max_new_tokens)


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


def test_what_the_engine_lacks(base: Path, tmp_path: Path) -> None:
    """A variation that it does not compute, and settings without room for anything: a sentence each."""
    odd = tiny_model(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"scale_attn_by_inverse_layer_idx": True}))
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx=True, which the engine does not support"):
        engine.load(odd)
    with pytest.raises(ModelError, match="PERSON2_CACHE_MB is 0, but one conversation"):
        engine.load(base, cache_mb=0)
    with pytest.raises(ModelError, match="PERSON2_MAX_BATCH is 0"):
        engine.load(base, max_batch=0)
