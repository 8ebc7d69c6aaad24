"""Whether a reply takes the feeling of what was said for its opposite: glad of a terrible day, sorry for a won race.

A small model has read of few feelings and meets the others with whatever stands nearest. What somebody feels is told by
VADER (Hutto and Gilbert 2014), a lexicon with rules for negation and degree, from their words alone: "I passed!" says
nothing there, and of what says nothing, or is a question, any reply will do. English only; elsewhere it says nothing.

Worth its dependency: of eighty first lines of good and bad news the starter met 13 and 12 (two seeds, eight candidates)
with the wrong feeling where candidates were chosen without it, 4 and 6 with it
(`python -m models.starter.recipe.news`).
"""

import re
from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

MIN_SENTIMENT = 0.1
"""VADER's sum of a line, from -1 to 1, from which on it is a feeling. VADER's own bound is 0.05; "I can't pay my rent."
has 0.08."""
MAX_WORDS = 20
"""Words of a reply that is judged, at most: a longer one may well be sorry for one thing and glad of another."""
NEUTRAL_WORDS = ("friend", "friends", "help", "helps", "hope", "hopes")
"""Good in the lexicon, and said in sorrow as often as in joy: "I miss my friends.", "I hope she comes back."."""

_GLAD = re.compile(
    r"\b(?:happy|glad) (?:to hear|you)|\bcongrat|\bwonderful\b|\byay\b"
    r"|\bthat['’]?s (?:so |really |simply )?(?:great|awesome|amazing|exciting|fantastic|cool|nice|lovely)\b"
    r"|\bsounds (?:like )?(?:so |really )?(?:great|awesome|amazing|exciting|fun|nice|lovely|delicious)\b",
    re.IGNORECASE,
)
_SORRY = re.compile(
    r"\bsorry (?:to hear|you|for|about)|\boh,? no\b|\bbummer\b|\bhugs?\b|\brest soon\b|\bnaps\b|\bbetter soon\b"
    r"|\bfeeling blue\b|\btoo bad\b|\ba drag\b",
    re.IGNORECASE,
)


def mismatch(line: str, reply: str) -> bool:
    """Whether a reply is glad of what somebody is sad about, or sorry for what they are glad of."""
    glad, sorry = _GLAD.search(reply), _SORRY.search(reply)
    if "?" in line or len(reply.split()) > MAX_WORDS or not (glad or sorry):
        return False
    felt = sentiment(line)
    return (felt <= -MIN_SENTIMENT and glad is not None) or (felt >= MIN_SENTIMENT and sorry is not None)


def sentiment(line: str) -> float:
    """How somebody feels who says a line, by its words: from -1, miserable, to 1, overjoyed."""
    felt: float = _analyzer().polarity_scores(line)["compound"]
    return felt


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    analyzer = SentimentIntensityAnalyzer()
    for word in NEUTRAL_WORDS:
        analyzer.lexicon.pop(word, None)
    return analyzer
