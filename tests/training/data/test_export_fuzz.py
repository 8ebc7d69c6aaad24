"""Short fuzz of the readers and of the whole import; the long one is `benchmarks/fuzz_exports.py`."""

import os
import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import dialogue
from tests.training.data import export_fixtures, export_fuzz
from training.data.import_job import Options, import_talk
from training.data.reply_links import Previous

DATA = Path(os.environ.get("PERSON2_TEST_DATA") or "no test data")
MUTATIONS = 400


def test_mutated_exports_never_crash_the_readers(tmp_path: Path) -> None:
    """The same inputs each time, from hand-made exports and from real ones where they are at hand."""
    base = export_fuzz.seeds(DATA)
    for number in range(MUTATIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        export_fuzz.one(number, base, folder)
        shutil.rmtree(folder)


def test_mutated_exports_never_crash_the_import(tmp_path: Path) -> None:
    """What comes out is a dialogue file without a fault, and nothing lies beside it but the manifest."""
    base = export_fuzz.seeds(None)

    def use(path: Path, scratch: Path) -> None:
        out = path.parent / "made" / "out.txt"
        options = Options(linker=Previous(), min_words=1)
        stats = import_talk([path], out=out, home=tmp_path / "home", attest="fuzz", options=options)
        assert stats.read == stats.dropped.total() + stats.used
        if stats.out is None:
            assert list(out.parent.iterdir()) == []
        else:
            assert {child.name for child in out.parent.iterdir()} == {"out.txt", "out.txt.manifest.json"}
            text = out.read_text(encoding="utf-8")
            read = list(dialogue.read(text.splitlines()))
            assert len(read) == stats.dialogues
            assert not any(isinstance(item, dialogue.DialogueFault) for item in read)

    for number in range(MUTATIONS // 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        export_fuzz.one(10_000_000 + number, base, folder, use)
        shutil.rmtree(folder)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(export_fixtures.FILES)), words=st.text(max_size=60), data=st.data())
def test_any_words_go_through_every_format(name: str, words: str, data: st.DataObject, tmp_path: Path) -> None:
    """Odd characters in the middle of a well-formed file."""
    text = export_fixtures.FILES[name]
    at = data.draw(st.integers(0, len(text)))
    scratch = tmp_path / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    path = tmp_path / name
    path.write_bytes((text[:at] + words + text[at:]).encode("utf-8", "surrogatepass"))
    export_fuzz.check(path, scratch)
