"""Which dialogues the bundled adapter learns from: short, well-formed, everyday talk.

    python -m training.pretrain.small_talk OUT FILE=COUNT … [--hold-out FILE]

Takes at most COUNT dialogues of each file, drawn with a fixed seed from those whose every turn is written as one would
like the bot to write: a capital letter in front, a full stop behind, not long, nothing shouted. One answer is taken
`SAME_ANSWER` times at the most, so that a corpus of stock replies does not make a bot of stock replies. Knows dialogues
only; decides nothing about training.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.dialogue import Dialogue, Fault, Speaker, read, render
from core.errors import Person2Error, TrainingError
from training.pretrain.corpora import HOLD_OUT_EVERY, clean_dialogue, is_scripted, parse_source

WORDS = 25
"""Of a turn at most: chat, not essays."""
SAME_ANSWER = 3
SEED = 1
_LONELY_I = re.compile(r"(?<![\w.'])i(?=$|[\s'’,!?])")
_SHOUTED = re.compile(r"\b[A-Z]{5,}\b")
_WELL_FORMED = re.compile(r"^[\"'(]?[A-Z0-9].*[.!?][\"')]?$")


def tidy(text: str) -> str:
    """The same words with a capital I."""
    return _LONELY_I.sub("I", text)


def fits(turns: Dialogue) -> bool:
    """Whether every turn is short and written with care, and no lone answer is an assistant's."""
    if is_scripted(turns):
        return False
    return all(
        len(turn.text.split()) <= WORDS and _WELL_FORMED.match(turn.text) and not _SHOUTED.search(turn.text)
        for turn in turns
    )


def chosen(dialogues: Iterable[Dialogue], count: int, *, seed: int = SEED) -> Iterator[Dialogue]:
    """At most `count` of them, tidied, in an order of their own."""
    found = []
    for turns in dialogues:
        cleaned = clean_dialogue(turns)
        if cleaned is not None:
            tidied = tuple(type(turn)(turn.speaker, tidy(turn.text)) for turn in cleaned)
            if fits(tidied):
                found.append(tidied)
    random.Random(seed).shuffle(found)  # noqa: S311 - which dialogues are taken is no secret
    answers: Counter[str] = Counter()
    taken = 0
    for turns in found:
        said = [turn.text.casefold() for turn in turns if turn.speaker is Speaker.PERSON2]
        if taken == count or any(answers[text] >= SAME_ANSWER for text in said):
            continue
        answers.update(said)
        taken += 1
        yield turns


def write(out: Path, sources: Sequence[str], *, hold_out: Sequence[Path] = ()) -> int:
    """Write the dialogues of FILE=COUNT … to `out`, in one shuffled order; gives how many. Raises TrainingError.

    Of the files in `hold_out` every tenth dialogue is left out, as `training.pretrain` leaves it out.
    """
    picked: list[Dialogue] = []
    tenth = {path.resolve() for path in hold_out}
    for spec in sources:
        source = parse_source(spec)
        try:
            lines = source.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise TrainingError(f"{source.path} cannot be read ({error.strerror}); check the path.") from error
        dialogues = (one for one in read(lines) if not isinstance(one, Fault))
        every = HOLD_OUT_EVERY if source.path.resolve() in tenth else 0
        learned = (one for number, one in enumerate(dialogues, 1) if not every or number % every)
        picked += chosen(learned, int(source.weight))
    random.Random(SEED).shuffle(picked)  # noqa: S311 - likewise
    out.write_text("\n".join(render(turns) for turns in picked), encoding="utf-8")
    return len(picked)


def main(
    out: Annotated[Path, typer.Argument(help="Dialogue file to write.")],
    sources: Annotated[list[str], typer.Argument(help="FILE=COUNT: at most so many dialogues of each file.")],
    hold_out: Annotated[list[Path] | None, typer.Option(help="A file whose every tenth dialogue stays out.")] = None,
) -> None:
    """Choose short, well-formed dialogues. Example: small_talk out.txt talk.txt=2000 chat.txt=500."""
    try:
        typer.echo(f"{write(out, sources, hold_out=hold_out or [])} dialogues in {out}")
    except Person2Error as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
