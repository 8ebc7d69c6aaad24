"""Slack's message events → `core` values. Pure: names are passed in; knows no client.

Which conversation a message belongs to:

- a direct message: the conversation with that member; a thread inside it is a conversation of its own;
- a channel message that mentions the bot opens a thread: the conversation is that thread from its first message on
  (Slack's thread id is the `ts` of its first message), so follow-ups find it;
- any other channel message: the channel itself.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from bots.slack import markup
from bots.slack.payloads import Payload, identifier, mapping, mappings, string
from core.messages import Conversation, Kind, Message

PLATFORM = "slack"

SPOKEN_SUBTYPES = frozenset({None, "", "file_share", "thread_broadcast", "me_message"})
"""Subtypes of messages by members; all others are notes about messages, or bots
(https://docs.slack.dev/reference/events/message)."""

SLACKBOT = "USLACKBOT"

SHARES = 5
"""Forwarded messages that are read from one message."""

_TS = re.compile(r"\d{1,11}(\.\d{1,9})?")


def is_from_member(event: Payload, *, bot_user: str) -> bool:
    """Whether this is a message by a member other than the bot itself."""
    user, subtype = identifier(event, "user"), event.get("subtype")
    return (
        event.get("type") in ("message", "app_mention")
        and (subtype is None or isinstance(subtype, str))
        and subtype in SPOKEN_SUBTYPES
        and not event.get("bot_id")
        and not event.get("hidden")
        and bool(user and identifier(event, "channel") and _TS.fullmatch(string(event, "ts")))
        and user not in {bot_user, SLACKBOT}
    )


def is_own_post(event: Payload, *, bot_user: str, bot_id: str) -> bool:
    """Whether a message may be a post of this bot. A server may send only one of the two ids, and where ours is not
    known, any bot's post may be."""
    said_by = string(event, "bot_id")
    return bool(said_by and said_by == (bot_id or said_by)) or bool(bot_user and event.get("user") == bot_user)


def conversation_at(channel: str, *, space: str, thread: str | None = None, channel_type: str = "") -> Conversation:
    """A channel, a thread of it, or a direct message; Slack's ids of direct messages begin with D."""
    if channel_type in {"im", "app_home"} or (not channel_type and channel.startswith("D")):
        kind = Kind.DIRECT
    else:
        kind = Kind.CHANNEL if thread is None else Kind.THREAD
    return Conversation(platform=PLATFORM, space=space, channel=channel, thread=thread, kind=kind)


def conversation(event: Payload, *, space: str, bot_user: str) -> Conversation:
    """The conversation of a message (see the top of this file)."""
    channel, ts, channel_type = identifier(event, "channel"), string(event, "ts"), string(event, "channel_type")
    thread = identifier(event, "thread_ts") or None
    if thread == ts and not addressed(event, bot_user=bot_user):
        thread = None  # the first message of a thread, redelivered after it got replies
    where = conversation_at(channel, space=space, thread=thread, channel_type=channel_type)
    if where.kind is Kind.CHANNEL and addressed(event, bot_user=bot_user):
        return conversation_at(channel, space=space, thread=ts, channel_type=channel_type)
    return where


def addressed(event: Payload, *, bot_user: str) -> bool:
    return event.get("type") == "app_mention" or markup.mentions(own_text(event), bot_user)


def own_text(event: Payload) -> str:
    """The author's own text, in Slack's markup: `text`, or the blocks where a client sends only those."""
    return string(event, "text") or markup.text_of_blocks(mappings(event, "blocks"))


def text_of(event: Payload) -> str:
    """The whole text of a message, in Slack's markup: the author's own, then that of forwarded messages and of text
    snippets."""
    shares = [each for each in mappings(event, "attachments") if each.get("is_share")][:SHARES]
    forwarded = [string(each, "text") or _blocks_of(each) or string(each, "fallback") for each in shares]
    snippets = [
        markup.escape(string(each, "preview"))
        for each in mappings(event, "files")
        if each.get("mode") in ("snippet", "post") and not each.get("is_external")
    ]
    return "\n".join(filter(None, (own_text(event), *forwarded, *snippets)))


def _blocks_of(share: Payload) -> str:
    """The text of a forwarded message, from its blocks."""
    said = [markup.text_of_blocks(mappings(each, "message", "blocks")) for each in mappings(share, "message_blocks")]
    return "\n".join(filter(None, said)) or markup.text_of_blocks(mappings(share, "blocks"))


def to_message(
    event: Payload,
    *,
    space: str,
    bot_user: str,
    bot_name: str = "Person2",
    names: Mapping[str, str] | None = None,
) -> Message | None:
    """A `message` or `app_mention` event as a Message; None for the bot itself, other bots and notes about messages.

    `names` gives display names by member id; else Slack's own `|name` labels and `user_profile` are used.
    """
    if not is_from_member(event, bot_user=bot_user):
        return None
    author, ts = identifier(event, "user"), string(event, "ts")
    thread = identifier(event, "thread_ts")
    return Message(
        conversation=conversation(event, space=space, bot_user=bot_user),
        id=ts,
        author=author,
        author_name=(names or {}).get(author) or profile_name(mapping(event, "user_profile")) or markup.SOMEONE,
        text=markup.plain_text(text_of(event), names=names, bot_user=bot_user, bot_name=bot_name),
        sent_at=sent_at(ts),
        reply_to=thread if thread and thread != ts else None,
        mentions_bot=addressed(event, bot_user=bot_user),
        mentions_others=markup.mentions_others(own_text(event), bot_user),
        replies_to_bot=bool(bot_user) and event.get("parent_user_id") == bot_user,
    )


def profile_name(profile: Payload) -> str:
    """The name a member chose, from a profile object; empty where it has none."""
    return string(profile, "display_name") or string(profile, "real_name") or string(profile, "name")


def sent_at(ts: str) -> datetime:
    """A Slack timestamp: seconds since 1970 and a counter, `1700000000.000100`."""
    return datetime.fromtimestamp(float(ts), UTC)


def is_later(ts: str, other: str) -> bool:
    """Whether the first of two timestamps is later; False where one is none."""
    return bool(_TS.fullmatch(ts) and _TS.fullmatch(other)) and float(ts) > float(other)


def vote_of(reaction: str) -> bool | None:
    """👍 is True, 👎 is False, whatever their skin tone; None for any other reaction."""
    return {"+1": True, "thumbsup": True, "-1": False, "thumbsdown": False}.get(reaction.partition("::")[0])
