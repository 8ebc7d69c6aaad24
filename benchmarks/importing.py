"""How long an import of a made-up export takes, and how much memory all its processes hold together.

    python -m benchmarks.importing [--messages 1000000] [--busy] [--links previous] [--small-first]

The export is made by `make_export.py` and is not part of the time. `--small-first` imports a tenth of it before, which
shows whether ten times the input takes ten times the time and no more memory.
"""

import argparse
import json
import random
import resource
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks import make_export
from training.data.import_job import Options, import_talk
from training.data.reply_links import Previous

EVERY = 0.05
"""Seconds between looks at the memory."""


class PeakMemory(threading.Thread):
    """Highest sum of resident memory of this process and its children. Shared pages count once a process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        here = psutil.Process()
        while not self._done.wait(EVERY):
            total = 0
            for process in (here, *here.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.peak


def cpu() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(messages: int, *, busy: bool, previous: bool, workers: int | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="person2-import-") as name:
        export = Path(name) / "export.json"
        chance = random.Random(1)
        make_export.write(export, make_export.talk(messages, chance, busy=busy), 0, flat=False)
        options = Options(linker=Previous() if previous else None, workers=workers)
        memory, before, started = PeakMemory(), cpu(), time.monotonic()
        memory.start()
        out = Path(name) / "out.txt"
        stats = import_talk([export], out=out, home=Path(name), attest="made up", options=options)
        seconds = time.monotonic() - started
        return {
            "messages": stats.read,
            "export MB": round(export.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "CPU seconds": round(cpu() - before, 1),
            "messages a second": round(stats.read / seconds),
            "peak resident MB": round(memory.stop() / 1e6),
            "dialogues": stats.dialogues,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--busy", action="store_true", help="three conversations at once, always")
    parser.add_argument("--links", choices=("disentangler", "previous"), default="disentangler")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--small-first", action="store_true")
    given = parser.parse_args()
    for messages in (given.messages // 10, given.messages) if given.small_first else (given.messages,):
        found = measure(messages, busy=given.busy, previous=given.links == "previous", workers=given.workers)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
