"""Contexts from held-out talk: what was said before a reply of Person2's, the reply, and other replies to rank it
among.

Knows dialogues only. The same file, number and seed give the same contexts for every model, so scores compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.dialogue import Dialogue, Speaker

CHOICES = 20
"""The true reply and nineteen others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A point in a dialogue where Person2 is about to speak."""

    before: Dialogue
    """The turns so far, at least one."""
    reply: str
    """What Person2 said."""
    others: tuple[str, ...]
    """Replies from elsewhere in the file, none of them the true one; fewer than nineteen in a tiny file."""
    dialogue: int


def reply_prompts(dialogues: Sequence[Dialogue]) -> list[tuple[int, int]]:
    """Every (dialogue, turn) at which Person2 answers something."""
    return [
        (index, turn)
        for index, turns in enumerate(dialogues)
        for turn in range(1, len(turns))
        if turns[turn].speaker is Speaker.PERSON2
    ]


def sample_contexts(dialogues: Sequence[Dialogue], count: int, *, seed: int) -> list[Context]:
    """At most `count` contexts drawn from all of them, each with nineteen replies from other dialogues.

    Drawn without repetition, and the others without two alike; a short file gives what it has.
    """
    random = np.random.default_rng(seed)
    found = reply_prompts(dialogues)
    order = random.permutation(len(found))[:count]
    texts = [dialogues[index][turn].text for index, turn in found]
    contexts = []
    for number in order:
        index, turn = found[number]
        truth = texts[number]
        others: dict[str, None] = {}
        for other in random.permutation(len(found))[: 10 * CHOICES]:
            if found[other][0] != index and texts[other] != truth:
                others[texts[other]] = None
            if len(others) == CHOICES - 1:
                break
        if others:
            contexts.append(Context(before=dialogues[index][:turn], reply=truth, others=tuple(others), dialogue=index))
    return contexts
