"""How long the Discord bot waits for what, in one place so that tests can hurry. Knows nothing else."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """All in seconds. The defaults keep Discord's limits with room for a slow network."""

    defer_after: float = 0.5
    """An answer that takes longer than this is deferred; Discord wants the first response within 3 s
    (https://discord.com/developers/docs/interactions/receiving-and-responding)."""
    follow_up_within: float = 14 * 60
    """An interaction's token lives 15 minutes (same page); later the answer is a normal message."""
    notice_for: float = 20.0
    """Notices in a channel, which Discord cannot show to one member alone, delete themselves after this long."""
    typing_every: float = 8.0
    """Discord shows “is typing” for 10 s (https://discord.com/developers/docs/resources/channel)."""
    first_retry: float = 1.0
    """Before the second attempt to connect; doubled each time, with jitter, up to `longest_retry`."""
    longest_retry: float = 120.0
    steady_after: float = 60.0
    """A connection that stood this long makes the next retry a first one again."""
    longest_rate_limit: float = 60.0
    """A post that Discord wants delayed for longer is given up."""
    back_online: float = 90.0
    """How long a finished reply waits for the connection to come back."""

    def retry(self, attempt: int) -> float:
        """Seconds before retry `attempt` (from 0): exponential, with jitter so that many bots do not come at once."""
        longest = min(self.longest_retry, self.first_retry * 2.0 ** min(attempt, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
