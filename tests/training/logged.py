"""A log to learn from, and to be forgotten: what the tests of retraining and of forgetting share."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.memory import Memory, open_memory
from core.messages import Conversation, Message

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def clock() -> datetime:
    return START


def holding(folder: Path, words: bytes) -> list[Path]:
    """The files in which the words stand."""
    return [file for file in folder.rglob("*") if file.is_file() and words in file.read_bytes()]


def logged(url: str) -> Memory:
    """Ann said yes, Bob did not; the bot answered both, and people judged two of its replies."""
    memory = open_memory(url)
    memory.set_consent("test", "ann", True, START)
    rng = random.Random(7)

    def words(count: int) -> str:
        """Talk of many different words: dialogues that are nearly alike count as copies and are dropped."""
        return " ".join("".join(rng.choices("abdegiklmnoprstu", k=rng.randint(3, 7))) for _ in range(count))

    for day in range(60):
        where = Conversation(platform="test", channel=f"c{day}")
        for turn, (author, text) in enumerate(
            [
                ("ann", f"how do you like {words(9)} then"),
                ("cat", f"well {words(10)} is a fine one"),
                ("ann", f"then let us walk and talk of {words(9)}"),
                ("bob", f"secret of bob {words(8)} that nobody may learn"),
            ]
        ):
            memory.remember(
                Message(
                    conversation=where,
                    id=f"{day}-{turn}",
                    author=author,
                    author_name=author.title(),
                    text=text,
                    sent_at=START + timedelta(days=day, minutes=turn),
                )
            )
    memory.set_consent("test", "cat", True, START)
    return memory
