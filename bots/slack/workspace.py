"""A workspace that the bot is installed in: its ids there, and how to call the Web API. Knows no event."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.outbox import Outbox
from core.bounded_dict import BoundedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    team: str
    bot_user: str
    """The bot's member id, which mentions contain."""
    bot_id: str = ""
    bot_name: str = "Person2"
    client: AsyncWebClient = field(repr=False)
    """Makes one attempt at each call; use `api`, which ensures a valid token."""
    outbox: Outbox = field(default_factory=Outbox, repr=False)
    posts: BoundedDict[None] = field(default_factory=BoundedDict, repr=False)
    """Channels and timestamps of recent posts."""
    renewed: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    """Waits until an expired token has been exchanged; None where tokens do not expire."""

    async def api(self) -> AsyncWebClient:
        if self.renewed is not None:
            await self.renewed()
        return self.client
