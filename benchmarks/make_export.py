"""Makes an export of any size; a million messages as DiscordChatExporter's JSON are about 500 MB, as in real exports.

    python -m benchmarks.make_export OUT --messages 1000000 [--format discord-json] [--busy] [--flat] [--files N]

One conversation after another, sometimes two at once, as on the PyScript Discord: one answer in five has a reply link,
and every second message is one where more than two people speak. `--busy`: three conversations are always interleaved,
as in #ubuntu. Words follow Zipf's law over a made-up vocabulary; a little markup, links, addresses, pastes and system
lines are mixed in. The same arguments make the same bytes.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

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


Said: TypeAlias = tuple[datetime, str, str, str, str]
"""When, the author's id and name, the message's id, the words."""


def said(messages: Iterator[dict[str, Any]]) -> Iterator[Said]:
    """What people and the platform say, as formats without Discord's fields write it."""
    for each in messages:
        author = each["author"]
        yield datetime.fromisoformat(each["timestamp"]), author["id"], author["nickname"], each["id"], each["content"]


RULE = "=" * 62


def discord_text(talk: Iterator[Said]) -> Iterator[str]:
    yield f"{RULE}\nGuild: Benchmark\nChannel: text / channel\n{RULE}\n\n"
    for when, _, name, _, text in talk:
        yield f"[{when:%m/%d/%Y %I:%M %p}] {name}\n{text}\n\n\n"
    yield f"{RULE}\nExported\n{RULE}\n"


def discord_csv(talk: Iterator[Said]) -> Iterator[str]:
    yield "AuthorID,Author,Date,Content,Attachments,Reactions\n"
    for when, author, name, _, text in talk:
        quoted = text.replace('"', '""')
        yield f'"{author}","{name}","{when:%Y-%m-%dT%H:%M:%S.%f0+00:00}","{quoted}","",""\n'


def discord_html(talk: Iterator[Said]) -> Iterator[str]:
    yield "<!DOCTYPE html><html lang=en><head><title>Benchmark - channel</title></head><body><div class=chatlog>\n"
    for when, author, name, id_, text in talk:
        yield (
            f"<div class=chatlog__message-group><div id=chatlog__message-container-{id_} "
            f"class=chatlog__message-container data-message-id={id_}><div class=chatlog__message>"
            f'<div class=chatlog__message-aside><img class=chatlog__avatar src="a.png" alt=Avatar loading=lazy></div>'
            f"<div class=chatlog__message-primary><div class=chatlog__header><span class=chatlog__author "
            f'title="{name.lower()}" data-user-id={author}>{name}</span> <span class=chatlog__timestamp>'
            f"<a href=#chatlog__message-container-{id_}>{when:%d-%b-%y %I:%M %p}</a></span></div>"
            f'<div class="chatlog__content chatlog__markdown"><span class=chatlog__markdown-preserve>{escape(text)}'
            "</span></div></div></div></div></div>\n"
        )
    yield "</div></body></html>\n"


def telegram(talk: Iterator[Said]) -> Iterator[str]:
    yield '{\n "name": "channel",\n "type": "private_supergroup",\n "id": 1,\n "messages": ['
    for number, (when, author, name, _, text) in enumerate(talk):
        fields = {"id": number, "type": "message", "date": f"{when:%Y-%m-%dT%H:%M:%S}"}
        more = {"date_unixtime": str(int(when.timestamp())), "from": name, "from_id": f"user{author}", "text": text}
        written = json.dumps(fields | more, ensure_ascii=False, indent=1).replace("\n", "\n  ")
        yield f"{',' if number else ''}\n  {written}"
    yield "\n ]\n}"


def whatsapp(talk: Iterator[Said]) -> Iterator[str]:
    yield "01/01/2020, 00:00 - Messages and calls are end-to-end encrypted.\n"
    for when, _, name, _, text in talk:
        yield f"{when:%d/%m/%Y, %H:%M} - {name}: {text}\n"


def irc(talk: Iterator[Said]) -> Iterator[str]:
    day = None
    for when, _, name, _, text in talk:
        if when.date() != day:
            day = when.date()
            yield f"--- Day changed {when:%a %b %d %Y}\n"
        yield f"{when:%H:%M:%S} <{name}> {' '.join(text.split())}\n"


def mattermost(talk: Iterator[Said]) -> Iterator[str]:
    yield '{"type": "version", "version": 1}\n'
    for when, _, name, _, text in talk:
        post = {"team": "t", "channel": "c", "user": name, "message": text, "create_at": int(when.timestamp() * 1000)}
        yield json.dumps({"type": "post", "post": post}, ensure_ascii=False) + "\n"


def matrix(talk: Iterator[Said]) -> Iterator[str]:
    yield '{\n "room_name": "channel",\n "room_creator": "@a:b.c",\n "messages": ['
    for number, (when, _, name, id_, text) in enumerate(talk):
        event = {"type": "m.room.message", "sender": f"@{name}:b.c", "event_id": f"${id_}", "room_id": "!c:b.c"}
        more = {"origin_server_ts": int(when.timestamp() * 1000), "content": {"msgtype": "m.text", "body": text}}
        written = json.dumps(event | more, ensure_ascii=False, indent=1).replace("\n", "\n  ")
        yield f"{',' if number else ''}\n  {written}"
    yield "\n ]\n}"


def slack(talk: Iterator[Said], folder: Path) -> None:
    """A folder with a file a day, as Slack packs it."""
    (folder / "general").mkdir(parents=True)
    members: dict[str, str] = {}
    for day, entries in groupby(talk, key=lambda one: one[0].date()):
        written = []
        for when, author, name, _, text in entries:
            members[author] = name
            written.append(
                {
                    "type": "message",
                    "user": f"U{author}",
                    "text": escape(text, quote=False),
                    "ts": f"{when.timestamp():.6f}",
                }
            )
        (folder / "general" / f"{day}.json").write_text(json.dumps(written, indent=4), encoding="utf-8")
    users = [{"id": f"U{author}", "name": name} for author, name in members.items()]
    (folder / "users.json").write_text(json.dumps(users), encoding="utf-8")
    (folder / "channels.json").write_text('[{"id": "C1", "name": "general"}]', encoding="utf-8")


FORMATS: dict[str, Callable[[Iterator[Said]], Iterator[str]]] = {
    "discord-text": discord_text,
    "discord-csv": discord_csv,
    "discord-html": discord_html,
    "telegram": telegram,
    "whatsapp": whatsapp,
    "irc": irc,
    "mattermost": mattermost,
    "matrix": matrix,
}


def write_as(kind: str, path: Path, messages: Iterator[dict[str, Any]]) -> None:
    """One export of one of `FORMATS`, or of Slack's."""
    if kind == "slack":
        slack(said(messages), path)
        return
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(FORMATS[kind](said(messages)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a file, or with --files a folder")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("discord-json", "slack", *FORMATS), default="discord-json")
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
        messages = talk(given.messages // given.files, chance, busy=given.busy)
        if given.format == "discord-json":
            write(path, messages, channel, flat=given.flat)
        else:
            write_as(given.format, path, messages)
    written = [given.out] if given.out.is_file() else [path for path in given.out.rglob("*") if path.is_file()]
    print(sum(path.stat().st_size for path in written) / 1e6, "MB")


if __name__ == "__main__":
    main()
