"""Which dialogues the bundled adapter learns from: short, well-formed, everyday talk.

    python -m models.starter.recipe.small_talk OUT FILE=COUNT … [--openings FILE=COUNT …] [--pairs FILE=COUNT …]
        [--felt FILE=COUNT …] [--names FILE=COUNT …] [--told FILE=TIMES …] [--doing FILE=TIMES …]
        [--excerpts FILE=COUNT …] [--hold-out FILE] [--hurried SHARE]

Takes at most COUNT dialogues of each file, drawn with a fixed seed from those whose every turn is written as one would
like the bot to write: a capital letter in front, a full stop behind, not long, nothing shouted. One answer is taken
`SAME_ANSWER` times at the most, so that a corpus of stock replies does not make a bot of stock replies.

`--openings` takes pieces out of dialogues that begin where someone says what one could also begin with ("Do you have
any pets?"): what people first say to a bot stands in the middle of most collected talk, where the bot would never learn
to answer it first; those whose answer calls somebody by a name told before the piece stay out. `--pairs` takes lone
pairs, of which only the answer has to be written with care: people tell a bot "im exhausted" as they please. `--felt`
takes those among them that share a feeling: collected talk is about films and teams, nobody in it is sad, tired or
hungry. Every second of them stands behind one of the pieces, since people say how they are in the middle of something
else too. `--names` takes pieces in which somebody says their name and is called so, under several names each (`names`),
every second of them behind another piece too. `--told` takes the pieces that begin with what somebody tells of
themselves ("I have a tabby cat."), each so many times: without, half of all lone lines that begin with "I" would be
answered with comfort, and a model comforts whoever makes a salad. `--doing` takes those of them that tell what somebody
likes to do as what they are doing (`doing`). `--excerpts` takes excerpts from anywhere in longer talk, of which the
others find little: every second turn is too long or written without care, and few are such that a talk could begin with
them. A model that learns from hardly any of it finds the next reply there less often. Whose answer calls somebody by an
earlier name stays out of these three as well. With `--hurried` that share of those in which Person1 writes with care is
taken once more as somebody writes in a hurry (`hurried`). Knows dialogues only; decides nothing about training.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from core.dialogue import Dialogue, Speaker, Turn
from models.starter.recipe import names as given_names
from models.starter.recipe.doing import doing as as_doing
from models.starter.recipe.files import cleaned, learned, run, save
from models.starter.recipe.hurried import hurried
from models.starter.recipe.pieces import careful, excerpts, pieces, tells
from models.starter.recipe.scripted import is_scripted
from training.pretrain.corpora import parse_source

SAME_ANSWER = 3
"""Of a file's dialogues with one answer, so many are taken."""
SAME_PAIRED = 14
"""Likewise of a file of lone pairs, where one answer fits many lines ("I hope you can get some rest soon.")."""
SAME_FELT = 120
"""Likewise of those that share a feeling, which few answers do, each after many ways to tell of it."""
SAME_OPENING = 24
"""Likewise of those with one first line."""
SEED = 1
_FELT = re.compile(
    r"^(?!I.m glad).*\b(?:sorry (?:to hear|you)|bummer|drag|rest soon|snack|hugs?|happy to hear)\b",
    re.IGNORECASE,
)
"""What is said to somebody who is sad, angry, bored, tired, hungry, lonely or happy. Not "I'm glad you told me. I'm
sorry you're upset.": its first half was said to the happy; nor "I've heard really good things about naps.", which
shares nothing and is so rare elsewhere that it was chosen among the draws wherever it came up ("I'm having tea.")."""


def fits(turns: Dialogue) -> bool:
    """Whether every turn is written with care, and no lone answer is an assistant's."""
    return not is_scripted(turns) and all(careful(turn.text) for turn in turns)


def pairs_well(turns: Dialogue) -> bool:
    """Whether it is a lone pair whose answer is written with care, and not an assistant's."""
    return len(turns) == 2 and not is_scripted(turns) and careful(turns[1].text)


def asked_carefully(turns: Dialogue) -> bool:
    """Whether Person1 writes with care."""
    return all(careful(turn.text) for turn in turns if turn.speaker is Speaker.PERSON1)


def shares_a_feeling(turns: Dialogue) -> bool:
    """Whether it is such a pair, and the answer takes part in how somebody says they are."""
    return pairs_well(turns) and "?" not in turns[0].text and _FELT.search(turns[1].text) is not None


def stopped(pairs: Iterable[Dialogue]) -> Iterator[Dialogue]:
    """Every second one with a full stop behind a first line that has none: those who were collected left it out, others
    do not, and a small model takes "I'm hungry." for something else than "I'm hungry".
    """
    for number, (told, *rest) in enumerate(pairs):
        stop = "." if number % 2 and told.text[-1].isalnum() else ""
        yield (Turn(told.speaker, told.text + stop), *rest)


def behind(pairs: Iterable[Dialogue], talks: Sequence[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """The pairs, two of four behind a talk each while there are some, and the talks that are left.

    Two of four, and not every second one: else the same ones as `stopped` would be taken.
    """
    left = list(talks)
    joined = [(*left.pop(), *pair) if left and number % 4 > 1 else pair for number, pair in enumerate(pairs)]
    return joined, left


def chosen(
    dialogues: Iterable[Dialogue],
    count: int,
    *,
    fit: Callable[[Dialogue], bool] = fits,
    same_answer: int = SAME_ANSWER,
    seed: int = SEED,
) -> Iterator[Dialogue]:
    """At most `count` of those that fit, in an order of their own."""
    found = [turns for turns in dialogues if fit(turns)]
    random.Random(seed).shuffle(found)
    answers: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    taken = 0
    for turns in found:
        first = turns[0].text.casefold()
        said = [turn.text.casefold() for turn in turns if turn.speaker is Speaker.PERSON2]
        if taken == count or begun[first] >= SAME_OPENING or any(answers[text] >= same_answer for text in said):
            continue
        begun[first] += 1
        answers.update(said)
        taken += 1
        yield turns


def write(
    out: Path,
    sources: Sequence[str],
    *,
    openings: Sequence[str] = (),
    pairs: Sequence[str] = (),
    felt: Sequence[str] = (),
    names: Sequence[str] = (),
    told: Sequence[str] = (),
    doing: Sequence[str] = (),
    excerpted: Sequence[str] = (),
    hold_out: Sequence[Path] = (),
    hurry: float = 0.0,
) -> int:
    """Write the dialogues of FILE=COUNT … to `out`, in one shuffled order; gives how many. Raises TrainingError.

    Of the files in `hold_out` every tenth dialogue is left out, as `training.pretrain` leaves it out. `hurry`: the
    share of those asked with care that is written a second time, as in a hurry.
    """
    tenth = {path.resolve() for path in hold_out}
    drawn = random.Random(SEED)
    picked = [turns for spec in sources for turns in chosen(*_learned(spec, tenth))]
    opened: list[Dialogue] = []
    for spec in openings:
        found, count = _learned(spec, tenth)
        opened += chosen((piece for piece in pieces(found) if not given_names.strange(piece)), count)
    if felt or names:  # any of them may stand before those; without, their order stays what it was
        drawn.shuffle(opened)
    for spec in felt:
        shared = stopped(chosen(*_learned(spec, tenth), fit=shares_a_feeling, same_answer=SAME_FELT))
        joined, opened = behind(shared, opened)
        picked += joined
    for spec in names:
        found, count = _learned(spec, tenth)
        met = [piece for piece in pieces(found, lambda text: given_names.told(text) is not None) if fits(piece)]
        joined, opened = behind(islice(given_names.under_names(met, seed=SEED), count), opened)
        picked += joined
    picked += opened
    for spec in pairs:
        picked += chosen(*_learned(spec, tenth), fit=pairs_well, same_answer=SAME_PAIRED)
    for spec in told:
        picked += _of_themselves(spec, tenth)
    for spec in doing:
        picked += [pair for piece in _of_themselves(spec, tenth) if (pair := as_doing(piece[:2]))]
    for spec in excerpted:
        found, count = _learned(spec, tenth)
        taken = chosen(excerpts(found), count, fit=lambda turns: not is_scripted(turns))
        picked += (excerpt for excerpt in taken if not given_names.strange(excerpt))
    drawn.shuffle(picked)
    if hurry:
        picked += [hurried(turns, drawn) for turns in picked if asked_carefully(turns) and drawn.random() < hurry]
        drawn.shuffle(picked)
    return save(out, picked)


def _of_themselves(spec: str, tenth: Set[Path]) -> list[Dialogue]:
    """The pieces of FILE=TIMES that begin with what somebody tells of themselves, all of them so many times."""
    found, times = _learned(spec, tenth)
    own = (piece for piece in pieces(found, tells) if not given_names.strange(piece))
    return [*chosen(own, sys.maxsize)] * times


def _learned(spec: str, tenth: Set[Path]) -> tuple[Iterator[Dialogue], int]:
    """The cleaned dialogues of FILE=COUNT, without every tenth of the files in `tenth`, and COUNT."""
    source = parse_source(spec)
    return cleaned(learned(source.path, tenth)), int(source.weight)


def main(
    out: Annotated[Path, typer.Argument(help="Dialogue file to write.")],
    sources: Annotated[list[str], typer.Argument(help="FILE=COUNT: at most so many dialogues of each file.")],
    openings: Annotated[
        list[str] | None, typer.Option(help="FILE=COUNT: at most so many pieces that begin as talks do.")
    ] = None,
    pairs: Annotated[list[str] | None, typer.Option(help="FILE=COUNT: at most so many lone pairs.")] = None,
    felt: Annotated[
        list[str] | None, typer.Option(help="FILE=COUNT: at most so many lone pairs that share a feeling.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option(help="FILE=COUNT: at most so many pieces in which a name is told.")
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option(help="FILE=TIMES: pieces that begin with what somebody tells of themselves, each so many times."),
    ] = None,
    doing: Annotated[
        list[str] | None,
        typer.Option(help="FILE=TIMES: likewise, those of what they like to do told as what they are doing."),
    ] = None,
    excerpted: Annotated[
        list[str] | None, typer.Option("--excerpts", help="FILE=COUNT: at most so many excerpts of longer talk.")
    ] = None,
    hold_out: Annotated[list[Path] | None, typer.Option(help="A file whose every tenth dialogue stays out.")] = None,
    hurry: Annotated[
        float,
        typer.Option("--hurried", min=0, max=1, help="Share of those asked with care taken once more, as in a hurry."),
    ] = 0.0,
) -> None:
    """Choose short, well-formed dialogues. Example: small_talk out.txt talk.txt=2000 chat.txt=500."""
    run(
        out,
        lambda: write(
            out,
            sources,
            openings=openings or [],
            pairs=pairs or [],
            felt=felt or [],
            names=names or [],
            told=told or [],
            doing=doing or [],
            excerpted=excerpted or [],
            hold_out=hold_out or [],
            hurry=hurry,
        ),
    )


if __name__ == "__main__":
    typer.run(main)
