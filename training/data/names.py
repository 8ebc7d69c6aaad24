"""Names of an export's own people in its messages: found once, and replaced by the tag of the person's side.

Knows the authors of an export, as `platform:id` with their names, and how people write names: `@Name`, `nick:` and
`nick,` before a line, a full name, a name alone. Sides are known only when a dialogue is cut out of the talk, so a name
first becomes a mark, and the mark a tag. Knows no list of names or words: whether a name is also an everyday word
("will", "mark") is told by how the talk itself uses it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from core.dialogue import Speaker
from training.data.pii import NAME, PLACEHOLDERS

SHORTEST = 3
"""Letters of a name that is recognised on its own; shorter ones are taken for words."""
MAX_WORDS = 4
"""Words of a display name that are looked for."""
ADDRESSED = 0.25
"""A word is a name where at least this share of its uses addresses somebody or is capitalised inside a sentence."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_SIGNS = re.compile(f"[{_OPEN}{_CLOSE}]")
_TOKEN = re.compile(r"\S+")
_HANDLE = re.compile(r"(?<![\w@`/.])@(?!(?:everyone|here|channel)\b)[^\W\d_][\w-]{1,31}(?![\w(`@]|\.\w)")
_BEFORE = "(\"'“‘*_<[«„‹~"
_BEHIND = ".,:;!?)\"'”’“‘*_>]…»›~？！，。：、"
_AROUND = _BEFORE + _BEHIND + "@"
_APART = re.compile(r"['’][sS](?![^\W_])|[/&+|;,:—–~«»？！，。：、]+")
"""What may join a name and another word: `Mia's`, `Mia/Leo`, `hello,Mia`."""
_WITHIN = re.compile(r"['’][sS](?![^\W_])|[^\s/][/&+|;,:—–~«»？！，。：、][^\s/]")
_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))


class Names:
    """Everybody's names, by their first word."""

    def __init__(self, people: Mapping[str, Iterable[str]]) -> None:
        """`people`: `platform:id` → their names."""
        self._bearers: dict[str, dict[tuple[str, ...], set[str]]] = {}
        self._cores: set[str] = set()
        """First words of all names without punctuation around them: a quick check, as no name begins otherwise."""
        for person, names in people.items():
            for name in names:
                words = tuple(name.removeprefix("@").casefold().split())
                if words and len(words) <= MAX_WORDS and any(c.isalpha() for c in words[0]):
                    self._bearers.setdefault(words[0], {}).setdefault(words, set()).add(person)
                    self._cores.add(words[0].strip(_AROUND))

    def everyday(self, texts: Iterable[str]) -> frozenset[str]:
        """Which one-word names these texts use as words: they count as names only where they are addressed."""
        used: Counter[str] = Counter()
        named: Counter[str] = Counter()
        for text in texts:
            if not self._may_stand_in(text):
                continue
            for at, token in enumerate(text.split()):
                bare = token.strip(_AROUND)
                word = bare.casefold()
                if word in self._bearers:
                    used[word] += 1
                    address = token.startswith("@") or (at == 0 and token[-1] in ":,")
                    named[word] += address or (at > 0 and bare[:1].isupper()) or not bare.isalpha()
        return frozenset(word for word, count in used.items() if named[word] < ADDRESSED * count)

    def mark(self, text: str, *, everyday: frozenset[str] = frozenset()) -> str:
        """The text with a mark for every name; `resolve` makes tags of them. Lines are kept."""
        if not text.isascii():
            text = _SIGNS.sub("", text)
        if "@" not in text and not self._may_stand_in(text) and not self._may_stand_in_pieces(text):
            return text
        return "\n".join(self._marked(line, everyday) for line in text.split("\n"))

    def _may_stand_in(self, text: str) -> bool:
        return not self._cores.isdisjoint([token.strip(_AROUND) for token in text.casefold().split()])

    def _may_stand_in_pieces(self, text: str) -> bool:
        return _WITHIN.search(text) is not None and not self._cores.isdisjoint(
            [piece.strip(_AROUND) for token in text.casefold().split() for piece in _APART.split(token)]
        )

    def _tokens(self, line: str) -> Iterator[tuple[int, int]]:
        """Where words begin and end; what is joined without being a name is divided."""
        for found in _TOKEN.finditer(line):
            start, end = found.span()
            if found[0].casefold().strip(_AROUND) not in self._cores and "//" not in found[0]:
                for sign in _APART.finditer(line, start, end):
                    possessive = sign[0][0] in "'’"
                    if start < sign.start() and (possessive or sign.end() < end):
                        yield start, sign.start()
                        start = sign.start() if possessive else sign.end()
            if start < end:
                yield start, end

    def _marked(self, line: str, everyday: frozenset[str]) -> str:
        tokens = list(self._tokens(line))
        out: list[str] = []
        done = at = 0
        while at < len(tokens):
            found = self._at(line, tokens, at, everyday)
            if found is None:
                at += 1
                continue
            start, end, people, behind, count = found
            out += [line[done:start], _OPEN, " ".join(sorted(people)), _CLOSE, behind]
            done = end
            at += count
        marked = "".join([*out, line[done:]])
        return _HANDLE.sub(f"{_OPEN}{_CLOSE}", marked) if "@" in marked else marked

    def _at(
        self, line: str, tokens: Sequence[tuple[int, int]], at: int, everyday: frozenset[str]
    ) -> tuple[int, int, set[str], str, int] | None:
        """The name that begins at a token: start, end, whose it is, what to write after it, number of tokens."""
        first, end = tokens[at]
        if line[first:end].casefold().strip(_AROUND) not in self._cores:
            return None
        for start in range(first, end):
            found = self._from(line, tokens, at, start, everyday)
            if found is not None or line[start] not in _BEFORE or _PLACEHOLDER.match(line, start):
                return found
        return None

    def _from(
        self, line: str, tokens: Sequence[tuple[int, int]], at: int, start: int, everyday: frozenset[str]
    ) -> tuple[int, int, set[str], str, int] | None:
        end = tokens[at][1]
        handle = line[start] == "@"
        begin = start + handle
        for tail in _tails(line[begin:end]):
            names = self._bearers.get(line[begin : end - tail].casefold())
            if names is None:
                continue
            for words in sorted(names, key=len, reverse=True):
                last = self._last(line, tokens, at, words, end - tail)
                if last is None:
                    continue
                stop = last
                single = len(words) == 1
                called = at == 0 and _called(line, stop)
                known = (
                    handle
                    or called
                    or not single
                    or (
                        len(words[0]) >= SHORTEST
                        and words[0] not in everyday
                        and (at == 0 or not line[begin:stop].islower())
                    )
                )
                if known:
                    behind = ""
                    if called and not handle and line[stop : stop + 1] == ":":
                        stop, behind = stop + 1, ","  # a tag with a colon would open another turn
                    return start, stop, names[words], behind, len(words)
        return None

    def _last(
        self, line: str, tokens: Sequence[tuple[int, int]], at: int, words: tuple[str, ...], first_end: int
    ) -> int | None:
        """Where the last of `words` ends, if all of them follow."""
        if len(words) == 1:
            return first_end
        if first_end != tokens[at][1] or at + len(words) > len(tokens):
            return None
        for offset, word in enumerate(words[1:], 1):
            start, end = tokens[at + offset]
            token = line[start:end].casefold()
            if offset < len(words) - 1:
                if token != word:
                    return None
            elif token.startswith(word) and all(c in _BEHIND for c in token[len(word) :]):
                return start + len(word)
        return None


def _tails(token: str) -> Iterable[int]:
    """How many characters to leave off at the end of a token: none, then one more punctuation mark at a time."""
    yield 0
    for tail in range(1, len(token)):
        if token[-tail] not in _BEHIND:
            return
        yield tail


def _called(line: str, stop: int) -> bool:
    """Whether a name that begins a line and ends at `stop` addresses somebody: `nick:`, `nick,`, `nick -`."""
    return (
        line[stop : stop + 1] in (":", ",", "：", "，")
        or re.match(r" (?:[:,-]|->?) ", line[stop : stop + 4]) is not None
    )


def resolve(text: str, sides: Mapping[str, Speaker]) -> str:
    """A marked text with the tag of each person's side, or `[name]` where it is unknown; `sides`: by `platform:id`."""

    def tag(found: re.Match[str]) -> str:
        here = {sides[person] for person in found[1].split(" ") if person in sides}
        return str(here.pop()) if len(here) == 1 else NAME

    return _MARK.sub(tag, text) if _OPEN in text else text
