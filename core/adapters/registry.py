"""The registry of LoRA adapters: their cards, which one is current, promotion and rollback.

`<home>/adapters/<id>/` holds peft's own files and `card.json`. Beside the folders lie `current` (the id of the active
adapter, replaced atomically) and `history` (the ones before, oldest first), so that a rollback promotes an earlier id.
Needs neither torch nor peft.

Readers take no lock and never see half a file. Writers hold a lock file, so several processes may write.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from core.adapters.card import CARD, Card, read_card
from core.adapters.trials import FILE, Trial, Trials
from core.adapters.validation import CONFIG, WEIGHTS, check, same_base, weights_sha256
from core.atomic_io import flush, flush_folder, lock, make_private, private_opener, read_text, write_atomically
from core.errors import AdapterError, reason
from core.generator import Adapter

log = logging.getLogger(__name__)

NONE = "none"
"""In place of an adapter's id: the bare base model."""
CURRENT = "current"
STAGED = ".new-"
"""Prefix of a folder's name while it is being written."""
MAX_HISTORY = 100
"""Promotions kept for rollback."""
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w")
MAX_HUB_NAME = 96
"""The hub's limit on the length of a repository's name (huggingface_hub's validate_repo_id)."""
MAX_SHOWN = 80
"""Characters of a name that an error repeats."""
_RESERVED = frozenset({NONE, CURRENT, FILE, "history", "base", "lock"})


def check_name(name: str) -> None:
    """Raises AdapterError for a name that no adapter can have: it would leave the registry's folder or hide a file in
    it."""
    if not _ID.fullmatch(name) or name.lower() in _RESERVED:
        shown = name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}…"
        raise AdapterError(
            f"{shown!r} is not a valid adapter name: use up to 64 letters, digits, dots, dashes and underscores"
        )


def _untested(adapter: Adapter) -> None:
    """The test of an adapter where none is given."""


class AdapterRegistry:
    """The adapters of one installation, and those that ship with it.

    `bundled` are folders of adapters that came with the program, by the name of their base (`starter` →
    `models/starter/adapters`): read-only, listed with the others, and current on that base until another adapter is
    promoted.
    """

    def __init__(
        self,
        root: Path,
        *,
        bundled: Mapping[str, Path] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._root = root
        self._bundled = dict(bundled or {})
        self._clock = clock
        self._warned_of: set[str] = set()
        self.trials = Trials(root, locked=self._locked, clock=clock)

    @property
    def pointer(self) -> Path:
        """The file that names the current adapter."""
        return self._root / CURRENT

    # reading

    def cards(self) -> tuple[Card, ...]:
        """Every adapter, newest first. One with a damaged card is logged and left out."""
        cards: list[Card] = []
        for folder in self._folders():
            try:
                cards.append(read_card(folder))
            except AdapterError as error:
                log.warning("adapter %s is left out: %s", folder.name, error)
        return tuple(sorted(cards, key=lambda card: (card.created_at, card.id), reverse=True))

    def card(self, adapter_id: str) -> Card:
        """Raises AdapterError when there is none, or when it cannot be read."""
        return read_card(self.path(adapter_id))

    def path(self, adapter_id: str) -> Path:
        """The adapter's folder. Raises AdapterError when the registry has none of that name."""
        for root in self._roots():
            if _ID.fullmatch(adapter_id) and (root / adapter_id / CONFIG).is_file():
                return root / adapter_id
        raise AdapterError(f"there is no adapter called {adapter_id!r}: `person2 adapters list` lists them")

    def in_service(self, adapter_id: str) -> Adapter:
        """Raises AdapterError when there is none, or when it was withdrawn."""
        card = self.card(adapter_id)
        if card.withdrawn:
            raise AdapterError(
                f"the adapter {card.id!r} is out of service ({card.withdrawn}): choose another or train a new one"
            )
        return Adapter(id=adapter_id, path=self.path(adapter_id))

    def is_bundled(self, adapter_id: str) -> bool:
        return self.path(adapter_id).parent in self._bundled.values()

    def owns(self, path: Path) -> bool:
        """Whether this path is, or was, the folder of an adapter in the registry."""
        return path.parent in tuple(self._roots())

    def taken(self, adapter_id: str) -> bool:
        """Whether no new adapter may have this name; the name of one that is out of service is free."""
        if not _ID.fullmatch(adapter_id) or not any((root / adapter_id).exists() for root in self._roots()):
            return False
        try:
            return not self.card(adapter_id).withdrawn
        except AdapterError:
            return True

    def learned_from(self, person: str) -> tuple[Card, ...]:
        """The adapters in service that were trained on messages of the person with this keyed hash."""
        return tuple(card for card in self.cards() if person in card.people and not card.withdrawn)

    def current(self, *, base: str | None = None) -> Adapter | None:
        """The adapter in use, or None for the bare base; `base` is the base model in use, as typed.

        In place of a promoted adapter that is missing or withdrawn it is the newest usable one before it.
        """
        promoted = self._promoted()
        if promoted is None:
            return self._bundled_default(base)
        if promoted == NONE:
            return None
        if base in self._bundled and self._made_for_another(promoted, base):
            return self._bundled_default(base)
        if self._is_in_service(promoted):
            return Adapter(id=promoted, path=self.path(promoted))
        if promoted not in self._warned_of:  # once, however often a bot polls
            self._warned_of.add(promoted)
            log.warning("the promoted adapter %s is missing or out of service; an older one is used", promoted)
        return self._fallback(promoted, base)

    def find(self, spec: str, *, base: str | None = None) -> Adapter | None:
        """What a person typed → an adapter: `current`, an id, a folder, `none`, or a Hugging Face repository
        `org/name`.

        A repository is not looked up here: the generator fetches it. Raises AdapterError when nothing fits.
        """
        spec = spec.strip()
        if spec in {"", NONE}:
            return None
        if spec == CURRENT:
            return self.current(base=base)
        if _ID.fullmatch(spec) and any((root / spec / CONFIG).is_file() for root in self._roots()):
            return self.in_service(spec)
        folder = Path(spec).expanduser()
        if _is_folder(folder):
            check(folder)
            return Adapter(id=folder.resolve().name, path=folder)
        if _HUB_NAME.fullmatch(spec) and len(spec) <= MAX_HUB_NAME:
            return Adapter(id=spec, path=Path(spec))
        shown = spec if len(spec) <= MAX_SHOWN else f"{spec[:MAX_SHOWN]}…"
        raise AdapterError(
            f"there is no adapter called {shown!r}, neither by id nor as a folder: `person2 adapters list` lists them"
        )

    # writing

    def add(self, folder: Path, card: Card) -> Adapter:
        """Copy peft's files into the registry under `card.id`, all or nothing.

        An adapter of that name that is out of service is replaced. Raises AdapterError when the name is invalid or
        taken, the files are not a usable adapter, or their hash is not `card.weights_sha256`. The next writer deletes
        what a process that is killed in here leaves behind.
        """
        check(folder)
        check_name(card.id)
        target = self._root / card.id
        with self._locked():
            if self.taken(card.id):
                raise AdapterError(f"there is an adapter called {card.id!r} already: choose another name")
            with tempfile.TemporaryDirectory(dir=self._root, prefix=STAGED) as scratch:
                staged = Path(scratch) / card.id
                shutil.copytree(folder, staged, ignore=shutil.ignore_patterns("checkpoint-*", "*.bin", "*.pt", CARD))
                make_private(Path(scratch))  # a copy keeps the modes of the original
                found = weights_sha256(staged)
                if card.weights_sha256 and found != card.weights_sha256:
                    raise AdapterError(
                        f"the weights in {folder} are not those that were evaluated as {card.id!r}: train it again"
                    )
                write_atomically(staged / CARD, replace(card, weights_sha256=found).to_json())
                for path in staged.rglob("*"):
                    if path.is_file():
                        flush(path)
                if target.is_symlink():
                    target.unlink()
                elif target.exists():
                    target.rename(Path(scratch) / "old")
                staged.rename(target)
            flush_folder(self._root)
        return Adapter(id=card.id, path=target)

    def use(
        self, adapter_id: str, *, by_force: bool = False, test: Callable[[Adapter], None] = _untested
    ) -> Adapter | None:
        """Promote an adapter (`none`: the bare base): it is in use from now on.

        `test` loads it and generates with it, and raises when that fails. Raises AdapterError when the adapter cannot
        be used, and whatever `test` raises; the one before then stays in use.
        """
        if adapter_id != NONE:
            test(self._usable(adapter_id))
        with self._locked():
            adapter = self._promote(adapter_id)
            history = self._history()
            if not history:  # what was in use before the first promotion, for a rollback
                default = self._bundled_default(
                    self.card(adapter_id).base if adapter else next(iter(self._bundled), None)
                )
                history.append(default.id if default else NONE)
            self._write_history([*history, adapter_id] if history[-1] != adapter_id else history)
            if by_force and adapter is not None and not self.is_bundled(adapter_id):
                card = self.card(adapter_id)
                self._rewrite(replace(card, promoted_by_force=card.passed is False))
            return adapter

    def rollback(self) -> Adapter | None:
        """Promote the adapter before the current one, skipping those that can no longer be used; None for the bare
        base. Each call goes one further back.

        Raises AdapterError when there is none.
        """
        with self._locked():
            history = self._history()
            active = history.pop() if history else None
            while history and (history[-1] == active or not (history[-1] == NONE or self._is_usable(history[-1]))):
                skipped = history.pop()
                if skipped != active:
                    log.warning("%s is skipped: it is out of service, damaged or missing", skipped)
            if not history:
                raise AdapterError(
                    "there is no earlier adapter to roll back to: `person2 adapters use ID` promotes one"
                )
            adapter = self._promote(history[-1])
            self._write_history(history)
            return adapter

    def withdraw(self, adapter_id: str, reason: str, *, erase: bool = False) -> Adapter | None:
        """Take an adapter out of service permanently; it stays in the registry but is never used again. `erase` deletes
        its weights, which contain what it learned; the card stays.

        Returns the adapter in use now. If the withdrawn one was, that is the newest adapter for the same base that was
        in use before or passed the gate, else the bundled one, else none: never one that was not evaluated.
        """
        with self._locked():
            card = self.card(adapter_id)
            if self.is_bundled(adapter_id):
                raise AdapterError(
                    f"{adapter_id!r} comes with the program and was not trained on members' words: choose another"
                )
            if erase:
                self._erase(adapter_id)
            if not card.withdrawn:
                card = replace(card, withdrawn=" ".join(reason.split()) or "withdrawn")
                self._rewrite(card)
            self.trials.withdrawn(adapter_id)
            if self._promoted() == adapter_id:
                successor = self._fallback(adapter_id, card.base)
                history = [entry for entry in self._history() if entry != adapter_id]
                self._point(successor.id if successor else NONE)
                self._write_history([*history, successor.id if successor else NONE])
        return self.current(base=card.base)

    def begin_trial(
        self,
        adapter_id: str,
        *,
        share: float,
        days: int,
        base: str | None = None,
        test: Callable[[Adapter], None] = _untested,
    ) -> Trial:
        """Let an adapter answer in a `share` of the conversations beside the current one; `test` is that of `use`.

        Raises AdapterError when it cannot be used, is current, or another is on trial, and whatever `test` raises.
        """
        test(self._usable(adapter_id))
        current = self.current(base=base)
        return self.trials.begin(adapter_id, current.id if current else NONE, share=share, days=days)

    def successor(self, adapter_id: str, *, base: str | None = None) -> Adapter | None:
        """The adapter to use where this one cannot be, by the rule of `withdraw`; None for the bare base."""
        return self._fallback(adapter_id, base)

    # inside

    def _roots(self) -> Iterator[Path]:
        yield self._root
        yield from self._bundled.values()

    def _folders(self) -> Iterator[Path]:
        seen: set[str] = set()
        for root in self._roots():
            for folder in sorted(root.iterdir()) if root.is_dir() else ():
                if _ID.fullmatch(folder.name) and (folder / CONFIG).is_file() and folder.name not in seen:
                    seen.add(folder.name)
                    yield folder

    def _promoted(self) -> str | None:
        return read_text(self.pointer).strip() or None

    def _made_for_another(self, adapter_id: str, base: str | None) -> bool:
        """Whether an adapter was made for another base than this one, which ships with an adapter of its own."""
        try:
            return self.card(adapter_id).base != base
        except AdapterError:
            return False

    def _is_in_service(self, adapter_id: str) -> bool:
        try:
            return not self.card(adapter_id).withdrawn
        except AdapterError:
            return False

    def _usable(self, adapter_id: str) -> Adapter:
        """An adapter in service with the weights that its card names. Raises AdapterError."""
        adapter, card = self.in_service(adapter_id), self.card(adapter_id)
        check(adapter.path)
        if card.weights_sha256 and weights_sha256(adapter.path) != card.weights_sha256:
            raise AdapterError(f"the weights of {adapter_id!r} do not match its card: copy or train it again")
        return adapter

    def _is_usable(self, adapter_id: str) -> bool:
        try:
            self._usable(adapter_id)
        except AdapterError:
            return False
        return True

    def _erase(self, adapter_id: str) -> None:
        """Delete an adapter's weights. Where its folder is a link, only the link is deleted, not what it points to."""
        folder = self.path(adapter_id)
        if not folder.is_symlink():
            (folder / WEIGHTS).unlink(missing_ok=True)
            return
        log.warning("%s is a link to %s, which is not touched: delete the weights there", folder, folder.resolve())
        config, card = (folder / CONFIG).read_bytes(), self.card(adapter_id)
        folder.unlink()
        folder.mkdir()
        (folder / CONFIG).write_bytes(config)
        write_atomically(folder / CARD, card.to_json())

    def _bundled_default(self, base: str | None) -> Adapter | None:
        """The bundled adapter that is used by default: the one that `current` there names, else the newest."""
        folder = self._bundled.get(base or "")
        if folder is None:
            return None
        named = read_text(folder / CURRENT).strip()
        cards = [card for card in self.cards() if self.path(card.id).parent == folder and card.id == (named or card.id)]
        return Adapter(id=cards[0].id, path=self.path(cards[0].id)) if cards else None

    def _fallback(self, lost: str, base: str | None) -> Adapter | None:
        cards = {card.id: card for card in self.cards() if not card.withdrawn and card.id != lost}
        try:
            wanted = self.card(lost).base_fingerprint
        except AdapterError:
            wanted = ""
        before = [entry for entry in reversed(self._history()) if entry in cards]
        passed = [card.id for card in cards.values() if card.passed]
        for adapter_id in (*before, *passed):
            if same_base(cards[adapter_id].base_fingerprint, wanted) and self._is_usable(adapter_id):
                return Adapter(id=adapter_id, path=self.path(adapter_id))
        default = self._bundled_default(base)
        return default if default and default.id != lost else None

    def _promote(self, adapter_id: str) -> Adapter | None:
        if adapter_id == NONE:
            self._point(NONE)
            return None
        adapter = self._usable(adapter_id)
        self._point(adapter_id)
        return adapter

    def _point(self, adapter_id: str) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.pointer, f"{adapter_id}\n")
        self.trials.promoted(adapter_id)

    def _history(self) -> list[str]:
        lines = read_text(self._root / "history").splitlines()
        return [words[-1] for line in lines if (words := line.split())]

    def _write_history(self, entries: Iterable[str]) -> None:
        """One line per entry, `2026-11-22T18:00:00+00:00 id`; entries that stay keep the time of their promotion."""
        known = {line.split()[-1]: line for line in read_text(self._root / "history").splitlines() if line.split()}
        now = self._clock().isoformat(timespec="seconds")
        lines = [known.get(entry, f"{now} {entry}") for entry in entries]
        write_atomically(self._root / "history", "".join(f"{line}\n" for line in lines[-MAX_HISTORY:]))

    def _rewrite(self, card: Card) -> None:
        write_atomically(self.path(card.id) / CARD, card.to_json())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, over all processes; the lock ends with its holder."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._root / ".lock", "a+b", opener=private_opener) as handle:
                lock(handle.fileno())
                for left in self._root.glob(f"{STAGED}*"):  # left by a killed writer: this one holds the lock
                    shutil.rmtree(left, ignore_errors=True)
                yield  # closing the file releases the lock
        except OSError as error:  # shutil.Error is one
            raise AdapterError(
                f"the adapters in {self._root} cannot be written ({reason(error)}): check PERSON2_HOME, its permissions"
                " and the space left"
            ) from error

    def sweep(self) -> None:
        """Delete what killed writers left of an adapter. Raises AdapterError."""
        if any(self._root.glob(f"{STAGED}*")):
            with self._locked():
                pass


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long
        return False
