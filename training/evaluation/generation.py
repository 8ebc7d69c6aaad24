"""What a model says in given contexts, with fixed seeds, and how varied, empty or repetitive it is.

Speaks through transformers, as the reference generator does. Knows nothing of adapters or files.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from transformers import GenerationConfig

from core.dialogue import Dialogue, fit, one_line, words_of
from core.generator import Sampling
from training.finetune.encoder import Encoder
from training.finetune.model import MaskedLossModel

BATCH = 25
"""Replies made at a time."""
REPEATS = 3
"""So many times the same three words, or the same word in a row, is stuttering."""
_LETTERS = re.compile(r"\w")


@torch.inference_mode()
def speak(
    model: MaskedLossModel,
    encoder: Encoder,
    contexts: Sequence[Dialogue],
    *,
    sampling: Sampling,
    seed: int,
    begun: Sequence[str] | None = None,
) -> list[str]:
    """Person2's next line in each context, possibly empty. Same seed and contexts: same lines.

    With `begun`, how each line begins; what comes back is what follows.
    """
    begins = [encoder.reply(text) for text in begun] if begun else [[] for _ in contexts]
    new = min(sampling.max_new_tokens, model.context_length // 2)
    room = model.context_length - new
    greedy = sampling.temperature == 0
    settings = GenerationConfig(
        use_cache=True,
        do_sample=not greedy,
        temperature=None if greedy else sampling.temperature,
        top_p=None if greedy else sampling.top_p,
        top_k=None if greedy else sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=new,
        eos_token_id=sorted({*encoder.newlines, *encoder.ends}),
        pad_token_id=encoder.end,
        bos_token_id=encoder.end,
    )
    prompts = []
    for before, begin in zip(contexts, begins, strict=True):
        kept = fit(before, budget=max(8, room - len(begin)), count=lambda text: len(encoder.text(text)))
        prompts.append((encoder.prompt(kept) + begin)[-room:])
    replies = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            width = max(len(prompts[index]) for index in batch)
            ids = torch.full((len(batch), width), encoder.end)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(batch):
                start = width - len(prompts[index])
                ids[row, start:] = torch.tensor(prompts[index])
                mask[row, start:] = 1
            torch.manual_seed(seed + at)
            found = model.generate(  # type: ignore[misc]  # its mixin is typed for another self
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
            )
            for row, index in enumerate(batch):
                replies[index] = _first_line(encoder.words(found[row, width:].tolist()))
    return replies


def _first_line(text: str) -> str:
    return one_line(text.split("\n", 1)[0])


def distinct_2(replies: Sequence[str]) -> float:
    """Different word pairs over all word pairs of all replies (Li et al. 2016, arXiv:1510.03055). It falls as replies
    are added, so only equal numbers of replies compare."""
    pairs = [pair for reply in replies for pair in pairwise(words_of(reply))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def is_empty(reply: str, before: Dialogue = ()) -> bool:
    """Nothing said, or nothing new: no letter, stuttering, or the other's last line said back."""
    if not _LETTERS.search(reply):
        return True
    words = words_of(reply)
    if before and words == words_of(before[-1].text) and len(words) > 2:
        return True
    run = 1
    for word, following in pairwise(words):
        run = run + 1 if word == following else 1
        if run >= REPEATS:
            return True
    threes = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
    return any(threes.count(three) >= REPEATS for three in set(threes))
