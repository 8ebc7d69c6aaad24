"""Messages → two-person dialogues: who answers whom, reply paths, whose side is Person2's. Pure.

Knows links, paths and sides; knows no export format, no file, and no platform but that of plain dialogue files. Links
come from reply links first, then from a `Linker` (the disentangler, or the message before). A path is cut wherever
words may not be used, so that a gap stays a gap. No message is a target twice.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

from core.dialogue import Dialogue, Speaker, Turn, merge, one_line, render
from core.messages import Message
from training.data import names, pii, reply_links
from training.data.fingerprints import fingerprints
from training.data.names import Names
from training.data.pii.phones import COUNTRIES
from training.data.reply_links import Linker

READY_MADE = "dialogues"
"""The platform of files that are dialogues already (`formats.dialogue_files`): their sides stay as they are."""
CONTEXT = 8
"""Messages of an earlier path that are repeated, as context, before a later branch."""
MAX_TURNS = 40
"""Turns of one dialogue; a longer path is cut into several. GPT-2's context holds about this many."""
MAX_TURN = 1200
"""Characters of one turn; of a longer monologue Person1 keeps the end, Person2 the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionRules:
    """What may be used, and how. Persons are `platform:id` throughout."""

    gap: timedelta
    """Links of the linker across a longer silence are ignored."""
    allowed: frozenset[str] | None = None
    """Whose words may be used; None for everybody's."""
    targets: frozenset[str] | None = None
    """Who may be Person2; None for anybody."""
    liked: frozenset[str] = frozenset()
    """Ids of the bot's own messages that a person liked."""
    copied: frozenset[int] = frozenset()
    """Copy hashes of copy-pasta."""
    blocked: re.Pattern[str] | None = None
    max_message: int = 4000
    min_turns: int = 2
    min_words: int = 5
    names: Names | None = None
    """People whose names become tags; None leaves names as they are."""
    countries: tuple[str, ...] = COUNTRIES
    """Whose national telephone numbers are masked."""
    language: Callable[[str], bool] | None = None
    """Whether a dialogue's language is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A dialogue ready to be written."""

    text: str
    turns: int
    words: int
    people: tuple[tuple[str, int], ...]
    """`platform:id` of everybody whose words are in it with how many of their messages: Person2 first, then the others
    in order of appearance."""
    began: int
    """Microseconds since 1970 at which its conversation began: all of its dialogues are held out, or none."""
    messages: int
    """Messages used here for the first time."""
    fingerprints: tuple[int, ...]


@dataclass(slots=True)
class Made:
    """The dialogues of a segment of talk, and what was dropped, by reason."""

    drafts: list[Draft] = field(default_factory=list)
    conversations: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages."""
    dialogues_dropped: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    links: Counter[str] = field(default_factory=Counter)
    """Answers, by how it was found what they answer."""


def person(message: Message) -> str:
    return f"{message.conversation.platform}:{message.author}"


def dialogues(
    segments: Sequence[Sequence[Message]],
    *,
    linker: Linker,
    rules: ProjectionRules,
    copies: Sequence[Sequence[int]] = (),
) -> Made:
    """Dialogues of one conversation, given as segments between silences, in time order.

    A reply link may reach back across a silence; the linker may not. `copies` are the messages' copy hashes.
    """
    made = Made()
    messages = [message for segment in segments for message in segment]
    if not messages:
        return made
    flat_copies = [copy for segment in copies for copy in segment] or [0] * len(messages)
    ready_made = messages[0].conversation.platform == READY_MADE
    everyday = rules.names.everyday(message.text for message in messages) if rules.names else frozenset()
    texts = [
        _usable(message, copy, rules, made, None if ready_made else everyday)
        for message, copy in zip(messages, flat_copies, strict=True)
    ]
    if ready_made:
        made.conversations = 1
        made.drafts = [draft for draft in [_ready_made(messages, texts, rules, made)] if draft is not None]
        return made
    parents = reply_links.parents(segments, linker, rules.gap, found_by=made.links)
    speakers = [person(message) for message in messages]
    used: set[int] = set()
    shown: set[int] = set()
    for root, paths in _components(parents):
        made.conversations += 1
        began = _microseconds(messages[root])
        for path in paths:
            for run in _runs(path, messages, texts, rules):
                _add_dialogues(run, messages, speakers, texts, rules, used, shown, began, made)
    usable = sum(text is not None for text in texts)
    made.dropped["in no dialogue"] += usable - len(shown)
    return made


def _usable(
    message: Message, copy: int, rules: ProjectionRules, made: Made, everyday: frozenset[str] | None
) -> str | None:
    """The message's words as they may be written; None, counted by reason, where they may not.

    Names in them are marked (`names.resolve` makes tags of them), except with None as `everyday`.
    """
    reason = None
    text = ""
    if not message.text or (
        rules.allowed is not None and person(message) not in rules.allowed and not message.from_bot
    ):
        reason = "no consent"  # words without consent in the bot's own log were blanked before
    elif copy in rules.copied and copy:
        reason = "copy-pasta"
    elif len(message.text) > rules.max_message:
        reason = "too long"
    elif rules.blocked is not None and rules.blocked.search(message.text):
        reason = "block list"
    else:
        text = pii.scrub(message.text, countries=rules.countries)
        if rules.names is not None and everyday is not None:
            text = rules.names.mark(text, everyday=everyday)
        text = one_line(text)
        if not pii.has_words(names.resolve(text, {})):
            # An emoji or a number is an answer too; the placeholder of a masked link is not.
            reason = "no words" if not text or any(mark in text for mark in pii.PLACEHOLDERS) else None
    if reason is not None:
        made.dropped[reason] += 1
        return None
    if "[" in text:
        for mark in pii.PLACEHOLDERS:
            count = text.count(mark) - message.text.count(mark)
            if count > 0:
                made.masked[mark.strip("[]")] += count
    return text


def _components(parents: Sequence[int | None]) -> list[tuple[int, list[list[int]]]]:
    """Every conversation with its reply paths, the longest first; a branch repeats at most `CONTEXT` messages.

    Together the paths contain every message, and their lengths add up to at most the messages plus `CONTEXT` a branch.
    """
    depth = [0] * len(parents)
    has_answer = [False] * len(parents)
    root = list(range(len(parents)))
    leaves: dict[int, list[int]] = {}
    for index, parent in enumerate(parents):
        if parent is not None:
            depth[index] = depth[parent] + 1
            has_answer[parent] = True
            root[index] = root[parent]
    for index, answered in enumerate(has_answer):
        if not answered:
            leaves.setdefault(root[index], []).append(index)
    passed = [False] * len(parents)
    found = []
    for top in sorted(leaves):
        paths = []
        for leaf in sorted(leaves[top], key=lambda leaf: (-depth[leaf], leaf)):
            path: list[int] = []
            at: int | None = leaf
            again = 0
            while at is not None and again < CONTEXT:
                again += passed[at]
                path.append(at)
                at = parents[at]
            for index in path:
                passed[index] = True
            paths.append(path[::-1])
        found.append((top, paths))
    return found


def _runs(
    path: Sequence[int], messages: Sequence[Message], texts: Sequence[str | None], rules: ProjectionRules
) -> list[list[int]]:
    """The runs of a path whose words may all be used; the bot's own lines that nobody liked divide it too."""
    runs: list[list[int]] = [[]]
    for index in path:
        if texts[index] is None or (messages[index].from_bot and messages[index].id not in rules.liked):
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if len(run) > 1]


def _add_dialogues(
    run: Sequence[int],
    messages: Sequence[Message],
    speakers: Sequence[str],
    texts: Sequence[str | None],
    rules: ProjectionRules,
    used: set[int],
    shown: set[int],
    began: int,
    made: Made,
) -> None:
    """Turn one run into dialogues. `used` are messages that were a target, `shown` those in any dialogue."""
    target, start = _target(run, messages, speakers, rules, used)
    if target is None:
        return
    for piece in _pieces(run[start:], speakers, texts, target):
        turns = _turns(piece, messages, texts)
        reason = _unfit(turns, rules)
        if reason is not None:
            made.dialogues_dropped[reason] += 1
            continue
        kept = [index for _, indices in piece for index in indices]
        used.update(index for index in kept if speakers[index] == target)
        made.drafts.append(_draft(turns, kept, speakers, target, began, fresh=len(set(kept) - shown)))
        shown.update(kept)


def _target(
    run: Sequence[int], messages: Sequence[Message], speakers: Sequence[str], rules: ProjectionRules, used: set[int]
) -> tuple[str | None, int]:
    """Who is Person2, and from which message on: whoever answers most often with messages that were no target yet.

    Where the bot itself spoke, it is the bot. Ties go to whoever spans most of the talk.
    """
    here = [speakers[index] for index in run]
    bots = {speaker for speaker, index in zip(here, run, strict=True) if messages[index].from_bot}
    start = dict.fromkeys(bots or (set(here) if rules.targets is None else rules.targets & set(here)), 0)
    answers: dict[str, list[int]] = {speaker: [] for speaker in start}
    before = here[0]
    for at, speaker in enumerate(here):
        if speaker in start:
            if run[at] in used:
                start[speaker] = at + 1
                answers[speaker].clear()
            elif speaker != before and at > start[speaker]:
                answers[speaker].append(at)
        before = speaker
    ranked = sorted(
        (-len(given), start[speaker] - given[-1], given[0], speaker) for speaker, given in answers.items() if given
    )
    return (ranked[0][3], start[ranked[0][3]]) if ranked else (None, 0)


def _pieces(
    run: Sequence[int], speakers: Sequence[str], texts: Sequence[str | None], target: str
) -> list[list[tuple[Speaker, list[int]]]]:
    """Adjacent lines of one side merged; pieces end with Person2 and have at most `MAX_TURNS`.

    Where Person2 opened the talk, that turn is kept as what Person1 answers, and is not a target.
    """
    sides: list[tuple[Speaker, list[int]]] = []
    for index in run:
        side = Speaker.PERSON2 if speakers[index] == target else Speaker.PERSON1
        if sides and sides[-1][0] is side:
            sides[-1][1].append(index)
        else:
            sides.append((side, [index]))
    if sides and sides[-1][0] is Speaker.PERSON1:
        sides = sides[:-1]
    short = [(side, _shorten(side, indices, texts)) for side, indices in sides]
    first = MAX_TURNS + (sides[0][0] is Speaker.PERSON2) if sides else 0
    cuts = [0, *range(first, len(short), MAX_TURNS), len(short)]
    return [short[start:end] for start, end in pairwise(cuts) if start < end]


def _shorten(side: Speaker, indices: list[int], texts: Sequence[str | None]) -> list[int]:
    """Whole messages up to `MAX_TURN` characters, at least one."""
    kept: list[int] = []
    length = 0
    for index in reversed(indices) if side is Speaker.PERSON1 else indices:
        length += len(texts[index] or "")
        if kept and length > MAX_TURN:
            break
        kept.append(index)
    return sorted(kept)


def _turns(
    piece: Sequence[tuple[Speaker, list[int]]], messages: Sequence[Message], texts: Sequence[str | None]
) -> Dialogue:
    sides = {person(messages[index]): side for side, indices in piece for index in indices}
    return tuple(
        Turn(side, names.resolve(" ".join(texts[index] or "" for index in indices), sides)) for side, indices in piece
    )


def _unfit(turns: Dialogue, rules: ProjectionRules) -> str | None:
    """Why a dialogue is not worth training on, or None."""
    if len(turns) < rules.min_turns or len({turn.speaker for turn in turns}) < 2:
        return "too few turns"
    if sum(turn.text.count(" ") + 1 for turn in turns) < rules.min_words:
        return "too few words"
    if not any(pii.has_words(turn.text) for turn in turns if turn.speaker is Speaker.PERSON2):
        return "Person2 says nothing in words"
    if rules.language is not None and not rules.language(" ".join(turn.text for turn in turns)):
        return "other language"
    return None


def _draft(
    turns: Dialogue, kept: Sequence[int], speakers: Sequence[str], target: str, began: int, *, fresh: int
) -> Draft:
    text = render(turns)
    people = Counter(speakers[index] for index in kept)
    return Draft(
        text=text,
        turns=len(turns),
        words=text.count(" "),
        people=tuple(sorted(people.items(), key=lambda one: one[0] != target)),
        began=began,
        messages=fresh,
        fingerprints=fingerprints(turns),
    )


def _ready_made(
    messages: Sequence[Message], texts: Sequence[str | None], rules: ProjectionRules, made: Made
) -> Draft | None:
    """A dialogue of a plain file as it is; words that may not be used cut it short."""
    kept: list[int] = []
    for index, text in enumerate(texts):
        if text is None:
            break
        kept.append(index)
    turns = merge(Turn(Speaker(messages[index].author), texts[index] or "") for index in kept)
    reason = _unfit(turns, rules)
    if reason is not None:
        made.dialogues_dropped[reason] += 1
        made.dropped["in no dialogue"] += sum(text is not None for text in texts)
        return None
    made.dropped["in no dialogue"] += sum(text is not None for text in texts) - len(kept)
    speakers = [person(message) for message in messages]
    target = next(speakers[index] for index in kept if Speaker(messages[index].author) is Speaker.PERSON2)
    return _draft(turns, kept, speakers, target, _microseconds(messages[0]), fresh=len(kept))


def _microseconds(message: Message) -> int:
    return int(message.sent_at.timestamp() * 1_000_000)
