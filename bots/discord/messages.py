"""discord.Message → Message. Pure: knows what Discord's markup means and nothing of chat, memory or the network."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import discord

from core.messages import Conversation, Kind, Message

PLATFORM = "discord"

_WORDS = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""Message types a person writes; the rest are joins, pins, boosts, calls, thread starters, command echoes …"""

_THREADS = frozenset({10, 11, 12})
"""Channel types that are threads (https://discord.com/developers/docs/resources/channel#channel-object-channel-types)."""

# https://discord.com/developers/docs/reference#message-formatting
_MARKUP = re.compile(
    r"<(?:@!?(?P<user>\d+)|@&(?P<role>\d+)|\#(?P<channel>\d+)|a?:(?P<emoji>\w+):\d+"
    r"|/(?P<command>[^:<>]{1,100}):\d+|t:(?P<time>-?\d{1,12})(?::\w)?)>"
)


PASTED_BYTES = 64 << 10
"""A larger `message.txt` is taken for a file that a member attached; Discord makes one of messages over 2,000
characters."""


def to_message(message: discord.Message, me: discord.abc.Snowflake, *, pasted: str = "") -> Message | None:
    """What a member said, or None for other bots, webhooks, our own posts and system messages.

    `pasted` is the content of the file that Discord made of a long message (`pasted_file`).
    """
    if message.author.bot or message.webhook_id is not None:
        return None
    return spoken(message, me, pasted=pasted)


def spoken(message: discord.Message, me: discord.abc.Snowflake, *, pasted: str = "") -> Message | None:
    """The same, but also for bots and webhooks, which may post on behalf of a member."""
    if message.author.id == me.id or message.type not in _WORDS:
        return None
    reference = message.reference
    answers, answers_us = None, False
    if reference is not None and reference.type is discord.MessageReferenceType.default:
        answers = reference.message_id
        resolved = reference.resolved
        answers_us = isinstance(resolved, discord.Message) and resolved.author.id == me.id
    named = {user.id for user in message.mentions} - {me.id}
    named |= {role.id for role in message.role_mentions} - set(_our_roles(message, me))
    if reference is not None and isinstance(reference.resolved, discord.Message):
        named |= {reference.resolved.author.id} - {me.id, message.author.id}
    text = "\n".join(said for said in (message.content, pasted, *_forwarded(message)) if said)
    return Message(
        conversation=conversation_of(message.channel),
        id=str(message.id),
        author=str(message.author.id),
        author_name=message.author.display_name,
        author_roles=roles_of(message.author, message.guild),
        text=_readable(message, text, me),
        sent_at=message.created_at,
        reply_to=None if answers is None else str(answers),
        mentions_bot=_mentions(message, f"{message.content}\n{pasted}", me),
        mentions_others=bool(named),
        replies_to_bot=answers_us,
    )


def roles_of(author: discord.User | discord.Member, guild: discord.Guild | None) -> frozenset[str] | None:
    """Ids of the roles that a member has in the server, without the one that everybody has; none in a direct message,
    and None where Discord sent only the user."""
    if isinstance(author, discord.Member):
        return frozenset(str(role.id) for role in author.roles if not role.is_default())
    return None if guild is not None else frozenset()


def pasted_file(message: discord.Message) -> discord.Attachment | None:
    """The file that Discord's client makes of a message over the limit; None where there is none."""
    found = [each for each in message.attachments if each.filename == "message.txt" and each.size <= PASTED_BYTES]
    return found[0] if len(found) == 1 else None


def _forwarded(message: discord.Message) -> list[str]:
    """The texts of forwarded messages, which count as said by the member who forwards them."""
    return [snapshot.content for snapshot in message.message_snapshots]


def conversation_of(channel: object) -> Conversation:
    """The conversation of a channel. A thread (forum posts are threads) belongs to its channel and shares its
    settings."""
    if isinstance(channel, discord.DMChannel):
        return Conversation(platform=PLATFORM, channel=str(channel.id), kind=Kind.DIRECT)
    guild = getattr(channel, "guild", None)
    space = guild.id if guild is not None else getattr(channel, "guild_id", None)
    here = str(getattr(channel, "id", ""))
    if isinstance(channel, discord.Thread):
        return Conversation(
            platform=PLATFORM, space=str(space or ""), channel=str(channel.parent_id), thread=here, kind=Kind.THREAD
        )
    return Conversation(platform=PLATFORM, space=str(space or ""), channel=here, kind=Kind.CHANNEL)


def deleted_place(place: Mapping[str, Any]) -> Conversation:
    """The channel or thread of a CHANNEL_DELETE or THREAD_DELETE; only those of a server are ever deleted."""
    here, space = str(place["id"]), str(place["guild_id"])
    if place.get("type") in _THREADS and place.get("parent_id") is not None:
        parent = str(place["parent_id"])
        return Conversation(platform=PLATFORM, space=space, channel=parent, thread=here, kind=Kind.THREAD)
    return Conversation(platform=PLATFORM, space=space, channel=here)


def _readable(message: discord.Message, text: str, me: discord.abc.Snowflake) -> str:
    """The text as people read it: names for ids, `:smile:` for custom emoji, without a mention of us at either end."""
    users = {user.id: user.display_name for user in message.mentions}
    return plain(_without_address(text, _our_marks(message, me)), message.guild, users)


def reworded(content: str, guild: discord.Guild | None, me: discord.abc.Snowflake) -> str:
    """The same for an edit event that has only the new text."""
    return plain(_without_address(content, rf"<@!?{me.id}>"), guild)


def plain(text: str, guild: discord.Guild | None, names: Mapping[int, str] = MappingProxyType({})) -> str:
    """Text with Discord's markup made readable; `names` are those of members that are known besides the server's."""

    def user(number: int) -> str | None:
        member = guild.get_member(number) if guild is not None else None
        return names.get(number) or (member.display_name if member is not None else None)

    def shown(found: re.Match[str]) -> str:
        kind, value = found.lastgroup, found[found.lastgroup or 0]
        match kind:
            case "user":
                return f"@{user(int(value)) or 'someone'}"
            case "role":
                role = guild.get_role(int(value)) if guild is not None else None
                return f"@{role.name if role is not None else 'a role'}"
            case "channel":
                channel = guild.get_channel_or_thread(int(value)) if guild is not None else None
                return f"#{channel.name if channel is not None else 'a channel'}"
            case "emoji":
                return f":{value}:"
            case "command":
                return f"/{value}"
            case _:
                return _moment(int(value))

    return _MARKUP.sub(shown, text).strip()


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "some time"


def _our_roles(message: discord.Message, me: discord.abc.Snowflake) -> list[int]:
    """The role that Discord made for this bot: people may pick it from the list instead of the bot."""
    return [role.id for role in message.role_mentions if role.tags is not None and role.tags.bot_id == me.id]


def _our_marks(message: discord.Message, me: discord.abc.Snowflake) -> str:
    ours = [rf"@!?{me.id}", *(f"@&{role}" for role in _our_roles(message, me))]
    return rf"<(?:{'|'.join(ours)})>"


def _mentions(message: discord.Message, text: str, me: discord.abc.Snowflake) -> bool:
    """Whether the text mentions us. (`message.mentions` would also include the author that a reply answers.)"""
    return re.search(_our_marks(message, me), text) is not None


def _without_address(text: str, ours: str) -> str:
    text = re.sub(rf"^(?:\s*{ours}[\s,:]*)+", "", text)
    return re.sub(rf"(?:\s*{ours}\s*)+$", "", text)
