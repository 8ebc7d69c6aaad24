"""How often a model calls somebody by the name they told, over names that are not in `training.pretrain.names`.

    python -m benchmarks.names [--model models/starter] [--adapter models/starter/adapters/small-talk] [--seed 1]

Each name is told in three ways, and each reply is the first one that came, as in `benchmarks.reading`. Counted are
replies with the name, and replies that call somebody by one that nobody told (as `core.generator.choice` sees it).
"""

import argparse
import asyncio
from pathlib import Path

from benchmarks.reading import SEED, play
from core.generator import Adapter
from core.generator.choice import calls_a_stranger
from core.generator.usual import usual

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
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=Path("models/starter"))
    options.add_argument("--adapter", type=Path, help="a LoRA adapter's folder")
    options.add_argument("--seed", type=int, default=SEED)
    given = options.parse_args()
    adapter = Adapter(id=given.adapter.name, path=given.adapter) if given.adapter else None
    talks = [[line.format(name=name) for line in way] for way in WAYS for name in NAMES]
    said = asyncio.run(play(given.model, adapter, usual(given.model), talks, seed=given.seed))
    print("| told | right | wrong | of |\n|---|---|---|---|")
    for number, way in enumerate(WAYS):
        right = wrong = 0
        for name, talk in zip(NAMES, said[number * len(NAMES) :], strict=False):
            _, reply = talk[-1]
            right += name in reply
            wrong += calls_a_stranger(" ".join(line for line, _ in talk), reply)
        print(f"| {way[-1].format(name='…')} | {right} | {wrong} | {len(NAMES)} |")


if __name__ == "__main__":
    main()
