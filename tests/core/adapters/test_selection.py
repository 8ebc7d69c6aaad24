"""A running bot takes over what is promoted: with a generator one can read, and under load with a real tiny model."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
import torch

from core.adapters import AdapterRegistry
from core.adapters.selection import AdapterSelection
from core.adapters.validation import WEIGHTS, folder_fingerprint
from core.chat import Chat, ChatSettings
from core.errors import AdapterError, NumericalError, Unavailable
from core.generator import Adapter, Completion, Generator, Sampling, engine, transformers
from core.memory import open_memory
from core.messages import Conversation
from tests.core.adapters.test_registry import card
from tests.fakes import FakeGenerator, said
from tests.models import tiny_adapter, tiny_model

HERE = Conversation(platform="terminal", channel="here")


@dataclass(kw_only=True)
class Listener(FakeGenerator):
    """Writes down what is loaded and unloaded, and refuses what it is told to."""

    diary: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    down: bool = False
    """As a remote server may be."""
    stumbles: set[str] = field(default_factory=set)
    """Over these it raises what no generator promises to raise."""
    overflows: set[str] = field(default_factory=set)

    async def generate(
        self,
        prompt: str,
        *,
        sampling: Sampling,
        adapter: Adapter | None = None,
        conversation: str | None = None,
        persona: str = "",
    ) -> Completion:
        if adapter is not None and adapter.id in self.overflows:
            raise NumericalError("the model's numbers are not finite")
        return await super().generate(
            prompt, sampling=sampling, adapter=adapter, conversation=conversation, persona=persona
        )

    async def load(self, adapter: Adapter) -> None:
        if adapter.id in self.stumbles:
            raise ZeroDivisionError("rank 0")
        if self.down:
            raise Unavailable("the server cannot be reached: start it")
        if adapter.id in self.refuses:
            raise AdapterError(f"the adapter {adapter.id!r} was made for another base: choose another")
        self.diary.append(f"+{adapter.id}")

    async def unload(self, adapter_id: str) -> None:
        self.diary.append(f"-{adapter_id}")


async def spoken(selection: AdapterSelection, override: str | None = None) -> str | None:
    voice = await selection.adapter_for(HERE, override)
    return voice.id if voice else None


async def test_promotions_are_followed(registry: AdapterRegistry) -> None:
    """Each look takes over what the registry says: nothing, one, two, back, the bare base."""
    generator = Listener()
    selection = AdapterSelection(registry, generator)
    heard = []
    for change in ("", "one", "two", "back", "back"):
        if change == "back":
            registry.rollback()
        elif change:
            registry.use(change)
        await selection.refresh()
        heard.append(await spoken(selection))
    assert heard == [None, "one", "two", "one", None]
    assert generator.diary == ["+one", "+two", "+one"]


async def test_the_background_task_follows_by_itself(registry: AdapterRegistry) -> None:
    """Started and left alone it notices; stopped it does not; stopping twice is fine."""
    selection = AdapterSelection(registry, Listener(), poll_every=0.01)
    before = asyncio.all_tasks()
    await selection.start()
    registry.use("one")
    async with asyncio.timeout(10):
        while await spoken(selection) != "one":  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    await selection.stop()
    await selection.stop()
    assert asyncio.all_tasks() == before
    registry.use("two")
    assert await spoken(selection) == "one"


async def test_a_bad_promotion_is_refused_with_one_line(
    registry: AdapterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The old voice goes on, one line is logged however often the registry is looked at, and the next one is taken."""
    selection = AdapterSelection(registry, Listener(refuses={"two"}))
    registry.use("one")
    await selection.refresh()
    registry.use("two")
    for _ in range(5):
        await selection.refresh()
    assert await spoken(selection) == "one"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "one stays active: the adapter 'two' was made for another base: choose another"
    ]
    registry.use("three")
    await selection.refresh()
    assert await spoken(selection) == "three"


async def test_a_refused_adapter_promoted_again_is_told_again(
    registry: AdapterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Once mended it is taken, and as long as it is not, each attempt to promote it has its line."""
    generator = Listener(refuses={"two"})
    selection = AdapterSelection(registry, generator)
    for name in ("one", "two", "one", "two"):
        registry.use(name)
        await selection.refresh()
    assert len([line for line in caplog.messages if "stays active" in line]) == 2
    generator.refuses.clear()
    for name in ("one", "two"):
        registry.use(name)
        await selection.refresh()
    assert await spoken(selection) == "two"


async def test_a_server_that_is_down_is_asked_again(
    registry: AdapterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """One line while it is down, and the promotion is taken over once it is up; a named adapter starts all the same."""
    generator = Listener(down=True)
    selection = AdapterSelection(registry, generator)
    registry.use("one")
    for _ in range(3):
        await selection.refresh()
    assert await spoken(selection) is None
    assert len(caplog.messages) == 1
    named = AdapterSelection(registry, generator, spec="two")
    await named.start()
    assert await spoken(named) == "two"
    await named.stop()
    generator.down = False
    await selection.refresh()
    assert await spoken(selection) == "one"


async def test_a_withdrawn_voice_falls_silent(registry: AdapterRegistry) -> None:
    """Its successor takes over and its weights leave the memory; if the successor is no good, the base speaks."""
    generator = Listener()
    selection = AdapterSelection(registry, generator)
    for name in ("one", "two", "three"):
        registry.use(name)
        await selection.refresh()
    registry.withdraw("three", "forgotten")
    await selection.refresh()
    assert await spoken(selection) == "two"
    assert generator.diary[-2:] == ["+two", "-three"]
    generator.refuses.add("one")
    registry.withdraw("two", "forgotten")
    await selection.refresh()
    assert await spoken(selection) is None
    assert generator.diary[-1] == "-two"


async def test_new_weights_under_the_old_name_are_loaded(registry: AdapterRegistry) -> None:
    """An adapter trained again in place is another adapter."""
    generator = Listener()
    selection = AdapterSelection(registry, generator)
    registry.use("one")
    await selection.refresh()
    os.utime(registry.path("one") / WEIGHTS, ns=(1, 1))
    await selection.refresh()
    assert generator.diary == ["+one", "-one", "+one"]


async def test_what_the_operator_named_stays(registry: AdapterRegistry) -> None:
    """PERSON2_ADAPTER=two does not follow promotions; one that cannot be used stops the start with a sentence."""
    selection = AdapterSelection(registry, Listener(), spec="two")
    await selection.start()
    registry.use("one")
    await selection.refresh()
    assert await spoken(selection) == "two"
    assert await spoken(selection, "current") == "two"
    await selection.stop()
    with pytest.raises(AdapterError, match="no adapter called 'four'"):
        await AdapterSelection(registry, Listener(), spec="four").start()
    with pytest.raises(AdapterError, match="another base"):
        await AdapterSelection(registry, Listener(refuses={"one"}), spec="one").start()
    bare = AdapterSelection(registry, Listener(), spec="none")
    await bare.start()
    assert await spoken(bare) is None
    await bare.stop()
    registry.withdraw("two", "forgotten")
    await selection.refresh()
    assert await spoken(selection) is None


async def test_a_channel_may_have_its_own_voice(registry: AdapterRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """An id, `none`, `current`; one that is gone, unsafe or refused speaks as the others do, with one line."""
    generator = Listener(refuses={"three"})
    selection = AdapterSelection(registry, generator)
    registry.use("one")
    await selection.refresh()
    table = {"two": "two", "none": None, "current": "one", None: "one"}
    assert {override: await spoken(selection, override) for override in table} == table
    assert await spoken(selection, "two") == "two"
    assert generator.diary == ["+one", "+two"]
    for bad in ("four", "three", "../one", "/etc", "org/name", ""):
        assert [await spoken(selection, bad) for _ in range(3)] == ["one"] * 3
        assert len([line for line in caplog.messages if "uses the default adapter" in line]) == 1
        caplog.clear()
    registry.withdraw("two", "forgotten")
    assert await spoken(selection, "two") == "one"
    assert generator.diary[-1] == "-two"


async def test_whatever_fails_in_loading_is_a_refusal(
    registry: AdapterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that no check foresaw is told once, the old voice goes on, and a bot that names it does not start."""
    generator = Listener(stumbles={"two"})
    selection = AdapterSelection(registry, generator)
    for name in ("one", "two"):
        registry.use(name)
        for _ in range(4):
            await selection.refresh()
    assert await spoken(selection) == "one"
    assert [await spoken(selection, "two") for _ in range(3)] == ["one"] * 3
    assert [line for line in caplog.messages if "two" in line or "rank 0" in line] == [
        "one stays active: it cannot be loaded (rank 0)",
        f"{HERE.key} uses the default adapter: it cannot be loaded (rank 0)",
    ]
    with pytest.raises(AdapterError, match=r"'two' cannot be loaded \(rank 0\)"):
        await AdapterSelection(registry, generator, spec="two").start()


async def test_a_voice_that_overflows_in_service_gives_way(
    registry: AdapterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Members get their answer from the voice before, the log has one line, and what is promoted next is taken."""
    generator = Listener(overflows={"two"}, speak=lambda prompt: f"reply {len(prompt)}")
    selection = AdapterSelection(registry, generator)
    for name in ("one", "two"):
        registry.use(name)
        await selection.refresh()
    chat = Chat(
        memory=open_memory("sqlite://"),
        generator=generator,
        select_adapter=selection.adapter_for,
        adapter_failed=selection.failed,
        settings=ChatSettings(),
    )
    for channel, text in (("a", "hello there"), ("b", "how are you today")):
        heard = await chat.hear(said(text, channel=channel))
        assert heard is not None
        assert (heard.adapter, heard.notice) == ("one", False)
        await selection.refresh()
    assert [line for line in caplog.messages if "two" in line] == [
        "two cannot be used (the model's numbers are not finite); one is now active"
    ]
    assert await spoken(selection, "two") == "one"
    registry.use("three")
    await selection.refresh()
    assert await spoken(selection) == "three"


async def test_where_nothing_is_left_the_base_speaks(registry: AdapterRegistry) -> None:
    """The only voice overflows: the base goes on."""
    generator = Listener(overflows={"one"})
    selection = AdapterSelection(registry, generator, spec="one")
    await selection.start()
    found = await selection.adapter_for(HERE)
    assert found is not None
    await selection.failed(found, NumericalError("not finite"))
    assert await spoken(selection) is None
    await selection.refresh()
    assert await spoken(selection) is None
    await selection.stop()


async def test_a_damaged_pointer_or_a_missing_registry(tmp_path: Path) -> None:
    """No folder, a pointer full of rubbish: the base speaks and nothing is raised."""
    registry = AdapterRegistry(tmp_path / "nowhere")
    selection = AdapterSelection(registry, Listener())
    await selection.refresh()
    assert await spoken(selection) is None
    registry.pointer.parent.mkdir()
    registry.pointer.write_bytes(b"\xff\xfe\x00rubbish")
    await selection.refresh()
    assert await spoken(selection) is None


@asynccontextmanager
async def crowd(
    selection: AdapterSelection, generator: Generator, people: int
) -> AsyncIterator[list[tuple[str, str, float]]]:
    """People who talk without a pause; each reply is kept as (voice, text, seconds). Failures are raised at the end."""
    replies: list[tuple[str, str, float]] = []
    done = asyncio.Event()

    async def talk() -> None:
        while not done.is_set():
            voice = await selection.adapter_for(HERE)
            began = monotonic()
            made = await generator.generate("hi", sampling=Sampling(temperature=0, max_new_tokens=8), adapter=voice)
            replies.append((made.adapter or "none", made.text, monotonic() - began))

    tasks = [asyncio.create_task(talk()) for _ in range(people)]
    try:
        yield replies
    finally:
        done.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("build", [transformers.load, engine.load], ids=["transformers", "engine"])
async def test_no_request_fails_while_voices_change_under_load(tmp_path: Path, build: Callable[..., Generator]) -> None:
    """Eight people talk without a pause through good, damaged and foreign promotions, a rollback and a withdrawal."""
    torch.set_num_threads(1)
    base = tiny_model(tmp_path / "base")
    registry = AdapterRegistry(tmp_path / "adapters")
    for seed, name in enumerate(("a", "b", "c", "damaged")):
        made = tiny_adapter(tmp_path / name, base, seed=seed + 1)
        registry.add(made, card(name, base_fingerprint=folder_fingerprint(base)))
    foreign = tiny_model(tmp_path / "other", width=48)
    made = tiny_adapter(tmp_path / "foreign", foreign)
    registry.add(made, card("foreign", base_fingerprint=folder_fingerprint(foreign)))
    weights = registry.path("damaged") / WEIGHTS
    generator = build(base, max_batch=4)
    selection = AdapterSelection(registry, generator, poll_every=0.02)
    await selection.start()

    async def until(name: str) -> None:
        began = len(replies)
        for _ in range(500):
            await asyncio.sleep(0.01)
            if any(voice == name for voice, _, _ in replies[began:]):
                return
        raise AssertionError(f"{name} never spoke")

    async with crowd(selection, generator, 8) as replies:
        await until("none")
        for name in ("a", "b", "c"):
            registry.use(name)
            await until(name)
        registry.use("damaged")
        weights.write_bytes(weights.read_bytes()[:-50])
        await until("c")
        registry.use("foreign")
        await until("c")
        registry.use("b")
        await until("b")
        registry.withdraw("b", "forgotten")
        await until("c")
    await selection.stop()
    await generator.close()
    by_voice = {voice: {text for said, text, _ in replies if said == voice} for voice in ("none", "a", "b", "c")}
    assert all(len(texts) == 1 for texts in by_voice.values()), "a voice was mixed with another"
    assert len(set.union(*by_voice.values())) == 4
    assert {voice for voice, _, _ in replies} == set(by_voice)
