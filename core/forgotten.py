"""Members who were forgotten: their names are not said, and their old words are not read again.

What is kept of them are keyed hashes (the key lies in `PERSON2_HOME` and never in the database) of who they are and of
the names they bore. Knows text and the interface of memory; the hash function is passed in. Has no list of names or
words: whether a name is also an everyday word ("will", "mark") follows from how people here use it.
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

MAX_WORDS = 4
"""Words of a name that are compared; of a longer name, the first ones."""

MIN_LETTERS = 2
"""Letters that a name must have: a single one cannot be told from a word."""

EVERYDAY_USES = 3
"""Uses that a word needs to count as an everyday one."""
EVERYDAY_SHARE = 0.25
"""It counts as one where a smaller share of its uses is as a name: addressed, or capitalised inside a sentence."""

_SENTENCE_END = re.compile(r"[.!?…:][\"'”’)]*\s*\Z|\A\W*\Z")


def name_words(name: str) -> str:
    """A name as it is compared: its first words in lower case, without punctuation; empty where it has no letters."""
    found = words_of(name)[:MAX_WORDS]
    text = " ".join(found)
    return text if sum(map(str.isalpha, text)) >= MIN_LETTERS else ""


def digest_of(hashed: Hash, platform: str, words: str) -> str:
    return hashed(f"name:{platform}:{words}")


def is_everyday(words: str, texts: Iterable[str]) -> bool:
    """Whether the name is an ordinary word in these texts."""
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
    """The known names in a text, in lower case; `names` says of each digest whether it is an everyday word, and
    `digest` gives the digest of a name's words."""
    found = words_with_places(text)
    for at in range(len(found)):
        for count in range(1, MAX_WORDS + 1):
            run = found[at : at + count]
            if len(run) < count:
                break
            words = " ".join(word for word, _, _ in run)
            everyday = names.get(digest(words))
            if everyday is not None and (not everyday or _written_as_name(text, run[0][1], run[-1][2])):
                yield words


class Forgotten:
    """Blocks: call it on a thread. Where the key cannot be read, that is logged and nothing is found."""

    def __init__(self, memory: Memory, hashed: Hash) -> None:
        self._memory = memory
        self._hash = hashed

    def names_somebody(self, text: str, platform: str) -> bool:
        """Whether a text says a forgotten member's name, unless somebody with stored messages has the same name."""
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
    """Store the hashes of a member who is about to be forgotten, while their messages are still there. Raises
    Person2Error."""
    names = {words for name in memory.names_of(platform, member) if (words := name_words(name))}
    digests = {
        digest_of(hashed, platform, words): is_everyday(words, memory.texts_with(words, without=member))
        for words in names
    }
    memory.keep_forgotten(platform, hashed(f"{platform}:{member}"), digests, at)
