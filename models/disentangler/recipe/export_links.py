"""`python -m models.disentangler.recipe.export_links EXPORT…`: hides the reply links of exports and finds them again.

Knows exports, links and two rules to beat: the message before, and the message before by somebody else.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from core.errors import Person2Error
from core.messages import Message
from training.data.disentangle import Disentangler
from training.data.formats import read

Rule = Callable[[Sequence[Message]], Sequence[int | None]]


def previous(messages: Sequence[Message]) -> list[int | None]:
    """Everybody answers the message before."""
    return [index - 1 if index else None for index in range(len(messages))]


def previous_by_another(messages: Sequence[Message]) -> list[int | None]:
    """Everybody answers the message before that somebody else wrote."""
    answers: list[int | None] = []
    for index, message in enumerate(messages):
        if index and messages[index - 1].author == message.author:
            answers.append(answers[-1])
        else:
            answers.append(index - 1 if index else None)
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecall:
    links: int
    """Reply links whose message is in the same export."""
    exact: int
    """Found again, to the message."""
    through_own: int
    """Found again, or by way of earlier messages of the same author, which dialogues join anyway."""


def search(channels: Iterable[Sequence[Message]], rule: Rule) -> LinkRecall:
    """How many of the reply links `rule` finds when it does not see them. Each channel oldest first."""
    links = exact = through = 0
    for messages in channels:
        place = {message.id: index for index, message in enumerate(messages)}
        answers = rule([replace(message, reply_to=None) for message in messages])
        for index, message in enumerate(messages):
            wanted = place.get(message.reply_to) if message.reply_to is not None else None
            if wanted is None or wanted >= index:
                continue
            answer = answers[index]
            links += 1
            exact += answer == wanted
            while answer is not None and answer != wanted and messages[answer].author == message.author:
                answer = answers[answer]
            through += answer == wanted
    return LinkRecall(links=links, exact=exact, through_own=through)


def channels(exports: Iterable[Path]) -> list[list[Message]]:
    """The messages of the exports, a list a conversation, oldest first."""
    found: dict[str, list[Message]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for export in exports:
            for item in read(export, scratch=Path(scratch)):
                if isinstance(item, Message):
                    found.setdefault(item.conversation.key, []).append(item)
    return [sorted(messages, key=lambda message: message.sent_at) for messages in found.values()]


def main(
    exports: Annotated[list[Path], typer.Argument(help="Exports with reply links, files or folders.")],
    scorer: Annotated[Path | None, typer.Option(help="A scorer other than the bundled one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Hide reply links and look for them, as python -m models.disentangler.recipe.export_links channels/discord_json"""
    try:
        disentangler = Disentangler.load(scorer)
    except Person2Error as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    talk = channels(exports)
    rules: dict[str, Rule] = {
        "previous message": previous,
        "previous message by another": previous_by_another,
        "disentangler": disentangler.links,
    }
    found = {name: search(talk, rule) for name, rule in rules.items()}
    if as_json:
        report = {
            name: {"links": one.links, "exact": one.exact, "through_own": one.through_own}
            for name, one in found.items()
        }
        print(json.dumps(report))
        return
    for name, one in found.items():
        share, through = 100 * one.exact / max(one.links, 1), 100 * one.through_own / max(one.links, 1)
        print(f"{name:28} {one.exact} of {one.links} ({share:.1f} %); {through:.1f} % through own messages")


if __name__ == "__main__":
    typer.run(main)
