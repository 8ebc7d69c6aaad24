"""Whole talk for SmolLM2's `small-talk`: dialogues as they were written, drawn with a fixed seed.

    python -m models.smollm2.recipe.whole OUT FILE=COUNT …

Takes COUNT dialogues of each file; longer ones are divided into stretches of `TURNS`, each beginning with Person1.
Unlike the bundled model's recipe it chooses no well-formed lines: a base that has read much can spell, and replies as
long as people's are learned from replies that people wrote. Shuffled over all files, so that a shorter run has read the
same mixture.
"""

import random
import sys
from pathlib import Path

from core.dialogue import Dialogue, Speaker, write
from training.finetune.corpus import load

TURNS = 12
"""Of a stretch at most: about 300 tokens, so that rows of 512 fill well."""
SEED = 36


def stretches(turns: Dialogue) -> list[Dialogue]:
    """A dialogue in pieces of at most `TURNS`, less a last one in which only one side speaks."""
    first = next((at for at, turn in enumerate(turns) if turn.speaker is Speaker.PERSON1), len(turns))
    pieces = [turns[at : at + TURNS] for at in range(first, len(turns), TURNS)]
    return [piece for piece in pieces if len(piece) > 1]


def main() -> None:
    out, *sources = sys.argv[1:]
    rng = random.Random(SEED)
    chosen: list[Dialogue] = []
    for source in sources:
        name, _, count = source.partition("=")
        dialogues = load([Path(name)]).dialogues
        chosen += rng.sample(dialogues, min(int(count), len(dialogues)))
    pieces = [piece for turns in chosen for piece in stretches(turns)]
    rng.shuffle(pieces)
    Path(out).write_text("".join(write(pieces)), encoding="utf-8")


if __name__ == "__main__":
    main()
