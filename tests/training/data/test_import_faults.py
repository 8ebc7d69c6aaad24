"""What ends an import: a full disk, SIGTERM, a killed main process. Nothing raw stays, and nobody goes on working."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.training.data import export_fixtures as made


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Large enough to be still under way when it is stopped."""
    messages = [made.discord_message(n % 60, "Ann" if n % 2 else "Bob", f"RAW words {n}") for n in range(60_000)]
    for number, message in enumerate(messages):
        message["id"] = str(10**17 + number)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(made.discord(messages), indent=1))
    return path


def start(export: Path, *, workers: int = 1, limit: int | None = None) -> "subprocess.Popen[str]":
    """An import in a process of its own; it says `reading` once it is under way."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from training.data.import_job import Options, import_talk\n"
        "from training.data.reply_links import Previous\n"
        "from training.data.workers import stoppable\n"
        "from core.errors import ExportError\n"
        "if __name__ == '__main__':\n"
        "    export, workers = Path(sys.argv[1]), int(sys.argv[2])\n"
        "    try:\n"
        "        with stoppable():\n"
        "            import_talk([export], out=export.parent / 'out' / 'talk.txt', home=export.parent / 'home',\n"
        "                        attest='x', options=Options(linker=Previous(), workers=workers),\n"
        "                        progress=lambda stage, share: print(stage, flush=True))\n"
        "    except ExportError as error:\n"
        "        print(f'SENTENCE {error}', flush=True)\n"
    )
    program = export.parent / "program.py"
    program.write_text(script)

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, str(program), str(export), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def left(export: Path) -> list[str]:
    """Files beside the output that hold any of the exports' words."""
    return [
        str(path.relative_to(export.parent))
        for path in (export.parent / "out").rglob("*")
        if path.is_file() and b"RAW words" in path.read_bytes()
    ]


def until_gone(processes: list[psutil.Process]) -> Iterator[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=30)
    yield from alive


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_leaves_nothing_raw(workers: int, export: Path) -> None:
    """It unwinds: exit status 143, no traceback, no spool, no workers."""
    run = start(export, workers=workers)
    assert run.stdout is not None
    assert run.stdout.readline() == "reading\n"
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, "Traceback" in errors) == (143, False)
    assert left(export) == []
    assert list((export.parent / "out").iterdir()) == []
    assert list(until_gone(children)) == []


def test_workers_end_with_a_killed_main_process(export: Path) -> None:
    """SIGKILL cannot be answered; the workers see that nobody waits for them any more."""
    run = start(export, workers=2)
    assert run.stdout is not None
    assert run.stdout.readline() == "reading\n"
    children = psutil.Process(run.pid).children(recursive=True)
    assert children
    run.kill()
    run.communicate(timeout=60)
    assert list(until_gone(children)) == []


def test_a_full_disk_is_a_sentence(export: Path) -> None:
    """Files may not grow beyond two megabytes, as on a disk that is full: one sentence, and nothing is left."""
    run = start(export, limit=2 << 20)
    told, errors = run.communicate(timeout=60)
    assert "SENTENCE The disk of" in told
    assert "Traceback" not in errors
    assert left(export) == []
