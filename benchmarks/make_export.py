"""Makes a DiscordChatExporter JSON of any size: a million messages are about 500 MB, as real exports are.

    python -m benchmarks.make_export OUT.json --messages 1000000 [--busy] [--flat] [--files N]

One conversation after another, at times a second beside it, as on the PyScript Discord: one answer in five carries a
reply link, and every second message stands where more than two people speak. `--busy`: three conversations always run
through each other, as in #ubuntu. Words follow Zipf's law over a made-up vocabulary; a little markup, links, addresses,
pastes and system lines are mixed in. The same arguments make the same bytes.
"""

import argparse
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2020, 1, 1, tzinfo=UTC)
SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeio"]
PEOPLE = 400
VOCABULARY = 20_000


def vocabulary(chance: random.Random) -> tuple[list[str], list[float]]:
    words = list(dict.fromkeys("".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(VOCABULARY)))
    return words, [1 / (rank + 3) for rank in range(len(words))]


def talk(count: int, chance: random.Random, *, busy: bool) -> Iterator[dict[str, Any]]:
    words, weights = vocabulary(chance)
    stock: Iterator[str] = iter(())
    names = [f"{chance.choice(words)}{number}" for number in range(PEOPLE)]
    moment = START
    running: list[tuple[list[int], list[str]]] = []
    for number in range(count):
        if chance.random() < 0.004:
            moment += timedelta(seconds=chance.uniform(3 * 3600, 16 * 3600))
            running.clear()
        else:
            moment += timedelta(seconds=chance.expovariate(1 / 45))
        if not running or chance.random() < (0.06 if busy else 0.04):
            running.append(
                (chance.sample(range(PEOPLE), chance.choice((2, 2, 2, 3, 4) if busy else (2, 2, 2, 2, 3))), [])
            )
            running = running[-(3 if busy else chance.choice((1, 1, 1, 1, 2))) :]
            if not busy and len(running) == 1 and chance.random() < 0.8:
                moment += timedelta(minutes=chance.uniform(10, 240))
        people, ids = chance.choice(running)
        author = chance.choice(people)
        said = []
        for _ in range(min(60, 1 + int(chance.expovariate(1 / 11)))):
            word = next(stock, None)
            if word is None:
                stock = iter(chance.choices(words, weights, k=20_000))
                word = next(stock)
            said.append(word)
        text = " ".join(said)
        rng = chance.random()
        if rng < 0.03:
            text += f" https://{said[0]}.example/{number}"
        elif rng < 0.04:
            text += f" write to {said[-1]}{number}@mail.example"
        elif rng < 0.08:
            text = f"<@{10**17 + people[0]}> **{said[0]}** {text}?"
        elif rng < 0.09:
            text = f"```py\n{text}\n```"
        elif rng < 0.092:
            text = "join the best server there is, everybody gets a free hat and a cake, hurry up and join now"
        id_ = str(((int(moment.timestamp() * 1000) - 1420070400000) << 22) + number % 4096)
        answers = ids[-1] if ids and chance.random() < 0.2 else None
        ids.append(id_)
        yield message(id_, moment, names[author], author, text, answers, system=rng > 0.995, mentions=rng < 0.08)


def message(
    id_: str, moment: datetime, name: str, author: int, text: str, answers: str | None, *, system: bool, mentions: bool
) -> dict[str, Any]:
    kind = "ThreadCreated" if system else "Reply" if answers else "Default"
    made: dict[str, Any] = {
        "id": id_,
        "type": kind,
        "timestamp": moment.isoformat(timespec="milliseconds"),
        "isPinned": False,
        "content": "started a thread." if system else text,
        "author": {
            "id": str(10**17 + author),
            "name": name,
            "nickname": name.capitalize(),
            "isBot": author % 50 == 49,
            "roles": [],
        },
        "attachments": [],
        "reactions": [],
        "mentions": [{"id": str(10**17 + author), "name": name, "nickname": name.capitalize()}] if mentions else [],
    }
    if answers:
        made["reference"] = {"messageId": answers, "channelId": "1", "guildId": "1"}
    return made


def write(path: Path, messages: Iterator[dict[str, Any]], channel: int, *, flat: bool) -> int:
    """One file, written as it is made. Returns its messages."""
    encode = json.JSONEncoder(ensure_ascii=False, indent=None if flat else 2).encode
    count = 0
    head = {  # without its closing brace, the messages are appended to it
        "guild": {"id": "1", "name": "Benchmark", "iconUrl": ""},
        "channel": {
            "id": str(1000 + channel),
            "type": "GuildTextChat",
            "categoryId": None,
            "name": f"channel-{channel}",
        },
        "exportedAt": "2026-01-01T00:00:00+00:00",
    }
    opening = encode(head).rstrip("}\n") if not flat else encode(head)[:-1]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(opening + ("," if flat else ",\n  ") + '"messages": [')
        for made in messages:
            text = encode(made)
            file.write(("," if count else "") + (text if flat else "\n    " + text.replace("\n", "\n    ")))
            count += 1
        file.write("]" if flat else "\n  ]")
        file.write(f',{"" if flat else chr(10) + "  "}"messageCount": {count}{"" if flat else chr(10)}}}')
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a file, or with --files a folder")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=1, help="channels, a file each")
    parser.add_argument("--flat", action="store_true", help="on one line, without indentation")
    parser.add_argument("--busy", action="store_true", help="three conversations at once, always")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.files > 1:
        given.out.mkdir(parents=True, exist_ok=True)
    for channel in range(given.files):
        path = given.out / f"channel-{channel:04d}.json" if given.files > 1 else given.out
        chance = random.Random(given.seed * 1000 + channel)
        write(path, talk(given.messages // given.files, chance, busy=given.busy), channel, flat=given.flat)
    print(
        sum(path.stat().st_size for path in ([given.out] if given.out.is_file() else given.out.iterdir())) / 1e6, "MB"
    )


if __name__ == "__main__":
    main()
