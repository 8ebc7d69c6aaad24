"""How often a model calls somebody by the name they told, over names that are not in `models.starter.recipe.names`.

    python -m models.starter.recipe.name_calls [--adapter models/starter/adapters/small-talk] [--seed 1] [--hurried]

Each name is told in three ways, and each reply is the first one that came, as in `reading`. Counted are replies with
the name, and replies with another one. What is a name is told apart from `core.reranking`, which leaves out
what it takes for one: a capital letter inside a sentence, but for who Person2 says it is, or what stands behind "meet
you,".
"""

import re

from core.dialogue import words_of
from models.starter.recipe.reading import asking, heard

_OWN = re.compile(r"\b(?:name is|name's|i'm|i am|call me) \w+", re.IGNORECASE)
_NAMED = re.compile(r"(?<![.!?] )(?<!^)\b(?!I\b)[A-Z]\w+|\bmeet you(?: too)?, ?(?!too\b)\w+(?=[.,!?])")
NAMES = (  # noqa: SIM905 - easier to read so
    "Charlotte Gabriel Sven Ingrid Malik Xavier Beatriz Tariq Yusuf Heidi Wendy Zack Molly Derek Bruno Leila "
    "Rosie Ximena Otto Petra Dennis Sandra Ralph Monica Dustin Erica Felipe Georgia Ahmed Ursula"
).split()
WAYS = (
    ("Hi, my name is {name}.",),
    ("I'm {name}. What's your name?",),
    ("Hi!", "I'm doing well, thanks.", "My name is {name}."),
)


def main() -> None:
    given = asking(__doc__).parse_args()
    talks = [[line.format(name=name) for line in way] for way in WAYS for name in NAMES]
    said = heard(given, talks)
    print("| told | right | wrong | of |\n|---|---|---|---|")
    for number, way in enumerate(WAYS):
        right = wrong = 0
        for name, talk in zip(NAMES, said[number * len(NAMES) :], strict=False):
            _, reply = talk[-1]
            right += name.casefold() in words_of(reply)
            others = [found.split()[-1].split(",")[-1] for found in _NAMED.findall(_OWN.sub("", reply))]
            wrong += any(other.casefold() != name.casefold() for other in others)
        print(f"| {way[-1].format(name='…')} | {right} | {wrong} | {len(NAMES)} |")


if __name__ == "__main__":
    main()
