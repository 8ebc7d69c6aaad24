"""Who a member is: display name and rank, from `users.info`, remembered for a while. A failing lookup is no fault."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from slack_sdk.errors import SlackClientError

from bots.slack.events import profile_name
from bots.slack.refusals import NETWORK, code
from bots.slack.workspace import Workspace

log = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
"""How long a name or rank is believed; `users.info` is a tier-4 method, 100 calls a minute
(https://docs.slack.dev/reference/methods/users.info)."""

LOOKUP_SECONDS = 3.0
"""Longest wait for a name: an answer without it is better than a late one."""

KNOWN = 5_000
"""Members remembered at once."""


@dataclass(frozen=True, slots=True)
class Person:
    name: str = ""
    admin: bool = False
    """Admin or owner of the workspace: may manage its channels."""


class People:
    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, str], tuple[float, Person]] = OrderedDict()

    async def person(self, workspace: Workspace, user: str) -> Person:
        """The member, or a nameless one where Slack does not tell."""
        key = (workspace.team, user)
        found = self._known.get(key)
        if found is not None and self._monotonic() - found[0] < FRESH_SECONDS:
            return found[1]
        person = await self._ask(workspace, user)
        self._known[key] = (self._monotonic(), person)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return person

    async def names(self, workspace: Workspace, users: tuple[str, ...]) -> dict[str, str]:
        """Display names of those Slack knows."""
        people = await asyncio.gather(*(self.person(workspace, user) for user in users))
        return {user: person.name for user, person in zip(users, people, strict=True) if person.name}

    async def _ask(self, workspace: Workspace, user: str) -> Person:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                response = await workspace.client.users_info(user=user)
        except (SlackClientError, *NETWORK) as error:
            log.info("no name for a member: users.info said %s", code(error) or type(error).__name__)
            return Person()
        member = response.get("user") or {}
        name = profile_name(member.get("profile")) or str(member.get("real_name") or member.get("name") or "")
        return Person(name, bool(member.get("is_admin") or member.get("is_owner") or member.get("is_primary_owner")))
