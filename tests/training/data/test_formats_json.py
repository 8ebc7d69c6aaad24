"""JSON formats as people have them, and a plain CSV: what was read wrongly, or not at all."""

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from core.messages import Kind
from tests.training.data import export_fixtures as made
from tests.training.data.reading import Read, folder, read

Q, A = "where do the bees sleep?", "in the box by the oak"
TALK = [("mia", Q), ("leo", A)]


def slack(number: int, user: str, text: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "text": text, "ts": f"17053146{number:02d}.000100", **more}


def rich(*elements: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": list(elements)}]}]


USERS = [{"id": f"U{name.upper()}", "name": name} for name in ("mia", "leo")]
QUOTED = {"type": "rich_text_quote", "elements": [{"type": "text", "text": "others' words"}]}
OWN = {"type": "rich_text_section", "elements": [{"type": "text", "text": "mine"}]}
CELLS = [{"type": "raw_text", "text": "hive"}, {"type": "raw_text", "text": "3"}]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (rich({"type": "text", "text": "see "}, {"type": "user", "user_id": "ULEO"}), "see @leo"),
        (rich({"type": "emoji", "name": "bee"}, {"type": "link", "url": "https://a.b", "text": "hives"}), ":bee:hives"),
        (rich({"type": "text", "text": "1 < 2 & so"}), "1 < 2 & so"),
        ([{"type": "rich_text", "elements": [QUOTED, OWN]}], "mine"),
        ([{"type": "section", "text": {"type": "mrkdwn", "text": "*now* <@ULEO>"}}], "now @leo"),
        ([{"type": "table", "rows": [CELLS]}], "hive | 3"),
        ([{"type": "rich_text", "elements": 5}, "no block"], None),
    ],
)
@pytest.mark.parametrize("text", ["", "This message contains interactive elements."])
def test_slack_words_in_blocks(text: str, blocks: list[Any], said: str | None, tmp_path: Path) -> None:
    """Where `text` is empty or a stand-in, the blocks say what was said."""
    files = {"users.json": USERS, "channels.json": [], "bees/2024-01-15.json": [slack(1, "UMIA", text, blocks=blocks)]}
    found = Read(folder(tmp_path / "export", files), tmp_path / "scratch")
    assert [words for _, words in found.talk] == ([said] if said else [])


def test_slack_connect_members_have_names(tmp_path: Path) -> None:
    """Whom users.json lacks, the message itself names; a `ts` may be a number."""
    message = slack(1, "U9", Q, user_profile={"display_name": "Zoe", "real_name": "Zoe Q"})
    message["ts"] = 1705314601.0001
    found = Read(folder(tmp_path / "e", {"users.json": USERS, "x/2024-01-15.json": [message]}), tmp_path / "s")
    assert found.talk == [("Zoe", Q)]
    assert ("U9", "Zoe Q") in found.names
    assert found.messages[0].id == "1705314601.000100"


@pytest.mark.parametrize("files", [("bees/2024-01-15.json",), ("2024-01-15.json",), ("org_users.json", "bees/1.json")])
def test_slack_without_its_lists(files: tuple[str, ...], tmp_path: Path) -> None:
    """A channel's folder, a day by itself, the list of a whole organisation."""
    day = [slack(1, "UMIA", Q), slack(2, "ULEO", A)]
    contents = {name: USERS if name == "org_users.json" else day for name in files}
    found = Read(folder(tmp_path / "export", contents), tmp_path / "scratch")
    assert [words for _, words in found.talk] == [Q, A]
    assert found.messages[0].conversation.channel.startswith("export")


def test_slackdump_archives_and_databases(tmp_path: Path) -> None:
    """Chunk files, packed or not, and the database of newer versions; an empty one is named."""
    messages = [slack(1, "UMIA", Q), slack(2, "ULEO", A)]
    chunks = [{"t": 2, "ts": 1, "u": USERS}, {"t": 0, "ts": 2, "id": "C0BEES00000", "n": 2, "m": messages}]
    packed = gzip.compress("\n".join(map(json.dumps, chunks)).encode())
    found = Read(folder(tmp_path / "dump", {"C0BEES00000.jsonl.gz": packed}), tmp_path / "s1")
    assert (found.talk, found.faults) == (TALK, [])
    for rows in (messages, []):
        path = tmp_path / f"slackdump{len(rows)}.sqlite"
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE MESSAGE (CHUNK_ID INTEGER, CHANNEL_ID TEXT, IDX INTEGER, DATA BLOB)")
            database.execute("CREATE TABLE S_USER (ID TEXT, CHUNK_ID INTEGER, DATA BLOB)")
            for number, message in enumerate(rows):
                row = (1, "C0BEES00000", number, json.dumps(message).encode())
                database.execute("INSERT INTO MESSAGE VALUES (?, ?, ?, ?)", row)
            for user in USERS:
                database.execute("INSERT INTO S_USER VALUES (?, 1, ?)", (user["id"], json.dumps(user).encode()))
        database.close()
        found = Read(path, tmp_path / f"s{len(rows) + 2}")
        assert found.talk == (TALK if rows else [])
        assert found.faults == ([] if rows else ["slackdump0.sqlite: a slackdump database without messages"])


def telegram(number: int, name: str, text: str, **more: Any) -> dict[str, Any]:
    said = made.telegram()["messages"][0]
    return {**said, "id": number, "from": name, "from_id": f"user{name}", "text": text, **more}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "Bees", "type": "private_supergroup", "id": 42, "messages": list(messages), **more}


def test_telegram_topics_are_conversations(tmp_path: Path) -> None:
    """A topic's root is a service message; what answers a message of it is of it too; the root is answered by none."""
    root = {"id": 1, "type": "service", "action": "topic_created", "title": "Hives", "date": "2024-01-15T10:00:00"}
    found = read(
        tmp_path,
        chat(
            root,
            telegram(3, "mia", Q, reply_to_message_id=1),
            telegram(4, "eva", "elsewhere"),
            telegram(5, "leo", A, reply_to_message_id=3),
        ),
    )
    by_text = {message.text: message for message in found.messages}
    assert by_text[Q].conversation == by_text[A].conversation
    assert by_text["elsewhere"].conversation.thread is None
    assert (by_text[Q].reply_to, by_text[A].reply_to) == (None, "3")


def test_telegram_replies_into_other_chats_and_bots_of_groups(tmp_path: Path) -> None:
    """The number is one of the other chat; a bot is known by buttons under its words, and by its name."""
    found = read(
        tmp_path,
        chat(
            telegram(1, "mia", Q),
            telegram(2, "leo", A, reply_to_message_id=1, reply_to_peer_id="channel7"),
            telegram(3, "Helper", "press", inline_bot_buttons=[[{"type": "url"}]]),
            telegram(4, "Helper", "welcome"),
            telegram(5, "GroupHelpBot", "rules"),
            telegram(6, "Ann Talbot", "hello"),
        ),
    )
    assert found.talk == [*TALK, ("Ann Talbot", "hello")]
    assert found.messages[1].reply_to is None
    assert found.skipped == {"bot or webhook": 3}


def test_telegram_whatever_a_chat_is_called_and_whichever_field_has_the_words(tmp_path: Path) -> None:
    """Discord's exports have a field of the name; some programs keep the pieces of a text alone."""
    pieces = {key: value for key, value in telegram(2, "leo", "").items() if key != "text"}
    pieces["text_entities"] = [{"type": "plain", "text": A[:6]}, {"type": "bold", "text": A[6:]}]
    assert read(tmp_path, chat(telegram(1, "mia", Q), pieces, name="channel")).talk == TALK


def test_a_whole_telegram_account(tmp_path: Path) -> None:
    """Contacts stand in front, longer than what is looked at to recognise a format."""
    contacts = [{"user_id": number, "first_name": f"First{number}"} for number in range(3000)]
    account = {
        "about": "Here is the data you requested.",
        "contacts": {"about": "", "list": contacts},
        "chats": {"about": "", "list": [chat(telegram(1, "mia", Q), telegram(2, "leo", A))]},
    }
    assert read(tmp_path, account).talk == TALK


def test_meta_encrypted_chats_and_told_lines(tmp_path: Path) -> None:
    """`senderName` and participants as texts; what Meta tells of somebody begins with their own name."""

    def said(number: int, name: str, text: str, **more: Any) -> dict[str, Any]:
        base = {"isUnsent": False, "senderName": name, "type": "text", "timestamp": 1705314600000 + 1000 * number}
        return {**base, "text": text, **more}

    messages = [
        said(1, "mia", Q),
        said(2, "leo", "leo hat einen Anhang gesendet."),
        said(3, "mia", "Hat mit ❤️ auf deine Nachricht reagiert "),
        said(4, "leo", "gone", isUnsent=True),
        said(5, "leo", A),
    ]
    content = {"participants": ["mia", "leo"], "threadName": "leo_3", "messages": messages}
    found = read(tmp_path, content, "leo_3.json")
    assert found.talk == TALK
    assert found.messages[0].conversation.kind is Kind.DIRECT
    assert found.skipped == {"system line": 3}


def test_discord_forwards_in_json(tmp_path: Path) -> None:
    """Forwarded words are an outsider's, wherever the exporter puts them."""
    forward = {"messageId": "5", "type": "Forward"}
    found = read(
        tmp_path,
        made.discord(
            [
                made.discord_message(1, "Ann", Q),
                made.discord_message(2, "Bob", "secret words", reference=forward),
                made.discord_message(3, "Bob", "", reference=forward, forwardedMessage={"content": "secret"}),
                made.discord_message(4, "Bob", A),
            ]
        ),
    )
    assert [words for _, words in found.talk] == [Q, A]
    assert found.skipped == {"forwarded": 2}


def test_matrix_rooms(tmp_path: Path) -> None:
    """Edits in place, replies without the quotation in front of them, threads, members' names, pictures, notices."""

    def event(number: int, sender: str, content: dict[str, Any], kind: str = "m.room.message") -> dict[str, Any]:
        base = {"type": kind, "sender": f"@{sender}:hive.example", "event_id": f"${number}", "room_id": "!bees:x"}
        return {**base, "origin_server_ts": 1705314600000 + 1000 * number, "content": content}

    def text(body: str, **relation: Any) -> dict[str, Any]:
        return {"msgtype": "m.text", "body": body, **({"m.relates_to": relation} if relation else {})}

    edit = {**text("* x", rel_type="m.replace", event_id="$2"), "m.new_content": text(Q)}
    events = [
        {**event(1, "mia", {"displayname": "Mia M"}, "m.room.member"), "state_key": "@mia:hive.example"},
        event(2, "mia", text("where do the beas sleep?")),
        event(3, "leo", text(f"> <@mia:hive.example> where\n\n{A}", **{"m.in_reply_to": {"event_id": "$2"}})),
        event(4, "mia", edit),
        event(5, "leo", {"msgtype": "m.image", "body": "bee.jpg"}),
        event(6, "helper", {"msgtype": "m.notice", "body": "done"}),
        event(7, "mia", text("aside", rel_type="m.thread", event_id="$3")),
        event(8, "leo", {}, "m.room.encrypted"),
    ]
    found = read(tmp_path, {"room_name": "Bees", "room_creator": "@mia:hive.example", "messages": events})
    said = [(message.id, message.text) for message in found.messages]
    assert said == [("$2", "where do the beas sleep?"), ("$3", A), ("$2", Q), ("$7", "aside")]
    assert found.messages[0].sent_at == found.messages[2].sent_at
    assert (found.messages[1].reply_to, found.messages[3].conversation.thread) == ("$2", "$3")
    assert ("@mia:hive.example", "Mia M") in found.names
    assert found.skipped == {"system line": 2, "no words": 1, "bot or webhook": 1}


def lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def test_mattermost_bulk_exports(tmp_path: Path) -> None:
    """Posts with their replies, private talk, webhooks and joins."""
    post = {"team": "t", "channel": "bees", "user": "mia", "message": Q, "create_at": 1705314600000}
    reply = {"user": "leo", "message": A, "create_at": 1705314660000}
    direct = {"channel_members": ["mia", "leo"], "user": "leo", "message": "psst", "create_at": 1705314700000}
    found = read(
        tmp_path,
        lines(
            {"type": "version", "version": 1},
            {"type": "user", "user": {"username": "mia", "nickname": "Mia", "first_name": "Mia", "last_name": "M"}},
            {"type": "post", "post": {**post, "replies": [reply]}},
            {"type": "post", "post": {**post, "type": "system_join_channel", "message": "mia joined"}},
            {"type": "post", "post": {**post, "props": {"from_webhook": "true"}, "message": "build failed"}},
            {"type": "direct_post", "direct_post": direct},
        ),
    )
    assert found.talk == [*TALK, ("leo", "psst")]
    assert found.messages[0].conversation == found.messages[1].conversation
    assert [found.messages[0].conversation.kind, found.messages[2].conversation.kind] == [Kind.THREAD, Kind.DIRECT]
    assert found.skipped == {"system line": 1, "bot or webhook": 1}
    assert ("mia", "Mia M") in found.names


def test_signal_and_gitter(tmp_path: Path) -> None:
    """signal-cli with both sides of a private talk, signal-export's lines and pages, Gitter as lines and as a list."""
    envelope = {"source": "+491", "sourceUuid": "u1", "sourceName": "mia", "timestamp": 1705314600000}
    sent = {"message": A, "timestamp": 1705314660000, "destinationUuid": "u1"}
    found = read(
        tmp_path,
        lines(
            {"envelope": {**envelope, "dataMessage": {"timestamp": 1705314600000, "message": Q}}, "account": "+492"},
            {"envelope": {**envelope, "typingMessage": {"action": "STARTED"}}},
            {"envelope": {**envelope, "sourceUuid": "u2", "sourceName": "leo", "syncMessage": {"sentMessage": sent}}},
        ),
        "signal.jsonl",
    )
    assert found.talk == TALK
    assert len({message.conversation for message in found.messages}) == 1
    times = ("2024-01-15T10:30:00", "2024-01-15T10:31:00")
    exported = [{"date": time, "sender": name, "body": words} for time, (name, words) in zip(times, TALK, strict=True)]
    assert read(tmp_path, lines(*exported), "data.json").talk == TALK
    page = f"[2024-01-15, 10:30] mia: {Q}\n\n[2024-01-15, 10:31] leo: {A}\n"
    found = read(tmp_path, page, "chat.md")
    assert (found.talk, found.messages[0].conversation.platform) == (TALK, "signal")
    rows = [
        {"id": str(n), "text": words, "sent": f"2024-01-15T10:3{n}:00.000Z", "fromUser": {"id": name, "username": name}}
        for n, (name, words) in enumerate(TALK)
    ]
    assert read(tmp_path, lines(*rows), "gitter.jsonl").talk == read(tmp_path, rows, "gitter.json").talk == TALK


def test_any_csv_with_its_columns_named(tmp_path: Path) -> None:
    """By name or by number, with seconds or stamps; without the names it is said what to do."""
    table = f'When;Who;Room;What\n1705314600;mia;a;{Q}\n15.01.2024 10:31;leo;a;"{A}"\n1705314700;eva;b;hi\n'
    for columns in ("author=Who,time=When,text=What,channel=Room", "author=2,time=1,text=4,channel=3"):
        found = read(tmp_path, table, "talk.csv", columns=columns)
        assert found.talk == [*TALK, ("eva", "hi")]
        assert len({message.conversation for message in found.messages}) == 2
    assert "has no column" in read(tmp_path, table, "talk.csv", columns="author=X,time=When,text=What").faults[0]
    assert "--columns" in read(tmp_path, table, "talk.csv").faults[0]
