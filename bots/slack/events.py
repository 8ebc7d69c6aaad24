"""Slack's payloads → `core` values. Pure: names and what memory knows are passed in; knows no client.

Which conversation a message belongs to:

- a direct message: the conversation with that member; a thread inside it is a conversation of its own;
- a channel message that mentions the bot opens a thread: the conversation is that thread from its first message on
  (Slack's thread id is the `ts` of its first message), so follow-ups find it;
- any other channel message: the channel's common talk.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bots.slack import markup
from core.messages import Conversation, Kind, Message

PLATFORM = "slack"

Payload = Mapping[str, Any]
"""A JSON object as Slack sends it; any field but those named required by Slack may be missing."""

HEARD_SUBTYPES = frozenset({None, "file_share", "thread_broadcast"})
"""Subtypes that are still somebody saying something; all others are notes about messages, or bots
(https://docs.slack.dev/reference/events/message)."""

SLACKBOT = "USLACKBOT"


def heard(event: Payload, *, bot_user: str) -> bool:
    """Whether a member other than the bot itself says something here."""
    user = event.get("user")
    return (
        event.get("type") in {"message", "app_mention"}
        and event.get("subtype") in HEARD_SUBTYPES
        and not event.get("bot_id")
        and not event.get("hidden")
        and bool(user and event.get("channel") and event.get("ts"))
        and user not in {bot_user, SLACKBOT}
    )


def ours(event: Payload, *, bot_user: str, bot_id: str) -> bool:
    """Whether a message may be a post of this bot: a server may tell only one of its two ids, and one that never said
    ours may name any."""
    said_by = event.get("bot_id")
    return bool(said_by and said_by == (bot_id or said_by)) or bool(bot_user and event.get("user") == bot_user)


def place(channel: str, *, space: str, thread: str | None = None, channel_type: str = "") -> Conversation:
    """A channel, a thread of it, or a direct message; Slack's ids of direct messages begin with D."""
    if channel_type in {"im", "app_home"} or (not channel_type and channel.startswith("D")):
        kind = Kind.DIRECT
    else:
        kind = Kind.CHANNEL if thread is None else Kind.THREAD
    return Conversation(platform=PLATFORM, space=space, channel=channel, thread=thread, kind=kind)


def conversation(event: Payload, *, space: str, bot_user: str) -> Conversation:
    """Where a heard message belongs (see the top of this file)."""
    channel, ts = str(event["channel"]), str(event["ts"])
    thread = event.get("thread_ts") or None
    if thread == ts and not addressed(event, bot_user=bot_user):
        thread = None  # a first message that has replies by now, sent again
    where = place(channel, space=space, thread=thread, channel_type=str(event.get("channel_type") or ""))
    if where.kind is Kind.CHANNEL and addressed(event, bot_user=bot_user):
        return place(channel, space=space, thread=ts, channel_type=str(event.get("channel_type") or ""))
    return where


def addressed(event: Payload, *, bot_user: str) -> bool:
    return event.get("type") == "app_mention" or markup.mentions(str(event.get("text") or ""), bot_user)


def to_message(
    event: Payload,
    *,
    space: str,
    bot_user: str,
    bot_name: str = "Person2",
    names: Mapping[str, str] | None = None,
    joined_thread: bool = False,
) -> Message | None:
    """A `message` or `app_mention` event as a Message; None for what is nobody speaking (the bot itself, other bots,
    notes about messages).

    `names` gives display names by member id; without them Slack's own `|name` labels and `user_profile` serve.
    """
    if not heard(event, bot_user=bot_user):
        return None
    author, ts = str(event["user"]), str(event["ts"])
    thread = event.get("thread_ts")
    return Message(
        conversation=conversation(event, space=space, bot_user=bot_user),
        id=ts,
        author=author,
        author_name=(names or {}).get(author) or profile_name(event.get("user_profile")) or markup.SOMEONE,
        text=markup.to_words(str(event.get("text") or ""), names=names, bot_user=bot_user, bot_name=bot_name),
        sent_at=moment(ts),
        reply_to=str(thread) if thread and thread != ts else None,
        mentions_bot=addressed(event, bot_user=bot_user),
        replies_to_bot=bool(bot_user) and event.get("parent_user_id") == bot_user,
        joined_thread=joined_thread,
    )


def profile_name(profile: Payload | None) -> str:
    """The name a member chose, from a profile object; empty where it has none."""
    profile = profile or {}
    return str(profile.get("display_name") or profile.get("real_name") or profile.get("name") or "")


def moment(ts: str) -> datetime:
    """A Slack timestamp: seconds since 1970 and a counter, `1700000000.000100`."""
    return datetime.fromtimestamp(float(ts), UTC)


def thumb(reaction: str) -> bool | None:
    """👍 is True, 👎 is False, whatever their skin tone; None for any other reaction."""
    return {"+1": True, "thumbsup": True, "-1": False, "thumbsdown": False}.get(reaction.partition("::")[0])


def bot_of(body: Payload) -> str:
    """The bot's member id, where a payload says for whom it was delivered."""
    for authorization in body.get("authorizations") or ():
        if authorization.get("is_bot") and authorization.get("user_id"):
            return str(authorization["user_id"])
    return ""


def team_of(body: Payload) -> str:
    """The workspace a payload is for; empty where it does not say."""
    team = body.get("team")
    own = body.get("team_id") or (team.get("id") if isinstance(team, Mapping) else team)
    if own:
        return str(own)
    for authorization in body.get("authorizations") or ():
        if authorization.get("team_id"):
            return str(authorization["team_id"])
    return ""
