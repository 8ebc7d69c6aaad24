"""A channel in a terminal: lines in, replies out; notes go elsewhere."""

import io

from bots.terminal import Terminal
from core.commands import Commands
from tests.fakes import Clock, FakeGenerator, chat


async def talk(typed: str, *replies: str, model: FakeGenerator | None = None) -> tuple[str, str]:
    """What stands on standard output and on standard error after these lines came through a pipe."""
    clock = Clock()
    room = chat(model or FakeGenerator(lines=replies), clock=clock)
    out, notes = io.StringIO(), io.StringIO()
    terminal = Terminal(
        room,
        Commands(chat=room, clock=clock, started_at=clock.now, prefix="/"),
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
