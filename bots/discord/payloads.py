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
"""Fields of a message that `messages` reads; nothing else in it can then be unreadable."""

_NOBODY = {"id": "0", "username": "someone"}
HEARTBEAT = 41250
"""Milliseconds between heartbeats where a server does not say; Discord's own number."""


def without_nulls(data: Mapping[str, Any]) -> Json:
    return {name: value for name, value in data.items() if value is not None}


def user(data: Any) -> Json:
    """Raises LookupError, TypeError or ValueError for what is no user; so do the others here for what they complete."""
    return {"username": "someone", "discriminator": "0", "avatar": None, **without_nulls(data)}


def member(data: Any) -> Json:
    mended: Json = {"roles": [], "flags": 0, **without_nulls(data)}
    if "user" in mended:
        mended["user"] = user(mended["user"])
    return mended


def message(data: Any) -> Json:
    mended: Json = {"type": 0, "content": "", **{name: data[name] for name in _READ & without_nulls(data).keys()}}
    mended["author"] = user(mended.get("author", _NOBODY))
    if "member" in mended:
        mended["member"] = member(mended["member"])
    mended.setdefault("mention_roles", [])
    mended["mentions"] = [user(each) for each in mended.get("mentions", ()) if isinstance(each, dict)]
    for each in mended["mentions"]:
        if "member" in each:
            each["member"] = member(each["member"])
    if "message_reference" in mended:
        mended["message_reference"] = {
            "channel_id": data["channel_id"],
            **without_nulls(mended["message_reference"]),
        }
    mended["attachments"] = [
        {"id": "0", "filename": "", "size": 0, "url": "", "proxy_url": "", **without_nulls(each)}
        for each in mended.get("attachments", ())
        if isinstance(each, dict)
    ]
    forwarded = mended.pop("message_snapshots", ())
    if "message_reference" in mended:  # discord.py reads them with it alone
        mended["message_snapshots"] = [{"message": snapshot(each["message"])} for each in forwarded]
    answered = mended.pop("referenced_message", None)
    if isinstance(answered, dict) and answered.get("author"):
        mended["referenced_message"] = message({"channel_id": data["channel_id"], **answered})
    return mended


def snapshot(data: Any) -> Json:
    """The part of a forwarded message that is shown: its words."""
    said = without_nulls(data)
    return {
        **{"content": "", "type": 0, "flags": 0, "timestamp": "2020-01-01T00:00:00+00:00", "edited_timestamp": None},
        **{name: said[name] for name in ("content", "type", "timestamp", "flags") if name in said},
        "embeds": [],
        "attachments": [],
    }


def interaction(data: Any) -> Json:
    mended: Json = {
        "version": 1,
        "application_id": "0",
        "attachment_size_limit": 10 * 1024 * 1024,
        **without_nulls(data),
    }
    if "channel" not in mended and "channel_id" in mended:
        mended["channel"] = {"id": mended["channel_id"], **({} if "guild_id" in mended else {"type": 1})}
    said_by = mended.get("member", {})
    if "guild_id" in mended:
        mended["member"] = member({"user": mended.get("user", _NOBODY), **said_by})
    else:
        mended["user"] = user(mended.get("user") or said_by.get("user") or _NOBODY)
    if "message" in mended:
        mended["message"] = message({"channel_id": mended.get("channel_id"), **mended["message"]})
    resolved = (mended.get("data") or {}).get("resolved")
    if isinstance(resolved, dict) and isinstance(resolved.get("messages"), dict):
        picked = resolved["messages"]
        for number, each in picked.items():
            picked[number] = message({"id": number, "channel_id": mended.get("channel_id"), **each})
    return mended


def reaction(data: Any) -> Json:
    mended: Json = {"type": 0, "burst": False, **without_nulls(data)}
    if "member" in mended:
        mended["member"] = member(mended["member"])
    return mended


def channel(data: Any) -> Json:
    mended: Json = {"type": 0, "name": "", "position": 0, **without_nulls(data)}
    if mended["type"] in {2, 13}:
        mended = {"bitrate": 64000, "user_limit": 0, **mended}
    return mended


def thread(data: Any) -> Json:
    metadata = {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": "2020-01-01T00:00:00+00:00"}
    mended: Json = {
        "type": 11,
        "name": "",
        "owner_id": "0",
        "message_count": 0,
        "member_count": 0,
        **without_nulls(data),
    }
    mended["thread_metadata"] = metadata | without_nulls(mended.get("thread_metadata", {}))
    mended.pop("member", None)  # that we joined it is nothing to us
    return mended


def guild(data: Any) -> Json:
    mended: Json = without_nulls(data)
    mended["channels"] = [channel(each) for each in mended.get("channels", ()) if isinstance(each, dict)]
    mended["threads"] = [thread(each) for each in mended.get("threads", ()) if isinstance(each, dict)]
    mended["members"] = [member(each) for each in mended.get("members", ()) if isinstance(each, dict)]
    roles = [{"name": "", **without_nulls(each)} for each in mended.get("roles", ()) if isinstance(each, dict)]
    everyone = {"id": mended["id"], "name": "@everyone", "permissions": "0"}
    mended["roles"] = roles if any(str(role.get("id")) == str(mended["id"]) for role in roles) else [everyone, *roles]
    for unread in ("voice_states", "presences", "emojis", "stickers", "stage_instances", "guild_scheduled_events"):
        mended.pop(unread, None)
    mended.pop("soundboard_sounds", None)
    return mended


def ready(data: Any) -> Json:
    mended: Json = {"guilds": [], "shard": [0, 1], **without_nulls(data)}
    mended["user"] = user(mended["user"])
    return mended


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
    """A gateway frame without what would end discord.py's connection: HELLO, READY and RESUMED are completed, any
    other is the same object. `gateway` is where to resume and `shard` who we are, if the server does not say.

    Raises ValueError for what is no frame.
    """
    if not isinstance(content, dict) or not isinstance(content.get("t"), str | None):
        raise ValueError("neither an event nor an operation")  # noqa: TRY004 - what is said is wrong, not how we ask
    complete: Json = content
    if type(content.get("s")) not in {int, type(None)}:
        complete = {**content, "s": None}  # we would resume after an event that never was
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
    """What a REST call gave: messages are completed, anything else is as it is."""
    if isinstance(data, dict) and "id" in data and "channel_id" in data and ("content" in data or "author" in data):
        # What members see of it is none of our business here, but edits and views read these.
        return {**without_nulls(data), **message(data)}
    if isinstance(data, dict) and "id" in data and "username" in data:
        return user(data)
    if isinstance(data, dict) and isinstance(data.get("interaction"), dict):
        return {"interaction": data["interaction"]}  # the message itself came along, and we need its id only
    return data


def application(data: Any, me: Mapping[str, Any]) -> Json:
    """What `/oauth2/applications/@me` said, or as much as `/users/@me` tells."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    nothing = {"name": "", "description": "", "icon": None, "bot_public": True, "bot_require_code_grant": False}
    mended: Json = {"id": me["id"], "verify_key": "", "flags": 0, **nothing, **said}
    mended["owner"] = user({**_NOBODY, **mended.get("owner", {})})
    return mended


def gateway_bot(data: Any, *, url: str | None) -> tuple[int, str, Json]:
    """Shards, address and limits of `/gateway/bot`; `url` stands in for an address it does not say."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    limits = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
    return int(said.get("shards", 1)), str(said.get("url") or url or ""), limits | said.get("session_start_limit", {})
