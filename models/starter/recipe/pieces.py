"""What is taken out of longer talk: the turns after a line one could begin with, and excerpts from anywhere.

What people first say to a bot stands in the middle of most collected talk. Knows dialogues only.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from core.dialogue import Dialogue
from models.starter.recipe import names as given_names
from models.starter.recipe.files import by_turns

WORDS = 25
"""Of a turn at most: chat, not essays."""
PIECE = 4
"""Turns of a piece at most."""
EXCERPT = 6
"""Turns of an excerpt."""
EXCERPT_WORDS = 40
"""Of its turns at most."""
OPENING_WORDS = 9
"""Of the line a piece begins with, at most; and three at least, unless it is a greeting."""
_GREETING = re.compile(r"^(?:Hi|Hello|Hey|Good (?:morning|evening|night)|Nice to meet|How are you)\b")
_BEGINS = re.compile(
    r"^(?:Do you|Are you|Have you|Can you|What(?:'s)? (?:is|are|do|did|your)"
    r"|What (?:kind|sort|type)s? of .+ (?:do|are|is)|Who(?:'s)? (?:is|are|your)"
    r"|Where (?:are|do)|How (?:was|is|many|often|old|do)|Which \w+ (?:do|is)|My \w+ \w+"
    r"|I (?:like|love|hate|have|just|went|made|play|work|live|want|watched|really|got|always|usually|often|never|used"
    r" to|saw|bought|ordered|enjoy|enjoyed|loved|liked|teach|study|run|ran|walk|cook|cooked|bake|baked|eat|ate|drink"
    r"|read|visited|moved|started|finished|spent|took|played|tried|found|lost|met|heard|grew|won|need|can't"
    r"|don't (?:like|have|eat|drink|play|watch|work))|I'm (?:a|an|so|from|going|in|(?!doing)\w+ing)"
    r"|I am (?:a|an|so|from|going|in)|I've (?:been|always|never)|We (?:went|have|like|love|live|got|saw|are)|We're"
    r"|The \w+ is)\b"
)
_TELLS = re.compile(r"^(?:I|I'm|I've|I'd|My|We|We're|We've)\b")
_POINTS_BACK = re.compile(
    r"\b(?:it|it's|its|that|that's|this|these|those|he|she|they|them|they're|him|her|his|their|there|ones?|too|also"
    r"|either|neither|then|else|same|another|others?|actually|yes|no|yeah|but|mine|yours|about|instead|both|again|more"
    r"|serious|kidding|not(?=[.?!])|exactly|looking for|character|song|scene|part|remake|sequel|version|account|order"
    r"|reservation|hotel|doctor)\b",
    re.IGNORECASE,
)
"""What nobody begins with: it speaks of what was said before."""
_SHOUTED = re.compile(r"\b[A-Z]{5,}\b")
_WELL_FORMED = re.compile(r"^[\"'(]?[A-Z0-9].*[.!?][\"')]?$")


def careful(text: str, words: int = WORDS) -> bool:
    """Whether a turn is short and written with care."""
    return len(text.split()) <= words and bool(_WELL_FORMED.match(text)) and not _SHOUTED.search(text)


def opens(text: str) -> bool:
    """Whether one could begin a talk with it."""
    return _stands_alone(text) and (
        bool(_GREETING.match(text)) or (len(text.split()) >= 3 and bool(_BEGINS.match(text)))
    )


def tells(text: str) -> bool:
    """Whether somebody could begin a talk by telling this of themselves, and it is no name."""
    return (
        _stands_alone(text)
        and len(text.split()) >= 3
        and "?" not in text
        and _TELLS.match(text) is not None
        and given_names.told(text) is None
    )


def _stands_alone(text: str) -> bool:
    return len(text.split()) <= OPENING_WORDS and not _POINTS_BACK.search(text)


def pieces(dialogues: Iterable[Dialogue], begins: Callable[[str], bool] = opens) -> Iterator[Dialogue]:
    """The turns from each line on that `begins`, `PIECE` of them at most; Person1 says the first, Person2 the last."""
    for turns in dialogues:
        for at, turn in enumerate(turns[:-1]):
            if begins(turn.text):
                yield by_turns(turn.text for turn in turns[at : at + min(PIECE, (len(turns) - at) // 2 * 2)])


def excerpts(dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
    """`EXCERPT` turns each, from anywhere, none twice: none is long, and Person2's are written with care."""
    for turns in dialogues:
        at = 0
        while at + EXCERPT <= len(turns):
            taken = turns[at : at + EXCERPT]
            if all(len(turn.text.split()) <= EXCERPT_WORDS for turn in taken) and all(
                careful(turn.text, EXCERPT_WORDS) for turn in taken[1::2]
            ):
                yield by_turns(turn.text for turn in taken)
                at += EXCERPT
            else:
                at += 1
