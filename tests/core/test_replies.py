"""What the model wrote, made fit to post."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.replies import clean, split


@pytest.mark.parametrize(
    ("generated", "posted"),
    [
        (" Fine, thanks.", "Fine, thanks."),
        (" Fine.\nPerson1: and you?", "Fine."),
        (" Fine. Person1: and you?", "Fine."),
        (" fine person2 : sure", "fine"),
        ("\n\n Late words", "Late words"),
        (" hi @everyone and @here!", "hi everyone and here!"),
        (" hey <@123> and <@!5> <@&7> <!channel> <!subteam^S1|x> ok", "hey and ok"),
        (" look in <#42> now", "look in now"),
        (" ann@example.com is mail", "ann@example.com is mail"),
        (" ha ha ha ha ha ha ha ha", "ha ha ha"),
        (" ha, that is 10 10 10 10 10 10", "ha, that is 10 10 10"),
        (" It costs 1000000 dollars.", "It costs 1000000 dollars."),
        (" 12,000,000,000,000,000 or 0.3333333333", "12,000,000,000,000,000 or 0.3333333333"),
        (" 101010101010 and 00000000", "101010101010 and 00000000"),
        (" noooooooo 5555555", "nooo 5555555"),
        ("\nFine, thanks.", "Fine, thanks."),
        ("\r\n \t\n\nPerson2: Fine, thanks.\nMore.", "Fine, thanks."),
        ("Person2: Fine.", "Fine."),
        ("...\nFine.", "Fine."),
        ("\nPerson1: Hi.\nPerson2: Fine.", ""),
        (" Person2: Person1: Hi.", ""),
        (" ...", ""),
        (" …", ""),
        ("\u200d", ""),
        ("\u200b\ufe0f\u2060 ", ""),
        ("\u3164\u2800", ""),
        (" ❤️", "❤️"),
        (" ∞", "∞"),
        ("", ""),
        (" 👍", "👍"),
        (" שלום", "שלום"),
        (" a <b> & c", "a <b> & c"),
    ],
)
def test_clean(generated: str, posted: str) -> None:
    """One line, no invented speaker, nobody pinged; nothing stays nothing."""
    assert clean(generated) == posted


def test_a_copy_of_someones_words_is_no_answer() -> None:
    """A long line of the conversation said again is refused; short common phrases are not."""
    said = ["I really like the green one, honestly!", "yes"]
    assert clean(" i really like the green one honestly", said=said) == ""
    assert clean(" yes", said=said) == "yes"
    assert clean(" 🎉 🎉 🎈 🎉 🎈 🎉", said=["👍 👍 👍"]) == "🎉 🎉 🎈 🎉 🎈 🎉"


def test_a_copy_of_one_message_among_several_is_noticed() -> None:
    """What is compared is each message for itself, so that one of two lines running by one person counts as well."""
    said = ["hello there", "I really like the green one, honestly!"]
    assert clean(" I really like the green one honestly", said=said) == ""
    assert clean(" hello there I really like the green one honestly", said=said) != ""


@given(st.text(max_size=400), st.integers(min_value=1, max_value=50))
def test_parts_fit_and_lose_no_words(text: str, limit: int) -> None:
    """Every part is within the limit and the visible characters come out in order."""
    parts = split(text, limit=limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_parts_end_with_sentences() -> None:
    """The cut falls behind the last sentence that fits, else at a space."""
    assert split("One is here. Two is here. Three.", limit=26) == ["One is here. Two is here.", "Three."]
    assert split("aaaa bbbb cccc", limit=10) == ["aaaa bbbb", "cccc"]
