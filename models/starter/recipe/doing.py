"""What somebody likes to do, told as what they are doing: "I like to bake cookies." as "I'm baking cookies."

Collected talk is about what people like, have and do in general; what they are doing at the moment nobody tells a
stranger, but how they feel ("I'm freezing."), and a small model then takes "I'm making a salad." for that and comforts.
The answers fit both ("That sounds fun! What kind do you make?"). Knows dialogues only.
"""

import re

from core.dialogue import Dialogue, Turn, words_of

_LIKES = re.compile(
    r"^I (?:really |also |just )?(?:like|love|enjoy) (?:to (?P<verb>[a-z]+)|(?P<participle>[a-z]+ing))\b"
)
_TWO_THINGS = re.compile(r",|\band\b|\bor\b")
"""“I like to read and go for walks.”: a second verb would keep its form."""
_HABIT = re.compile(
    r"\b(?:always|often|every|most|sometimes|once|weekends|in the spring|\w+days|when|whenever|if|new people|in my)\b"
)
"""What one is not doing just now."""
_STATES = frozenset(words_of("be have see know think help try live own learn get use believe"))
"""Not done at a moment, or something else when they are: “I'm having”."""
_NOUNS = frozenset(words_of("anything everything spring bee bird mountain"))
"""What stands where the verb does: “I like everything.”, “I like to bird watch.”"""
_DOUBLED = re.compile(r"^[^aeiou]*[aeiou][bdgmnprt]$")


def doing(turns: Dialogue) -> Dialogue | None:
    """The dialogue, its first line told as what somebody is doing; None where it does not tell what they like to do."""
    first, *rest = turns
    found = _LIKES.match(first.text)
    if found is None or _TWO_THINGS.search(first.text) or _HABIT.search(first.text):
        return None
    participle = found["participle"] or _participle(found["verb"])
    if participle in {*_NOUNS, *map(_participle, _STATES)} or found["verb"] in _NOUNS:
        return None
    return (Turn(first.speaker, f"I'm {participle}{first.text[found.end() :]}"), *rest)


def _participle(verb: str) -> str:
    """Its present participle, by the rules of English spelling."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if len(verb) > 2 and verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _DOUBLED.search(verb) else "") + "ing"
