"""Slack's markup, events and manifest as tables: pure functions, no server."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.slack import errors, manifest, markup, to_message
from bots.slack.compat import base_url
from bots.slack.manifest import NEEDED, WANTED
from core.messages import Conversation, Kind

WORDS = [
    ("hello", "hello"),
    ("<@UBOT> hello", "hello"),
    ("<@UBOT>: hello <@UBOT>", "hello"),
    ("<@UBOT|person2>", ""),
    ("<@UBOT>", ""),
    ("<@UBOT> :tada:", ":tada:"),
    ("<@UBOT>:tada: and", ":tada: and"),
    ("<@UBOT> : well", "well"),
    ("is <@UBOT> here?", "is @Person2 here?"),
    ("<@UANN> <@UGONE|carl> <@UGONE>", "@Ann @carl @someone"),
    ("<#C1|general> <#C2>", "#general #channel"),
    ("<!here> <!channel|channel> <!subteam^S1|@team> <!subteam^S2>", "@here channel @team @group"),
    ("<!date^1392734382^{date}|Feb 18>", "Feb 18"),
    ("<https://a.example/?x=1&amp;y=2> <https://b.example|there>", "https://a.example/?x=1&y=2 there"),
    ("<mailto:ann@a.example|ann@a.example> <tel:+49123>", "ann@a.example +49123"),
    ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
    ("&lt;@UBOT&gt; typed by hand", "<@UBOT> typed by hand"),
    ("1 < 2 and <unfinished", "1 < 2 and <unfinished"),
]


@pytest.mark.parametrize(("slack", "words"), WORDS)
def test_markup_becomes_words(slack: str, words: str) -> None:
    """What Slack sends, and what a person reads there."""
    assert markup.plain_text(slack, names={"UANN": "Ann"}, bot_user="UBOT") == words


@given(st.text(max_size=300), st.integers(5, 60))
def test_nothing_said_is_markup(text: str, limit: int) -> None:
    """Posts fit, hold no markup character, and together say what was said but for spaces at the cuts."""
    posts = markup.parts(text, limit=limit)
    assert all(0 < len(post) <= limit and "<" not in post and ">" not in post for post in posts)
    said = "".join(markup.unescape(post) for post in posts)
    assert "".join(said.split()) == "".join(text.split())


def place(thread: str | None = None, kind: Kind = Kind.CHANNEL, channel: str = "C1") -> Conversation:
    return Conversation(platform="slack", space="T1", channel=channel, thread=thread, kind=kind)


SAID: dict[str, Any] = {"type": "message", "user": "UANN", "channel": "C1", "ts": "1700000000.000100", "text": "hi"}
TS = "1700000000.000100"
PLACES = [
    ({}, place()),
    ({"channel_type": "group"}, place()),
    ({"channel_type": "mpim", "channel": "G1"}, place(channel="G1")),
    ({"channel_type": "im", "channel": "D1"}, place(kind=Kind.DIRECT, channel="D1")),
    ({"channel": "D1"}, place(kind=Kind.DIRECT, channel="D1")),
    ({"channel": "D1", "thread_ts": "1.1"}, place("1.1", Kind.DIRECT, "D1")),
    ({"thread_ts": "1.1"}, place("1.1", Kind.THREAD)),
    ({"text": "<@UBOT> hi"}, place(TS, Kind.THREAD)),
    ({"type": "app_mention", "text": "<@UBOT> hi"}, place(TS, Kind.THREAD)),
    ({"text": "<@UBOT> hi", "thread_ts": "1.1"}, place("1.1", Kind.THREAD)),
    ({"thread_ts": TS}, place()),
]


@pytest.mark.parametrize(("more", "where"), PLACES)
def test_where_a_message_belongs(more: dict[str, Any], where: Conversation) -> None:
    """Channels, threads, direct messages, and the thread that a mention opens."""
    message = to_message({**SAID, **more}, space="T1", bot_user="UBOT")
    assert message is not None
    assert message.conversation == where


def test_a_message_is_taken_over_whole() -> None:
    """Author, time, thread and whom it is for; the profile Slack sends along serves as name."""
    event = {**SAID, "thread_ts": "1.1", "parent_user_id": "UBOT", "user_profile": {"display_name": "Ann"}}
    message = to_message(event, space="T1", bot_user="UBOT")
    assert message is not None
    assert (message.id, message.author, message.author_name) == (TS, "UANN", "Ann")
    assert message.sent_at == datetime(2023, 11, 14, 22, 13, 20, 100, UTC)
    assert (message.reply_to, message.replies_to_bot, message.mentions_bot) == ("1.1", True, False)


def test_the_manifest_fits_the_transport() -> None:
    """Socket Mode has no addresses; HTTP has its address wherever Slack calls."""
    by_socket, by_http = json.loads(manifest()), json.loads(manifest("https://bot.example/slack/events"))
    assert by_socket["settings"]["socket_mode_enabled"] is True
    assert "https://" not in manifest()
    assert by_http["settings"]["socket_mode_enabled"] is False
    assert manifest("https://bot.example/slack/events").count('"https://bot.example/slack/events"') == 3
    assert by_http["oauth_config"]["scopes"] == by_socket["oauth_config"]["scopes"]
    assert by_http["oauth_config"]["redirect_urls"] == ["https://bot.example/slack/oauth_redirect"]


@pytest.mark.parametrize(
    "url", ["notaurl", "http://bot.example/slack/events", "https://", "https://bot.example/?a=b", "ftp://bot.example"]
)
def test_a_manifest_for_no_address_is_refused(url: str) -> None:
    """Slack calls public https addresses; anything else is one sentence."""
    with pytest.raises(ValueError, match="https://"):
        manifest(url)


def test_scopes_that_are_asked_for_are_explained() -> None:
    """`doctor` says what each scope is for, and what may be declined is among them."""
    scopes = json.loads(manifest())["oauth_config"]["scopes"]
    assert set(scopes["bot"]) == {*NEEDED, *WANTED}
    assert set(scopes["bot_optional"]) < set(WANTED)


RICH = [
    {
        "type": "rich_text",
        "elements": [
            {
                "type": "rich_text_section",
                "elements": [
                    {"type": "user", "user_id": "UBOT"},
                    {"type": "text", "text": " a < b in "},
                    {"type": "channel", "channel_id": "C2"},
                    {"type": "link", "url": "https://a.example", "text": "there"},
                    {"type": "emoji", "name": "tada"},
                ],
            },
            {
                "type": "rich_text_list",
                "elements": [
                    {"type": "rich_text_section", "elements": [{"type": "text", "text": "one"}]},
                    {"type": "rich_text_section", "elements": [{"type": "text", "text": "two"}]},
                ],
            },
        ],
    },
    {
        "type": "section",
        "text": {"type": "mrkdwn", "text": "a *section*"},
        "fields": [{"type": "plain_text", "text": "f"}],
    },
    {"type": "context", "elements": [{"type": "mrkdwn", "text": "by"}, {"type": "mrkdwn", "text": "<@UANN>"}]},
    {"type": "divider"},
]
SAID_OTHERWISE: list[tuple[str, dict[str, Any], str]] = [
    ("blocks alone", {"text": "", "blocks": RICH}, "a < b in #channelthere:tada:\none\ntwo\na *section*\nf\nby @Ann"),
    ("text and blocks", {"text": "as text", "blocks": RICH}, "as text"),
    ("a forwarded message", {"text": "", "attachments": [{"is_share": True, "text": "look <@UANN>"}]}, "look @Ann"),
    (
        "a forwarded message in blocks",
        {"text": "see", "attachments": [{"is_share": True, "message_blocks": [{"message": {"blocks": RICH[2:3]}}]}]},
        "see\nby @Ann",
    ),
    ("an unfurled link", {"text": "see", "attachments": [{"text": "not my words", "is_msg_unfurl": True}]}, "see"),
    ("a snippet", {"text": "", "files": [{"mode": "snippet", "preview": "if a < b:"}]}, "if a < b:"),
    ("a picture", {"text": "", "files": [{"mode": "hosted", "name": "cat.png"}]}, ""),
]


@pytest.mark.parametrize(("case", "more", "words"), SAID_OTHERWISE, ids=[row[0] for row in SAID_OTHERWISE])
def test_words_are_found_wherever_they_are(case: str, more: dict[str, Any], words: str) -> None:
    """Blocks, forwarded messages and text snippets are words; what Slack unfurls is not."""
    message = to_message({**SAID, **more}, space="T1", bot_user="UBOT", names={"UANN": "Ann"})
    assert message is not None
    assert message.text == words


def test_blocks_can_mention_the_bot() -> None:
    """Who is addressed in blocks is addressed."""
    message = to_message({**SAID, "text": "", "blocks": RICH}, space="T1", bot_user="UBOT")
    assert message is not None
    assert (message.mentions_bot, message.conversation.thread) == (True, TS)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*SAID, "blocks", "attachments", "files"), ANYTHING)))
def test_any_event_is_read_or_let_go(event: dict[str, Any]) -> None:
    """No field of a message event is relied on to be what Slack's documentation says."""
    to_message({"type": "message", **event}, space="T1", bot_user="UBOT")
    to_message({**SAID, **event}, space="T1", bot_user="UBOT")


ADDRESSES = [
    (None, "https://slack.com/api/"),
    ("", "https://slack.com/api/"),
    ("https://slack-gov.com/api", "https://slack-gov.com/api/"),
    ("https://slack-gov.com/api/", "https://slack-gov.com/api/"),
    ("http://127.0.0.1:9000", "http://127.0.0.1:9000/api/"),
]


@pytest.mark.parametrize(("given_url", "url"), ADDRESSES)
def test_where_the_web_api_lives(given_url: str | None, url: str) -> None:
    """`SLACK_API_URL` with or without its slash; a bare host gets Slack's own path."""
    assert base_url(given_url) == url


def test_secrets_are_masked() -> None:
    """Whatever a library wants to say of tokens, tickets and response URLs."""
    said = "xoxb-1-a.b xapp-1-A wss://x/link?ticket=abc-1&app_id=A https://hooks.slack.com/commands/T1/2/xyz done"
    assert errors.redact(said) == "*** *** wss://x/link?ticket=***&app_id=A https://hooks.slack.com/commands/*** done"
