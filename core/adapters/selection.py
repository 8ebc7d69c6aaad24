"""Which adapter is used in a conversation, kept up to date while the bot runs.

Polls the registry every second, loads a promoted adapter beside the active one, and only then switches: requests never
wait for it. A bad adapter is refused with one line in the log and the old one stays active, unless it was withdrawn.
An adapter that fails in use is replaced by the one before it.
Knows the registry and the generator's port; neither file formats nor models.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from core.adapters import CURRENT, NONE, AdapterRegistry
from core.adapters.trials import Trial
from core.adapters.validation import stamp
from core.errors import AdapterError, Person2Error, Unavailable, reason
from core.generator import Adapter, Generator
from core.messages import Conversation

log = logging.getLogger(__name__)

POLL_EVERY = 1.0
"""Seconds between looks at the registry: a promotion is to be noticed within five, loading included."""


@dataclass(frozen=True, slots=True)
class _Version:
    """An adapter as it was on the disk: other weights under the same name are another version."""

    adapter: Adapter
    stamp: int


class AdapterSelection:
    """`adapter_for` answers from memory, which a task between `start` and `stop` keeps up to date.

    `spec` is what the operator chose (`PERSON2_ADAPTER`): `current` follows promotions, anything else stays. `base` is
    the base model as it was typed.
    """

    def __init__(
        self,
        registry: AdapterRegistry,
        generator: Generator,
        *,
        base: str | None = None,
        spec: str = CURRENT,
        poll_every: float = POLL_EVERY,
    ) -> None:
        self._registry = registry
        self._generator = generator
        self._base = base
        self._spec = spec.strip() or NONE
        self._poll_every = poll_every
        self._active: _Version | None = None
        self._refused: set[_Version] = set()
        self._failed: set[_Version] = set()
        """Versions that loaded but failed in use; other weights under the same name are tried again."""
        self._warned: set[str] = set()
        self._overrides: dict[str, _Version] = {}
        self._trial: Trial | None = None
        """The running trial, once its challenger is loaded."""
        self._challenger: _Version | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> Adapter | None:
        """The adapter of every conversation that has none of its own; None for the bare base."""
        return self._active.adapter if self._active else None

    async def start(self) -> None:
        """Load the adapter to use, then keep polling.

        Raises AdapterError when the operator named an adapter that cannot be used: they should know before anybody
        talks to the bot. A bad *current* adapter is logged instead, and the base is used.
        """
        if self._spec == CURRENT:
            await self.refresh()
        else:
            wanted = await asyncio.to_thread(self._wanted)
            try:
                if wanted is not None:
                    await self._generator.load(wanted.adapter)
            except Unavailable as error:  # a server that is started later is asked for it with each reply
                self._warn_once(str(error))
            except Person2Error:
                raise
            except Exception as error:  # whatever a damaged adapter makes a library raise
                raise AdapterError(
                    f"the adapter {self._spec!r} cannot be loaded ({reason(error)}): choose another"
                ) from error
            self._active = wanted
        self._task = asyncio.create_task(self._poll(), name="adapter selection")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def adapter_for(self, conversation: Conversation, override: str | None = None) -> Adapter | None:
        """The adapter to use in a conversation; None for the bare base.

        `override` is the channel's own choice: an id in the registry, `none` or `current`. When it cannot be used any
        more, that is logged once and the channel gets the active adapter. Never raises, and never takes a path:
        members type it.
        """
        if override is None or override == CURRENT:
            if self._challenger is not None and self._trial is not None and self._trial.takes(conversation):
                return self._challenger.adapter
            return self.active
        if override == NONE:
            return None
        try:
            version = await asyncio.to_thread(lambda: _version(self._registry.in_service(override)))
            if version in self._failed:
                return self.active
            if version != self._overrides.get(override):
                await self._replace(self._overrides.get(override), version)
                self._overrides[override] = version
        except Exception as error:
            self._warn_once(f"{conversation.key} uses the default adapter: {_sentence(error)}")
            await self._forget_override(override)
            return self.active
        return version.adapter

    async def failed(self, adapter: Adapter, error: Exception) -> None:
        """Note that an adapter in use failed: its numbers overflow. The one before it is used until another is
        promoted. Logs one line, however many conversations it failed in.
        """
        version = await asyncio.to_thread(_version, adapter)
        if version in self._failed:
            return
        self._failed.add(version)
        if self._challenger == version and self._trial is not None:
            await self._end_trial(self._trial, str(error))
        successor = None
        if self._active == version:
            successor = await asyncio.to_thread(self._successor, version)
            self._active = successor
        active = self.active.id if self.active else "the base model"
        log.error("%s cannot be used (%s); %s is now active", adapter.id, error, active)
        for override in [name for name, used in self._overrides.items() if used == version]:
            del self._overrides[override]
        await self._generator.unload(adapter.id)

    async def refresh(self) -> None:
        """Look at the registry once, and switch where another adapter was promoted or is on trial."""
        await self._refresh_current()
        if self._spec == CURRENT:
            await self._refresh_trial()

    async def _refresh_trial(self) -> None:
        """Load the adapter on trial beside the active one; one whose trial ended is used in no conversation any
        more."""
        try:
            trial = await asyncio.to_thread(self._running_trial)
        except (AdapterError, OSError) as error:
            self._warn_once(f"nothing is on trial: {error}")
            trial = None
        if trial == self._trial:
            return
        old, self._trial, self._challenger = self._challenger, None, None
        if old is not None and not await asyncio.to_thread(self._in_service, old):
            await self._generator.unload(old.adapter.id)
        if trial is None:
            return
        try:
            version = await asyncio.to_thread(lambda: _version(self._registry.in_service(trial.challenger)))
            await self._generator.load(version.adapter)
        except Unavailable as error:  # the server may come back
            self._warn_once(f"{trial.challenger} is not on trial yet: {error}")
        except Exception as error:
            await self._end_trial(trial, _sentence(error))
        else:
            self._trial, self._challenger = trial, version
            log.info("%s is on trial in %.0f %% of conversations", trial.challenger, 100 * trial.share)

    async def _end_trial(self, trial: Trial, why: str) -> None:
        """End the trial of an adapter that cannot be used."""
        self._trial = self._challenger = None
        outcome = f"the trial of {trial.challenger} ended: it cannot be used ({why})"
        log.warning("%s", outcome)
        with suppress(AdapterError):
            await asyncio.to_thread(self._registry.trials.end, trial, outcome)

    async def _refresh_current(self) -> None:
        try:
            wanted = await asyncio.to_thread(self._wanted)
        except (Person2Error, OSError) as error:
            self._warn_once(f"the adapters cannot be used: {error}")
            await self._deactivate_if_withdrawn()
            return
        if wanted in self._failed:
            await self._deactivate_if_withdrawn()
            return
        if wanted == self._active:
            self._refused.clear()  # a refused adapter is reported again when somebody promotes it again
        if wanted == self._active or wanted in self._refused:
            await self._deactivate_if_withdrawn()
            return
        old = self._active
        try:
            if wanted is not None:
                await self._replace(old, wanted)
        except Exception as error:  # whatever a damaged adapter makes a library raise
            line = f"{old.adapter.id if old else 'the base model'} stays active: {_sentence(error)}"
            if isinstance(error, Unavailable):  # the server may come back
                self._warn_once(line)
            elif wanted is not None:
                self._refused.add(wanted)
                log.warning("%s", line, exc_info=not isinstance(error, Person2Error))
            await self._deactivate_if_withdrawn()
            return
        self._active = wanted
        self._warned.clear()
        self._refused.clear()
        log.info("%s is now active", wanted.adapter.id if wanted else "the base model")
        if old is not None and not await asyncio.to_thread(self._in_service, old):
            await self._generator.unload(old.adapter.id)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_every)
            try:
                await self.refresh()
            except Exception:
                log.exception("looking for a new adapter failed")

    async def _replace(self, old: _Version | None, new: _Version) -> None:
        """Load `new`; where it has the id of `old`, that one is unloaded first, once no request uses it."""
        if old is not None and old.adapter == new.adapter:
            await self._generator.unload(old.adapter.id)
        await self._generator.load(new.adapter)

    async def _deactivate_if_withdrawn(self) -> None:
        """Where the active adapter was withdrawn and its successor cannot be loaded, use the base."""
        old = self._active
        if old is not None and not await asyncio.to_thread(self._in_service, old):
            log.warning("%s is out of service: the base model is active instead", old.adapter.id)
            self._active = None
            await self._generator.unload(old.adapter.id)

    async def _forget_override(self, override: str) -> None:
        version = self._overrides.pop(override, None)
        if version is not None and version != self._active:
            await self._generator.unload(version.adapter.id)

    # on a thread: these read files

    def _wanted(self) -> _Version | None:
        if self._spec != CURRENT:
            found = self._registry.find(self._spec, base=self._base)
        else:
            found = self._registry.current(base=self._base)
        return _version(found) if found else None

    def _running_trial(self) -> Trial | None:
        trial = self._registry.trials.read()
        return trial if trial is not None and trial.running else None

    def _successor(self, failed: _Version) -> _Version | None:
        if self._spec != CURRENT:
            return None
        successor = self._registry.successor(failed.adapter.id, base=self._base)
        version = _version(successor) if successor else None
        return version if version not in self._failed else None

    def _in_service(self, version: _Version) -> bool:
        """Whether an adapter is not withdrawn; one from outside the registry never is."""
        try:
            return not self._registry.card(version.adapter.id).withdrawn
        except AdapterError:
            return not self._registry.owns(version.adapter.path)

    def _warn_once(self, line: str) -> None:
        """Once per message, not once per poll."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning("%s", line)


def _version(adapter: Adapter) -> _Version:
    return _Version(adapter, stamp(adapter.path))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, Person2Error) else f"it cannot be loaded ({reason(error)})"
