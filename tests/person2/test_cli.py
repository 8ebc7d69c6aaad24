"""The command line from outside: exit statuses, one sentence on standard error, no traceback."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from core.adapters import AdapterRegistry, Card
from tests.models import tiny_adapter, tiny_model

ROOT = Path(__file__).parents[2]


def person2(*arguments: str, home: Path, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DISCORD_", "SLACK_"))}
    return subprocess.run(
        [sys.executable, "-m", "person2", *arguments],
        cwd=home,
        env={**kept, "PYTHONPATH": str(ROOT), "PERSON2_HOME": str(home), **variables},
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "sentence"),
    [
        (["chat", "--nonsense"], {}, 2, "No such option"),
        (["dance"], {}, 2, "No such command"),
        (["discord"], {}, 1, "DISCORD_TOKEN is not set"),
        (["slack"], {}, 1, "SLACK_BOT_TOKEN and SLACK_APP_TOKEN are not set"),
        (["slack", "--http"], {}, 1, "SLACK_BOT_TOKEN and SLACK_SIGNING_SECRET are not set"),
        (
            ["slack", "--http"],
            {"SLACK_CLIENT_ID": "1.2"},
            1,
            "SLACK_CLIENT_SECRET and SLACK_SIGNING_SECRET are not set",
        ),
        (
            ["slack", "--http"],
            {"SLACK_CLIENT_ID": "1.2", "SLACK_CLIENT_SECRET": "s", "SLACK_SIGNING_SECRET": "s", "SLACK_BOT_TOKEN": "x"},
            1,
            "SLACK_BOT_TOKEN is set beside SLACK_CLIENT_ID and SLACK_CLIENT_SECRET",
        ),
        (["slack", "manifest", "--url", "notaurl"], {}, 2, "Slack calls https:// addresses only"),
        (
            ["chat", "--once", "hi"],
            {"PERSON2_TEMPERATURE": "hot", "PERSON2_MAX_BATCH": "0"},
            1,
            "PERSON2_TEMPERATURE: should be a valid number",
        ),
        (
            ["chat", "--once", "hi"],
            {"PERSON2_DATABASE_URL": "nonsense"},
            1,
            "PERSON2_DATABASE_URL is not a database URL",
        ),
        (
            ["chat", "--once", "hi"],
            {"PERSON2_MAX_NEW_TOKENS": "500"},
            1,
            "PERSON2_MAX_NEW_TOKENS=500 leaves no room for a prompt",
        ),
        (["chat", "--once", "hi", "--base", "/no/such/folder"], {}, 1, "/no/such/folder"),
        (["chat", "--once", "hi", "--adapter", "nobody"], {}, 1, "nobody"),
        (["train", "missing.txt"], {}, 1, "There is no file missing.txt"),
        (["train", str(ROOT / "README.md"), "--preferences"], {}, 1, "Learning from the log is off"),
        (["pretrain"], {}, 2, "Missing argument"),
        (["pretrain", "model"], {}, 1, "with exactly one of --minutes, --until, --tokens and --steps"),
        (["adapters", "show", "nobody"], {}, 1, "nobody"),
        (["forget", "ann"], {}, 1, "Nothing is stored about 'ann'"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    arguments: list[str], variables: dict[str, str], status: int, sentence: str, tmp_path: Path
) -> None:
    """2 for wrong use, 1 for a failure; what to do stands on standard error and nothing on standard output."""
    done = person2(*arguments, home=tmp_path, **variables)
    assert done.returncode == status, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_traceback_is_there_for_who_wants_it(tmp_path: Path) -> None:
    """PERSON2_DEBUG=1 shows where it went wrong."""
    done = person2("adapters", "show", "nobody", home=tmp_path, PERSON2_DEBUG="1")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    """`--help` exits 0 and shows how the command is used."""
    from typer.main import get_command

    from person2.cli import cli

    def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, object]]:
        found = []
        for name, command in getattr(group, "commands", {}).items():
            found += commands(command, (*path, name)) or [(" ".join((*path, name)), command)]
        return found

    listed = commands(get_command(cli))
    assert len(listed) >= 12
    for name, command in listed:
        assert getattr(command, "help", None), name
        assert "person2" in (getattr(command, "epilog", None) or ""), name


def test_a_seed_gives_the_same_talk_each_time(tmp_path: Path) -> None:
    """Whatever was said before, the same lines get the same answers."""
    talks = [person2("chat", "--seed", "5", home=tmp_path, typed="hi\nwhat do you like?\n").stdout for _ in range(2)]
    assert talks[0].count("\n") == 2
    assert talks[0] == talks[1]


def test_pretraining_lists_its_own_options(tmp_path: Path) -> None:
    """`--help` of the lazily loaded command is the real one's."""
    done = person2("pretrain", "--help", home=tmp_path)
    assert done.returncode == 0
    assert "--vocabulary" in done.stdout


def test_an_import_counts_the_base_models_own_tokens(tmp_path: Path) -> None:
    """The table's tokens are the starter's tokenizer's, not an estimate from the number of characters."""
    talk = "Person1: How are you today?\nPerson2: I am very well, thank you. And how are you?\n"
    (tmp_path / "talk.txt").write_text(talk)
    made = json.loads(
        person2("import", "talk.txt", "--out", "out.txt", "--attest", "ours", "--json", home=tmp_path).stdout
    )
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "starter" / "tokenizer.json"))
    assert made["tokens_exact"] is True
    assert made["tokens"] == len(tokenizer.encode((tmp_path / "out.txt").read_text()).ids)
    unknown = person2(
        "import",
        "talk.txt",
        "--out",
        "out2.txt",
        "--attest",
        "ours",
        home=tmp_path,
        PERSON2_BASE_MODEL="no-one/has-this",
    )
    assert "≈" in unknown.stdout


def test_an_adapter_is_scored_beside_its_references(tmp_path: Path) -> None:
    """The voice that ships against the bare base and the other way round, with the interval of the difference."""
    talk = "Person1: How are you today?\nPerson2: I am very well, thank you.\n\nPerson1: Hello!\nPerson2: Hi there.\n"
    (tmp_path / "talk.txt").write_text(talk)
    bundled = str(ROOT / "models" / "starter" / "adapters" / "small-talk")
    for adapter, reference in (("current", "base"), (bundled, "base"), ("none", "current")):
        scored = person2(
            "evaluate",
            "talk.txt",
            "--adapter",
            adapter,
            "--contexts",
            "0",
            "--json",
            home=tmp_path,
            OMP_NUM_THREADS="1",
        )
        told = json.loads(scored.stdout)
        assert list(told["against"]) == [reference]
        gap, low, high = told["against"][reference]["differences"]["reply_bits_per_byte"]
        assert gap == pytest.approx(told["reply_bits_per_byte"] - told["against"][reference]["reply_bits_per_byte"])
        assert low <= gap <= high


def test_another_model_sits_the_same_exam(tmp_path: Path) -> None:
    """The starter foresees English better than a random model does, and exactly as well as itself."""
    (tmp_path / "talk.txt").write_text("Person1: How are you today?\nPerson2: I am very well, thank you.\n")
    tiny_model(tmp_path / "random")
    command = ("evaluate", "talk.txt", "--adapter", "none", "--alone", "--contexts", "0")
    beside = ("--beside", "random", "--beside", "starter")
    scored = person2(*command, *beside, "--json", home=tmp_path, OMP_NUM_THREADS="1")
    assert scored.returncode == 0, scored.stderr
    told = json.loads(scored.stdout)
    assert list(told["against"]) == ["random", "starter"]
    assert told["against"]["random"]["bits_per_byte"] > told["bits_per_byte"] + 1
    assert told["against"]["random"]["differences"]["bits_per_byte"][0] < -1
    assert told["against"]["starter"]["differences"]["bits_per_byte"] == [0, 0, 0]
    table = person2(*command, *beside, home=tmp_path, OMP_NUM_THREADS="1")
    assert "random" in table.stdout


def test_who_is_better_in_which_file(tmp_path: Path) -> None:
    """References and baselines stand by each file too: a file alone gives the figures it has among others."""
    for name, word in (("tea.txt", "tea"), ("films.txt", "films")):
        talk = [f"Person1: Do you like {word} {n}?\nPerson2: I like {word} of {n} cups.\n" for n in range(24)]
        (tmp_path / name).write_text("\n".join(talk))
    tiny_model(tmp_path / "random")
    command = ("--adapter", "none", "--alone", "--contexts", "10", "--beside", "random", "--json")
    both = json.loads(person2("evaluate", "tea.txt", "films.txt", *command, home=tmp_path, OMP_NUM_THREADS="1").stdout)
    tea = json.loads(person2("evaluate", "tea.txt", *command, home=tmp_path, OMP_NUM_THREADS="1").stdout)
    random = both["against"]["random"]
    assert list(random["files"]) == list(both["files"]) == ["tea.txt", "films.txt"]
    for figure in ("bits_per_byte", "hits_at_1_of_20", "distinct_2"):
        assert random["files"]["tea.txt"][figure] == pytest.approx(tea["against"]["random"][figure])
    assert both["files"]["tea.txt"]["baselines"] == tea["baselines"]
    found = [one["baselines"]["tf_idf_hits"] for one in both["files"].values()]
    assert both["baselines"]["tf_idf_hits"] == pytest.approx(sum(found) / 2)
    table = person2("evaluate", "tea.txt", "films.txt", *command[:-1], home=tmp_path, OMP_NUM_THREADS="1").stdout
    assert re.search("hits_at_1_of_20, *random", " ".join(table.split()))
    assert "tf_idf_hits" in table


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("./no-such-folder", "There is no model folder ./no-such-folder"),
        ("talk.txt", "There is no model folder talk.txt"),
        ("current", "write ./current"),
    ],
)
def test_a_model_that_cannot_sit_it_is_refused_before_it_begins(other: str, sentence: str, tmp_path: Path) -> None:
    """The exam takes minutes: nobody waits for it only to read of a slip of the pen."""
    (tmp_path / "talk.txt").write_text("Person1: How are you today?\nPerson2: I am very well, thank you.\n")
    done = person2("evaluate", "talk.txt", "--beside", other, home=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_nobody_else_reads_what_it_keeps(tmp_path: Path) -> None:
    """Home 0700, files 0600, though the umask allows all and an earlier version left them open to everybody."""
    home = tmp_path / "home"
    (home / "adapters" / "old").mkdir(parents=True)
    (home / "adapters" / "old" / "card.json").write_text("{}")
    (home / "notes.txt").write_text("not ours")
    for path in (home, *home.rglob("*")):
        path.chmod(0o777)
    base = tiny_model(tmp_path / "tiny")
    tiny_adapter(tmp_path / "made", base).chmod(0o755)
    before = os.umask(0)
    try:
        done = person2("chat", "--base", str(base), home=home, typed="hello\n/consent yes\n")
        AdapterRegistry(home / "adapters").add(
            tmp_path / "made", Card(id="new", created_at=datetime.now(UTC), base="tiny")
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert (home / "person2.db").exists()
    assert (home / "notes.txt").stat().st_mode & 0o777 == 0o777
    open_to_others = {
        str(path.relative_to(home)) for path in (home, *home.rglob("*")) if path.stat().st_mode & 0o077
    } - {"notes.txt"}
    assert open_to_others == set()


def test_in_the_terminal_nobody_is_too_fast(tmp_path: Path) -> None:
    """Elsewhere a member may ask so many questions a minute, because others wait; here lines may come from a script."""
    limits = {"PERSON2_USER_RATE": "2", "PERSON2_DIRECT_MESSAGES": "false"}
    done = person2("chat", "--seed", "1", home=tmp_path, typed="Hello!\n" * 4, **limits)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert "a lot at once" not in done.stdout + done.stderr


def test_what_was_said_is_remembered_across_runs(tmp_path: Path) -> None:
    """Two runs are one conversation; export shows both lines, forget removes them."""
    for line in ("My cat is called Tuesday.", "What about you?"):
        assert person2("chat", "--once", line, home=tmp_path, LOGNAME="tester").returncode == 0
    exported = person2("export", "terminal:tester", home=tmp_path)
    assert [said["text"] for said in json.loads(exported.stdout)[0]["messages"]] == [
        "My cat is called Tuesday.",
        "What about you?",
    ]
    assert "2 messages, 2 answers" in person2("forget", "tester", home=tmp_path).stdout
    assert person2("export", "terminal:tester", home=tmp_path).returncode == 1


def test_an_adapter_says_a_word_before_it_is_promoted(tmp_path: Path) -> None:
    """One that overflows, one for another base: a sentence each, and the voice that spoke goes on."""
    base, other = tiny_model(tmp_path / "base"), tiny_model(tmp_path / "other", width=48)
    registry = AdapterRegistry(tmp_path / "adapters")
    for name, folder, strength in (("good", base, 0.5), ("loud", base, 1e30), ("foreign", other, 0.5)):
        made = tiny_adapter(tmp_path / f"made-{name}", folder, strength=strength)
        registry.add(made, Card(id=name, created_at=datetime(2026, 1, 1, tzinfo=UTC), base=str(folder)))

    def use(name: str) -> tuple[int, str]:
        done = person2("adapters", "use", name, home=tmp_path, PERSON2_BASE_MODEL=str(base))
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert use("good") == (0, "Current adapter: good.\n")
    for name, says in (("loud", "produces numbers that overflow"), ("foreign", "does not fit this base")):
        status, told = use(name)
        assert (status, says in told) == (1, True), told
    current = registry.current()
    assert current is not None
    assert current.id == "good"


def test_an_adapter_is_tried_beside_the_current_one(tmp_path: Path) -> None:
    """Begun, shown everywhere, stopped; what may not be tried is a sentence."""
    base = tiny_model(tmp_path / "base")
    registry = AdapterRegistry(tmp_path / "adapters")
    made = datetime(2026, 1, 1, tzinfo=UTC)
    for name, passed in (("old", True), ("new", True), ("poor", False)):
        folder = tiny_adapter(tmp_path / f"made-{name}", base, strength=0.5)
        registry.add(folder, Card(id=name, created_at=made, base=str(base), passed=passed))
    registry.use("old")

    def adapters(*arguments: str, **variables: str) -> tuple[int, str]:
        done = person2("adapters", *arguments, home=tmp_path, PERSON2_BASE_MODEL=str(base), **variables)
        assert "Traceback" not in done.stderr
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    assert adapters("trial") == (0, "No adapter is on trial.")
    assert adapters("trial", "--stop")[0] == 1
    for name, variables, says in (
        ("poor", {}, "`person2 adapters show poor` says why, and --force tries it anyway."),
        ("old", {}, "is already the current adapter"),
        ("new", {"PERSON2_ADAPTER": "old"}, "a trial needs PERSON2_ADAPTER=current"),
    ):
        status, told = adapters("trial", name, **variables)
        assert (status, says in told) == (1, True), told
    assert adapters("trial", "new", "--share", "1.5")[0] == 2
    status, told = adapters("trial", "new", "--share", "0.4")
    assert (status, told) == (
        0,
        "new answers in 40% of the conversations beside old; members' feedback decides within 14 days.",
    )
    standing = "0 of its 0 judged answers liked, 0 of 0 of old; undecided"
    assert standing in adapters("trial")[1]
    assert standing in adapters("list")[1]
    listed = json.loads(adapters("list", "--json")[1])
    assert [row["id"] for row in listed if row["current"]] == ["old"]
    assert [row["id"] for row in listed if row["on_trial"]] == ["new"]
    assert standing in " ".join(person2("doctor", home=tmp_path, PERSON2_BASE_MODEL=str(base)).stdout.split())
    assert adapters("trial", "--stop") == (0, "The trial of new is over; current adapter: old.")
    assert "was stopped" in adapters("trial")[1]
    assert adapters("trial", "poor", "--force")[0] == 0
    assert "poor is on trial in 30% of conversations" in adapters("trial")[1]
