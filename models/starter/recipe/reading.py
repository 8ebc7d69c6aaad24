"""What a model says to people, to be read by people: forty first replies and twenty conversations.

    python -m models.starter.recipe.reading [--adapter models/starter/adapters/small-talk] > said.md

The lines of Person1 stand in `lines/reading.toml`; with `--lines` in another file: `everyday.toml`, `compared.toml`,
by which adapters are compared, `talks.toml`, `weather.toml`, `told.toml` and `doing.toml`, whose first lines say what
they are for, and `unseen.toml`, by which nothing is tuned. `--hurried` writes them as people do in a hurry ("im a
teacher"). The seed is fixed, every reply is the first one that came: through `core.chat` and the engine, as in the
terminal. Writes Markdown.
"""

import argparse
import asyncio
import random
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.chat import Chat, ChatSettings
from core.generator import Adapter, Sampling, engine
from core.generator.defaults import READ, sampling_of
from core.memory import open_memory
from core.messages import Conversation, Kind, Message
from models.starter.recipe.hurried import in_a_hurry

LINES = Path(__file__).parent / "lines" / "reading.toml"
SEED = 1
START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    options = asking(__doc__)
    options.add_argument(
        "--lines", type=Path, default=LINES, help="a TOML file of openings and talks, like reading.toml"
    )
    options.add_argument("--temperature", type=float, help="the model's own")
    options.add_argument("--top-p", type=float, help="likewise")
    options.add_argument("--repetition-penalty", type=float, help="likewise")
    options.add_argument("--best-of", type=int, help="likewise")
    given = options.parse_args()
    told = {name: getattr(given, name) for name in READ if getattr(given, name) is not None}
    sampling = replace(sampling_of(given.model), **told)
    lines = tomllib.loads(given.lines.read_text(encoding="utf-8"))
    talks = [[opening] for opening in lines["openings"]] + [talk["lines"] for talk in lines["talks"]]
    said = heard(given, talks, sampling)
    print("| | Person1 | Person2 |\n|---|---|---|")
    openings = len(lines["openings"])
    for number, ((line, reply),) in enumerate(said[:openings], 1):
        print(f"| {number} | {_cell(line)} | {_cell(reply)} |")
    for number, talk in enumerate(said[openings:], 1):
        print(f"\n**{number}**\n")
        for line, reply in talk:
            print(f"> Person1: {line}  \n> Person2: {reply}  ")


def asking(description: str | None) -> argparse.ArgumentParser:
    """The options of whoever asks a model something: which one, with which adapter, at which seed."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=Path("models/starter"))
    options.add_argument("--adapter", type=Path, help="a LoRA adapter's folder")
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument(
        "--hurried", action="store_true", help="the lines in small letters, without stops or apostrophes"
    )
    return options


def heard(
    given: argparse.Namespace, talks: Sequence[Sequence[str]], sampling: Sampling | None = None
) -> list[list[tuple[str, str]]]:
    """What the model of these options says in each talk, drawn as it usually draws unless told otherwise."""
    if given.hurried:
        talks = [[in_a_hurry(line) for line in talk] for talk in talks]
    adapter = Adapter(id=given.adapter.name, path=given.adapter) if given.adapter else None
    return asyncio.run(play(given.model, adapter, sampling or sampling_of(given.model), talks, seed=given.seed))


async def play(
    model: Path, adapter: Adapter | None, sampling: Sampling, talks: Sequence[Sequence[str]], *, seed: int
) -> list[list[tuple[str, str]]]:
    """Each talk in a channel of its own, as (line, reply) pairs."""

    async def voice(_: Conversation, __: str | None) -> Adapter | None:
        return adapter

    generator = engine.load(model)
    played: list[list[tuple[str, str]]] = []
    with tempfile.TemporaryDirectory() as folder:
        memory = open_memory(f"sqlite:///{folder}/reading.db")
        settings = ChatSettings(sampling=sampling, user_rate=0)
        for number, lines in enumerate(talks):
            chat = Chat(
                memory=memory,
                generator=generator,
                select_adapter=voice,
                settings=settings,
                rng=random.Random(seed),
            )
            played.append([(line, await _answer(chat, f"talk{number}", at, line)) for at, line in enumerate(lines)])
        memory.close()
    await generator.close()
    return played


async def _answer(chat: Chat, channel: str, at: int, line: str) -> str:
    message = Message(
        conversation=Conversation(platform="terminal", channel=channel, kind=Kind.DIRECT),
        id=str(at),
        author="Person1",
        author_name="Person1",
        text=line,
        sent_at=START + timedelta(minutes=at),
    )
    reply = await chat.hear(message)
    return reply.text if reply is not None else "(nothing)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
