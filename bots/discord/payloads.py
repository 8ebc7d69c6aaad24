"""Discord's JSON as discord.py 2.7.1 needs it: what Discord documents as optional, and what compatible servers leave
out or send as null, is filled in. Pure.

https://discord.com/developers/docs/events/gateway-events, https://discord.com/developers/docs/resources/message
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

_READ = frozenset(
    {
        "id", "channel_id", "guild_id", "author", "member", "content", "type", "webhook_id", "mentions",
        "mention_roles", "message_reference", "referenced_message", "flags", "message_snapshots", "attachments",
        "edited_timestamp",
    }
)  # fmt: skip
"""Fields of a message that `messages` reads; all others are dropped, so they cannot be malformed."""

_NOBODY = {"id": "0", "username": "someone"}
HEARTBEAT = 41250
"""Milliseconds between heartbeats where a server does not say; Discord's own number."""


def without_nulls(data: Mapping[str, Any]) -> Json:
    return {name: value for name, value in data.items() if value is not None}


def user(data: Any) -> Json:
    """Raises LookupError, TypeError or ValueError for what is not a user; the other functions here do likewise."""
    return {"username": "someone", "discriminator": "0", "avatar": None, **without_nulls(data)}


def member(data: Any) -> Json:
    completed: Json = {"roles": [], "flags": 0, **without_nulls(data)}
    if "user" in completed:
        completed["user"] = user(completed["user"])
    return completed


def message(data: Any) -> Json:
    completed: Json = {"type": 0, "content": "", **{name: data[name] for name in _READ & without_nulls(data).keys()}}
    completed["author"] = user(completed.get("author", _NOBODY))
    if "member" in completed:
        completed["member"] = member(completed["member"])
    completed.setdefault("mention_roles", [])
    completed["mentions"] = [user(each) for each in completed.get("mentions", ()) if isinstance(each, dict)]
    for each in completed["mentions"]:
        if "member" in each:
            each["member"] = member(each["member"])
    if "message_reference" in completed:
        completed["message_reference"] = {
            "channel_id": data["channel_id"],
            **without_nulls(completed["message_reference"]),
        }
    completed["attachments"] = [
        {"id": "0", "filename": "", "size": 0, "url": "", "proxy_url": "", **without_nulls(each)}
        for each in completed.get("attachments", ())
        if isinstance(each, dict)
    ]
    forwarded = completed.pop("message_snapshots", ())
    if "message_reference" in completed:  # discord.py reads them only with it
        completed["message_snapshots"] = [{"message": snapshot(each["message"])} for each in forwarded]
    answered = completed.pop("referenced_message", None)
    if isinstance(answered, dict) and answered.get("author"):
        completed["referenced_message"] = message({"channel_id": data["channel_id"], **answered})
    return completed


def snapshot(data: Any) -> Json:
    """The part of a forwarded message that is used: its text."""
    said = without_nulls(data)
    return {
        **{"content": "", "type": 0, "flags": 0, "timestamp": "2020-01-01T00:00:00+00:00", "edited_timestamp": None},
        **{name: said[name] for name in ("content", "type", "timestamp", "flags") if name in said},
        "embeds": [],
        "attachments": [],
    }


def interaction(data: Any) -> Json:
    completed: Json = {
        "version": 1,
        "application_id": "0",
        "attachment_size_limit": 10 * 1024 * 1024,
        **without_nulls(data),
    }
    if "channel" not in completed and "channel_id" in completed:
        completed["channel"] = {"id": completed["channel_id"], **({} if "guild_id" in completed else {"type": 1})}
    author = completed.get("member", {})
    if "guild_id" in completed:
        completed["member"] = member({"user": completed.get("user", _NOBODY), **author})
    else:
        completed["user"] = user(completed.get("user") or author.get("user") or _NOBODY)
    if "message" in completed:
        completed["message"] = message({"channel_id": completed.get("channel_id"), **completed["message"]})
    resolved = (completed.get("data") or {}).get("resolved")
    if isinstance(resolved, dict) and isinstance(resolved.get("messages"), dict):
        picked = resolved["messages"]
        for number, each in picked.items():
            picked[number] = message({"id": number, "channel_id": completed.get("channel_id"), **each})
    return completed


def reaction(data: Any) -> Json:
    completed: Json = {"type": 0, "burst": False, **without_nulls(data)}
    if "member" in completed:
        completed["member"] = member(completed["member"])
    return completed


def channel(data: Any) -> Json:
    completed: Json = {"type": 0, "name": "", "position": 0, **without_nulls(data)}
    if completed["type"] in {2, 13}:
        completed = {"bitrate": 64000, "user_limit": 0, **completed}
    return completed


def thread(data: Any) -> Json:
    metadata = {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": "2020-01-01T00:00:00+00:00"}
    completed: Json = {
        "type": 11,
        "name": "",
        "owner_id": "0",
        "message_count": 0,
        "member_count": 0,
        **without_nulls(data),
    }
    completed["thread_metadata"] = metadata | without_nulls(completed.get("thread_metadata", {}))
    completed.pop("member", None)  # we do not need to know that we joined it
    return completed


def guild(data: Any) -> Json:
    completed: Json = without_nulls(data)
    completed["channels"] = [channel(each) for each in completed.get("channels", ()) if isinstance(each, dict)]
    completed["threads"] = [thread(each) for each in completed.get("threads", ()) if isinstance(each, dict)]
    completed["members"] = [member(each) for each in completed.get("members", ()) if isinstance(each, dict)]
    roles = [{"name": "", **without_nulls(each)} for each in completed.get("roles", ()) if isinstance(each, dict)]
    everyone = {"id": completed["id"], "name": "@everyone", "permissions": "0"}
    has_everyone = any(str(role.get("id")) == str(completed["id"]) for role in roles)
    completed["roles"] = roles if has_everyone else [everyone, *roles]
    for unread in ("voice_states", "presences", "emojis", "stickers", "stage_instances", "guild_scheduled_events"):
        completed.pop(unread, None)
    completed.pop("soundboard_sounds", None)
    return completed


def ready(data: Any) -> Json:
    completed: Json = {"guilds": [], "shard": [0, 1], **without_nulls(data)}
    completed["user"] = user(completed["user"])
    return completed


EVENTS: Mapping[str, Callable[[Any], Json]] = {
    "READY": ready,
    "GUILD_CREATE": guild,
    "GUILD_UPDATE": guild,
    "CHANNEL_CREATE": channel,
    "CHANNEL_UPDATE": channel,
    "THREAD_CREATE": thread,
    "THREAD_UPDATE": thread,
    "MESSAGE_CREATE": message,
    "MESSAGE_UPDATE": message,
    "MESSAGE_REACTION_ADD": reaction,
    "MESSAGE_REACTION_REMOVE": reaction,
    "INTERACTION_CREATE": interaction,
}


def frame(content: Any, *, gateway: str, shard: tuple[int, int] = (0, 1)) -> Json:
    """A gateway frame that does not end discord.py's connection: HELLO, READY and RESUMED are completed, any other is
    the same object. `gateway`, the address to resume at, and `shard` are used where the server does not say.

    Raises ValueError for what is not a frame.
    """
    if not isinstance(content, dict) or not isinstance(content.get("t"), str | None):
        raise ValueError("neither an event nor an operation")  # noqa: TRY004 - the data is wrong, not a caller's type
    complete: Json = content
    if type(content.get("s")) not in {int, type(None)}:
        complete = {**content, "s": None}  # else we would resume after an event that never was
    said = content.get("d")
    told: Json = said if isinstance(said, dict) else {}
    match content.get("op"), content.get("t"):
        case 10, _:
            interval = told.get("heartbeat_interval")
            sane = isinstance(interval, int | float) and interval > 0
            return {**complete, "d": {"heartbeat_interval": interval if sane else HEARTBEAT}}
        case 0, "READY":
            told["resume_gateway_url"] = told.get("resume_gateway_url") or gateway
            told["shard"] = told.get("shard") or list(shard)
            told["session_id"] = told.get("session_id") or ""
            return {**complete, "d": told, "s": complete.get("s") or 1}
        case 0, "RESUMED":
            return {**complete, "d": told}
    return complete


def answer(data: Any) -> Any:
    """The body of a REST answer: messages and users are completed, anything else is returned as it is."""
    if isinstance(data, dict) and "id" in data and "channel_id" in data and ("content" in data or "author" in data):
        # Keep the other fields, which discord.py reads for edits and views.
        return {**without_nulls(data), **message(data)}
    if isinstance(data, dict) and "id" in data and "username" in data:
        return user(data)
    if isinstance(data, dict) and isinstance(data.get("interaction"), dict):
        return {"interaction": data["interaction"]}  # the message itself is included too, but only its id is needed
    return data


def application(data: Any, me: Mapping[str, Any]) -> Json:
    """The answer of `/oauth2/applications/@me`, completed from that of `/users/@me`."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    nothing = {"name": "", "description": "", "icon": None, "bot_public": True, "bot_require_code_grant": False}
    completed: Json = {"id": me["id"], "verify_key": "", "flags": 0, **nothing, **said}
    completed["owner"] = user({**_NOBODY, **completed.get("owner", {})})
    return completed


def gateway_bot(data: Any, *, url: str | None) -> tuple[int, str, Json]:
    """Shards, address and limits of `/gateway/bot`; `url` is used where it has no address."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    limits = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
    return int(said.get("shards", 1)), str(said.get("url") or url or ""), limits | said.get("session_start_limit", {})
