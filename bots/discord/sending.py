"""Texts → posts, in spite of rate limits, outages and restarts of the connection.

No REST call is ever cancelled: discord.py, cancelled while it waits out a global limit, blocks all later calls. Knows
nothing of chat or memory.
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
"""Typing indicators sent at once; few, so that they do not delay posts."""

BUSY_SECONDS = 0.5
"""When an indicator was not sent because of more urgent calls, try again after this long."""

WAITING_POSTS = 10_000
"""Posts that may wait for Discord; a further one fails at once, so that memory stays bounded."""

FOUND_AFTER = 100
"""Messages after a question that are searched for its answer."""

OWN_DELETIONS = 1_000
"""Deletions of ours that are remembered until their events come, which may be lost."""

DELETION_SECONDS = 2.0
"""Longest wait for the event of a deletion, when a post was not found."""

CANNOT_POST = (
    "I couldn't post my answer to you in <#{channel}>. Ask an admin there to let me send messages, or write to me here."
)

NOBODY = discord.AllowedMentions.none()
"""Our posts ping nobody, whatever they contain."""

UNREACHABLE = (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError)
"""Errors of a call that Discord refused or that did not reach it: aiohttp raises `RuntimeError` for a session that a
restart has closed; `TimeoutError` is an `OSError`."""

UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What discord.py raises where a server accepted a call but its answer has less than Discord's."""

T = TypeVar("T")


class Sender:
    """Posts through whichever client is connected, so that replies survive a restart of the connection."""

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
        """Posts whose deletion Discord has reported, or whose report is awaited."""

    async def say(
        self,
        channel: int,
        texts: Sequence[str],
        *,
        answers: int | None = None,
        view: discord.ui.View | None = None,
        delete_after: float | None = None,
    ) -> list[str]:
        """Post parts in a channel, the first as a reply to message `answers`; their ids, empty where a server does not
        tell one.

        Stops at the first part that cannot be posted, which is logged, and returns the ids of those before it.
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
        # The nonce keeps a post that was accepted but not confirmed (a 500, a broken connection) from appearing twice.
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
                # Without permission to read the history we cannot reply to a message (code 160002), but we can post.
                del options["reference"], options["mention_author"]
                return str((await self.deliver(send)).id)
        return ""

    async def replace(
        self, channel: int, old: Sequence[str], texts: Sequence[str], *, view: discord.ui.View | None = None
    ) -> list[str] | None:
        """Replace posts by parts: edit the posts, post the parts that are left, delete the posts that are left.

        None where the first post cannot be edited (deleted long ago, or not accessible): the caller posts anew. No ids
        where somebody has just deleted one of the posts: then the others are deleted too.
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
        """Delete a post of ours; one that is deleted already is no error."""
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
        """The ids of our posts with these texts after a question; empty where there are none, or we cannot read
        them."""

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
            found: discord.Message = await place.fetch_message(message)  # type: ignore[union-attr]  # the caller passes a channel that has messages
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
        """Whether Discord reports its deletion; the event may come after the failed edit."""
        event = self._gone.setdefault(post, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DELETION_SECONDS):
                await event.wait()
        return event.is_set()

    async def deleted_by_us(self, post: int) -> bool:
        """Whether we made the deletion that Discord reports; False where somebody else was quicker."""
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
        """Write to a member directly; False where they do not accept direct messages."""
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
        """Show “is typing” meanwhile; errors are ignored."""
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
        """Make a call, and retry it after rate limits, server errors and restarts of the connection.

        `within` is in seconds. Raises an error that retrying cannot help, or the last one when the time is over; a call
        that still hangs then is abandoned, and `TimeoutError` raised. Cancelling the caller does not cancel the call.
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
        """Run something in the background, until the bot is closed."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log_failure(log, error, "a background task failed")

    async def close(self) -> None:
        """Cancel what is still waiting; call it when no client is connected any more."""
        tasks = (*self._calls, *self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pause(error: BaseException) -> float | None:
    """Seconds to wait before the same call may succeed: 0 where that is not known, None where it never will.

    discord.py waits for a 429 only where a `Via` header shows that it comes from Discord's own limiter; proxies and
    compatible servers may not send one.
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
