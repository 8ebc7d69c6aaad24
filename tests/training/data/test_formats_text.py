"""Text formats as people have them: frames, languages, bridges, and what a program wrote among the talk."""

from pathlib import Path

import pytest

from tests.training.data.reading import read
from training.data.formats import cldr, normalise, timestamps, whatsapp

Q, A = "where do the bees sleep?", "in the box by the oak"
TALK = [("mia", Q), ("leo", A)]


@pytest.mark.parametrize(
    ("written", "when"),
    [
        ("17-Jul-19 06:59 PM", "2019-07-17 18:59"),
        ("13-Mär-24 10:00", "2024-03-13 10:00"),
        ("13.05.24, 3:00 nachm.", "2024-05-13 15:00"),
        ("13.05.24, 10:00 nachm.", "2024-05-13 22:00"),
        ("2024-05-13, 5:40 p.m.", "2024-05-13 17:40"),
        ("31/12/23, 12:05 a. m.", "2023-12-31 00:05"),
        ("2024. 05. 13. 오후 3:00", "2024-05-13 15:00"),
        ("2024年5月13日 下午3:00", "2024-05-13 15:00"),
        ("下午3:00, 2024/5/13", "2024-05-13 15:00"),
        ("١٣/٠٥/٢٠٢٤، ٣:٠٠ م", "2024-05-13 15:00"),
        ("१३/५/२४, ३:०० अपराह्न", "2024-05-13 15:00"),
        ("13 de mai. de 2024 15:30", "2024-05-13 15:30"),
        ("13 мая 2024 г. 10:30", "2024-05-13 10:30"),
        ("Monday, May 13, 2024 10:00 PM", "2024-05-13 22:00"),
        ("20 Aug 2022 at 10:15:00", "2022-08-20 10:15"),
        ("3/27/2565, 21:50:25", "2022-03-27 21:50"),
        ("1403/2/24, 10:00:00", "2024-05-13 10:00"),
        ("2024-05-01T10:00:00.0000000+02:00", "2024-05-01 08:00"),
        ("13-5月-24 10:00", "2024-05-13 10:00"),
        ("13-5월-24 오후 3:00", "2024-05-13 15:00"),
        ("13-thg 5-24 10:00", "2024-05-13 10:00"),
        ("13-máj.-24 10:00", "2024-05-13 10:00"),
        ("13-พ.ค.-67 10:00", "2024-05-13 10:00"),
        ("13-मई-24 10:00", "2024-05-13 10:00"),
        ("13-مايو-24 10:00", "2024-05-13 10:00"),
        ("13-трав.-24 10:00", "2024-05-13 10:00"),
        ("13-touko-24 10.00", "2024-05-13 10:00"),
        ("13.5.2024 klo 10.00", "2024-05-13 10:00"),
        ("1715594400", "2024-05-13 10:00"),
        ("1715594400123", "2024-05-13 10:00"),
        ("Mon May 13 2024 10:00:00", "2024-05-13 10:00"),
        ("Monday, 13 May 2024 10:00:00 CEST", "2024-05-13 10:00"),
        ("Mon, May 13, 2024, 10:00:00 AM", "2024-05-13 10:00"),
    ],
)
def test_stamps_of_many_languages(written: str, when: str) -> None:
    """Digits, month names and halves of the day of any script; other calendars to the day."""
    stamp = timestamps.read(written)
    assert stamp is not None
    moment = timestamps.moment(stamp, timestamps.decide([stamp]))
    assert moment is not None
    assert moment.strftime("%Y-%m-%d %H:%M") == when


@pytest.mark.parametrize(
    "text", ["", "hello", "2024", "171559440", "9915594400", "13/05", "the 5 of them", "3:00", "13/05/24 and more"]
)
def test_what_is_no_stamp(text: str) -> None:
    """Words with numbers in them are words."""
    assert timestamps.read(text) is None


def test_a_month_is_read_in_the_language_of_its_file() -> None:
    """`listopad` is October in Zagreb and November in Warsaw; the other words of the file tell."""
    for words, number in ((["listopad", "srpanj"], 10), (["listopad", "lipiec"], 11)):
        assert cldr.month("listopad", cldr.language_of(words)) == number


def test_plain_text_is_one_spelling() -> None:
    """Digits, blanks, dashes and full-width letters; invisible marks are gone."""
    assert normalise.plain("\u200e１２\u202f٣\u2011Ａ\u200b") == "12 3-A"
    assert normalise.without_marks("\u200e\u202b👩\u200d🌾 می\u200cخواهم") == "👩\u200d🌾 می\u200cخواهم"


@pytest.mark.parametrize(
    "lines",
    [
        f"[2024-05-13 10:01:00] <mia> {Q}\n[2024-05-13 10:02:00] <leo> {A}\n",
        f"[13/05/2024 10:01:00] <mia> {Q}\n[13/05/2024 10:02:00] <leo> {A}\n",
        f"[10:01:00+0200] <mia> {Q}\n[10:02:00+0200] <leo> {A}\n",
        f"--- Log opened Mon Sep 30 00:00:44 2019\n16:59:05< mia> {Q}\n17:01:04<@leo> {A}\n",
        f"2013-03-03 01:28:09 --> mia (~m@h) has joined\n2013-03-03 01:28:11 mia  {Q}\n2013-03-03 01:28:35 leo  {A}\n",
        f"2013-03-03 01:28:11  mia | {Q}\n2013-03-03 01:28:35 @leo | {A}\n",
        f"15/01/24 10:30:00\tmia\t{Q}\n15/01/24 10:30:10\tleo\t{A}\n15/01/24 10:30:20\t--\tmode +o leo\n",
        f"**** BEGINN DER PROTOKOLLIERUNG AM Mon Mai 13 10:00:00 2024\n\nMai 13 10:01:00 <mia>\t{Q}\n"
        f"Mai 13 10:02:00 *\tleo nickt\nMai 13 10:03:00 <leo>\t{A}\n",
        f"[Mon May 13 2024] [10:01:00] <mia>\t{Q}\n[Mon May 13 2024] [10:02:00] <leo>\t{A}\n",
        f"[Monday, 13 May 2024] [10:00:00 CEST] Join\tmia (~m@h) has joined this channel (#bees).\n"
        f"[Monday, 13 May 2024] [10:01:00 CEST] <mia>\t{Q}\n[Monday, 13 May 2024] [10:02:00 CEST] <leo>\t{A}\n",
        f"[Montag, 13. Mai 2024] [10:01:00] <mia>\t{Q}\n[Montag, 13. Mai 2024] [10:02:00] <leo>\t{A}\n",
        f"Conversation with #bees at Mon 13 May 2024 10:00:00 on me@irc.example (irc)\n(10:01:00) mia: {Q}\n"
        f"(10:01:30) eva [~e@h] entered the room.\n(10:02:00) leo: {A}\n",
        f"1715594400 <mia> {Q}\n1715594460 <leo> {A}\n",
        f"[2024-05-13T10:00:00.000Z] *** mia (~m@h) joined\n[2024-05-13T10:01:00.000Z] <mia> {Q}\n"
        f"[2024-05-13T10:02:00.000Z] <leo> {A}\n",
        f"[2024-05-13 10:00:00] → mia joined (~m@h)\n[2024-05-13 10:01:00] <mia> {Q}\n"
        f"[2024-05-13 10:01:30] — leo waves\n[2024-05-13 10:02:00] <leo> {A}\n",
        f"**** DÉBUT DU JOURNAL À lun. mai 13 10:00:00 2024\nmai 13 10:01:00 <mia>\t{Q}\nmai 13 10:02:00 <leo>\t{A}\n",
        f"[2024.05.13 10:01:00] <mia> {Q}\n[2024.05.13 10:02:00] <leo> {A}\n",
    ],
)
def test_irc_frames(lines: str, tmp_path: Path) -> None:
    """Bracketed stamps, glued seconds, WeeChat's columns and own time formats, HexChat in another language."""
    found = read(tmp_path, lines, "bees.log")
    assert found.talk == TALK
    assert found.faults == []


def test_an_irc_date_in_another_language(tmp_path: Path) -> None:
    """The year stands in the first line, the month in each."""
    found = read(
        tmp_path, f"**** BEGINN DER PROTOKOLLIERUNG AM Mon Mai 13 10:00:00 2024\nMai 14 10:01:00 <mia>\t{Q}\n", "x.log"
    )
    assert found.messages[0].sent_at.strftime("%Y-%m-%d") == "2024-05-14"


def test_a_new_nick_is_the_same_person(tmp_path: Path) -> None:
    """Unless somebody else has already spoken under it."""
    found = read(
        tmp_path,
        f"[10:00] <mia> {Q}\n[10:01] *** mia is now known as mia_away\n[10:02] <mia_away> anyone?\n"
        f"[10:03] <leo> {A}\n[10:04] *** leo is now known as mia\n[10:05] <mia> not me\n",
    )
    assert [message.author for message in found.messages] == ["mia", "mia", "leo", "mia"]
    assert ("mia", "mia_away") in found.names


def test_a_bridge_is_unfolded_into_whom_it_speaks_for(tmp_path: Path) -> None:
    """They are people of another network: their names are not this channel's. A single quotation is none."""
    found = read(
        tmp_path,
        f"[10:01] <relay> <mia> {Q}\n[10:02] <leo> {A}\n[10:03] <relay> [tg] <eva> so do I\n[10:04] <relay> online\n"
        "[10:05] <leo> <mia> where do the\n[10:06] <leo> she asked that\n[10:07] <leo> yes\n",
    )
    assert [(m.author, m.text) for m in found.messages][:3] == [("mia@relay", Q), ("leo", A), ("eva@relay", "so do I")]
    assert [m.author for m in found.messages][3:] == ["leo", "leo", "leo"]
    assert found.skipped == {"bot or webhook": 1}


@pytest.mark.parametrize(
    "lines",
    [
        f"[2026/7/9 02:20:09] mia:{Q}\n[2026/7/9 02:21:09] leo:{A}\n",
        f"13/05/2014 17:00:48: mia: {Q}\n13/05/2014 17:01:48: leo: {A}\n",
        f"13.05.24, 3:00 nachm. - mia: {Q}\n13.05.24, 3:01 nachm. - leo: {A}\n",
        f"2024年5月13日 下午3:00 - mia: {Q}\n2024年5月13日 下午3:01 - leo: {A}\n",
        f"١٣/٠٥/٢٠٢٤، ٣:٠٠ م - mia: {Q}\n١٣/٠٥/٢٠٢٤، ٣:٠١ م - leo: {A}\n",
        f"[\u200f13\u200f/5\u200f/2024\u060c 10:00:00] mia: {Q}\n"
        f"[\u200f13\u200f/5\u200f/2024\u060c 10:01:00] leo: {A}\n",
        f"[10:00:03, 5/13/2024] mia: {Q}\n[10:01:00, 5/13/2024] leo: {A}\n",
        f"2024/05/13, 5:40 pm - mia: {Q}\n2024/05/13, 5:41 pm - leo: {A}\n",
        f"13/5/2567 10:00 - mia: {Q}\n13/5/2567 10:01 - leo: {A}\n",
        f"2024. 5. 13. 오후 3:00 - mia: {Q}\n2024. 5. 13. 오후 3:01 - leo: {A}\n",
        f"[13.5.2024 klo 10.00.03] mia: {Q}\n[13.5.2024 klo 10.01.03] leo: {A}\n",
        f"[5/13/24, 3:00:12\u202fPM] mia: {Q}\n[5/13/24, 3:01:12\u202fPM] leo: {A}\n",
        f"১৩/৫/২৪, ১০:০০ AM - mia: {Q}\n১৩/৫/২৪, ১০:০১ AM - leo: {A}\n",
        f"Mon, May 13, 2024, 10:00:00 AM - mia: {Q}\nMon, May 13, 2024, 10:01:00 AM - leo: {A}\n",
    ],
)
def test_whatsapp_frames(lines: str, tmp_path: Path) -> None:
    """No blank behind the name, colons, halves of the day in front and behind, digits of every script."""
    found = read(tmp_path, lines)
    assert found.talk == TALK
    assert found.messages[0].conversation.platform == "whatsapp"
    assert found.faults == []


@pytest.mark.parametrize(
    "text",
    [
        "image omitted", "\u200evideo omitted", "<Medien ausgeschlossen>", "<Arquivo de mídia oculto>", "audio absente",
        "изображение отсутствует", "görüntü dahil edilmedi", "画像は含まれていません", "이미지 생략됨",
        "billede udeladt",
        "IMG-20240513-WA0001.jpg (file attached)", "IMG-20240513-WA0001.jpg (файл добавлен)",
        "\u200e<attached: 00000012-PHOTO.jpg>", "Plan.pdf • \u200e12 pages \u200e<attached: x.pdf>",
        "location: https://maps.google.com/?q=52.5,13.4", "Vị trí: https://maps.google.com/?q=52.5,13.4",
        "Missed voice call", "Verpasster Videoanruf", "Cevapsız sesli arama", "Voice call, 3 min",
        "This message was deleted", "Eliminaste este mensaje.", "Данное сообщение удалено",
        "このメッセージは削除されました",
        "POLL:", "POLL:\nPizza?\nOPTION: yes (2 votes)\nOPTION: no (1 vote)", "null",
        "Waiting for this message. This may take a while.", "\u200eRudi ha aggiunto Eva", "You blocked this contact",
        "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt. Niemand kann sie lesen.",
    ],
)  # fmt: skip
def test_what_whatsapp_writes_is_no_talk(text: str, tmp_path: Path) -> None:
    """In every language: by how it is marked, and by the table."""
    lines = f"13/05/24, 09:58 - mia: {Q}\n13/05/24, 09:59 - leo: {text}\n13/05/24, 10:00 - leo: {A}\n"
    assert read(tmp_path, lines).talk == TALK


@pytest.mark.parametrize(
    "line",
    [
        'mia created group "x: y"',
        'mia hat den Betreff zu "Neu: zwei" geändert',
        "mia a changé l'objet de « A : b » à « C: d »",
        "mia turned on disappearing messages.",
        "This business uses a secure service from Meta: learn more",
    ],
)
def test_system_lines_with_colons(line: str, tmp_path: Path) -> None:
    """A quotation that opens in a “name” makes it a sentence of WhatsApp's, and so does its length."""
    lines = f"13/05/24, 09:58 - {line}\n13/05/24, 09:59 - mia: {Q}\n13/05/24, 10:00 - leo: {A}\n"
    assert read(tmp_path, lines).talk == TALK


def test_names_that_hold_words_of_system_lines(tmp_path: Path) -> None:
    """Lefteris left nothing, and Adder added nobody."""
    found = read(tmp_path, f"13/05/24, 10:00 - Lefteris: {Q}\n13/05/24, 10:01 - Adder: {A}\n")
    assert found.talk == [("Lefteris", Q), ("Adder", A)]


def test_whatsapp_edits_captions_and_emphasis(tmp_path: Path) -> None:
    """The mark of an edit goes, also one that no table knows once it comes thrice; captions and words stay."""
    found = read(
        tmp_path,
        "13/05/24, 10:00 - mia: *really* _now_ ~no~ ```x``` <This message was edited>\n"
        "13/05/24, 10:01 - leo: IMG-20240513-WA0001.jpg (file attached)\nthe new box\n"
        "13/05/24, 10:02 - mia: 2*3*4 and snake_case_x\n"
        + "".join(f"13/05/24, 10:0{n} - leo: word {n} <nuntius mutatus est>\n" for n in (3, 4, 5)),
    )
    assert [text for _, text in found.talk] == [
        "really now no x", "the new box", "2*3*4 and snake_case_x", "word 3", "word 4", "word 5"
    ]  # fmt: skip


def test_the_table_is_in_its_languages() -> None:
    """Every kind holds sentences in Latin, Cyrillic, Arabic, Indian and East Asian scripts, folded as texts are."""
    for kind, sentences in whatsapp.own_sentences().items():
        text = " ".join(sentences)
        if kind != "others":
            assert all(any(low <= sign <= high for sign in text) for low, high in ("az", "ая", "اي", "अह", "一龥")), (
                kind
            )


RULE = "=" * 62
HEAD = f"{RULE}\nGuild: Garden\nChannel: talk / bees\n{RULE}\n\n"


def test_discord_text_as_its_users_have_it(tmp_path: Path) -> None:
    """Months of other languages, forwarded words, system sentences, a bracketed paragraph."""
    found = read(
        tmp_path,
        HEAD + f"[13-Mär-24 10:00] mia\n{Q}\n\n\n"
        "[13-Mär-24 10:01] leo\n\n{Forwarded Message}\nsecret words\nOriginally sent: 12-Mär-24 09:00\n\n\n"
        "[13-Mär-24 10:02] leo\nAdded a recipient.\n\n\n[13-Mär-24 10:02] leo\nChanged the channel name.\n\n\n"
        f"[13-Mär-24 10:03] leo (pinned)\n{A}\n\n[sic] or so\n\n\n{RULE}\nExported 4 message(s)\n{RULE}\n",
    )
    assert found.talk == [("mia", Q), ("leo", f"{A}\n\n[sic] or so")]
    assert found.messages[0].conversation.channel == "Garden / talk / bees"
    stickers = f"[13-Mär-24 10:00] mia\n{{Stickers}}\nhttps://a.example/s.png\n\n\n[13-Mär-24 10:01] leo\n{A}\n"
    assert read(tmp_path, HEAD + stickers).talk == [("leo", A)]
    strange = read(tmp_path, HEAD + f"[the day before yesterday] mia\n{Q}\n", "strange.txt")
    assert strange.faults == [
        "strange.txt: no date that can be read ('the day before yesterday'); the file is left out"
    ]
    assert found.skipped == {"forwarded": 1, "system line": 2}


@pytest.mark.parametrize(
    "text",
    [
        f'AuthorID;Author;Date;Content;Attachments;Reactions;\n"1";"mia#1";"17-Jul-19 06:59 PM";"{Q}";"";"";\n'
        f'"2";"leo#1";"17-Jul-19 07:01 PM";"{A}";"";"";\n',
        f'Author;Date;Content;Attachments;\n"mia";"17-Jul-19 06:59 PM";"{Q}";\n"leo";"17-Jul-19 07:01 PM";"{A}";\n',
    ],
)
def test_discord_csv_of_2019(text: str, tmp_path: Path) -> None:
    """Semicolons, and before September no column of ids."""
    assert [(name.split("#")[0], words) for name, words in read(tmp_path, text, "bees.csv").talk] == TALK


def test_discord_pages_old_and_minified(tmp_path: Path) -> None:
    """The bot tag in the group's header, system lines as talk, groups without ids, no end tags."""
    group = '<div class="chatlog__message-group"><div class="chatlog__messages">'
    name = '<span class="chatlog__author-name" title="{0}#1" data-user-id="{1}">{0}</span>'
    said = '<div class="chatlog__message" data-message-id="{}"><div class="chatlog__content">{}</div></div>'
    ids = [str((1705314600000 + 1000 * n - 1420070400000) << 22) for n in range(4)]
    bot = '<span class="chatlog__bot-tag">BOT</span>'
    groups = [
        name.format("mia", 1) + said.format(ids[0], Q) + said.format(ids[1], "Pinned a message."),
        name.format("BeeBot", 9) + bot + said.format(ids[2], "hi"),
        name.format("leo", 2) + said.format(ids[3], A),
    ]
    body = "".join(f"{group}{each}</div></div>" for each in groups)
    page = f"<!DOCTYPE html><title>Garden - bees</title><body>{body}<div class=postamble></div>"
    found = read(tmp_path, page)
    assert (found.talk, found.faults) == (TALK, [])
    assert found.skipped == {"bot or webhook": 1, "system line": 1}
    assert found.messages[0].conversation.channel == "Garden / bees"
    old = (
        "<!DOCTYPE html><title>Garden - bees</title><style>.chatlog__x{}</style><body>"
        f"{group}<span class=chatlog__author-name title=mia#1>mia</span>"
        "<span class=chatlog__timestamp>17-Jul-18 06:59 PM</span>"
        f"<div class=chatlog__content>{Q}</div></div></div></body></html>"
    )
    found = read(tmp_path, old)
    assert found.talk == [("mia", Q)]
    assert found.messages[0].sent_at.strftime("%Y-%m-%d %H:%M") == "2018-07-17 18:59"
