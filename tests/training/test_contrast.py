"""The task that tells true replies from others: its layout, its loss, and what it teaches a tiny network."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from core.dialogue import render
from core.errors import TrainingError
from tests.training.toys import TALK, dialogue
from training.evaluation import ranking
from training.finetune.model import LEARNERS
from training.pretrain import bpe, contrast, rows
from training.pretrain import network as net

TEXTS = [render(dialogue(*talk)) for talk in TALK]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.train(TEXTS * 3, vocabulary=400)


def token(tokenizer: Tokenizer, text: str) -> int:
    found: int | None = tokenizer.token_to_id(text)
    assert found is not None
    return found


def contrastive(
    tokenizer: Tokenizer, task: contrast.ContrastiveTask, texts: list[str] = TEXTS
) -> contrast.ContrastiveData:
    return contrast.ContrastiveData(
        {"talk": (rows.encode("talk", texts, tokenizer), 1.0)},
        task,
        person2=token(tokenizer, "Person2:"),
        tags=[token(tokenizer, tag) for tag in bpe.TAGS],
        seed=0,
    )


def network(seed: int = 0) -> GPT2LMHeadModel:
    made = net.build(net.NetworkShape(width=64, layers=2, context=128, vocabulary=400), seed=seed)
    made.set_attn_implementation("eager")
    return made


def test_a_batch_holds_each_true_reply_and_others_from_other_dialogues(tokenizer: Tokenizer) -> None:
    """What a reader would find: the first candidate answers the dialogue of its row, the rest answer another."""
    task = contrast.ContrastiveTask(candidates=4, exchange=0.0)
    batch = contrastive(tokenizer, task).batch(3, 600)
    said = [tokenizer.decode(reply).strip() for reply in batch.replies]
    groups = [said[at : at + 4] for at in range(0, len(said), 4)]
    assert len(groups) >= contrast.ENOUGH
    for true, *others in groups:
        (own,) = [text for text in TEXTS if f"Person2: {true}\n" in text]
        assert true not in others
        assert all(f"Person2: {other}\n" not in own for other in others)


def test_a_batch_is_a_function_of_its_number(tokenizer: Tokenizer) -> None:
    """So a resumed run needs to remember nothing of the earlier ones."""
    task = contrast.ContrastiveTask(candidates=3)
    one, same, other = (contrastive(tokenizer, task).batch(number, 400) for number in (7, 7, 8))
    assert torch.equal(one.ids, same.ids)
    assert one.replies == same.replies
    assert one.replies != other.replies


def test_with_speakers_exchanged_the_other_ones_replies_are_told_apart(tokenizer: Tokenizer) -> None:
    """A dialogue of two equals teaches twice; one in which Person1 only asks first has no such reply."""
    batch = contrastive(tokenizer, contrast.ContrastiveTask(candidates=3, exchange=1.0)).batch(3, 600)
    for true in batch.replies[::3]:
        said = tokenizer.decode(true).strip()
        assert any(f"\nPerson1: {said}\n" in text for text in TEXTS)


@pytest.mark.parametrize("window", [24, 40, 320])
def test_a_long_dialogue_is_read_in_whole_turns_that_fit_the_window(tokenizer: Tokenizer, window: int) -> None:
    """No row holds more of the dialogue than the window, and none begins within a turn."""
    long = [text * 3 for text in TEXTS]
    batch = contrastive(tokenizer, contrast.ContrastiveTask(window=window, candidates=3), long).batch(1, 2_000)
    tags = {token(tokenizer, tag) for tag in bpe.TAGS}
    for ids, part in zip(batch.ids, batch.part, strict=True):
        assert int((part == 0).sum()) <= window
        assert int(ids[0]) in tags


def test_candidates_are_scored_as_ranking_scores_them(tokenizer: Tokenizer) -> None:
    """Mutual information by the task's own pass and by `training.evaluation.ranking`, which evaluation uses."""
    task = contrast.ContrastiveTask(candidates=4, temperature=3.0)
    batch = contrastive(tokenizer, task).batch(0, 600)
    learner = network()
    person2 = token(tokenizer, "Person2:")
    _, _, found, _ = contrast.losses(learner, batch, task, person2=person2, dtype=torch.float32)

    learner.set_attn_implementation("sdpa")
    learner.train(False)
    judge = LEARNERS["gpt2"](learner.config)
    judge.load_state_dict(learner.state_dict())
    judge.train(False)
    wanted = []
    for at in range(0, len(batch.replies), 4):
        group = [list(reply) for reply in batch.replies[at : at + 4]]
        own = _before(batch, group[0], at // 4)
        (given,) = ranking.continuation_nats(judge, [(own, group)])
        (alone,) = ranking.continuation_nats(judge, [([person2], group)])
        information = (np.array(alone) - np.array(given)) / 3.0
        wanted.append(np.log(np.exp(information).sum()) - information[0])
    assert found == pytest.approx(np.mean(wanted), rel=1e-3)


def _before(batch: contrast.ContrastiveBatch, true: list[int], moment: int) -> list[int]:
    """The dialogue up to a moment: where the true reply's first token is predicted from."""
    first = int(torch.nonzero(batch.candidate == moment * 4)[0])
    row, at = divmod(int(batch.previous[first]), batch.ids.shape[1])
    ids: list[int] = batch.ids[row].tolist()
    assert ids[at + 1 : at + 1 + len(true)] == true
    return ids[: at + 1]


def test_the_gradient_is_that_of_both_losses(tokenizer: Tokenizer) -> None:
    """Beside the same sum written out with torch's own functions, by which candidates weigh is not differentiated."""
    task = contrast.ContrastiveTask(candidates=4, weight=0.3, temperature=2.0)
    batch = contrastive(tokenizer, task).batch(2, 600)
    learner = network()
    person2 = token(tokenizer, "Person2:")
    loss, foreseen, found, count = contrast.losses(learner, batch, task, person2=person2, dtype=torch.float32)
    ours = torch.autograd.grad(loss, list(learner.parameters()))

    alone = contrast.bare(learner, batch.replies, person2=person2, dtype=torch.float32)
    states = learner.transformer(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=contrast.attention(batch, torch.float32),
        use_cache=False,
    ).last_hidden_state.flatten(0, 1)
    nats = torch.nn.functional.cross_entropy(learner.lm_head(states[batch.previous]), batch.targets, reduction="none")
    belongs = batch.candidate >= 0
    sums = torch.zeros(len(batch.replies)).index_add(0, batch.candidate[belongs], nats[belongs])
    apart = -torch.log_softmax((alone - sums).reshape(-1, 4) / 2.0, dim=1)[:, 0].mean()
    foretold = nats[batch.dialogue].mean()
    right = torch.autograd.grad(foretold + 0.3 * apart, list(learner.parameters()))

    assert foreseen == pytest.approx(float(foretold.detach()), rel=1e-4)
    assert found == pytest.approx(float(apart.detach()), rel=1e-4)
    assert count == int(batch.dialogue.sum())
    for wanted, got in zip(right, ours, strict=True):
        assert float((wanted - got).norm() / wanted.norm()) < 1e-3


def test_replies_are_told_apart_after_a_few_contrastive_steps(tokenizer: Tokenizer) -> None:
    """From no better than chance to nearly always, on dialogues seen over and over."""
    task = contrast.ContrastiveTask(candidates=4, weight=0.5, temperature=1.0)
    learner, given = network(), contrastive(tokenizer, task)
    optimizers = net.Optimizers(learner, net.Rates(muon=0.01, adam=0.003))
    person2 = token(tokenizer, "Person2:")
    history = []
    for number in range(40):
        loss, _, found, _ = contrast.losses(
            learner, given.batch(number, 600), task, person2=person2, dtype=torch.float32
        )
        loss.backward()
        optimizers.step(1.0)
        history.append(found)
    assert history[0] > 1.0
    assert np.mean(history[-5:]) < 0.3


def test_too_little_talk_is_refused(tokenizer: Tokenizer) -> None:
    """With three dialogues there is nothing to choose from."""
    with pytest.raises(TrainingError, match="talk has too few dialogues"):
        contrastive(tokenizer, contrast.ContrastiveTask(), TEXTS[:3])
