"""Members who were forgotten: their names are not said, and their old words are not read again.

What is kept of them are keyed hashes (the key lies in `PERSON2_HOME` and never in the database) of who they are and of
the names they bore. Knows text, memory by its face, and how to hash by what is passed in; no list of names or words:
whether a name is also an everyday word ("will", "mark") is told by how people here use it.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeAlias

from core.dialogue import words_of, words_with_places
from core.errors import Person2Error
from core.failures import log_failure
from core.memory import Memory
from core.messages import Message

log = logging.getLogger(__name__)

Hash: TypeAlias = Callable[[str], str]
"""A keyed hash, as hex digits. May raise a Person2Error where the key cannot be read."""

MOST_WORDS = 4
"""Words of a name that are looked for; a longer one is known by so many of its first."""

SHORTEST = 2
"""Letters of a name; a single one is no name that could be told from a word."""

EVERYDAY_USES = 3
"""Uses of a word from which on it may be an everyday one."""
EVERYDAY_SHARE = 0.25
"""Where fewer of its uses than this are an address, or capitalised inside a sentence, it is."""

_SENTENCE_END = re.compile(r"[.!?…:][\"'”’)]*\s*\Z|\A\W*\Z")


def name_words(name: str) -> str:
    """A name as it is looked for: its first words in lower case, without signs; empty where it has no letters."""
    found = words_of(name)[:MOST_WORDS]
    text = " ".join(found)
    return text if sum(map(str.isalpha, text)) >= SHORTEST else ""


def digest_of(hashed: Hash, platform: str, words: str) -> str:
    return hashed(f"name:{platform}:{words}")


def is_everyday(words: str, texts: Iterable[str]) -> bool:
    """Whether people use a name as a word, by what they write."""
    if " " in words:
        return False
    used = named = 0
    for text in texts:
        for word, start, end in words_with_places(text):
            if word == words:
                used += 1
                named += _written_as_name(text, start, end)
    return used >= EVERYDAY_USES and named < EVERYDAY_SHARE * used


def _written_as_name(text: str, start: int, end: int) -> bool:
    """Addressed (`@Will`, `will:` or `will,` in front), or capitalised inside a sentence."""
    front = text[:start]
    if front.endswith("@") or (not front.strip() and text[end : end + 1] in (":", ",")):
        return True
    return text[start].isupper() and not _SENTENCE_END.search(front)


def names_in(text: str, names: Mapping[str, bool], digest: Hash) -> Iterator[str]:
    """The names that stand in a text, in lower case; `names` says of each digest whether it is an everyday word, and
    `digest` gives the digest of a name's words."""
    found = words_with_places(text)
    for at in range(len(found)):
        for count in range(1, MOST_WORDS + 1):
            run = found[at : at + count]
            if len(run) < count:
                break
            words = " ".join(word for word, _, _ in run)
            everyday = names.get(digest(words))
            if everyday is not None and (not everyday or _written_as_name(text, run[0][1], run[-1][2])):
                yield words


class Forgotten:
    """Blocks: to be asked on a thread. Where the key cannot be read that is logged, and nothing is found."""

    def __init__(self, memory: Memory, hashed: Hash) -> None:
        self._memory = memory
        self._hash = hashed

    def names_somebody(self, text: str, platform: str) -> bool:
        """Whether a text says the name of a forgotten member that no member of whom something is stored bears."""
        names = self._memory.forgotten_names(platform)
        if not names:
            return False
        try:
            found = set(names_in(text, names, lambda words: digest_of(self._hash, platform, words)))
        except Person2Error as error:
            log_failure(log, error, "the names of forgotten members cannot be recognised")
            return False
        return bool(found) and not found <= set(map(name_words, self._memory.author_names(platform)))

    def wrote_before(self, message: Message) -> bool:
        """Whether a message was written by a member before they were forgotten."""
        platform = message.conversation.platform
        members = self._memory.forgotten_members(platform)
        if not members:
            return False
        try:
            at = members.get(self._hash(f"{platform}:{message.author}"))
        except Person2Error as error:
            log_failure(log, error, "forgotten members cannot be recognised")
            return False
        return at is not None and message.sent_at <= at


def keep(memory: Memory, hashed: Hash, platform: str, member: str, at: datetime) -> None:
    """Keep what is to be known of a member who is forgotten now, before their words go. Raises Person2Error."""
    names = {words for name in memory.names_of(platform, member) if (words := name_words(name))}
    digests = {
        digest_of(hashed, platform, words): is_everyday(words, memory.texts_with(words, without=member))
        for words in names
    }
    memory.keep_forgotten(platform, hashed(f"{platform}:{member}"), digests, at)
