"""The command that measures how fast the generator replies here."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.dialogue import Dialogue, DialogueFault, project, read
from core.errors import DialogueError
from core.memory import open_memory
from core.messages import Message
from core.settings import Settings
from person2.app import configured, open_generator, open_registry
from person2.console import chosen, out, write_json

if TYPE_CHECKING:
    from core.generator.benchmark import BenchResult

cli = typer.Typer()

MIN_REPLIES = 4
"""Replies that a stored conversation must have to be replayed."""

SAMPLE = """\
Person1: Hi! Did you do anything nice this weekend?
Person2: I went for a long walk by the river and then cooked a big pot of soup.
Person1: That sounds lovely. What kind of soup was it?
Person2: Tomato with basil, and far too much garlic in it.
Person1: There is no such thing as too much garlic. Do you cook a lot?
Person2: Most evenings. It helps me forget about work for a while.
Person1: I should try that. I mostly watch films when I want to forget about work.
Person2: Films are good as well. Have you seen anything that you would recommend?
Person1: There is a new one about a lighthouse keeper and his dog. It is slow, but I liked it very much.
Person2: Slow is fine with me. Is it sad? I do not like it when something happens to the dog.
Person1: Nothing happens to the dog, I promise. They even have a birthday party for it at the end.
Person2: Then I will watch it tonight. Do you want to come over? There is plenty of soup left.
Person1: I would love to. Shall I bring some bread and a bottle of something nice with me?
Person2: Bread would be perfect. Come at seven, and bring your own slippers, the floor is cold.
"""
"""A dialogue to replay where nothing is stored yet."""


@cli.command(epilog="Example: `person2 bench held-out.txt --conversations 32`")
def bench(
    file: Annotated[
        Path | None, typer.Argument(help="Dialogues to replay; the bot's stored conversations if left out.")
    ] = None,
    conversations: Annotated[
        list[int] | None, typer.Option(min=1, help="Concurrent conversations; may be repeated.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model: starter, a hub name or a folder.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter's id, a folder, or none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure speed by replaying conversations: seconds per reply, tokens per second."""
    from core.generator.benchmark import CONVERSATIONS, measure, table

    settings = configured(**chosen(base_model=base, adapter=adapter))
    dialogues = _talk_of(file) if file else _remembered(settings)
    selected = open_registry(settings).find(settings.adapter, base=settings.base_model)

    async def run() -> "list[BenchResult]":
        generator = await open_generator(settings)
        try:
            return await measure(
                generator,
                dialogues,
                conversations=conversations or CONVERSATIONS,
                adapter=selected,
                clock=time.perf_counter,
            )
        finally:
            await generator.close()

    try:
        figures = asyncio.run(run())
    except ValueError as error:
        raise DialogueError(f"These dialogues cannot be replayed ({error}); give longer ones.") from error
    if as_json:
        write_json([each.as_json() for each in figures])
    else:
        out.print(table(figures), markup=False)


def _talk_of(file: Path) -> list[Dialogue]:
    try:
        with file.open(encoding="utf-8") as lines:
            found = [item for item in read(lines) if not isinstance(item, DialogueFault)]
    except (OSError, UnicodeDecodeError) as error:
        raise DialogueError(f"{file} cannot be read ({error}); give a UTF-8 file of dialogues.") from error
    if not found:
        raise DialogueError(f"{file} contains no dialogue; give a file of Person1: and Person2: lines.")
    return found


def _remembered(settings: Settings) -> list[Dialogue]:
    """The bot's own longer conversations, and the sample in case none of them is long enough to replay."""
    memory = open_memory(settings.database)
    talks: dict[str, list[Message]] = {}
    for item in memory.everything():
        talks.setdefault(item.message.conversation.key, []).append(item.message)
    memory.close()
    found = [dialogue for talk in talks.values() if len(dialogue := project(talk)) >= 2 * MIN_REPLIES]
    return found + [item for item in read(SAMPLE.splitlines()) if not isinstance(item, DialogueFault)]
