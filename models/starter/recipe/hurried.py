"""Talk as people write it in a hurry: small letters, no full stops, no apostrophes.

    python -m models.starter.recipe.hurried OUT FILE … [--hold-out FILE]

Collected talk is mostly written with care, and what is not belongs to a few corpora; a small model then takes "im a
teacher" for the beginning of those ("Oh no! I'm sorry to hear that."). In every second dialogue of OUT both write so,
each in a way of their own, in the others Person1 does and Person2 answers with care. Knows dialogues only.
"""

import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.dialogue import Dialogue, Speaker, Turn
from models.starter.recipe.files import cleaned, learned, run, save

QUESTION_MARK = 0.5
"""Share of those in a hurry who write it all the same. A full stop at the end nobody writes."""
APOSTROPHE = 0.4
"""Likewise."""
COMMA = 0.6
"""Likewise."""
CAPITALS = 0.15
"""Likewise."""

SEED = 1
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_COMMA = re.compile(r",(?= )")


def hurried(turns: Dialogue, rng: random.Random, speakers: Collection[Speaker] = (Speaker.PERSON1,)) -> Dialogue:
    """The dialogue with the lines of these speakers as people in a hurry write them, each in a way of their own."""
    lines = {speaker: _way(rng) for speaker in speakers}
    return tuple(
        Turn(turn.speaker, in_a_hurry(turn.text, **lines[turn.speaker])) if turn.speaker in lines else turn
        for turn in turns
    )


def _way(rng: random.Random) -> dict[str, bool]:
    """How somebody writes in a hurry: the options of `in_a_hurry`."""
    shares = {"question_mark": QUESTION_MARK, "apostrophe": APOSTROPHE, "comma": COMMA, "capitals": CAPITALS}
    return {name: rng.random() < share for name, share in shares.items()}


def in_a_hurry(
    text: str, *, question_mark: bool = False, apostrophe: bool = False, comma: bool = True, capitals: bool = False
) -> str:
    """A line without its last stop, and without what is not asked for; a line of stops alone stays."""
    text = text.rstrip(".!" if question_mark else ".!?") or text
    if not apostrophe:
        text = _APOSTROPHE.sub("", text)
    if not comma:
        text = _COMMA.sub("", text)
    return text if capitals else text.lower()


def both_ways(dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
    """Each dialogue in a hurry: by turns of both speakers and of Person1 alone."""
    rng = random.Random(SEED)
    for number, turns in enumerate(dialogues):
        yield hurried(turns, rng, tuple(Speaker) if number % 2 else (Speaker.PERSON1,))


def write(out: Path, files: Sequence[Path], *, hold_out: Sequence[Path] = ()) -> int:
    """Write the dialogues of `files` in a hurry to `out`, in a shuffled order; gives how many. Raises TrainingError.

    Of the files in `hold_out` every tenth dialogue is left out, as `training.pretrain` leaves it out.
    """
    tenth = {path.resolve() for path in hold_out}
    made = list(both_ways(turns for path in files for turns in cleaned(learned(path, tenth))))
    random.Random(SEED).shuffle(made)
    return save(out, made)


def main(
    out: Annotated[Path, typer.Argument(help="Dialogue file to write.")],
    files: Annotated[list[Path], typer.Argument(help="Dialogue files.")],
    hold_out: Annotated[list[Path] | None, typer.Option(help="A file whose every tenth dialogue stays out.")] = None,
) -> None:
    """Write talk as people do in a hurry. Example: hurried out.txt talk.txt chat.txt."""
    run(out, lambda: write(out, files, hold_out=hold_out or []))


if __name__ == "__main__":
    typer.run(main)
