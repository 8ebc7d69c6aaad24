"""What a member is handed: a file that fits, readable or packed, or a sentence that says whom to ask."""

import json
import random

from core.attachments import attachment_of

STORED = {"member": "ann", "messages": [{"text": f"message number {number} 🌻 \ud83d"} for number in range(2000)]}


def test_small_data_is_a_readable_file() -> None:
    """JSON as it is; half a surrogate pair, which no file can hold, is replaced."""
    made, about = attachment_of(STORED)
    assert made is not None
    assert (made.name, about) == ("person2-my-data.json", "")
    assert json.loads(made.data)["messages"][7] == {"text": "message number 7 🌻 ?"}
    assert made.text.encode() == made.data


def test_large_data_is_packed() -> None:
    """The same words in a zip file, and the member is told so."""
    made, about = attachment_of(STORED, largest=20_000)
    assert made is not None
    assert len(made.data) <= 20_000
    assert (made.name, about) == ("person2-my-data.zip", "It is a zip archive, because it is large.")
    assert len(json.loads(made.text)["messages"]) == 2000


def test_what_no_file_holds_is_not_lost() -> None:
    """Rather than thousands of messages a sentence: whom to ask for it."""
    rng = random.Random(7)
    noise = {"messages": [{"text": rng.randbytes(50).hex()} for _ in range(2000)]}
    made, about = attachment_of(noise, largest=20_000)
    assert made is None
    assert "Ask my operator" in about
