"""How long to wait for what. Tests scale it down."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackTimeouts:
    """Seconds."""

    ping: float = 3.0
    """A WebSocket ping after so much silence, and half of that for the answer: a silent drop is noticed within 4.5 s.
    Slack's own Node client pings a little more often and gives up after 5 s (`clientPingTimeout`,
    https://github.com/slackapi/node-slack-sdk, packages/socket-mode)."""
    look: float = 0.25
    """How often a socket is checked for having been closed."""
    connect: float = 10.0
    """Longest wait for a new socket."""
    linger: float = 5.0
    """How long an old socket stays open beside the new one, so that what was already sent on it is acknowledged;
    Slack allows ten at once."""
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    """Pause before a retry; doubled each time."""
    between_posts: float = 1.0
    """Between two posts in a channel: “one message per second per channel”
    (https://docs.slack.dev/apis/web-api/rate-limits)."""
    reply: float = 30 * 60.0
    """How long a reply may wait for its turn, a rate limit or an outage before it is abandoned."""
    notice: float = 2 * 60.0
    """The same for a notice, which is useless later."""

    def backoff(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures in a row, with jitter."""
        longest = min(self.longest_backoff, self.first_backoff * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + rng.random() / 2)
