"""Members' display names and ranks, from `users.info`, cached for a while. A failed lookup is not an error."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.errors import NETWORK, reason
from bots.slack.messages import profile_name
from bots.slack.outbox import NotPosted
from bots.slack.payloads import Payload, mapping, string
from bots.slack.workspace import Workspace
from core.bounded_dict import BoundedDict

log = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
"""How long a name or rank is cached; `users.info` is a tier-4 method, 100 calls a minute
(https://docs.slack.dev/reference/methods/users.info)."""

FAILED_SECONDS = 60.0
"""How long until a failed lookup is tried again."""

LOOKUP_SECONDS = 3.0
"""Longest wait for a name: an answer without it is better than a late one."""

LIMIT_SECONDS = 300.0
"""Longest wait for a rate limit, for lookups that nobody waits for."""

KNOWN = 5_000
"""Members in the cache."""


@dataclass(frozen=True, slots=True)
class Member:
    name: str = ""
    admin: bool = False
    """Admin or owner of the workspace: may manage its channels."""


class People:
    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: BoundedDict[tuple[float, Member]] = BoundedDict(KNOWN)
        """Members, and until when they are cached."""
        self._asking: dict[tuple[str, str], asyncio.Task[Member]] = {}

    def names(self, workspace: Workspace, users: Iterable[str]) -> dict[str, str]:
        """Display names of cached members; asks nobody."""
        found = {user: self._known.get((workspace.team, user)) for user in users}
        return {user: known[1].name for user, known in found.items() if known and known[1].name}

    def are_known(self, workspace: Workspace, users: Iterable[str]) -> bool:
        """Whether all of these are cached."""
        return all(self._fresh(workspace, user) is not None for user in users)

    async def look_up(self, workspace: Workspace, users: Iterable[str]) -> None:
        """Look up those that are not cached. Returns after `LOOKUP_SECONDS` at the latest; later results are cached
        too."""
        unknown = [user for user in users if self._fresh(workspace, user) is None]
        asked = [asyncio.ensure_future(self._ask(workspace, user)) for user in unknown]
        if asked:
            await asyncio.wait(asked, timeout=LOOKUP_SECONDS)

    async def person(self, workspace: Workspace, user: str) -> Member:
        """The member, or a nameless one where Slack does not answer in time."""
        known = self._fresh(workspace, user)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await self._ask(workspace, user)
        except TimeoutError:
            return Member()

    def _fresh(self, workspace: Workspace, user: str) -> Member | None:
        found = self._known.get((workspace.team, user))
        return found[1] if found is not None and self._monotonic() < found[0] else None

    async def _ask(self, workspace: Workspace, user: str) -> Member:
        """Look up a member; concurrent lookups of one member share a request."""
        key = (workspace.team, user)
        if key not in self._asking:
            task = asyncio.create_task(self._request(workspace, user))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(self._asking[key])

    async def _request(self, workspace: Workspace, user: str) -> Member:
        async def send() -> AsyncSlackResponse:
            client = await workspace.api()
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await client.users_info(user=user)

        try:
            response = await workspace.outbox.call("users.info", send, seconds=LIMIT_SECONDS, once=True)
        except (SlackClientError, NotPosted, *NETWORK) as error:
            log.info("no name for a member: users.info said %s", reason(error))
            person, seconds = Member(), FAILED_SECONDS
        else:
            person, seconds = _person(mapping(response.data, "user")), FRESH_SECONDS
        before = self._known.get((workspace.team, user))
        if not person.name and before is not None:
            person = before[1]  # an outdated name is better than none
        self._known.put((workspace.team, user), (self._monotonic() + seconds, person))
        return person

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _person(member: Payload) -> Member:
    name = profile_name(mapping(member, "profile")) or string(member, "real_name") or string(member, "name")
    return Member(name, any(member.get(rank) is True for rank in ("is_admin", "is_owner", "is_primary_owner")))
