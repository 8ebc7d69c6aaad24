"""How long the Discord bot waits for what, in one place so that tests can shorten it."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordTimeouts:
    """All in seconds. The defaults keep Discord's limits with room for a slow network."""

    defer_after: float = 0.5
    """An answer that takes longer than this is deferred; Discord needs the first response within 3 s
    (https://discord.com/developers/docs/interactions/receiving-and-responding)."""
    first_response: float = 3.0
    """Discord accepts no first response to an interaction after this (same page)."""
    interaction_token: float = 14 * 60
    """An interaction's token is valid for 15 minutes (same page); later the answer is a normal message."""
    notice_shown: float = 20.0
    """Notices in a channel, which Discord cannot show to one member alone, delete themselves after this long."""
    typing_interval: float = 8.0
    """Discord shows “is typing” for 10 s (https://discord.com/developers/docs/resources/channel)."""
    connect: float = 15.0
    """One attempt to open the gateway's WebSocket."""
    reconnect: float = 45.0
    """Attempts to reach one address of the gateway, before RESUME is tried at the other one; discord.py gives up
    after 60."""
    response: float = 60.0
    """How long one call may wait for the API without receiving anything."""
    first_retry: float = 1.0
    """Before the second attempt to connect or to post; doubled each time, with jitter, up to `longest_retry`."""
    longest_retry: float = 20.0
    """Discord keeps a dropped session for some minutes only: after a longer wait its events are lost."""
    longest_login_retry: float = 120.0
    """The same before a login: Discord allows 1,000 a day (https://discord.com/developers/docs/events/gateway)."""
    stable_after: float = 60.0
    """A connection that lasted this long makes the next retry a first one again."""
    rate_limit: float = 60.0
    """The longest rate limit that discord.py waits out by itself."""
    post: float = 30 * 60
    """A post that could not be made for this long is given up; outages of Discord are usually shorter."""

    def retry(self, attempt: int, *, longest: float | None = None) -> float:
        """Seconds before retry `attempt` (from 0): exponential, with jitter so that many bots do not retry at the same
        time."""
        limit = self.longest_retry if longest is None else longest
        return min(limit, self.first_retry * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
