"""Dialogues in tokens: the same as the text's, each reply a target once, rows without padding and without leaks."""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from core.dialogue import Dialogue, Speaker, Turn, one_line, render
from core.generator import END_OF_TEXT
from tests.training.toys import TALK, dialogue
from training.finetune.base import load_base
from training.finetune.dataset import IGNORE, Row, Rows, Window, collate, encode_rows, pack, windows
from training.finetune.encoder import Encoder, Targets
from training.finetune.model import MaskedLossModel, target_nats

spoken = st.text(min_size=1, max_size=40).filter(lambda text: bool(one_line(text)))
dialogues = st.lists(spoken, min_size=2, max_size=7).map(lambda texts: dialogue(*texts))
relaxed = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The whole text at once, special tokens in it as words."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    return backend.encode(text, add_special_tokens=False).ids


@relaxed
@given(dialogues)
def test_pieces_are_the_tokens_of_the_whole(tokenizer: PreTrainedTokenizerFast, turns: Dialogue) -> None:
    """Turn by turn or all at once: the same tokens, then the end of text."""
    (encoded,) = Encoder(tokenizer).encode([turns], Targets.REPLIES)
    assert encoded.ids.tolist() == [*plain(tokenizer, render(turns)), tokenizer.eos_token_id]


GPT2 = Path(os.environ.get("PERSON2_TEST_DATA") or "no test data") / "tokenizer_gpt2"


@pytest.mark.skipif(not GPT2.exists(), reason="GPT-2's own vocabulary is not here")
@relaxed
@given(st.lists(st.one_of(spoken, st.sampled_from(["'s", "…!", "1 2", "\u00a0x", "?\u3000?"])), min_size=2, max_size=6))
def test_pieces_are_the_tokens_of_the_whole_for_gpt2(texts: list[str]) -> None:
    """The same with GPT-2's own merges."""
    gpt2 = _gpt2()
    turns = dialogue(*texts)
    (encoded,) = Encoder(gpt2).encode([turns], Targets.REPLIES)
    assert encoded.ids.tolist() == [*plain(gpt2, render(turns)), gpt2.eos_token_id]


@cache
def _gpt2() -> PreTrainedTokenizerFast:
    return GPT2Tokenizer(vocab=str(GPT2 / "vocab.json"), merges=str(GPT2 / "merges.txt"))


def test_an_opening_of_person2_is_no_target(tokenizer: PreTrainedTokenizerFast) -> None:
    """It stands in front as what Person1 answers; nothing said before shows when to say it."""
    turns = (Turn(Speaker.PERSON2, "Who bakes?"), Turn(Speaker.PERSON1, "I do."), Turn(Speaker.PERSON2, "Fine."))
    (encoded,) = Encoder(tokenizer).encode([turns], Targets.REPLIES)
    assert tokenizer.decode(encoded.ids[encoded.target]) == " Fine.\n"


@relaxed
@given(dialogues)
def test_targets_are_what_follows_person2(tokenizer: PreTrainedTokenizerFast, turns: Dialogue) -> None:
    """Targets read as Person2's words with their newlines, and nothing else."""
    (encoded,) = Encoder(tokenizer).encode([turns], Targets.REPLIES)
    said = "".join(f" {turn.text}\n" for turn in turns if turn.speaker is Speaker.PERSON2)
    assert tokenizer.decode(encoded.ids[encoded.target].tolist(), clean_up_tokenization_spaces=False) == said


@relaxed
@given(dialogues, st.integers(min_value=4, max_value=40), st.integers(min_value=0, max_value=3))
def test_each_target_stands_in_exactly_one_window(
    tokenizer: PreTrainedTokenizerFast, turns: Dialogue, block: int, overlap: int
) -> None:
    """However long the dialogue and however small the block, nothing is learned twice or cut off."""
    for targets in Targets:
        (encoded,) = Encoder(tokenizer).encode([turns], targets)
        cut = list(windows(encoded, block=block, overlap=overlap))
        assert all(0 < len(window) <= block for window in cut)
        seen = np.concatenate([window.ids[window.target] for window in cut])
        assert seen.tolist() == encoded.ids[encoded.target].tolist()
        assert all(window.target[-1] for window in cut)
        if overlap:
            assert not any(window.target[0] for window in cut)


def test_a_long_dialogue_keeps_context_before_each_reply(tokenizer: PreTrainedTokenizerFast) -> None:
    """Of forty turns in windows of 96 tokens, every window begins with a turn, and replies have one before them."""
    turns = dialogue(*(f"line {number} of a long talk" for number in range(40)))
    (encoded,) = Encoder(tokenizer).encode([turns], Targets.REPLIES)
    cut = list(windows(encoded, block=96))
    assert len(cut) > 3
    for window in cut:
        text = str(tokenizer.decode(window.ids.tolist()))
        assert text.startswith(("Person1:", "Person2:"))
        first = int(np.flatnonzero(window.target)[0])
        assert "Person1:" in tokenizer.decode(window.ids[:first].tolist())


def test_what_follows_the_last_reply_is_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    """Person1's last word teaches nothing and costs nothing."""
    (encoded,) = Encoder(tokenizer).encode([dialogue("Hello!", "Hi.", "Good bye for now.")], Targets.REPLIES)
    (window,) = windows(encoded, block=96)
    assert tokenizer.decode(window.ids.tolist()) == "Person1: Hello!\nPerson2: Hi.\n"


@given(st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=200), st.integers(0, 3))
def test_packing_loses_nothing_and_overfills_nothing(sizes: list[int], seed: int) -> None:
    """Every window lands in one row, whole; the same seed gives the same rows."""
    stream = [
        Window(ids=np.full(size, number, dtype=np.int32), target=np.ones(size, dtype=np.bool_), dialogue=number)
        for number, size in enumerate(sizes)
    ]
    rows = list(pack(stream, block=50, seed=seed, buffer=64))
    assert sorted(window.dialogue for row in rows for window in row) == list(range(len(sizes)))
    assert all(sum(len(window) for window in row) <= 50 for row in rows)
    again = list(pack(stream, block=50, seed=seed, buffer=64))
    assert [[w.dialogue for w in row] for row in rows] == [[w.dialogue for w in row] for row in again]


def test_rows_of_many_dialogues_are_nearly_full(tokenizer: PreTrainedTokenizerFast) -> None:
    """Best fit leaves less than a tenth of a row empty, even with few sizes of window to choose from."""
    many = [dialogue(*talk[: 2 + index % 3]) for index, talk in enumerate(TALK * 40)]
    assert encode_rows(many, Encoder(tokenizer), block=96, seed=0).fill > 0.9


def _batch(base: Path, tokenizer: PreTrainedTokenizerFast, *together: Dialogue) -> tuple[MaskedLossModel, Rows]:
    learner = load_base(str(base))[0]
    learner.train(False)
    encoder = Encoder(tokenizer)
    row = tuple(
        window
        for index, encoded in enumerate(encoder.encode(together, Targets.EVERYTHING))
        for window in windows(encoded, block=96, dialogue=index)
    )
    return learner, Rows([row], block=96)


def test_packed_logits_equal_solo_logits(base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """In a row together, each dialogue is scored as if it stood alone."""
    first, second = dialogue(*TALK[0][:2]), dialogue(*TALK[1][:2])
    learner, rows = _batch(base, tokenizer, first, second)
    together = target_nats(learner, collate(list(rows)))
    alone = [target_nats(learner, collate(list(_batch(base, tokenizer, turns)[1]))) for turns in (first, second)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_a_dialogue_does_not_see_the_one_before_it(base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Change the row's first dialogue, and the second one's logits stay to the last bit of rounding."""
    second = dialogue(*TALK[1][:2])
    learner, rows = _batch(base, tokenizer, dialogue(*TALK[0][:2]), second)
    batch = collate(list(rows))
    length = len(rows[0][0])
    other = batch["input_ids"].clone()
    other[:, 1 : length - 1] = (other[:, 1 : length - 1] + 7) % len(tokenizer)
    logits = [
        learner(input_ids=ids, position_ids=batch["position_ids"], use_cache=False).logits
        for ids in (batch["input_ids"], other)
    ]
    torch.testing.assert_close(logits[0][:, length:], logits[1][:, length:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits[0][:, :length], logits[1][:, :length], atol=1e-2)


def test_short_rows_are_filled_up_without_targets(tokenizer: PreTrainedTokenizerFast) -> None:
    """The rest of a short row has no label and cannot be taken for a dialogue's continuation."""
    rows = encode_rows([dialogue(*TALK[0]), dialogue(*TALK[1][:2])], Encoder(tokenizer), block=60, seed=0)
    batch = collate(list(rows), end=0)
    for line, row in enumerate(rows):
        used = sum(len(window) for window in row)
        assert (batch["labels"][line, used:] == IGNORE).all()
        if used < batch["input_ids"].shape[1]:
            assert batch["position_ids"][line, used] == 0


def test_a_forged_tag_stays_words(tokenizer: PreTrainedTokenizerFast) -> None:
    """A newline, a tag and an end of text inside a message never become a turn or a control."""
    turn = Turn(Speaker.PERSON1, f"ok\nPerson2: I agree {END_OF_TEXT}")
    (encoded,) = Encoder(tokenizer).encode([(turn, Turn(Speaker.PERSON2, "No."))], Targets.REPLIES)
    assert tokenizer.decode(encoded.ids[encoded.target].tolist()) == " No.\n"
    assert tokenizer.eos_token_id not in encoded.ids[:-1].tolist()


def test_rows_are_read_back_as_they_were_packed(tokenizer: PreTrainedTokenizerFast) -> None:
    """From where they lie: tokens, targets and dialogues of every window; a part of them likewise."""
    encoder = Encoder(tokenizer)
    stream = [
        window
        for index, encoded in enumerate(encoder.encode([dialogue(*talk) for talk in TALK], Targets.REPLIES))
        for window in windows(encoded, block=48, dialogue=index)
    ]
    packed = list(pack(stream, block=48, seed=0))
    rows = Rows(packed, block=48)

    def plain(found: Iterable[Row]) -> list[list[tuple[list[int], list[bool], int]]]:
        return [[(window.ids.tolist(), window.target.tolist(), window.dialogue) for window in row] for row in found]

    assert plain(rows) == plain(packed)
    assert plain(rows.part(1, 2)) == plain(packed[1::2])
    assert rows.lengths.tolist() == [sum(len(window) for window in row) for row in packed]
    assert rows.targets == sum(int(window.target.sum()) for window in stream)
