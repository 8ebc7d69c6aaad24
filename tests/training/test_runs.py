"""Trainings as processes: two of one name, stopped, out of disk, with names and files that mean harm or nothing."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.adapters import AdapterRegistry, Card
from core.adapters.validation import WEIGHTS, weights_sha256
from core.errors import AdapterError, DialogueError, ExportError, Person2Error, TrainingError
from core.memory import Memory
from tests.models import tiny_model
from tests.training.logged import START, clock
from training.data import manifest
from training.data.import_job import import_talk
from training.finetune import checkpoints
from training.finetune.config import FinetuneConfig
from training.finetune.outcome import Progress
from training.finetune.pipeline import Learned, learn
from training.privacy.consent import PeopleKey
from training.privacy.forget import forget
from training.privacy.own_log import learnable
from training.privacy.provenance import people_of
from training.privacy.run_registry import claimed, discard, runs_with

ROOT = Path(__file__).parents[2]
QUICK = FinetuneConfig(rank=4, epochs=1, block=64, batch_tokens=512, evaluations=1, precision="fp32")
FOR_EVER = ("--epochs", "100000", "--patience", "1000000", "--contexts", "0")


def start(*arguments: str, home: Path, **options: Any) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "person2", *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PERSON2_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and what it told; never a traceback, never a None where a reason should stand."""
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    assert "None" not in err, err
    return process.returncode, out + err


def until_it_trains(process: subprocess.Popen[str], run: Path) -> None:
    """Until it has written another whole checkpoint."""
    before = set(run.glob(f"checkpoint-*/{checkpoints.CHECKSUMS}"))
    while process.poll() is None and set(run.glob(f"checkpoint-*/{checkpoints.CHECKSUMS}")) <= before:
        time.sleep(0.05)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny", positions=96)


def train(
    files: list[Path], *, registry: AdapterRegistry, home: Path, base: Path, name: str = "ours", **more: Any
) -> Learned | None:
    return learn(
        files,
        registry=registry,
        run=home / "runs" / name,
        name=name,
        base="tiny",
        base_folder=str(base),
        command="person2 train",
        clock=clock,
        settings=more.pop("settings", QUICK),
        contexts=more.pop("contexts", 4),
        **more,
    )


def test_two_trainings_of_one_name(tiny: Path, talk: Path, tmp_path: Path) -> None:
    """The second is refused at once and leaves the first alone; stopped by SIGTERM, that one goes on by --resume, and
    what comes into the registry is what was judged."""
    command = ("train", str(talk), "--base", str(tiny), "--name", "same")
    first = start(*command, *FOR_EVER, home=tmp_path)
    until_it_trains(first, tmp_path / "runs" / "same")
    status, told = end(start(*command, *FOR_EVER, home=tmp_path))
    assert (status, "A training called same is already running" in told) == (1, True), told
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    status, told = end(first)
    assert (status, "--name same --resume" in told) == (128 + signal.SIGTERM, True), told
    status, told = end(start(*command, "--contexts", "0", "--epochs", "2", home=tmp_path))
    assert status == 0, told
    registry = AdapterRegistry(tmp_path / "adapters")
    assert registry.card("same").weights_sha256 == weights_sha256(tmp_path / "runs" / "same" / "adapter")
    status, told = end(start(*command, home=tmp_path))
    assert (status, "adapter called same already" in told) == (1, True), told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_stops_a_run_learns_how_it_goes_on(tiny: Path, talk: Path, tmp_path: Path, number: int) -> None:
    """One sentence, the exit status of the signal, and the same command with --resume goes on."""

    def heed_hangups() -> None:
        """Under `nohup` the tests and their children would ignore SIGHUP, as the program respects."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    command = ("train", str(talk), "--base", str(tiny), "--name", "ours", *FOR_EVER)
    stopped = start(*command, home=tmp_path, preexec_fn=heed_hangups)
    until_it_trains(stopped, tmp_path / "runs" / "ours")
    stopped.send_signal(number)
    status, told = end(stopped)
    assert status == 128 + number
    assert told.splitlines()[-1] == "Stopped. Run the same command with --name ours --resume to continue."
    resumed = start(*command, "--resume", home=tmp_path, preexec_fn=heed_hangups)
    until_it_trains(resumed, tmp_path / "runs" / "ours")
    resumed.send_signal(number)
    assert end(resumed)[0] == 128 + number


def test_a_full_disk_is_a_sentence(tiny: Path, talk: Path, tmp_path: Path) -> None:
    """No file may grow beyond 40 kB, so the first checkpoint cannot be written."""

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    command = ("train", str(talk), "--base", str(tiny), "--name", "ours", "--contexts", "0")
    status, told = end(start(*command, home=tmp_path, preexec_fn=small_disk))
    assert status == 1
    assert "The disk is full" in told
    assert "--name ours --resume" in told
    status, told = end(start(*command, "--resume", home=tmp_path))
    assert status == 0, told


def test_checkpoints_are_counted_before_the_start(tmp_path: Path) -> None:
    """What the disk cannot hold is refused before a step is done; what it can is not."""
    checkpoints.check_room(tmp_path, 1_000)
    with pytest.raises(TrainingError, match=r"need 6,000,000,000 MB .* --rank"):
        checkpoints.check_room(tmp_path, 10**14)


@pytest.mark.parametrize("name", ["../../x", "..", ".", "current", "none", "a/b", "/x", "x" * 300, "-", ""])
def test_the_name_is_judged_first(tiny: Path, talk: Path, tmp_path: Path, name: str) -> None:
    """Before anything is trained or written, inside the home or outside."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdapterError, match="is not a valid adapter name"):
        train(
            [talk],
            registry=AdapterRegistry(tmp_path / "home" / "adapters"),
            home=tmp_path / "home",
            base=tiny,
            name=name,
        )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--seed", "-1"), "seed is a whole number"),
        (("--rank", "100000"), "rank is at most"),
        (("--adapter", "x" * 300), "there is no adapter called"),
        (("--name", "../../x"), "is not a valid adapter name"),
        (("--name", "x" * 300), "is not a valid adapter name"),
    ],
)
def test_a_number_or_name_that_means_nothing(talk: Path, tmp_path: Path, option: tuple[str, str], says: str) -> None:
    """One sentence, and nothing is left behind."""
    status, told = end(start("train", str(talk), *option, home=tmp_path))
    assert (status, says.lower() in told.lower(), len(told) < 300) == (1, True, True), told
    assert not list((tmp_path / "runs").glob("*"))


def test_only_one_process_holds_a_run(tmp_path: Path) -> None:
    """A run deleted under its holder no longer stands, also where somebody began anew; an empty one goes at the end."""
    run = tmp_path / "runs" / "ours"
    with claimed(run) as claim:
        with pytest.raises(TrainingError, match="already running"), claimed(run):
            pass
        discard(run)
        assert not claim.stands
        with claimed(run) as other:
            assert (claim.stands, other.stands) == (False, True)
            with pytest.raises(TrainingError, match="deleted while it was running"):
                claim.check()
    assert not list((tmp_path / "runs").iterdir())


def imported(memory: Memory, home: Path) -> Path:
    """The log as a dialogue file with its manifest."""
    out = home / "talk.txt"
    import_talk([], out=out, home=home, log=learnable(memory), consented=memory.consented())
    return out


def test_a_run_under_way_stops_when_somebody_is_forgotten(memory: Memory, tiny: Path, tmp_path: Path) -> None:
    """At its next step: it is never judged, and neither the run nor the registry keeps anything."""
    talk, registry = imported(memory, tmp_path), AdapterRegistry(tmp_path / "adapters")
    told: list[str] = []

    def leave(progress: Progress) -> None:
        told.append(f"step {progress.step}")
        if progress.step == 2:
            forget("test", "ann", memory=memory, registry=registry, home=tmp_path)

    with pytest.raises(TrainingError, match="asked to be forgotten"):
        train(
            [talk],
            registry=registry,
            home=tmp_path,
            base=tiny,
            settings=FinetuneConfig(rank=4, epochs=50, block=64, batch_tokens=512, precision="fp32"),
            on_progress=leave,
            on_stage=lambda stage: told.append(str(stage)),
        )
    assert told == ["step 1", "step 2"]
    assert not list((tmp_path / "runs").iterdir())
    assert not registry.cards()


def test_checkpoints_without_a_plan_are_found(tmp_path: Path) -> None:
    """Who is in what a killed process wrote into a deleted run cannot be told, so it goes with whoever is forgotten."""
    (tmp_path / "runs" / "left" / "checkpoint-9").mkdir(parents=True)
    (tmp_path / "runs" / "empty").mkdir()
    assert [run.name for run in runs_with(tmp_path, "anybody")] == ["left"]


def test_a_file_edited_while_it_is_learned_from_is_noticed(tiny: Path, talk: Path, tmp_path: Path) -> None:
    """What was held out would no longer be what was never seen."""
    registry = AdapterRegistry(tmp_path / "adapters")

    def edit(progress: Progress) -> None:
        if progress.step == 1:
            talk.write_text("Person1: Anything new?\nPerson2: This line.\n\n" + talk.read_text())

    noticed = r"talk\.txt (changed during training|was changed while it was being read)"  # the next reader says so
    with pytest.raises((TrainingError, DialogueError), match=noticed):
        train([talk], registry=registry, home=tmp_path, base=tiny, on_progress=edit)
    assert not registry.cards()


FOREIGN = {
    "another program's": json.dumps({"name": "app", "version": 3, "files": ["talk.txt"]}),
    "a list": json.dumps([1, {"talk.txt": 2}]),
    "no object": "3",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_manifest_stops_nothing(memory: Memory, tiny: Path, talk: Path, tmp_path: Path, text: str) -> None:
    """Beside the file, or elsewhere in its folder: nobody's words are named in it, and forgetting passes over it."""
    for name in ("talk.txt", "app"):
        (tmp_path / f"{name}.manifest.json").write_text(text)
    (tmp_path / "broken.manifest.json").write_bytes(b"\xff{talk.txt")
    assert people_of([talk]) == ()
    learned = train([talk], registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path, base=tiny)
    assert learned is not None
    assert learned.card.people == ()
    assert not list(manifest.dialogue_files(tmp_path))
    assert not forget("test", "ann", memory=memory, registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path).left


DAMAGED = {
    "cut short": '{"version": 1, "people": [{"ha',
    "of other kinds": json.dumps({"people": 3, "dialogues": []}),
    "people without a hash": json.dumps({"people": [{"name": "x"}], "dialogues": {}}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_is_said_before_anything_begins(
    memory: Memory, tiny: Path, talk: Path, tmp_path: Path, text: str
) -> None:
    """Whose words are learned must never be guessed; forgetting names the file and goes on."""
    (tmp_path / "talk.txt.manifest.json").write_text(text)
    stages: list[object] = []
    with pytest.raises(Person2Error, match=r"talk\.txt\.manifest\.json.* damaged .* import talk\.txt again") as caught:
        train(
            [talk],
            registry=AdapterRegistry(tmp_path / "adapters"),
            home=tmp_path,
            base=tiny,
            on_stage=stages.append,
            on_progress=stages.append,
        )
    assert isinstance(caught.value, ExportError)
    assert not stages
    assert not list((tmp_path / "runs").iterdir())
    (sentence,) = forget(
        "test", "ann", memory=memory, registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path
    ).left
    assert "talk.txt.manifest.json" in sentence


def test_what_a_killed_writer_left_goes_with_whoever_is_forgotten(memory: Memory, tmp_path: Path) -> None:
    """Weights that hold their words, half on their way to the registry."""
    registry = AdapterRegistry(tmp_path / "adapters")
    left = tmp_path / "adapters" / ".new-abc" / "ours" / WEIGHTS
    left.parent.mkdir(parents=True)
    left.write_bytes(b"let us walk")
    forget("test", "ann", memory=memory, registry=registry, home=tmp_path)
    assert not left.exists()
    person = PeopleKey.at(tmp_path).hash("test", "ann")
    assert not registry.learned_from(person)
    assert Card(id="x", created_at=START, base="tiny").weights_sha256 == ""
