"""Every family learns: rows keep dialogues apart, folded layers are peft's, SentencePiece vocabularies are divided."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from core.dialogue import Speaker, render
from core.generator.families import FAMILIES
from tests.models import TALK as TEXTS
from tests.models import tiny_base
from tests.training.toys import TALK, dialogue
from training.evaluation.ranking import continuation_nats
from training.finetune.base import HALVED_FROM, base_fingerprint, load_base
from training.finetune.config import FinetuneConfig
from training.finetune.dataset import collate, encode_rows, windows
from training.finetune.encoder import Encoder, Targets
from training.finetune.lora import fold
from training.finetune.model import target_nats
from training.finetune.packed import fuse
from training.finetune.run import with_lora

FIRST, SECOND = dialogue(*TALK[0][:2]), dialogue(*TALK[1][:2])


@pytest.fixture(params=sorted(FAMILIES))
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_base(tmp_path / request.param, request.param, positions=128)


def batch(encoder: Encoder, *together: object) -> dict[str, torch.Tensor]:
    """Dialogues in one packed row, every token a target."""
    row = tuple(
        window
        for index, encoded in enumerate(encoder.encode(together, Targets.EVERYTHING))  # type: ignore[arg-type]
        for window in windows(encoded, block=128, dialogue=index)
    )
    return collate([row])


def test_packed_logits_equal_solo_logits(base: Path) -> None:
    """In a row together, each dialogue is scored as if it stood alone."""
    model, tokenizer = load_base(str(base))
    model.train(False)
    encoder = Encoder(tokenizer)
    together = target_nats(model, batch(encoder, FIRST, SECOND))
    alone = [target_nats(model, batch(encoder, turns)) for turns in (FIRST, SECOND)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_a_dialogue_does_not_see_the_one_before_it(base: Path) -> None:
    """Change the row's first dialogue, and the second one's figures stay; with a mask of ones they would not."""
    model, tokenizer = load_base(str(base))
    model.train(False)
    whole = batch(Encoder(tokenizer), FIRST, SECOND)
    length = int((whole["position_ids"][0] == 0).nonzero()[1])
    other = whole["input_ids"].clone()
    other[:, 1 : length - 1] = (other[:, 1 : length - 1] + 7) % len(tokenizer)
    logits = [
        model(input_ids=ids, position_ids=whole["position_ids"], use_cache=False).logits
        for ids in (whole["input_ids"], other)
    ]
    torch.testing.assert_close(logits[0][:, length:], logits[1][:, length:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits[0][:, :length], logits[1][:, :length], atol=1e-2)
    with pytest.raises(ValueError, match="attention mask would undo that"):
        model(**whole, attention_mask=torch.ones_like(whole["input_ids"]))


def test_continuations_share_a_prefix(base: Path) -> None:
    """Replies ranked behind one prefix in one row score as each does alone."""
    model, tokenizer = load_base(str(base))
    model.train(False)
    encoder = Encoder(tokenizer)
    prefix, replies = encoder.prompt(FIRST[:1]), [encoder.reply(f"{text}\n") for text in ("yes", "no, the sea", "hi")]
    (together,) = continuation_nats(model, [(prefix, replies)])
    alone = [continuation_nats(model, [(prefix, [reply])])[0][0] for reply in replies]
    assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 0.15)])
def test_folded_is_peft(base: Path, bf16: bool, tolerance: float) -> None:
    """Loss and every gradient agree, in fp32 closely and in bf16 as far as eight bits go."""
    encoder = Encoder(load_base(str(base))[1])
    rows = collate(list(encode_rows([dialogue(*talk) for talk in TALK], encoder, block=128, seed=0)))
    results = []
    for folded in (False, True):
        model = random_lora(base)
        if folded:
            assert fold(model) == 2 * len(FAMILIES[base.name].linear)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**rows).loss
        loss.backward()
        results.append((loss.item(), {name: w.grad for name, w in model.named_parameters() if w.grad is not None}))
    (plain, expected), (loss, gradients) = results
    assert loss == pytest.approx(plain, rel=tolerance)
    assert gradients.keys() == expected.keys()
    whole, wanted = (torch.cat([found[name].flatten() for name in expected]) for found in (gradients, expected))
    assert float((whole - wanted).norm() / wanted.norm()) < tolerance


def test_a_switched_off_adapter_is_off(base: Path) -> None:
    """Inside disable_adapter the base replies, and afterwards the adapter again."""
    model, bare = random_lora(base), load_base(str(base))[0]
    fold(model)
    ids = torch.arange(10)[None]
    expected = bare(input_ids=ids).logits
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-3)


def test_dropout_is_left_to_peft(base: Path) -> None:
    """Layers that cannot be folded are not."""
    assert fold(random_lora(base, dropout=0.1)) == 0


@pytest.mark.parametrize("group", [1, 96])
def test_fused_is_the_library(base: Path, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms, rotations and attention of packed rows: loss and gradients agree as far as bfloat16 goes, whether each
    dialogue is multiplied alone or with its neighbours; in float32 and unpacked the library's own code runs."""
    monkeypatch.setattr("training.finetune.packed.GROUP", group)
    encoder = Encoder(load_base(str(base))[1])
    rows = collate(list(encode_rows([dialogue(*talk) for talk in TALK], encoder, block=128, seed=0)))
    results = []
    for fused in (False, True):
        model = random_lora(base)
        fold(model)
        if fused:
            assert fuse(model) == (0 if base.name == "gpt2" else 2 * (5 if base.name == "qwen3" else 3) + 1)
        exact = model(**rows).loss.item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**rows).loss
            said = model(input_ids=rows["input_ids"]).logits
        loss.backward()
        gradient = torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        results.append((exact, loss.item(), said, gradient))
    (exact, loss, said, gradient), quick = results
    assert quick[0] == exact
    assert quick[1] == pytest.approx(loss, rel=2e-2)
    assert float((quick[3] - gradient).norm() / gradient.norm()) < 0.15
    torch.testing.assert_close(quick[2], said, atol=0.3, rtol=0.1)


def test_packed_dialogues_stay_apart_when_fused(base: Path) -> None:
    """Change the row's first dialogue, and the second one's figures stay to the last bit."""
    model, tokenizer = load_base(str(base))
    for weight in model.parameters():
        weight.requires_grad_(False)
    model.train(False)
    fuse(model)
    whole = batch(Encoder(tokenizer), FIRST, SECOND)
    length = int((whole["position_ids"][0] == 0).nonzero()[1])
    other = {**whole, "input_ids": whole["input_ids"].clone()}
    other["input_ids"][:, 1 : length - 1] = (whole["input_ids"][:, 1 : length - 1] + 7) % len(tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = [target_nats(model, one) for one in (whole, other)]
    second = int((whole["labels"][0, length:] != -100).sum())
    assert torch.equal(nats[0][-second:], nats[1][-second:])
    assert not torch.equal(nats[0][:-second], nats[1][:-second])


def random_lora(base: Path, dropout: float = 0.0) -> PeftModel:
    """A base with random, not zero, LoRA matrices; the same each time."""
    model = with_lora(load_base(str(base))[0], FinetuneConfig(rank=4, dropout=dropout), str(base))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.1)
    return model


def test_a_large_frozen_base_is_kept_in_half_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its matrices in bfloat16, norms and embeddings in fp32, LoRA in fp32; the fingerprint does not change."""
    base = tiny_base(tmp_path, "llama")
    whole = load_base(str(base), halve=True)[0]
    assert sum(weight.numel() for weight in whole.parameters()) < HALVED_FROM
    assert {weight.dtype for weight in whole.parameters()} == {torch.float32}
    monkeypatch.setattr("training.finetune.base.HALVED_FROM", 1)
    model = load_base(str(base), halve=True)[0]
    halved = {name for name, weight in model.named_parameters() if weight.dtype is torch.bfloat16}
    assert {name.split(".", 3)[-1] for name in halved} == {f"{name}.weight" for name in FAMILIES["llama"].linear}
    assert base_fingerprint(model) == base_fingerprint(whole)
    peft = with_lora(model, FinetuneConfig(rank=4), str(base))
    assert {weight.dtype for name, weight in peft.named_parameters() if "lora_" in name} == {torch.float32}


def sentencepiece() -> PreTrainedTokenizerFast:
    """A vocabulary like TinyLlama's: it marks beginnings of words, falls back to bytes and puts `<s>` in front."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_sentencepiece_vocabulary_is_divided_by_turns() -> None:
    """The whole dialogue is encoded as it is prompted with, `<s>` in front, and Person2's words alone are targets."""
    tokenizer = sentencepiece()
    encoder = Encoder(tokenizer)
    turns = dialogue("hello there", "hi, how are you?", "we swam a lot", "yes: 2 films")
    (encoded,) = encoder.encode([turns], Targets.REPLIES)
    whole = tokenizer.backend_tokenizer.encode(render(turns), add_special_tokens=False).ids
    assert encoded.ids.tolist() == [1, *whole, encoder.end]
    assert encoder.words(encoded.ids[encoded.target].tolist()) == "hi, how are you? yes: 2 films"
    assert encoded.ids.tolist()[: len(encoder.prompt(turns[:1]))] == encoder.prompt(turns[:1])
    said = [turn.text for turn in turns if turn.speaker is Speaker.PERSON2]
    reply = encoder.reply(f"{said[0]}\n")
    begin = len(encoder.prompt(turns[:1]))
    assert encoded.ids.tolist()[begin : begin + len(reply)] == reply
