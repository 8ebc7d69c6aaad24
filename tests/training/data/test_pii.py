"""What is masked, what is left alone, and that masking twice changes nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import pii


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
        ("ann＠example．com, ann @ example.com, ann\u200b@example.org", "[email], [email], [email]"),
        ("ann(at)example.com or ann.lee at mail.example.org", "[email] or [email]"),
        ("ann DOT lee AT example DOT com, ann ät beispiel punkt de", "[email], [email]"),
        ("ann.lee@example(dot)com", "[email]"),
        ("+49\u2011170\u20111234567 or +49\u00a0170\u00a01234567", "[phone] or [phone]"),
        ("06 12 34 56 78, 98765 43210, 0412 345 678", "[phone], [phone], [phone]"),
        ("２０２－５５５－０１２５ and +٤٩ ١٧٠ ١٢٣٤٥٦٧", "[phone] and [phone]"),
        ("phone: 5551234", "phone: [phone]"),
        ("192.168.1[.]20 and ::ffff:192.0.2.1", "[ip] and [ip]"),
        ("00-1A-2B-3C-4D-5E, 001a.2b3c.4d5e", "[id], [id]"),
        ("4111.1111.1111.1111 cvv 123", "[card] cvv [secret]"),
        ("de89370400440532013000", "[card]"),
        ("DB_PASSWORD=swordfish and PGPASSWORD=abc", "DB_PASSWORD=[secret] and PGPASSWORD=[secret]"),
        (
            '{"password": "open sesame", "client_secret": "abcDEF123"}',
            '{"password": [secret], "client_secret": [secret]}',
        ),
        (
            "pw: swordfish, Kennwort: geheim, mot de passe: soleil",
            "pw: [secret], Kennwort: [secret], mot de passe: [secret]",
        ),
        ('my password is "correct horse battery staple"', "my password is [secret]"),
        ("mysql -u root -pswordfish", "mysql -u root -p[secret]"),
        ("ABCDE-12345-FGHIJ-67890-KLMNO", "[secret]"),
        ("your code is 123456, PIN: 1234", "your code is [secret], PIN: [secret]"),
        ("account number 12345678, passport no. C01X00T47", "account number [id], passport no. [id]"),
        ("go to example.org or db01.internal:5432.", "go to [link] or [link]."),
        (r"/home/ann/x, C:\Users\Ann Lee\Desktop", r"/home/[name]/x, C:\Users\[name]\Desktop"),
        ("52.520008, 13.404954 or 52°31'12.0\"N 13°24'18.0\"E", "[place] or [place]"),
        ("at 221B Baker Street, London", "at [place], London"),
        ("Hauptstraße 5 oder Lange Straße 7, 12 rue de la Paix", "[place] oder [place], [place]"),
        ("Via Roma 12, Calle de Alcalá 50, ul. Marszałkowska 10", "[place], [place], [place]"),
        ("born 12.03.1987", "born [id]"),
        ("add me, ann#1234", "add me, [name]"),
        ("passwd hunter22, the password's hunter23", "passwd [secret], the password's [secret]"),
        ("password -> hunter and pw → sunshine", "password -> [secret] and pw → [secret]"),
        ("login: ann / pass: swordfish", "login: ann / pass: [secret]"),
        ("TOTP secret JBSWY3DPEHPK3PXP", "TOTP secret [secret]"),
        ("密码是abc123", "密码是[secret]"),
        (
            "seed phrase: apple banana cherry orange eagle ladder forest garden helmet island jungle kitten",
            "seed phrase: [secret]",
        ),
        ("123456 is your code, G-482193 is your login code", "[secret] is your code, G-[secret] is your login code"),
        ("otp 482 193, or use code 123456", "otp [secret], or use code [secret]"),
        ("write to ann@gmail", "write to [email]"),
        ("192.168.001.001", "[ip]"),
        ("born on 12 March 1987, birthday: July 4, 1990", "born on [id], birthday: [id]"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "[id]"),
        ("at Baker Street 221, rua Augusta 1500", "at [place], [place]"),
        (r"D:\Benutzer\ann\x, C:\Usuarios\ana", r"D:\Benutzer\[name]\x, C:\Usuarios\[name]"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    """One of each, in the middle of a sentence."""
    assert pii.scrub(text) == masked


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
        "version 1.2.3.4, v1.2.3.4, Chrome/114.0.5735.90",
        "saat 12 alıp gide olur mısın abla, da 10 ağıt dese ſoll",
        "my password reset did not work, use code review, 20 is your limit, the 90s",
        "we were born for this, Wall Street 2 was a film",
        "a seed phrase is what you must never give to anybody who asks you for it",
        "password is required, the password is wrong, I forgot my password again",
        "the secret: add salt; token: no idea; key: C major",
        "123456789 is a big number, build 202401151, pid 1234567",
        "asp.net and node.js, README.md and main.py, e.g. this. ok.no",
        "error code 404, status code: 500, http status code 404",
        "24.5, 30.1 and 1 000 000 people in 1984-1985",
        "I have 3 Cats, the ring 5, 5 Great Ways to cook",
        "👩\u200d💻 می\u200cخواهم – so what",
    ],
)
def test_left_alone(text: str) -> None:
    """Times, prices, versions and words are talk."""
    assert pii.scrub(text) == text


@given(st.text(alphabet=st.sampled_from("aZ09 @.:/-+=[](){}_xkeytokn\n"), max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    """Placeholders are not themselves suspicious."""
    once = pii.scrub(text)
    assert pii.scrub(once) == once


@given(st.emails(), st.text(alphabet="abc ,", max_size=10))
def test_no_address_survives(email: str, around: str) -> None:
    """Whatever the standard allows, what is left is no deliverable address of word characters."""
    masked = pii.scrub(f"{around} {email} {around}")
    assert re.search(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}", masked) is None


def test_block_list_finds_whole_words_in_any_case() -> None:
    """`ass` is not in `class`; phrases count; no words, no pattern."""
    blocked = pii.blocker(["Ass", "buy  now ", ""])
    assert blocked is not None
    assert [bool(blocked.search(text)) for text in ("an ASS!", "class", "Buy  now?")] == [True, False, True]
    assert pii.blocker(["", "  "]) is None


def test_words_besides_placeholders() -> None:
    """A masked link alone says nothing."""
    assert [pii.has_words(text) for text in ("[link]", "[link] [email]!", "[link] nice", "42", "да")] == [
        False, False, True, False, True
    ]  # fmt: skip
