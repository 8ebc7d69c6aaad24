"""Every format to the same talk; markup to what a person reads; damage to one line each."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from core.messages import Kind, Message
from tests.training.data import export_fixtures as made
from tests.training.data.reading import Read, read
from training.data import formats
from training.data.formats import markup

DATA = Path(os.environ.get("PERSON2_TEST_DATA") or "no test data")


@pytest.mark.parametrize("name", [name for name in made.FILES if name not in ("plain.txt", "slackdump.json")])
def test_every_format_gives_the_same_talk(name: str, tmp_path: Path) -> None:
    """The file's name says nothing: each is recognised by its content."""
    found = read(tmp_path, made.FILES[name], "42.dat")
    assert found.talk == made.TALK
    assert found.faults == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "name", ["discord.json", "discord.html", "discord.csv", "telegram.json", "irc.log", "whatsapp.txt"]
)
def test_byte_order_marks_change_nothing(name: str, encoding: str, tmp_path: Path) -> None:
    """Windows programs save as UTF-16 or put a mark in front."""
    assert read(tmp_path, made.FILES[name].encode(encoding)).talk == made.TALK


def test_slackdump_file_with_and_without_users(tmp_path: Path) -> None:
    """Replies stand inside the first message of their thread; names come from users.json beside the file."""
    found = read(tmp_path, made.slackdump(), "C1.json")
    assert [text for _, text in found.talk] == [text for _, text in made.TALK]
    assert [message.conversation.thread is not None for message in found.messages] == [True, True, False, False]
    (tmp_path / "users.json").write_text(json.dumps(made.slack_files()["users.json"]))
    assert Read(tmp_path / "C1.json", tmp_path / "scratch").talk == made.TALK


def test_windows_line_ends_in_discord_json(tmp_path: Path) -> None:
    """The exporter's JSON on Windows has CR LF."""
    assert read(tmp_path, made.FILES["discord.json"].replace("\n", "\r\n")).talk == made.TALK


def test_ready_made_dialogues_keep_their_sides(tmp_path: Path) -> None:
    """A Person1/Person2 file is read back as it is."""
    assert [name for name, _ in read(tmp_path, made.plain()).talk] == ["Person1", "Person2", "Person1", "Person2"]


def test_slack_zip_and_folder(tmp_path: Path) -> None:
    """The same export packed and unpacked, with its folders as channels."""
    path = made.slack_zip(tmp_path / "slack.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    for source in (path, tmp_path / "folder"):
        found = Read(source, tmp_path / f"scratch-{source.name}")
        assert found.talk == made.TALK
        assert {message.conversation.channel for message in found.messages} == {f"{source.name}/C1"}


def test_slack_kinds_threads_edits_and_bots(tmp_path: Path) -> None:
    """Public, private and direct; thread_ts makes threads; subtypes are told apart."""
    files = made.slack_files()
    files["bread/2024-01-16.json"] = [
        {"type": "message", "user": "UANN", "text": "who has rye?", "ts": "1.1", "thread_ts": "1.1", "reply_count": 1},
        {"type": "message", "user": "UBOB", "text": "me &amp; <@UANN>", "ts": "2.1", "thread_ts": "1.1"},
        {"type": "message", "subtype": "channel_join", "user": "UBOB", "text": "<@UBOB> has joined", "ts": "3.1"},
        {"type": "message", "subtype": "bot_message", "bot_id": "B1", "text": "build failed", "ts": "4.1"},
        {
            "type": "message",
            "subtype": "file_share",
            "user": "UANN",
            "text": "look at <#C1|bread>",
            "ts": "5.1",
            "files": [{}],
        },
        {
            "type": "message",
            "subtype": "file_share",
            "user": "UANN",
            "text": "<@UANN> uploaded a file: <http://x|y>",
            "ts": "6.1",
        },
        {
            "type": "message",
            "subtype": "message_changed",
            "ts": "7.1",
            "message": {"user": "UBOB", "text": "new words", "ts": "7.0"},
        },
        {"type": "message", "user": "UBOB", "text": "/giphy cat", "ts": "8.1"},
    ]
    files["secret-bread/2024-01-15.json"] = [{"type": "message", "user": "UANN", "text": "psst", "ts": "9.1"}]
    files["D1/2024-01-15.json"] = [{"type": "message", "user": "UGONE", "text": "hey", "ts": "10.1"}]
    found = Read(made.slack_zip(tmp_path / "s.zip", files), tmp_path / "scratch")
    by_text = {message.text: message for message in found.messages}
    assert by_text["who has rye?"].conversation.thread == by_text["me & @Ann"].conversation.thread == "1.1"
    assert by_text["me & @Ann"].conversation.kind is Kind.THREAD
    assert by_text["look at #bread"].conversation.thread is None
    assert by_text["new words"].id == "7.0"
    assert by_text["psst"].conversation.channel == "s.zip/G1"
    assert (by_text["hey"].conversation.kind, by_text["hey"].author_name) == (Kind.DIRECT, "someone")
    assert found.skipped == {"system line": 1, "bot or webhook": 1, "no words": 1, "command to a bot": 1}


def test_discord_markup_types_replies_and_names(tmp_path: Path) -> None:
    """What a person reads; what Discord, bots and commands say is skipped."""
    message = made.discord_message
    found = read(
        tmp_path,
        made.discord(
            [
                message(
                    1,
                    "Ann",
                    "<@222222222222222222> see <#987654321098765432> <:loaf:12345>",
                    mentions=[{"id": made.IDS["Bob"], "name": "bob", "nickname": "Bob"}],
                ),
                message(
                    2, "Bob", "> old words\n**yes**, `rye`", type="Reply", reference={"messageId": made.snowflake(1)}
                ),
                message(3, "Ann", "Pinned a message.", type="ChannelPinnedMessage"),
                message(4, "Ann", "", attachments=[{"id": "1", "url": "https://x/y.png"}]),
                message(5, "Robot", "beep", author={"id": "9", "name": "Robot", "isBot": True}),
                message(6, "Bob", "!rank"),
                message(7, "Bob", "gone", author=None),
                message(8, "Bob", "x" * 20000),
            ]
        ),
    )
    assert found.talk == [("Ann", "@Bob see #bread :loaf:"), ("Bob", "yes, rye")]
    assert found.messages[1].reply_to == found.messages[0].id
    assert ("111111111111111111", "ann") in found.names
    assert found.skipped == {
        "system line": 1, "no words": 1, "bot or webhook": 1, "command to a bot": 1, "no author": 1, "too long": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "read_as"),
    [
        ("~~no~~ **bold *both*** __x__", "no bold both x"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("||spoiler|| \\*kept\\*", "spoiler *kept*"),
        ("[docs](https://a.b/c) <https://x.y>", "docs https://x.y"),
        (
            "<@!5> <@&6> <#7> <a:dance:8> </play:9> <t:1705314600:R>",
            "@someone @role #channel :dance: /play 2024-01-15 10:30",
        ),
        (">>> all\nof this", ""),
        ("a\n> quoted\nb", "a\nb"),
        ("run ```py\nprint(1)\n``` now", "run  print(1)  now"),
        ("long ```" + "x\n" * 9 + "``` end", "long   end"),
        ("# Title\n-# small", "Title\nsmall"),
        ("5 > 3 and a < b", "5 > 3 and a < b"),
    ],
)
def test_discord_markup(raw: str, read_as: str) -> None:
    """Discord's Markdown as it looks on the screen."""
    assert markup.discord(raw, {}) == read_as


@pytest.mark.parametrize(
    ("raw", "read_as"),
    [
        ("<@U1> <@U2|bob> <#C1|bread> <#C2>", "@Ann @bob #bread #channel"),
        ("<!here> <!subteam^S1|@cooks> <!date^1^{date}|Monday>", "@here @cooks Monday"),
        ("<https://a.b|this> <https://a.b> <mailto:a@b.c|a@b.c>", "this https://a.b a@b.c"),
        ("&lt;b&gt; &amp; *bold* _it_ ~no~ `x`", "<b> & bold it no x"),
        ("&gt; quoted\nanswer", "answer"),
        ("2*3*4 and snake_case_x", "2*3*4 and snake_case_x"),
    ],
)
def test_slack_markup(raw: str, read_as: str) -> None:
    """Slack's mrkdwn as it looks on the screen."""
    assert markup.slack(raw, {"U1": "Ann"}) == read_as


@pytest.mark.parametrize(
    "lines",
    [
        "[10:30] <Ann> hi\n[10:31] <Bob> ho\n",
        "[10:30:05] <@Ann> hi\n[10:31:00] * Bob waves\n[10:31:05] <+Bob> ho\n[10:32:00] *** Joins: Eve (e@h)\n",
        "10:30 < Ann> hi\n10:30 -!- Eve [e@h] has joined #x\n10:31 <@Bob> ho\n",
        "2024-01-15 10:30:00\tAnn\thi\n2024-01-15 10:30:30\t-->\tEve (e@h) has joined\n2024-01-15 10:31:00\t@Bob\tho\n",
        "**** BEGIN LOGGING AT Mon Jan 15 10:00:00 2024\n\nJan 15 10:30:00 <Ann>\thi\nJan 15 10:31:00 <Bob>\tho\n",
        "[2024-01-15T10:30:00+0000] <Ann> hi\n[2024-01-15T10:31:00+0000] <Bob> ho\n",
        "=== Eve [~e@h]  has joined #x\n[10:30] <Ann> hi\n[10:31] <ubotu> a fact\n[10:31] <Bob> \x0304ho\x0f\n",
    ],
)
def test_irc_dialects(lines: str, tmp_path: Path) -> None:
    """irssi, weechat, HexChat, ZNC, Textual and Ubuntu's own logs."""
    found = read(tmp_path, lines, "2024-01-15.log")
    assert found.talk == [("Ann", "hi"), ("Bob", "ho")]
    assert found.messages[0].sent_at.strftime("%Y-%m-%d %H:%M") == "2024-01-15 10:30"
    assert found.faults == []


def test_irc_midnight(tmp_path: Path) -> None:
    """A clock that jumps back far means the next day; one that is set right does not."""
    found = read(tmp_path, "[23:59] <Ann> late\n[00:01] <Bob> early\n[00:00] <Ann> set right\n", "2024-01-15.log")
    assert [message.sent_at.day for message in found.messages] == [15, 16, 16]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("15/01/2024, 10:30 - Ann: hi\n16/01/2024, 10:31 - Bob: ho\n", [15, 16]),
        ("1/15/24, 10:30 AM - Ann: hi\n1/16/24, 10:31 PM - Bob: ho\n", [15, 16]),
        ("[15.01.24, 10:30:00] Ann: hi\n\u200e[16.01.24, 10:31:00] Bob: ho\n", [15, 16]),
        ("[2024-01-15, 10:30:00 a.\u202fm.] Ann: hi\n[2024-01-16, 1:31:00 p.\xa0m.] Bob: ho\n", [15, 16]),
        # both orders possible: the one in which time runs forward (3 Feb after 11 Jan, not 2 March before 1 November)
        (
            "01/11/2024, 10:30 - Ann: hi\n02/03/2024, 10:31 - Bob: ho\n02/04/2024, 09:00 - Bob: <Media omitted>\n"
            "01/12/2025, 08:00 - Ann: \u200eimage omitted\n",
            [11, 3],
        ),
    ],
)
def test_whatsapp_dates(text: str, days: list[int], tmp_path: Path) -> None:
    """The order of day and month is decided from the whole file."""
    found = read(tmp_path, text)
    assert (found.talk, [message.sent_at.day for message in found.messages]) == ([("Ann", "hi"), ("Bob", "ho")], days)


def test_whatsapp_lines_that_are_not_talk(tmp_path: Path) -> None:
    """System lines, media and deleted messages; a message over several lines is one."""
    found = read(
        tmp_path,
        "15/01/2024, 10:29 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
        '15/01/2024, 10:30 - Ann created group "Bread: the group"\n'
        "15/01/2024, 10:31 - Ann: one\ntwo\n\nthree\n"
        "15/01/2024, 10:32 - Bob: <Media omitted>\n"
        "15/01/2024, 10:33 - Bob: This message was deleted\n"
        "15/01/2024, 10:34 - Bob: seen: yes <This message was edited>\n",
    )
    assert found.talk == [("Ann", "one\ntwo\n\nthree"), ("Bob", "seen: yes")]
    assert found.skipped == {"system line": 3, "no words": 1}


def test_telegram_entities_services_forwards(tmp_path: Path) -> None:
    """Text in pieces; services, forwards and bots are not the speaker's talk."""
    base = made.telegram()["messages"][0]
    found = read(
        tmp_path,
        made.telegram(
            [
                {
                    **base,
                    "id": 1,
                    "text": ["see ", {"type": "mention", "text": "@bob"}, " and ", {"type": "bold", "text": "this"}],
                },
                {**base, "id": 2, "type": "service", "action": "pin_message"},
                {**base, "id": 3, "forwarded_from": "Eve"},
                {**base, "id": 4, "via_bot": "@gif"},
                {**base, "id": 5, "text": "yes", "reply_to_message_id": 1},
            ]
        ),
    )
    assert [text for _, text in found.talk] == ["see @bob and this", "yes"]
    assert found.messages[1].reply_to == "1"
    assert found.skipped == {"system line": 1, "forwarded": 1, "bot or webhook": 1}


def test_instagram_mojibake(tmp_path: Path) -> None:
    """Meta writes UTF-8 bytes as Latin-1 escapes."""
    content = made.instagram()
    content["messages"] = [
        {
            "sender_name": "Ren\u00c3\u00a9",
            "timestamp_ms": 1705314600000,
            "content": "sch\u00c3\u00b6n \u00f0\u009f\u0098\u0080",
        }
    ]
    assert read(tmp_path, content).talk == [("René", "schön 😀")]


def test_a_folder_of_parts_and_companions(tmp_path: Path) -> None:
    """A partitioned channel in natural order; what lies beside it is passed over; what is unknown is named."""
    folder = tmp_path / "dump"
    folder.mkdir()
    for number in (10, 2):
        messages = [made.discord_message(number, "Ann", f"part {number}")]
        (folder / f"bread [part {number}].json").write_text(json.dumps(made.discord(messages)))
    (folder / "LICENSE.md").write_text("free")
    (folder / "cat.png").write_bytes(b"\x89PNG")
    (folder / "notes.txt").write_text("buy flour\n")
    found = Read(folder, tmp_path / "scratch")
    assert [text for _, text in found.talk] == ["part 2", "part 10"]
    assert [message.text for message in found.messages] == ["part 2", "part 10"]
    assert found.faults == ["dump/notes.txt: not in an export format that Person2 knows; it is left out"]


# Damage


def test_truncated_json_keeps_what_came_before(tmp_path: Path) -> None:
    """At every length: no crash, one line, whole messages only."""
    text = made.FILES["discord.json"]
    first = text.index('"messages"')
    for name, whole in (("pretty", text), ("flat", made.FILES["discord-flat.json"])):
        for cut in range(first, len(whole) - 1, 37):
            found = read(tmp_path, whole[:cut], name)
            assert found.talk == made.TALK[: len(found.talk)]
            assert len(found.faults) <= 2
    assert read(tmp_path, text[: len(text) // 2]).faults == [
        f"export: byte {len(text) // 2}: the file ends in the middle of its messages; what came before is read"
    ]


def test_one_broken_message_costs_one_message(tmp_path: Path) -> None:
    """A wrong type, bytes that are no UTF-8, garbage between elements."""
    text = made.FILES["discord.json"].encode()
    broken = text.replace(b'"content": "fine, and yourself?"', b'"content": 17')
    found = read(tmp_path, broken)
    assert found.talk == [made.TALK[0], *made.TALK[2:]]
    assert len(found.faults) == 1
    assert "not a readable message" in found.faults[0]
    latin = read(tmp_path, text.replace(b"fine, and", b"f\xfcr, and"))
    assert latin.talk[1] == ("Bob", "f\ufffdr, and yourself?")
    assert "not UTF-8" in latin.faults[0]


def test_deep_nesting_and_no_channel(tmp_path: Path) -> None:
    """A bracket storm ends in a line, not in a stack overflow."""
    text = made.FILES["discord-flat.json"].replace('"attachments": []', '"attachments": ' + "[" * 9000 + "]" * 9000, 1)
    assert len(read(tmp_path, text).talk) in (3, 4)
    assert "no channel" in read(tmp_path, '{"guild": {}, "channel": 5, "messages": [{"id": "1"}]}').faults[0]


def test_text_in_another_encoding(tmp_path: Path) -> None:
    """Old logs are Windows-1252; the first such line is named."""
    found = read(tmp_path, b"[10:30] <Ann> caf\xe9\n[10:31] <Bob> ok\n")
    assert found.talk[0] == ("Ann", "café")
    assert found.faults == ["export: line 1: not UTF-8; such lines are read as Windows-1252"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x00\x01\x02" * 99, "not in an export format"),
        (b"hello\n", "not in an export format"),
        (b"PK\x03\x04rest", "damaged"),
    ],
)
def test_unknown_and_empty_files(content: bytes, said: str, tmp_path: Path) -> None:
    """One line that names the file."""
    found = read(tmp_path, content, "what.bin")
    assert len(found.faults) == 1
    assert found.faults[0].startswith("what.bin")
    assert said in found.faults[0]


def test_zip_traps(tmp_path: Path) -> None:
    """Members that climb out, bombs, links and members without a name are told of; nothing lands outside."""
    path = tmp_path / "trap.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.json", "{}")
        archive.writestr("/etc/evil.json", "{}")
        archive.writestr("C:\\evil.json", "{}")
        archive.writestr("bomb.json", b" " * (64 << 20))
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("@nameless", "{}")
        archive.writestr("talk.txt", made.whatsapp())
    path.write_bytes(path.read_bytes().replace(b"@nameless", b"\0nameless"))
    before = set(tmp_path.parent.rglob("*"))
    found = Read(path, tmp_path / "scratch")
    assert found.talk == made.TALK
    told = "\n".join(found.faults)
    assert [told.count(word) for word in ("leads out", "zip bombs", "a link", "no name")] == [3, 1, 1, 1]
    outside = {child for child in tmp_path.parent.rglob("*") if (tmp_path / "scratch") not in child.parents} - before
    assert outside == {tmp_path / "scratch"}


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    """A symlink to elsewhere is not followed."""
    (tmp_path / "secret.txt").write_text(made.whatsapp())
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "a.txt").symlink_to(tmp_path / "secret.txt")
    found = Read(tmp_path / "dump", tmp_path / "scratch")
    assert (found.talk, found.faults) == ([], ["dump/a.txt: a link to a place outside the folder; it is not followed"])


# Real exports


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not on this machine")
def test_real_html_and_json_of_one_channel_agree() -> None:
    """The JSON was rebuilt from this page, so both readers must say the same."""
    folder = DATA / "channels" / "pyscript_discord_json"
    page, rebuilt = (
        {
            message.id: (message.author, message.author_name, message.reply_to, message.sent_at)
            for message in formats.read(next(folder.glob(f"*python-help*.{ending}")), scratch=folder)
            if isinstance(message, Message)
        }
        for ending in ("html", "json")
    )
    assert len(page) == 1022
    assert page == rebuilt


@pytest.mark.parametrize("name", sorted(made.FILES))
def test_a_million_characters_in_one_message(name: str, tmp_path: Path) -> None:
    """Counted as too long, in a moment; what is said around it is read."""
    huge = "x y " * 250_000
    found = read(tmp_path, made.FILES[name].replace("I am baking bread today", huge))
    if name == "plain.txt":
        assert len(found.messages[2].text) > 900_000  # left out later: the import measures what it writes
    else:
        assert found.skipped["too long"] == 1
        assert [text for _, text in found.talk] == [text for _, text in made.TALK if "baking" not in text]


def test_a_tag_without_an_end(tmp_path: Path) -> None:
    """A page cut inside a comment does not make the parser look at the rest again and again."""
    page = made.FILES["discord.html"].replace("</body>", "<!-- " + "never closed " * 800_000)
    found = read(tmp_path, page)
    assert found.talk == made.TALK
