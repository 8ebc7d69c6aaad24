"""Whether a reply has the opposite sentiment of what was said: glad about a terrible day, sorry about a won race.

Small models often confuse the two. The sentiment of a line comes from VADER (Hutto and Gilbert 2014), a lexicon with
rules for negation and degree; "I passed!" is neutral there. Any reply fits a neutral line or a question. English only:
lines in other languages are neutral.

Worth its dependency: of eighty opening lines with good or bad news, the starter answered 13 and 12 (two seeds, eight
candidates) with the wrong sentiment without it, 4 and 6 with it (`python -m models.starter.recipe.news`).
"""

import re
from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

MIN_SENTIMENT = 0.1
"""VADER's score of a line, from -1 to 1, from which on it is not neutral. VADER's own bound is 0.05; "I can't pay my
rent." has 0.08."""
MAX_WORDS = 20
"""Longest reply that is judged: a longer one may be sorry about one thing and glad about another."""
NEUTRAL_WORDS = ("friend", "friends", "help", "helps", "hope", "hopes")
"""Positive in the lexicon, but said in sorrow as often as in joy: "I miss my friends.", "I hope she comes back."."""

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
    """Whether a reply is glad about what somebody is sad about, or sorry about what they are glad about."""
    glad, sorry = _GLAD.search(reply), _SORRY.search(reply)
    if "?" in line or len(reply.split()) > MAX_WORDS or not (glad or sorry):
        return False
    felt = sentiment(line)
    return (felt <= -MIN_SENTIMENT and glad is not None) or (felt >= MIN_SENTIMENT and sorry is not None)


def sentiment(line: str) -> float:
    """The sentiment of a line: from -1, negative, to 1, positive."""
    felt: float = _analyzer().polarity_scores(line)["compound"]
    return felt


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    analyzer = SentimentIntensityAnalyzer()
    for word in NEUTRAL_WORDS:
        analyzer.lexicon.pop(word, None)
    return analyzer
