"""Small exports made by hand, one of each format: what the readers' tests and the fuzzers start from.

Everyone in them is Ann and Bob; `TALK` is what they say, whatever the format.
"""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

TALK = [
    ("Ann", "hello, how are you?"),
    ("Bob", "fine, and yourself?"),
    ("Ann", "I am baking bread today"),
    ("Bob", "which flour do you take?"),
]
IDS = {"Ann": "111111111111111111", "Bob": "222222222222222222"}
CHANNEL = "987654321098765432"


def snowflake(number: int) -> str:
    """A Discord id whose time is 2024-01-15 10:30:00 plus `number` seconds."""
    return str((1705314600000 + 1000 * number - 1420070400000) << 22)


def discord_message(number: int, name: str, text: str, **extra: Any) -> dict[str, Any]:
    return {
        "id": snowflake(number),
        "type": "Default",
        "timestamp": f"2024-01-15T10:30:{number:02d}+00:00",
        "timestampEdited": None,
        "isPinned": False,
        "content": text,
        "author": {
            "id": IDS.get(name, "333333333333333333"),
            "name": name.lower(),
            "nickname": name,
            "isBot": False,
            "roles": [],
        },
        "attachments": [],
        "mentions": [],
        **extra,
    }


def discord(messages: list[dict[str, Any]] | None = None, **channel: Any) -> dict[str, Any]:
    talk = [discord_message(n, name, text) for n, (name, text) in enumerate(TALK)]
    return {
        "guild": {"id": "1", "name": "Kitchen"},
        "channel": {"id": CHANNEL, "type": "GuildTextChat", "name": "bread", **channel},
        "messages": talk if messages is None else messages,
        "messageCount": 4,
    }


def slack_files() -> dict[str, Any]:
    return {
        "channels.json": [{"id": "C1", "name": "bread"}],
        "groups.json": [{"id": "G1", "name": "secret-bread"}],
        "dms.json": [{"id": "D1", "members": ["UANN", "UBOB"]}],
        "users.json": [
            {"id": f"U{name.upper()}", "name": name.lower(), "profile": {"display_name": name}} for name in IDS
        ],
        "bread/2024-01-15.json": [
            {"type": "message", "user": f"U{name.upper()}", "text": text, "ts": f"17053146{n:02d}.000100"}
            for n, (name, text) in enumerate(TALK)
        ],
    }


def slack_zip(path: Path, files: dict[str, Any] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (slack_files() if files is None else files).items():
            archive.writestr(name, json.dumps(content))
    return path


def slackdump() -> dict[str, Any]:
    first, second, third, fourth = slack_files()["bread/2024-01-15.json"]
    replies = [{**first}, {**second, "thread_ts": first["ts"]}]
    first |= {"thread_ts": first["ts"], "reply_count": 1, "slackdump_thread_replies": replies}
    return {"channel_id": "C1", "name": "bread", "messages": [first, third, fourth]}


def telegram(messages: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    talk = [
        {
            "id": n,
            "type": "message",
            "date": f"2024-01-15T10:30:{n:02d}",
            "date_unixtime": str(1705314600 + n),
            "from": name,
            "from_id": f"user{IDS[name]}",
            "text": text,
        }
        for n, (name, text) in enumerate(TALK)
    ]
    return {"name": "Bob", "type": "personal_chat", "id": 42, "messages": talk if messages is None else messages}


def instagram() -> dict[str, Any]:
    talk = [
        {"sender_name": name, "timestamp_ms": 1705314600000 + 1000 * n, "content": text}
        for n, (name, text) in enumerate(TALK)
    ]
    return {"participants": [{"name": "Ann"}, {"name": "Bob"}], "messages": talk[::-1], "title": "Bob"}


def discord_csv() -> str:
    out = io.StringIO()
    rows = csv.writer(out, quoting=csv.QUOTE_ALL)
    out.write("AuthorID,Author,Date,Content,Attachments,Reactions\n")
    for n, (name, text) in enumerate(TALK):
        rows.writerow([IDS[name], f"{name}#0001", f"2024-01-15T10:30:{n:02d}.0000000+00:00", text, "", ""])
    return out.getvalue()


def discord_text() -> str:
    rule = "=" * 62
    body = "".join(f"[01/15/2024 10:{30 + n} AM] {name}\n{text}\n\n\n" for n, (name, text) in enumerate(TALK))
    return f"{rule}\nGuild: Kitchen\nChannel: food / bread\n{rule}\n\n{body}{rule}\nExported 4 message(s)\n{rule}\n"


def discord_html() -> str:
    groups = "".join(
        f"<div class=chatlog__message-group><div id=chatlog__message-container-{snowflake(n)} "
        f"class=chatlog__message-container data-message-id={snowflake(n)}><div class=chatlog__message>"
        f"<div class=chatlog__message-primary><div class=chatlog__header><span class=chatlog__author "
        f"title={name.lower()} data-user-id={IDS[name]}>{name}</span> <span class=chatlog__timestamp>"
        f'15-Jan-24 10:30 AM</span></div><div class="chatlog__content chatlog__markdown">'
        f"<span class=chatlog__markdown-preserve>{text}</span></div></div></div></div></div>"
        for n, (name, text) in enumerate(TALK)
    )
    head = "<!DOCTYPE html><html lang=en><head><title>Kitchen - bread</title></head>"
    return f"{head}<body><div class=chatlog>{groups}</div></body></html>"


def irc() -> str:
    return "--- Log opened Mon Jan 15 10:29:00 2024\n" + "".join(
        f"10:3{n} <@{name}> {text}\n" for n, (name, text) in enumerate(TALK)
    )


def whatsapp() -> str:
    return "15/01/2024, 10:29 - Messages and calls are end-to-end encrypted.\n" + "".join(
        f"15/01/2024, 10:3{n} - {name}: {text}\n" for n, (name, text) in enumerate(TALK)
    )


def plain() -> str:
    return "".join(f"Person{1 + n % 2}: {text}\n" for n, (_, text) in enumerate(TALK))


def matrix() -> dict[str, Any]:
    talk = [
        {
            "type": "m.room.message",
            "sender": f"@{name}:kitchen.example",
            "event_id": f"${n}",
            "room_id": "!bread:kitchen.example",
            "origin_server_ts": 1705314600000 + 1000 * n,
            "content": {"msgtype": "m.text", "body": text},
        }
        for n, (name, text) in enumerate(TALK)
    ]
    return {"room_name": "bread", "room_creator": "@Ann:kitchen.example", "messages": talk}


def mattermost() -> str:
    posts = [
        {"type": "post", "post": {"team": "t", "channel": "c", "user": name, "message": text, "create_at": at}}
        for at, (name, text) in enumerate(TALK, 1705314600000)
    ]
    return "".join(f"{json.dumps(each)}\n" for each in ({"type": "version", "version": 1}, *posts))


def signal() -> str:
    return "".join(
        json.dumps({"date": f"2024-01-15T10:30:{n:02d}", "sender": name, "body": text}) + "\n"
        for n, (name, text) in enumerate(TALK)
    )


FILES: dict[str, str] = {
    "discord.json": json.dumps(discord(), indent=2),
    "discord-flat.json": json.dumps(discord()),
    "discord.html": discord_html(),
    "discord.csv": discord_csv(),
    "discord.txt": discord_text(),
    "slackdump.json": json.dumps(slackdump()),
    "telegram.json": json.dumps(telegram(), indent=1),
    "telegram-all.json": json.dumps({"about": "x", "chats": {"about": "y", "list": [telegram()]}}, indent=1),
    "instagram.json": json.dumps(instagram(), indent=2),
    "irc.log": irc(),
    "whatsapp.txt": whatsapp(),
    "matrix.json": json.dumps(matrix(), indent=1),
    "mattermost.jsonl": mattermost(),
    "signal.jsonl": signal(),
    "plain.txt": plain(),
}
"""One export a format, as text."""
