"""What is masked, what is left alone, and that masking twice changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import scrub


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.b+c@mail.example.org!", "write to [email]!"),
        ("ann [at] example [dot] org or ann at example dot org", "[email] or [email]"),
        ("see https://a.b/c?d=e#f, or www.x.org/y.", "see [link], or [link]."),
        ("(http://a.b/c) <ftp://x/y> discord.gg/abc123", "([link]) <[link]> [link]"),
        ("call +49 (0)170 123 45 67 or 555-123-4567", "call [phone] or [phone]"),
        ("(030) 1234 5678, 07700 900123, 555-1234", "[phone], [phone], [phone]"),
        ("from 192.168.1.20:8080 and 10.0.0.0/8", "from [ip] and [ip]"),
        ("at 2001:db8::ff00:42:8329 and ::1", "at [ip] and [ip]"),
        ("card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [card]"),
        ("ssn 123-45-6789", "ssn [id]"),
        ("id 987654321098765432 and 123e4567-e89b-12d3-a456-426614174000", "id [id] and [id]"),
        ("commit 356a192b7913b04c54574d18c28d46e6395428ab", "commit [id]"),
        ("mac 00:1a:2b:3c:4d:5e", "mac [id]"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "[secret]"),
        ("key xoxb-123456789012-abcdefghijkl", "key [secret]"),
        ("AKIAIOSFODNN7EXAMPLE", "[secret]"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", "[secret]"),
        ("password: hunter22 and my token is abcd1234", "password: [secret] and my token is [secret]"),
        ("Bearer abcDEF123456ghi", "Bearer [secret]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- bye", "[secret] bye"),
        ("wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY9", "[secret]"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    """One of each, in the middle of a sentence."""
    assert scrub.scrub(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "meet at 10:30 or 12:05:59 on 2024-01-15, or 15/01/2024",
        "it costs 1,000,000.50 or 12.5 % of 20000",
        "a::b in C++, snake_case_names_are_very_long_sometimes_really",
        "Donaudampfschifffahrtsgesellschaftskapitän =====================",
        "python 3.11.7, node v20.1, 4 cores, 1920x1080",
        "the key to success is the secret of cooking",
        "/usr/local/lib/python3/site-packages and a/b or his/her",
        "@ann look at that dot over there",
        "number 4111 1111 1111 1112 fails Luhn",
        "!!! 😀 ^_^ :-)",
    ],
)
def test_left_alone(text: str) -> None:
    """Times, prices, versions and words are talk."""
    assert scrub.scrub(text) == text


@given(st.text(alphabet=st.sampled_from("aZ09 @.:/-+=[](){}_xkeytokn\n"), max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    """Placeholders are not themselves suspicious."""
    once = scrub.scrub(text)
    assert scrub.scrub(once) == once


@given(st.emails(), st.text(alphabet="abc ,", max_size=10))
def test_no_address_survives(email: str, around: str) -> None:
    """Whatever the standard allows, what is left is no deliverable address of word characters."""
    masked = scrub.scrub(f"{around} {email} {around}")
    assert scrub._EMAIL.search(masked) is None


def test_block_list_finds_whole_words_in_any_case() -> None:
    """`ass` is not in `class`; phrases count; no words, no pattern."""
    blocked = scrub.blocker(["Ass", "buy  now ", ""])
    assert blocked is not None
    assert [bool(blocked.search(text)) for text in ("an ASS!", "class", "Buy  now?")] == [True, False, True]
    assert scrub.blocker(["", "  "]) is None


def test_words_besides_placeholders() -> None:
    """A masked link alone says nothing."""
    assert [scrub.has_words(text) for text in ("[link]", "[link] [email]!", "[link] nice", "42", "да")] == [
        False, False, True, False, True
    ]  # fmt: skip
