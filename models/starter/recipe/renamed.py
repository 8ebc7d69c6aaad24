"""Dialogues in which what both speakers name is called something else: made to teach that a name is taken up again.

    python -m models.starter.recipe.renamed OUT FILE … [--hold-out FILE] [--counted FILE] [--seed N]

A small model that learns from talk as it was hears "Titanic" where films are spoken of, not where Titanic was: the word
is as likely in any such talk. Under another name, most often one that nobody has, the word can only be copied from what
was said before. Words that are rare over all the files, and that both speakers of a dialogue say, are exchanged
throughout it: for another rare word or for a made-up one with the old word's ending, so that a plural stays one. With
another seed the words are others, and a model that reads a dialogue again cannot know them. Little of it belongs among
what a bot learns to say. Knows dialogue files only.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from core.dialogue import Dialogue, Speaker, Turn
from models.starter.recipe.files import cleaned, learned, run, save
from models.starter.recipe.names import made_up

RARE = 120
"""A word of at most so many dialogues is rare."""
LETTERS = 4
"""Of the shortest word exchanged."""
ENDING = 2
"""Letters of the old word that a new one ends with, at least."""
EXCHANGED = 0.8
"""Share of a dialogue's shared rare words that are."""
MADE_UP = 0.6
"""Share of the new words that nobody says."""
SEED = 1

_WORD = re.compile(rf"[A-Za-z]{{{LETTERS},}}")


def rare(dialogues: Iterable[Dialogue]) -> list[str]:
    """The words, in small letters and in order, that stand in at most `RARE` of the dialogues."""
    found = Counter(word for turns in dialogues for word in set(_words(turns)))
    return sorted(word for word, count in found.items() if count <= RARE)


def renamed(dialogues: Iterable[Dialogue], words: Sequence[str], *, seed: int = SEED) -> Iterator[Dialogue]:
    """Those of the dialogues whose speakers share some of `words`, with most of these exchanged throughout."""
    drawn = random.Random(seed)
    known = set(words)
    ending: dict[str, list[str]] = {}
    for word in words:
        ending.setdefault(word[-ENDING:], []).append(word)
    for turns in dialogues:
        by = [set(_words(turn for turn in turns if turn.speaker is who)) for who in Speaker]
        shared = sorted(set.intersection(*by) & known)
        new = {
            word: _other(word, ending[word[-ENDING:]], words, drawn) for word in shared if drawn.random() < EXCHANGED
        }
        if new:
            yield tuple(Turn(turn.speaker, _exchanged(turn.text, new)) for turn in turns)


def _other(word: str, alike: Sequence[str], words: Sequence[str], drawn: random.Random) -> str:
    return made_up(drawn.choice(words), word) if drawn.random() < MADE_UP else drawn.choice(alike)


def _exchanged(text: str, new: dict[str, str]) -> str:
    return _WORD.sub(lambda found: _cased(new.get(found[0].lower()), found[0]), text)


def _cased(new: str | None, old: str) -> str:
    """`new` in the letters of `old`: small, Capitalised or CAPITAL; `old` itself where there is none."""
    if new is None:
        return old
    return new.upper() if old.isupper() else new.capitalize() if old[0].isupper() else new


def _words(turns: Iterable[Turn]) -> list[str]:
    return [word.lower() for turn in turns for word in _WORD.findall(turn.text)]


def write(
    out: Path,
    files: Sequence[Path],
    *,
    hold_out: Sequence[Path] = (),
    counted: Sequence[Path] = (),
    seed: int = SEED,
) -> int:
    """Write the renamed dialogues of `files` to `out`, in a shuffled order; gives how many. Raises TrainingError.

    Of the files in `hold_out` every tenth dialogue is left out, as `training.pretrain` leaves it out. What is rare is
    counted over the dialogues of `counted` as well.
    """
    tenth = {path.resolve() for path in hold_out}
    dialogues = [turns for path in files for turns in cleaned(learned(path, tenth))]
    others = (turns for path in counted for turns in cleaned(learned(path, tenth)))
    made = list(renamed(dialogues, rare(chain(dialogues, others)), seed=seed))
    random.Random(seed).shuffle(made)
    return save(out, made)


def main(
    out: Annotated[Path, typer.Argument(help="Dialogue file to write.")],
    files: Annotated[list[Path], typer.Argument(help="Dialogue files.")],
    hold_out: Annotated[list[Path] | None, typer.Option(help="A file whose every tenth dialogue stays out.")] = None,
    counted: Annotated[list[Path] | None, typer.Option(help="Only counts for what is rare.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other words.")] = SEED,
) -> None:
    """Call what both speakers of a dialogue name something else. Example: renamed out.txt talk.txt chat.txt."""
    run(out, lambda: write(out, files, hold_out=hold_out or [], counted=counted or [], seed=seed))


if __name__ == "__main__":
    typer.run(main)
