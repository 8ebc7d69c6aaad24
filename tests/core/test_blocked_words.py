"""What the bot must not say is found in whatever disguise; what only looks like it is not."""

from pathlib import Path

import pytest

from core import blocked_words
from core.blocked_words import BlockedWords
from core.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Frobnicate!", "frobnicate"),
        ("you frrrobnicate, fr0bn1cate", "frobnicate"),
        ("f r o b n i c a t e", "frobnicate"),
        ("so f.r.o.b.n.i.c.a.t.e", "frobnicate"),
        ("fr\u043ebnicate with a Cyrillic letter", "frobnicate"),
        ("frob\u200bnicate, fr**ob**nicate", "frobnicate"),
        ("a foo  bar here", "foo bar"),
        ("you.fie", "fie"),
        ("frobnicated, foo and bar, fiefdom", None),
        ("I a m a man", None),
    ],
)
def test_blocked_words_are_found_as_whole_words_in_any_disguise(text: str, found: str | None) -> None:
    """Look-alikes, digits, drawn-out and spelt-out words, markup and signs inside; not parts of other words."""
    assert BlockedWords(["frobnicate", "foo bar", "fie"]).find(text) == found


def test_a_list_names_words_and_languages(tmp_path: Path) -> None:
    """Comments and blank lines are none; a language brings its list of slurs with it."""
    path = tmp_path / "words.txt"
    path.write_text("# ours\n\nfrobnicate\n@en\n", encoding="utf-8")
    words = blocked_words.read(path)
    assert words.find("do not frobnicate") == "frobnicate"
    assert words.find("shit happens") == "shit"
    assert words.find("nice weather") is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"\xff\xfe\xff", "cannot be read"), (b"@xx\n", "no list of slurs for @xx")],
)
def test_a_list_that_cannot_be_used_is_one_sentence(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    """A missing file, one that is no text, a language without a list."""
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=complaint):
        blocked_words.read(path)
