"""Discord's rate limits, as a server keeps them: 50 requests a second for a bot, a bucket for each route and channel,
and a ban for whoever makes 10,000 invalid requests in ten minutes.

https://discord.com/developers/docs/topics/rate-limits. Knows nothing of HTTP but method, path, status and headers.
"""

import hashlib
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Refusal = tuple[int, dict[str, Any] | None, dict[str, str]]
"""Status, JSON body (None for one that is not JSON) and headers."""

VIA = {"Via": "1.1 google"}
"""Discord's own limiter says so; Cloudflare, which bans, does not."""

_ID = re.compile(r"/\d{15,}")
_MAJOR = re.compile(r"^/(?:channels|guilds)/(\d+)|^/(?:webhooks|interactions)/(\d+/[^/]+)")

BUCKETS: dict[tuple[str, str], tuple[int, float]] = {
    ("POST", "/channels/messages"): (5, 5.0),
    ("PATCH", "/channels/messages"): (5, 5.0),
    ("DELETE", "/channels/messages"): (5, 1.0),
    ("POST", "/channels/typing"): (5, 5.0),
}
"""Requests and seconds of the routes a bot that talks uses most, as observed; not documented, and free to change."""
OTHERS = (50, 1.0)


@dataclass(slots=True)
class Bucket:
    limit: int
    seconds: float
    left: int
    until: float


@dataclass(kw_only=True)
class Limits:
    """Ask `refusal` for each request, add `headers` to what is answered, and tell `answered` the status."""

    clock: Callable[[], float]
    """Seconds, monotonic."""
    per_second: int = 50
    most_invalid: int = 10_000
    invalid_seconds: float = 600.0
    refused: Counter[str] = field(default_factory=Counter)
    """Answers of 429 by scope: `global`, `user` (a bucket) and `ban`."""
    busiest: int = 0
    """Most requests let through in one second."""
    _times: deque[float] = field(default_factory=deque)
    _invalid: deque[float] = field(default_factory=deque)
    _buckets: dict[tuple[str, str, str], Bucket] = field(default_factory=dict)

    def refusal(self, method: str, path: str) -> Refusal | None:
        now = self.clock()
        while self._invalid and now - self._invalid[0] > self.invalid_seconds:
            self._invalid.popleft()
        if len(self._invalid) >= self.most_invalid:
            self.refused["ban"] += 1
            wait = self._invalid[0] + self.invalid_seconds - now
            return 429, None, {"Retry-After": str(int(wait) + 1)}
        if not path.startswith(("/interactions/", "/webhooks/")):  # these are not bound to the global limit
            while self._times and now - self._times[0] >= 1.0:
                self._times.popleft()
            if len(self._times) >= self.per_second:
                return self._say("global", self._times[0] + 1.0 - now, {"X-RateLimit-Global": "true"})
        bucket = self._bucket(method, path, now)
        if bucket.left <= 0:
            return self._say("user", bucket.until - now, self.headers(method, path))
        bucket.left -= 1
        self._times.append(now)
        self.busiest = max(self.busiest, len(self._times))
        return None

    def answered(self, status: int) -> None:
        if status in {401, 403, 429}:
            self._invalid.append(self.clock())

    def headers(self, method: str, path: str) -> dict[str, str]:
        bucket = self._bucket(method, path, now := self.clock())
        return {
            "X-RateLimit-Limit": str(bucket.limit),
            "X-RateLimit-Remaining": str(bucket.left),
            "X-RateLimit-Reset-After": f"{max(bucket.until - now, 0.0):.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(repr(_route(method, path)).encode()).hexdigest()[:32],
        }

    def _say(self, scope: str, seconds: float, headers: dict[str, str]) -> Refusal:
        self.refused[scope] += 1
        body = {"message": "You are being rate limited.", "retry_after": seconds, "global": scope == "global"}
        told = {"Retry-After": str(int(seconds) + 1), "X-RateLimit-Scope": scope}
        return 429, body, VIA | told | headers

    def _bucket(self, method: str, path: str, now: float) -> Bucket:
        major = _MAJOR.match(path)
        limit, seconds = BUCKETS.get(_route(method, path), OTHERS)
        bucket = self._buckets.setdefault(
            (*_route(method, path), major[0] if major else ""), Bucket(limit, seconds, limit, now + seconds)
        )
        if now >= bucket.until:
            bucket.left, bucket.until = limit, now + seconds
        return bucket


def _route(method: str, path: str) -> tuple[str, str]:
    """A route without its ids and tokens."""
    if path.startswith(("/webhooks/", "/interactions/")):
        return method, "/".join(path.split("/")[:2])
    return method, _ID.sub("", path)
