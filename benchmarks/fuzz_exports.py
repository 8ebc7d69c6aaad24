"""Feeds broken exports to the readers and, every tenth, to the whole import; reports every crash and continues.

    python -m benchmarks.fuzz_exports [--inputs 20000] [--first 0] [--data FOLDER]

Inputs are numbered and made from their number, so a failure is repeated with `--first N --inputs 1`.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.training.data import export_fuzz
from training.data.import_job import Options, import_talk
from training.data.reply_links import Previous

SLOW = 5.0
"""Seconds; an input of a few kilobytes that takes longer points at something superlinear."""


def whole(path: Path, scratch: Path) -> None:
    options = Options(linker=Previous(), min_words=1)
    stats = import_talk(
        [path], out=path.parent / "made" / "out.txt", home=path.parent / "home", attest="x", options=options
    )
    assert stats.read == stats.dropped.total() + stats.used, "the counts add up"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PERSON2_TEST_DATA", "data")))
    given = parser.parse_args()
    base = export_fuzz.seeds(given.data)
    print(f"{len(base)} seeds, {given.inputs:,} inputs")
    failed = 0
    longest = (0.0, 0)
    started = time.monotonic()
    for number in range(given.first, given.first + given.inputs):
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        before = time.monotonic()
        try:
            export_fuzz.one(number, base, folder, whole if number % 10 == 0 else export_fuzz.check)
        except Exception:
            failed += 1
            print(f"input {number} crashed:")
            traceback.print_exc(limit=-3, file=sys.stdout)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.monotonic() - before
        longest = max(longest, (seconds, number))
        if seconds > SLOW:
            print(f"input {number} took {seconds:.1f} s")
        if number % 2000 == 1999:
            print(f"{number + 1:,} done, {failed} crashed, slowest {longest[0]:.2f} s (input {longest[1]})", flush=True)
    print(f"{given.inputs:,} inputs in {time.monotonic() - started:.0f} s: {failed} crashed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
