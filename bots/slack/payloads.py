"""Reading Slack's JSON, whatever is in it: a field that is missing, null or of another type reads as empty.

Slack documents its payloads, but compatible servers leave things out and a hostile request can hold anything. Pure.
"""

from collections.abc import Mapping
from typing import Any

Payload = Mapping[str, Any]
"""A JSON object as Slack sends it, not validated."""

ID_LIMIT = 100
"""Most characters of an id; Slack's have about eleven, and the database's columns this many."""


def mapping(payload: object, *path: str) -> Payload:
    """The object at `path`; empty where there is none."""
    for name in path:
        payload = payload.get(name) if isinstance(payload, Mapping) else None
    return payload if isinstance(payload, Mapping) else {}


def mappings(payload: object, *path: str) -> list[Payload]:
    """The objects in the list at `path`."""
    found = mapping(payload, *path[:-1]).get(path[-1])
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def string(payload: object, *path: str) -> str:
    """The text at `path`; empty where there is none."""
    found = mapping(payload, *path[:-1]).get(path[-1])
    return found if isinstance(found, str) else ""


def identifier(payload: object, *path: str) -> str:
    """The id at `path` (of a member, channel, message, …); empty where there is none that could be stored."""
    found = string(payload, *path)
    return found if found.isprintable() and len(found) <= ID_LIMIT else ""


def team_of(body: Payload) -> str:
    """The workspace a payload is for; empty where it does not say."""
    return (
        identifier(body, "team_id")
        or identifier(body, "team", "id")
        or identifier(body, "team")
        or next(filter(None, (identifier(each, "team_id") for each in mappings(body, "authorizations"))), "")
    )


def bot_of(body: Payload) -> str:
    """The bot's member id, where a payload says for whom it was delivered."""
    known = (identifier(each, "user_id") for each in mappings(body, "authorizations") if each.get("is_bot"))
    return next(filter(None, known), "")
