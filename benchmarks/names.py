"""How often a model calls somebody by the name they told, over names that are not in `training.pretrain.names`.

    python -m benchmarks.names [--adapter models/starter/adapters/small-talk] [--seed 1] [--hurried]

Each name is told in three ways, and each reply is the first one that came, as in `benchmarks.reading`. Counted are
replies with the name, and replies that call somebody by one that nobody told (as `core.generator.choice` sees it).
"""

from benchmarks.reading import asking, heard
from core.dialogue import words_of
from core.generator.choice import calls_a_stranger

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
            wrong += calls_a_stranger(" ".join(line for line, _ in talk), reply)
        print(f"| {way[-1].format(name='…')} | {right} | {wrong} | {len(NAMES)} |")


if __name__ == "__main__":
    main()
