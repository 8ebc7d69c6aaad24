"""A channel in a terminal: lines in, replies out; notes go elsewhere."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

from bots.terminal import Terminal
from core.adapters import AdapterRegistry
from core.adapters.judge import TrialJudge
from core.adapters.selection import AdapterSelection
from core.blocked_words import BlockedWords
from core.chat import ChatSettings
from core.commands import Commands
from core.composer import SelectAdapter
from core.memory import Memory, open_memory
from core.notices import UNSAYABLE
from tests.core.adapters.test_registry import adapter, card
from tests.core.test_recall import SAID
from tests.fakes import Clock, FakeGenerator, chat


async def talk(
    typed: str,
    *replies: str,
    model: FakeGenerator | None = None,
    memory: Memory | None = None,
    settings: ChatSettings | None = None,
    clock: Clock | None = None,
    select_adapter: SelectAdapter | None = None,
    **commands: Any,
) -> tuple[str, str]:
    """What stands on standard output and on standard error after these lines came through a pipe."""
    clock = clock or Clock()
    model = model or FakeGenerator(lines=replies)
    room = chat(model, memory=memory, settings=settings, clock=clock, select_adapter=select_adapter)
    out, notes = io.StringIO(), io.StringIO()
    terminal = Terminal(
        room,
        Commands(chat=room, clock=clock, started_at=clock.now, prefix="/", **commands),
        person="ann",
        clock=clock,
        source=io.StringIO(typed),
        sink=out,
        notes=notes,
        interactive=False,
    )
    for line in terminal.lines():
        await terminal.say(line)
    return out.getvalue(), notes.getvalue()


async def test_piped_lines_get_piped_replies() -> None:
    """A reply a line, nothing else on standard output."""
    assert await talk("hi\nhow are you\n", "hello", "fine") == ("hello\nfine\n", "")


async def test_the_last_line_needs_no_newline() -> None:
    """A pipe that ends without a newline still asked something."""
    assert (await talk("hi", "hello"))[0] == "hello\n"


async def test_an_empty_line_is_one_sentence() -> None:
    """Nothing said, nothing stored, and the person is told."""
    out, notes = await talk("\n   \nhi\n", "hello")
    assert out == "hello\n"
    assert notes.count("The line is empty") == 2


async def test_commands_are_typed_with_a_slash() -> None:
    """The same table as everywhere; help goes to the notes, another answer to the output."""
    out, notes = await talk("hi\n/again\n/dance\n/quit\nnever read\n", "hello", "good day")
    assert out == "hello\ngood day\n"
    assert "I don't know “dance”" in notes


async def test_a_huge_line_is_cut_with_a_word() -> None:
    """A hundred kilobytes and more: the end is read, and the person knows."""
    model = FakeGenerator()
    out, notes = await talk("x " * 60_000 + "and the end?\n", model=model)
    assert out == "hello\n"
    assert "I read its last 100,000 characters" in notes
    assert model.prompts[0].endswith("and the end?\nPerson2:")


async def test_what_it_must_not_say() -> None:
    """The next candidate is said, and where there is none a sentence says that it would rather not."""
    blocked = ChatSettings(blocked=BlockedWords(["frobnicate"]))
    assert await talk("hi\nand?\n", "fr0bnicate|dear me", "frobnicate", settings=blocked) == (
        "dear me\n",
        f"{UNSAYABLE}\n",
    )


async def test_who_it_is_and_why_it_said_so(tmp_path: Path) -> None:
    """A persona; `/why` shows what was drawn, recalled and learned from, `/status` how the trial stands."""
    clock, memory = Clock(), open_memory("sqlite://")
    registry = AdapterRegistry(tmp_path / "adapters", clock=clock)
    for name in ("one", "two"):
        registry.add(adapter(tmp_path / name), card(name))
    registry.use("one")
    registry.begin_trial("two", share=0.99, days=7)
    model = FakeGenerator(lines=[*("I see." for _ in range(46)), "Poor parrot!|Poor parrot!|Hm."])
    selection = AdapterSelection(registry, model)
    await selection.refresh()

    async def types(*lines: str) -> tuple[str, str]:
        return await talk(
            "\n".join(lines),
            model=model,
            memory=memory,
            settings=ChatSettings(user_rate=0),
            clock=clock,
            select_adapter=selection.adapter_for,
            trial=TrialJudge(registry, memory.judgements, clock=clock).standing,
            learned_from={"two": 3}.get,
        )

    await types("/settings recall on", "/settings persona A kind gardener.", *SAID, *(f"talk {n}" for n in range(41)))
    clock.now += timedelta(days=30)
    out, notes = await types("Captain Flint the parrot flew away", "/why", "/again", "/status")
    assert out == "Poor parrot!\nHm.\n"
    for detail in (
        "adapter: two",
        "learned from: 3 people who agreed",
        "drawn: “Poor parrot!” (2 of 3,",
        "“my parrot Captain Flint bites the postman” (2026-01-01)",
        "two is on trial",
    ):
        assert detail in notes
    assert set(model.personas) == {"A kind gardener."}
