"""Lone pairs whose answer is a scripted assistant's about itself, which a chatty friend should not learn.

    python -m models.starter.recipe.scripted IN OUT

Writes IN's dialogues less those pairs. Made for ms_chitchat, whose 434 answers are half of that kind; no use elsewhere.
"""

import re
import sys
from pathlib import Path

from core.dialogue import Dialogue
from core.errors import Person2Error
from models.starter.recipe.files import save
from training.pretrain.corpora import dialogues_in, lines_of

_SCRIPTED = re.compile(
    r"\b(?:bots?|body|age|boss|report to|opinion|family|biological|digital|literally|program\w*|questions?|standing by"
    r"|likes|eat|eating|face|corporeal|virtual|expert|advi[cs]e|supervillainy|charm school|mime|cookie|Lifeline|humans?"
    r"|compute\w*|professional relationship|love stuff|existence|sentient|chat|help|respond|don't have|not one of my"
    r"|talents|lot of (?:things|stuff)|turtles|funny|humor|comedy|jokes?|heckler|smart\w*|brains|brilliant|code|made me"
    r"|created me|built me|I'm (?:always )?here|be here|my thing|can'?t? do|couldn't|can't (?:see|tell)|no way to"
    r"|asker?|skill set|beyond me|goldfish|seagulls|alligator|giggle|cluster|looks?|tech|technology|know you|know them"
    r"|apply to me|pay grade|repeat myself|same stuff|food for thought|musically|don't sing|la la|boat|destiny"
    r"|authority|awesome|answerer|contest|exist|efficiency|serve|acknowledge|omnipresence|trap|trying to make life"
    r"|all business|rearrange|work in progress|get (?:it right|things wrong)|moisturizer|my moments"
    r"|guess again|hugs|be awake|aw nuts|see that coming|burst into song|figured as much|lullaby"
    r"|anything to ask|pleasure of meeting|would if I could|enough for me|hard time imagining|ambivalent"
    r"|nah, I'm good|noted|plot twist|plot thickens|much this|what I do every day|looking at it|this message"
    r"|roger|got that going|forgot to name|swing and a miss|rats|city hall|politely decline|work independently"
    r"|hoping for|impression|avoiding|train of thought|committed to|change of heart|you're happy"
    r"|need anything later|not me)\b",
    re.IGNORECASE,
)
"""How a scripted assistant talks of itself and of what it can do, and its jokes: of the 434 answers of ms_chitchat 207
are none of it. Learned by a chatty friend, they are beside the point whatever was said."""


def is_scripted(turns: Dialogue) -> bool:
    """Whether a lone pair's answer is an assistant's about itself."""
    return len(turns) == 2 and _SCRIPTED.search(turns[1].text) is not None


def main() -> None:
    """`python -m models.starter.recipe.scripted`: an error is a sentence, not a traceback."""
    source, out = map(Path, sys.argv[1:3])
    try:
        save(out, [turns for turns in dialogues_in(lines_of(source)) if not is_scripted(turns)])
    except Person2Error as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
