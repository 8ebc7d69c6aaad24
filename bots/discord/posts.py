"""Words → posts: escaped, in parts that fit, patient with rate limits and restarts. Knows nothing of chat or memory."""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import discord

from bots.discord.patience import Patience
from core import replies

log = logging.getLogger(__name__)

LIMIT = 2000
"""Characters of a message (https://discord.com/developers/docs/resources/message#create-message)."""

ATTEMPTS = 4
"""Tries of one call before it is given up; discord.py itself tries a 5xx five times within each."""

NOBODY = discord.AllowedMentions.none()
"""No post of ours pings anybody, whatever it says."""

Made = TypeVar("Made")

# Timestamps, channel links, custom emoji, command links and mentions all begin so; `<3` does not.
_MARKUP = re.compile(r"<(?=[@#:/]|a:|t:|id:)")
_SUBTEXT = re.compile(r"^-(?=#)", re.MULTILINE)


def escaped(text: str) -> str:
    """Text that Discord shows as it stands: no markup fires, links stay links."""
    text = discord.utils.escape_mentions(discord.utils.escape_markdown(text))
    return _SUBTEXT.sub(r"\\-", _MARKUP.sub(r"\\<", text))


def parts(text: str, *, markup: bool = False) -> list[str]:
    """Posts for a text; `markup` keeps ours (help texts), else everything is escaped. Never empty."""
    return replies.split(text if markup else escaped(text), limit=LIMIT) or ["…"]


class Posts:
    """Posts through whichever client is connected now, so that a reply outlives a restart of the connection."""

    def __init__(self, online: Callable[[], Awaitable[discord.Client]], patience: Patience) -> None:
        self._online = online
        self._patience = patience
        self.deleting: set[int] = set()
        """Posts we are deleting ourselves: their delete events are no wish of a member to forget."""

    async def say(
        self,
        channel: int,
        texts: Sequence[str],
        *,
        answers: int | None = None,
        view: discord.ui.View | None = None,
        delete_after: float | None = None,
    ) -> list[str]:
        """Post parts in a channel, the first as a reply to message `answers`; their ids.

        A part that cannot be posted ends it: what stands is returned. A 403 is the channel's choice and only logged.
        """
        made: list[str] = []
        try:
            for number, text in enumerate(texts):
                last = number == len(texts) - 1
                made.append(
                    await self._say(
                        channel,
                        text,
                        answers=answers if number == 0 else None,
                        view=view if last else None,
                        delete_after=delete_after,
                    )
                )
        except discord.HTTPException as error:
            log.warning("cannot post in channel %s: %s %s", channel, error.status, error.text)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("cannot post in channel %s: %s", channel, error)
        return made

    async def _say(
        self, channel: int, text: str, *, answers: int | None, view: discord.ui.View | None, delete_after: float | None
    ) -> str:
        # The nonce keeps a post that was taken but not confirmed (a 500, a broken connection) from appearing twice.
        options: dict[str, Any] = {"allowed_mentions": NOBODY, "nonce": secrets.token_hex(12)}
        if delete_after is not None:
            options["delete_after"] = delete_after
        if view is not None:
            options["view"] = view
        if answers is not None:
            options["reference"] = discord.MessageReference(
                message_id=answers, channel_id=channel, fail_if_not_exists=False
            )
            options["mention_author"] = False

        async def send(client: discord.Client) -> discord.Message:
            return await client.get_partial_messageable(channel).send(text, **options)

        try:
            posted = await self.patiently(send)
        except discord.HTTPException as error:
            if error.status != 400 or answers is None:
                raise
            # Where we may not read the history we may not reply to it (code 160002); a plain post still says it.
            del options["reference"], options["mention_author"]
            posted = await self.patiently(send)
        return str(posted.id)

    async def replace(
        self, channel: int, old: Sequence[str], texts: Sequence[str], *, view: discord.ui.View | None = None
    ) -> list[str] | None:
        """Put parts in place of posts: edit what is there, post what is missing, delete what is left over.

        None where the first post cannot be edited (deleted meanwhile, or out of our reach): post anew then.
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
                await self.patiently(edit(int(post), text, view if number == len(texts) - 1 else None))
                made.append(post)
        except discord.HTTPException as error:
            log.info("cannot edit post %s in channel %s: %s %s", old[len(made)], channel, error.status, error.text)
            if not made:
                return None
        for post in old[len(made) :]:
            await self.remove(channel, int(post))
        if len(made) < len(texts):
            made += await self.say(channel, texts[len(made) :], answers=int(made[-1]) if made else None, view=view)
        return made

    async def remove(self, channel: int, post: int) -> None:
        """Delete a post of ours; one that is gone already is fine."""
        self.deleting.add(post)
        with contextlib.suppress(discord.HTTPException):
            await self.patiently(
                lambda client: client.get_partial_messageable(channel).get_partial_message(post).delete()
            )

    async def tell(self, member: int, texts: Sequence[str], file: discord.File | None = None) -> bool:
        """Write to a member directly; False where they do not take direct messages."""
        try:
            client = await self._online()
            place = await client.create_dm(discord.Object(member))
            for number, text in enumerate(texts):
                attached: dict[str, Any] = {"file": file} if file is not None and number == 0 else {}
                await place.send(text, allowed_mentions=NOBODY, **attached)
        except (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError, TimeoutError) as error:
            log.info("cannot write to a member directly: %s", error)
            return False
        return True

    @asynccontextmanager
    async def typing(self, channel: int) -> AsyncIterator[None]:
        """Shows “is typing” meanwhile; where that is refused nothing is shown, and nothing else happens."""
        task = asyncio.create_task(self._keep_typing(channel))
        try:
            yield
        finally:
            task.cancel()

    async def _keep_typing(self, channel: int) -> None:
        while True:
            try:
                await (await self._online()).get_partial_messageable(channel).typing()
            except (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError, TimeoutError) as error:
                log.debug("no typing indicator in channel %s: %s", channel, error)
                return
            await asyncio.sleep(self._patience.typing_every)

    async def patiently(self, call: Callable[[discord.Client], Awaitable[Made]]) -> Made:
        """Make a call, waiting out rate limits that discord.py leaves to us and a connection being restarted.

        discord.py waits for a 429 only where a `Via` header shows that Discord's own limiter spoke; proxies and
        compatible servers may send none. Raises HTTPException, ClientError or TimeoutError when patience ends.
        """
        for attempt in range(ATTEMPTS):
            client = await self._online()
            try:
                return await call(client)
            except discord.HTTPException as error:
                wait = retry_after(error)
                if wait is None or wait > self._patience.longest_rate_limit or attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(wait)
            except (aiohttp.ClientError, OSError) as error:
                if attempt == ATTEMPTS - 1:
                    raise
                log.info("the connection to Discord broke (%s); posting again", error)
                await asyncio.sleep(self._patience.retry(attempt))
            except RuntimeError as error:
                # aiohttp's word for a session that a restart closed under us; the next client has a new one.
                if "closed" not in str(error) or attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(self._patience.retry(attempt))
        raise AssertionError  # unreachable: the last attempt returns or raises


def retry_after(error: discord.HTTPException) -> float | None:
    """Seconds that a 429 asks to wait; None for any other error."""
    if error.status != 429:
        return None
    try:
        return float(error.response.headers.get("Retry-After", 1.0))
    except ValueError:
        return 1.0
