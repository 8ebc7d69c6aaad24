"""Texts → posts, seen through rate limits, outages and restarts of the connection.

No REST call is ever cancelled: discord.py, cancelled while it waits out a global limit, never lets another call pass.
Knows nothing of chat or memory.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import discord

from bots.discord.compat import seconds_of
from bots.discord.pacing import Pacer
from bots.discord.timeouts import DiscordTimeouts
from core.failures import log_failure
from core.health import PostHealth

log = logging.getLogger(__name__)

TYPING_CALLS = 5
"""Typing indicators being sent at once: they are decoration, and may not hold up posts."""

BUSY_SECONDS = 0.5
"""When no indicator could be sent for more urgent calls, look again after this long."""

WAITING_POSTS = 10_000
"""Posts waiting for Discord; a further one is refused at once, so that memory stays bounded."""

FOUND_AFTER = 100
"""Messages after a question among which its answer is looked for."""

OWN_DELETIONS = 1_000
"""Deletions of ours whose events have not come yet; events may be lost."""

DELETION_SECONDS = 2.0
"""Longest wait for the event of a deletion, when a post was not found."""

CANNOT_POST = (
    "I couldn't post my answer to you in <#{channel}>. Ask an admin there to let me send messages, or write to me here."
)

NOBODY = discord.AllowedMentions.none()
"""No post of ours pings anybody, whatever it says."""

UNREACHABLE = (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError)
"""What a call raises that Discord refused or that did not get there: `RuntimeError` is aiohttp's for a session that a
restart closed; `TimeoutError` is an `OSError`."""

UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What discord.py raises where a server took a call and said of it less than Discord does."""

T = TypeVar("T")


class Sender:
    """Posts through whichever client is connected now, so that a reply outlives a restart of the connection."""

    def __init__(
        self,
        online: Callable[[], Awaitable[discord.Client]],
        timeouts: DiscordTimeouts,
        pacer: Pacer,
        health: PostHealth,
    ) -> None:
        self._online = online
        self._timeouts = timeouts
        self._pacer = pacer
        self._health = health
        self._calls: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._typing = 0
        self._deletions: dict[int, asyncio.Future[bool]] = {}
        self._gone: dict[int, asyncio.Event] = {}
        """Posts whose deletion Discord told of, or which is waited for."""

    async def say(
        self,
        channel: int,
        texts: Sequence[str],
        *,
        answers: int | None = None,
        view: discord.ui.View | None = None,
        delete_after: float | None = None,
    ) -> list[str]:
        """Post parts in a channel, the first as a reply to message `answers`; their ids, empty where a server keeps
        one to itself.

        A part that cannot be posted ends it: what stands is returned. A 403 is the channel's choice and only logged.
        """
        made: list[str] = []
        try:
            for number, text in enumerate(texts):
                last = number == len(texts) - 1
                made.append(
                    await self._say(
                        channel, text, answers=answers if number == 0 else None, view=view if last else None
                    )
                )
        except UNREACHABLE as error:
            log.warning("cannot post in channel %s: %s", channel, error)
        if delete_after is not None:
            for post in filter(None, made):
                self.spawn(self._remove_later(channel, int(post), delete_after))
        return made

    async def _say(self, channel: int, text: str, *, answers: int | None, view: discord.ui.View | None) -> str:
        # The nonce keeps a post that was taken but not confirmed (a 500, a broken connection) from appearing twice.
        options: dict[str, Any] = {"allowed_mentions": NOBODY, "nonce": secrets.token_hex(12)}
        if view is not None:
            options["view"] = view
        if answers is not None:
            options["reference"] = discord.MessageReference(
                message_id=answers, channel_id=channel, fail_if_not_exists=False
            )
            options["mention_author"] = False

        async def send(client: discord.Client) -> discord.Message:
            return await client.get_partial_messageable(channel).send(text, **options)

        with contextlib.suppress(*UNREADABLE):
            try:
                return str((await self.deliver(send)).id)
            except discord.HTTPException as error:
                if error.status != 400 or answers is None:
                    raise
                # Where we may not read the history we may not reply to it (code 160002); a plain post still says it.
                del options["reference"], options["mention_author"]
                return str((await self.deliver(send)).id)
        return ""

    async def replace(
        self, channel: int, old: Sequence[str], texts: Sequence[str], *, view: discord.ui.View | None = None
    ) -> list[str] | None:
        """Put parts in place of posts: edit what is there, post what is missing, delete what is left over.

        None where the first post cannot be edited (deleted long ago, or out of our reach): post anew then. No ids
        where somebody deleted one of them just now: then they want none of it, and what was put there is deleted too.
        """

        def edit(post: int, text: str, view: discord.ui.View | None) -> Callable[[discord.Client], Awaitable[object]]:
            return lambda client: (
                client.get_partial_messageable(channel)
                .get_partial_message(post)
                .edit(content=text, allowed_mentions=NOBODY, view=view)
            )

        made: list[str] = []
        try:
            for number, (post, text) in enumerate(zip(old, texts, strict=False)):
                with contextlib.suppress(*UNREADABLE):
                    await self.deliver(edit(int(post), text, view if number == len(texts) - 1 else None))
                made.append(post)
        except UNREACHABLE as error:
            log.info("cannot edit post %s in channel %s: %s", old[len(made)], channel, error)
            if isinstance(error, discord.NotFound) and await self._deleted_just_now(int(old[len(made)])):
                for post in (*made, *old[len(made) + 1 :]):
                    await self.remove(channel, int(post))
                return []
            if not made:
                return None
        for post in old[len(made) :]:
            await self.remove(channel, int(post))
        if len(made) < len(texts):
            more = await self.say(channel, texts[len(made) :], answers=int(made[-1]) if made else None, view=view)
            made += filter(None, more)
        return made

    async def remove(self, channel: int, post: int) -> None:
        """Delete a post of ours; one that is gone already is fine."""
        ours = self._deletions.setdefault(post, asyncio.get_running_loop().create_future())
        while len(self._deletions) > OWN_DELETIONS:
            self._deletions.pop(next(iter(self._deletions)))
        deleted = False
        try:
            await self.deliver(
                lambda client: client.get_partial_messageable(channel).get_partial_message(post).delete()
            )
            deleted = True
        except UNREACHABLE as error:
            log.debug("post %s in channel %s could not be deleted, or was deleted already: %s", post, channel, error)
        finally:
            if not ours.done():
                ours.set_result(deleted)
            if not deleted:
                self._deletions.pop(post, None)

    async def _remove_later(self, channel: int, post: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.remove(channel, post)

    async def find(self, channel: int, question: int, texts: Sequence[str]) -> list[str]:
        """The ids of the posts in which we said that after a question; none where we did not, or cannot look."""

        async def look(client: discord.Client) -> list[str]:
            place = client.get_partial_messageable(channel)
            found = [
                message
                async for message in place.history(after=discord.Object(question), limit=FOUND_AFTER, oldest_first=True)
                if client.user is not None and message.author.id == client.user.id and message.content in texts
            ]
            return [str(message.id) for message in found[: len(texts)]]

        try:
            return await self.deliver(look)
        except UNREACHABLE as error:
            log.info("cannot read channel %s: %s", channel, error)
            return []

    async def shows(self, channel: int, post: str, line: str) -> bool:
        """Whether a post of ours begins with that line."""
        if not line:
            return False
        try:
            found = await self.deliver(
                lambda client: client.get_partial_messageable(channel).fetch_message(int(post)),
                within=self._timeouts.first_response,
            )
        except UNREACHABLE:
            return False
        return found.content.startswith(line.rstrip())

    async def fetch(self, channel: int, message: int) -> discord.Message | None:
        """A message of a channel, with its author's roles unless they have left; None where there is none, or where we
        may not read it."""

        async def look(client: discord.Client) -> discord.Message:
            place = client.get_channel(channel) or client.get_partial_messageable(channel)
            found: discord.Message = await place.fetch_message(message)  # type: ignore[union-attr]  # the caller names one that has messages
            if found.guild is not None and not (isinstance(found.author, discord.Member) or found.author.bot):
                with contextlib.suppress(discord.NotFound):
                    found.author = await found.guild.fetch_member(found.author.id)
            return found

        try:
            return await self.deliver(look, within=self._timeouts.first_response)
        except (*UNREACHABLE, *UNREADABLE) as error:
            log.debug("message %s in channel %s cannot be read: %s", message, channel, error)
            return None

    async def _deleted_just_now(self, post: int) -> bool:
        """Whether Discord tells of its deletion; the event may come after the refusal."""
        event = self._gone.setdefault(post, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DELETION_SECONDS):
                await event.wait()
        return event.is_set()

    async def deleted_by_us(self, post: int) -> bool:
        """Whether the deletion that Discord tells of is one of ours. Where somebody was quicker, it is theirs."""
        self._gone.setdefault(post, asyncio.Event()).set()
        while len(self._gone) > OWN_DELETIONS:
            del self._gone[next(iter(self._gone))]
        ours = self._deletions.get(post)
        if ours is None:
            return False
        found = await asyncio.shield(ours)
        self._deletions.pop(post, None)
        return found

    async def tell(self, member: int, texts: Sequence[str], files: Sequence[discord.File] = ()) -> bool:
        """Write to a member directly; False where they do not take direct messages."""
        nonces = [secrets.token_hex(12) for _ in texts]

        async def send(client: discord.Client, number: int) -> None:
            place = await client.create_dm(discord.Object(member))
            attached: dict[str, Any] = {"files": list(files)} if files and number == 0 else {}
            for file in files:
                file.reset()  # an earlier try read it to its end
            await place.send(texts[number], allowed_mentions=NOBODY, nonce=nonces[number], **attached)

        try:
            for number in range(len(texts)):
                await self.deliver(lambda client, n=number: send(client, n))  # type: ignore[misc]  # binds the number
        except UNREACHABLE as error:
            log.info("cannot write to a member directly: %s", error)
            return False
        return True

    @asynccontextmanager
    async def typing(self, channel: int) -> AsyncIterator[None]:
        """Shows “is typing” meanwhile; where that is refused nothing is shown, and nothing else happens."""
        over = asyncio.Event()
        self.spawn(self._keep_typing(channel, over))
        try:
            yield
        finally:
            over.set()

    async def _keep_typing(self, channel: int, over: asyncio.Event) -> None:
        while not over.is_set():
            shown = self._typing < TYPING_CALLS and not self._pacer.waiting
            if shown:
                self._typing += 1
                try:
                    client = await self._online()
                    if not over.is_set():
                        await client.get_partial_messageable(channel).typing()
                except UNREACHABLE as error:
                    log.debug("no typing indicator in channel %s: %s", channel, error)
                    return
                finally:
                    self._typing -= 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeouts.typing_interval if shown else BUSY_SECONDS):
                    await over.wait()

    async def deliver(self, call: Callable[[discord.Client], Awaitable[T]], *, within: float | None = None) -> T:
        """Make a call, and again after rate limits, faults of the server and restarts of the connection.

        `within` is in seconds. Raises what Discord refused for good, and what it said last when the time is over; a
        call that hangs even then is left to itself, and `TimeoutError` raised. Cancelling the caller cancels no call.
        """
        limit = self._timeouts.post if within is None else within
        if len(self._calls) >= WAITING_POSTS:
            raise TimeoutError("too many posts are waiting for Discord")
        task = asyncio.ensure_future(self._persist(call, _now() + limit))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        await asyncio.wait({task}, timeout=limit + self._timeouts.response)
        if not task.done():
            raise TimeoutError(f"Discord did not accept a post within {limit:.0f} s")
        return task.result()

    async def _persist(self, call: Callable[[discord.Client], Awaitable[T]], deadline: float) -> T:
        with self._health.attempt(refusals=(discord.Forbidden, discord.NotFound)):
            return await self._repeat(call, deadline)

    async def _repeat(self, call: Callable[[discord.Client], Awaitable[T]], deadline: float) -> T:
        for attempt in itertools.count():
            async with asyncio.timeout_at(deadline):
                client = await self._online()
            try:
                return await call(client)
            except UNREACHABLE as error:
                wait = _pause(error)
                if wait is None:
                    raise
                wait = wait or self._timeouts.retry(attempt)
                if _now() + wait > deadline:
                    raise
                log.info("Discord did not accept a request (%s); trying again in %.1f s", error, wait)
                await asyncio.sleep(wait)
        raise AssertionError  # unreachable: counting has no end

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something aside, until the bot ends."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log_failure(log, error, "a background task failed")

    async def close(self) -> None:
        """End what is still waiting; to be called when no client is connected any more."""
        tasks = (*self._calls, *self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pause(error: BaseException) -> float | None:
    """Seconds to wait before the same call may succeed: 0 where nobody said how long, None where it never will.

    discord.py waits for a 429 only where a `Via` header shows that Discord's own limiter spoke; proxies and compatible
    servers may send none.
    """
    match error:
        case discord.RateLimited():
            return error.retry_after
        case discord.HTTPException():
            return seconds_of(error.response.headers) if error.status == 429 else 0.0 if error.status >= 500 else None
        case discord.DiscordException():
            return None
        case RuntimeError():
            return 0.0 if "closed" in str(error) else None
        case aiohttp.ClientError() | OSError():
            return 0.0
        case _:
            return None


def _now() -> float:
    return asyncio.get_running_loop().time()
