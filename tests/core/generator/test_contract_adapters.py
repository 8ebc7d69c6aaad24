"""What the port promises of adapters (`core.generator`), of every generator."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

from core.adapters.validation import CONFIG, WEIGHTS
from core.errors import AdapterError, GeneratorError
from core.generator import Adapter, Completion, Generator
from tests.generators import (
    CONTEXT,
    DRAWN,
    GREEDY,
    LOADS,
    LOCAL,
    VOICES,
    Running,
    running,
)
from tests.models import tiny_adapter, tiny_model


async def test_adapters_come_and_go_while_others_speak(made: Running, voices: dict[str, Adapter]) -> None:
    """Loading, unloading and speaking at once: every reply is the one its own adapter gives."""
    port = made.generator
    right = {}
    for name, adapter in voices.items():
        await port.load(adapter)
        right[name] = (await port.generate("hi", sampling=GREEDY, adapter=adapter)).text
    assert len(set(right.values())) == len(right)

    async def speak(name: str) -> bool:
        said = await port.generate("hi", sampling=GREEDY, adapter=voices[name], conversation=name)
        return said.text == right[name]

    async def shuffle() -> None:
        for _ in range(3):
            for name, adapter in voices.items():
                await port.unload(name)
                await port.load(adapter)

    answers, _ = await asyncio.gather(asyncio.gather(*(speak(name) for name in voices for _ in range(8))), shuffle())
    assert all(answers)
    for name in voices:
        await port.unload(name)
    await port.unload("nobody")
    await port.generate("hi", sampling=GREEDY)
    assert port.status().adapters == ()


async def test_no_reply_writes_out_the_weights(
    made: Running, voices: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python names an element that `deque.remove` does not find: once each answered request became text, its adapter's
    weights included (0.2 s a reply with SmolLM2)."""
    await made.generator.load(voices["plain"])
    written: list[torch.Size] = []

    def write(tensor: torch.Tensor, **_: object) -> str:
        written.append(tensor.shape)
        return "a tensor"

    monkeypatch.setattr(torch.Tensor, "__repr__", write)
    await made.generator.generate("hi", sampling=DRAWN, adapter=voices["plain"])
    assert written == []


@pytest.mark.parametrize("kind", LOCAL)
async def test_the_least_recently_used_adapter_gives_way(kind: str, base: Path, voices: dict[str, Adapter]) -> None:
    """Two fit; five speak all the same, each as itself."""
    async with running(kind, base, max_adapters=2) as made:
        port = made.generator
        right = {name: (await port.generate("hi", sampling=GREEDY, adapter=a)).text for name, a in voices.items()}
        assert port.status().adapters == tuple(VOICES)[-2:]
        done = await asyncio.gather(
            *(port.generate("hi", sampling=GREEDY, adapter=voices[name]) for name in sorted(voices) * 3)
        )
    assert [one.text for one in done] == [right[name] for name in sorted(voices) * 3]
    assert [one.adapter for one in done] == sorted(voices) * 3


async def test_an_adapter_that_is_not_there(made: Running, voices: dict[str, Adapter], tmp_path: Path) -> None:
    """Loading it and speaking through it are refused in one line, and those that are loaded speak as before."""
    gone = Adapter(id="gone", path=tmp_path / "gone")
    await made.generator.load(voices["plain"])
    before = await made.generator.generate("hi", sampling=GREEDY, adapter=voices["plain"])
    for attempt in (
        made.generator.load(gone),
        made.generator.generate("hi", sampling=GREEDY, adapter=gone),
    ):
        with pytest.raises(AdapterError, match="gone") as caught:
            await attempt
        assert "\n" not in str(caught.value)
    after = await made.generator.generate("hi", sampling=GREEDY, adapter=voices["plain"])
    assert after.text == before.text
    assert made.generator.status().adapters == ("plain",)


async def test_adapters_that_cannot_be_served_say_so(
    local: Generator, voices: dict[str, Adapter], base: Path, tmp_path: Path
) -> None:
    """Foreign, damaged, of other kinds: a sentence each, and those loaded speak as before."""
    before = await local.generate("hi", sampling=GREEDY, adapter=voices["plain"])
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
        (wide, f"does not fit this base|made for {tmp_path / 'w'}"),
        (deep, f"does not fit this base|made for {tmp_path / 'd'}"),
        (cut, "damaged or cut short"),
        (rotten, "not finite"),
        (head, "changes .*lm_head"),
        (dora, "DoRA"),
        (pissa, "pissa_niter_4, which changes the base"),
    ):
        with pytest.raises(AdapterError, match=says) as caught:
            await local.generate("hi", sampling=GREEDY, adapter=Adapter(id=folder.name, path=folder))
        assert "\n" not in str(caught.value)
    after = await local.generate("hi", sampling=GREEDY, adapter=voices["plain"])
    assert after.text == before.text
    assert local.status().adapters == ("plain",)


@pytest.mark.parametrize("kind", LOADS)
async def test_a_card_names_the_base(kind: str, base: Path, tmp_path: Path) -> None:
    """Same config, other weights: only the card's fingerprint can tell."""
    other = tiny_model(tmp_path / "other", seed=9, width=64, positions=CONTEXT)
    folder = tiny_adapter(tmp_path / "voice", other)
    card = {"id": "voice", "created_at": "2026-11-22T12:00:00Z", "base": "other"}
    made, stranger = LOADS[kind](base), LOADS[kind](other)
    assert made.fingerprint != stranger.fingerprint
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": stranger.fingerprint}))
    with pytest.raises(AdapterError, match=r"made for other \(gpt2 64x2x2"):
        await made.load(Adapter(id="voice", path=folder))
    (folder / "card.json").write_text(json.dumps(card | {"base_fingerprint": made.fingerprint}))
    await made.load(Adapter(id="voice", path=folder))
    await made.close()
    await stranger.close()


async def test_an_adapter_that_makes_infinities_hurts_itself_alone(
    local: Generator, base: Path, tmp_path: Path
) -> None:
    """Its own request fails with a sentence; its neighbours in the batch are answered as ever."""
    wild = Adapter(id="wild", path=tiny_adapter(tmp_path / "wild", base, strength=1e30))
    alone = await local.generate("hi", sampling=GREEDY)
    done = await asyncio.gather(
        local.generate("hi", sampling=GREEDY),
        local.generate("hi", sampling=GREEDY, adapter=wild),
        local.generate("hi", sampling=GREEDY),
        return_exceptions=True,
    )
    assert isinstance(done[1], GeneratorError)
    assert "not finite" in str(done[1])
    assert [one.text for one in (done[0], done[2]) if isinstance(one, Completion)] == [alone.text] * 2
