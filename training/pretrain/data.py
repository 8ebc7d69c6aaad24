"""Files → everything a run reads: the tokenizer, the two mixtures, the held-out corpora.

Combines corpora, bpe and rows; knows no network. Encoded corpora are cached in the run's folder, since encoding takes
longer than reading.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from core.dialogue import Speaker
from core.errors import TrainingError
from training.pretrain import bpe, corpora, heldout, rows
from training.pretrain.contrast import ContrastiveData, ContrastiveTask
from training.pretrain.corpora import CorpusSource, PretrainingCorpus
from training.pretrain.heldout import HeldOutCorpus
from training.pretrain.rows import EncodedCorpus, Mixture

BPE_PROSE_CHARACTERS = 2_000_000
"""Characters of each work of prose that the tokenizer is trained on: the words of dialogues matter more."""

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What to read and where to keep it."""

    train: Sequence[CorpusSource]
    cool: Mapping[str, float]
    """Corpus → weight during the cool-down; empty: as before."""
    contrast: Mapping[str, float]
    """Corpus → weight in the contrastive task; empty: no such task."""
    held_out: Sequence[Path]
    cache: Path
    """The run's folder."""
    tokenizer: Path | None
    """A folder whose tokenizer is used."""
    vocabulary: int

    def cool_weight(self, source: CorpusSource) -> float:
        return self.cool.get(source.name, 0.0) if self.cool else source.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Ready to train on."""

    tokenizer: Tokenizer
    corpora: Mapping[str, PretrainingCorpus]
    encoded: Mapping[str, EncodedCorpus]
    main: Mixture
    cool: Mixture
    contrastive: ContrastiveData | None
    held_out: tuple[HeldOutCorpus, ...]


def check(files: Files) -> None:
    """Raises TrainingError for files that contradict each other."""
    names = [source.name for source in files.train]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise TrainingError(f"{', '.join(doubled)} is named twice; name each file once, with one weight.")
    for reader, asked in (("The cool-down reads", files.cool), ("--contrast reads", files.contrast)):
        if missing := sorted(set(asked) - set(names)):
            raise TrainingError(f"{reader} {', '.join(missing)}, which --train does not name; add it there.")
    read = {source.path.resolve() for source in files.train}
    if leaked := [path.name for path in files.held_out if path.resolve() in read]:
        raise TrainingError(f"{', '.join(leaked)} is both trained on and held out; choose one.")


def prepare(
    files: Files,
    *,
    task: ContrastiveTask | None = None,
    row: int,
    cool_row: int,
    seed: int,
    report: Callable[[str], None],
) -> Data:
    """Read, clean, tokenize, mix. Raises TrainingError."""
    check(files)
    loaded = {source.name: corpora.load(source) for source in files.train}
    tokenizer = _tokenizer(files, loaded, report)
    encoded = {name: _encode(corpus, tokenizer, files.cache / "tokens", report) for name, corpus in loaded.items()}
    main = Mixture(
        {source.name: (encoded[source.name], source.weight) for source in files.train}, length=row, seed=seed
    )
    cool = Mixture(
        {
            source.name: (encoded[source.name], weight)
            for source in files.train
            if (weight := files.cool_weight(source))
        },
        length=cool_row,
        seed=seed + 1,
    )
    for title, mixture in (("main", main), ("cool-down", cool)):
        shares = sorted(mixture.shares().items(), key=lambda item: -item[1])
        report(f"{title}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares))
    contrastive = None
    if task is not None:
        contrastive = _contrastive(files, task, encoded, tokenizer, seed=seed)
        shares = sorted(contrastive.shares.items(), key=lambda item: -item[1])
        report("contrastive: " + ", ".join(f"{name} {share:.1%}" for name, share in shares))
    measured = [
        heldout.encode(path.name.removesuffix(".txt"), corpora.held_out(path), tokenizer) for path in files.held_out
    ]
    measured += [
        heldout.encode(f"{name}, every {corpora.HOLD_OUT_EVERY}th", corpus.held_out, tokenizer)
        for name, corpus in loaded.items()
        if corpus.held_out
    ]
    return Data(
        tokenizer=tokenizer,
        corpora=loaded,
        encoded=encoded,
        main=main,
        cool=cool,
        contrastive=contrastive,
        held_out=tuple(measured),
    )


def _tokenizer(files: Files, loaded: Mapping[str, PretrainingCorpus], report: Callable[[str], None]) -> Tokenizer:
    """The given one, else the run's own, else a new one. It is saved with the run in any case."""
    kept = files.cache / TOKENIZER
    if files.tokenizer is None and kept.is_file():
        return bpe.load(kept)
    if files.tokenizer is not None:
        tokenizer = bpe.load(files.tokenizer)
    else:
        report(f"training a tokenizer of {files.vocabulary:,} entries")
        tokenizer = bpe.train(_words(files, loaded), vocabulary=files.vocabulary)
    files.cache.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(kept))
    return tokenizer


def _contrastive(
    files: Files, task: ContrastiveTask, encoded: Mapping[str, EncodedCorpus], tokenizer: Tokenizer, *, seed: int
) -> ContrastiveData:
    tags = {tag: token for tag in bpe.TAGS if (token := tokenizer.token_to_id(tag)) is not None}
    if len(tags) < len(bpe.TAGS):
        raise TrainingError(
            "This tokenizer splits speaker tags into several tokens; --contrast needs one that this tool trained."
        )
    return ContrastiveData(
        {name: (encoded[name], weight) for name, weight in files.contrast.items()},
        task,
        person2=tags[f"{Speaker.PERSON2}:"],
        tags=list(tags.values()),
        seed=seed,
    )


def _words(files: Files, loaded: Mapping[str, PretrainingCorpus]) -> Iterator[str]:
    for source in files.train:
        for text in loaded[source.name].texts:
            yield text[:BPE_PROSE_CHARACTERS] if source.kind == "prose" else text


def _encode(
    corpus: PretrainingCorpus, tokenizer: Tokenizer, cache: Path, report: Callable[[str], None]
) -> EncodedCorpus:
    """The corpus as tokens, from the cache where the same texts met the same tokenizer before."""
    digest = hashlib.sha256(tokenizer.to_str().encode())
    for text in corpus.texts:
        digest.update(text.encode())
        digest.update(b"\0")
    path = cache / f"{digest.hexdigest()[:32]}.npz"
    if not path.is_file():
        report(f"encoding {corpus.name}")
        made = rows.encode(corpus.name, corpus.texts, tokenizer)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, tokens=made.tokens, starts=made.starts, newline=made.newline)
    with np.load(path) as kept:
        return EncodedCorpus(
            name=corpus.name, tokens=kept["tokens"], starts=kept["starts"], newline=int(kept["newline"])
        )
