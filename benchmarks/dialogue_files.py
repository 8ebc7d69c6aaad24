"""How much memory it takes to train on a dialogue file: reading, making rows, evaluating, and a run from end to end.

    python -m benchmarks.dialogue_files [--megabytes 20 200]

Each size and stage runs in a process of its own; a file of one dialogue shows what the libraries alone take.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

from benchmarks.make_export import vocabulary
from core.adapters import AdapterRegistry
from training.data import manifest
from training.evaluation.copying import TrainingText
from training.evaluation.metrics import chain_of
from training.evaluation.passages import passages
from training.finetune.base import load_base
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import divide, load
from training.finetune.dataset import encode_rows
from training.finetune.encoder import Encoder
from training.finetune.pipeline import learn
from training.privacy.provenance import people_by_dialogue

BASE = Path(__file__).parents[1] / "models" / "starter"
PEOPLE = 400


def make(path: Path, size: int) -> None:
    """About `size` bytes of dialogues over a made-up vocabulary, with their manifest."""
    chance = random.Random(size)
    words, weights = vocabulary(chance)
    up_to = list(accumulate(weights))
    owners: list[str] = []
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size or len(owners) < 40:
            lines = []
            for turn in range(chance.choice((2, 4, 6, 8, 12))):
                said = " ".join(chance.choices(words, cum_weights=up_to, k=1 + int(chance.expovariate(1 / 11))))
                lines.append(f"Person{1 + turn % 2}: {said}\n")
            text = "".join(lines) + "\n"
            file.write(text)
            written += len(text)
            owners.append(" ".join(map(str, chance.sample(range(PEOPLE), 2))))
    people = [manifest.Person(hash=f"{at:064x}", messages=1) for at in range(PEOPLE)]
    head = {"version": manifest.VERSION, "files": {"out": path.name}}
    with manifest.beside(path).open("wb") as file:
        manifest.write(file, head, people, {"out": owners})


def rows(path: Path) -> int:
    train, _, _ = divide([path])
    encoder = Encoder(load_base(str(BASE))[1])
    made = encode_rows(train.dialogues, encoder, block=256, seed=0)
    return sum(len(row) for row in made)


def by_heart(path: Path) -> int:
    """The passages that the memorization check tries."""
    dialogues = load([path]).dialogues
    people = people_by_dialogue([path])
    owners = [people.get(key, ()) for key in dialogues.keys.tolist()]
    return len(passages(TrainingText(dialogues), dialogues, owners))


def chain(path: Path) -> float:
    corpus = load([path])
    return chain_of(corpus, TrainingText(corpus.dialogues)).log_likelihood("di da do")


def run(path: Path) -> None:
    """`person2 train` with all that it does, but for a single step of learning and ten replies."""
    with tempfile.TemporaryDirectory(prefix="person2-run-") as folder:
        home = Path(folder)
        make(home / "held.txt", 1)
        learn(
            [path],
            registry=AdapterRegistry(home / "adapters"),
            run=home / "runs" / "one",
            name="one",
            base="starter",
            base_folder=str(BASE),
            command="person2 train",
            clock=lambda: datetime.now(UTC),
            held_out=[home / "held.txt"],
            settings=FinetuneConfig(epochs=1e-6),
            contexts=10,
            on_stage=lambda stage: print(json.dumps({"peak MB": peak(), "at": stage.words}), flush=True),
        )


def peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


STAGES: dict[str, Callable[[Path], object]] = {
    "load": lambda path: len(load([path]).dialogues),
    "rows": rows,
    "whose": lambda path: len(people_by_dialogue([path])),
    "forget": lambda path: manifest.forget_people(path, [f"{1:064x}"]),
    "copied": lambda path: TrainingText(load([path]).dialogues).longest_runs(["nobody said this", "di da do"]).sum(),
    "chain": chain,
    "by heart": by_heart,
    "run": run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[20, 200])
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--only", nargs=2, metavar=("STAGE", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        before = time.process_time()
        STAGES[given.only[0]](Path(given.only[1]))
        print(json.dumps({"peak MB": peak(), "CPU s": round(time.process_time() - before, 1)}))
        return
    with tempfile.TemporaryDirectory(prefix="person2-dialogues-") as folder:
        for size in (0.0, *given.megabytes):
            path = Path(folder) / f"{size:g}.txt"
            make(path, int(size * 1e6))
            for stage in given.stages:
                command = [sys.executable, "-m", "benchmarks.dialogue_files", "--only", stage, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this script
                found = json.loads(done.stdout.splitlines()[-1])
                print(json.dumps({"MB": round(path.stat().st_size / 1e6, 1), "stage": stage, **found}), flush=True)


if __name__ == "__main__":
    main()
