"""Are replies predicted better when what the asker said long ago, and what was answered, stands in front?

Channel archives with long histories: a DiscordChatExporter folder (who answers whom by its reply links), or a folder of
annotated IRC logs, one a day (`*.ascii.txt` beside `*.annotation.txt`, jkkummerfeld/irc-disentanglement). For each
answer whose asker's words recall something (`core.recall`), bits per byte of the answer with its window alone, with the
recalled exchanges in front, and with as many others of the same asker drawn at random: what any old talk of theirs
does.
"""

import argparse
import math
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from core.dialogue import Speaker, Turn, fit, merge, one_line
from core.memory import Exchange
from core.messages import Conversation, Message
from core.recall import recalled
from training.data import formats
from training.evaluation.ranking import continuation_nats
from training.evaluation.suite import load_candidates

GAP = timedelta(hours=12)
SHARE = 0.25
"""Share of the context for what is recalled."""
LONGEST = 400
"""Characters of a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer with its context, and its asker's earlier messages with the answers to them."""

    window: list[Message]
    reply: Message
    old: list[Exchange]


def archive(source: Path) -> list[list[Message]]:
    """Channels, each in time order."""
    places: dict[str, list[Message]] = defaultdict(list)
    logs = sorted(source.glob("*.ascii.txt"))
    if logs:
        for log in logs:
            places["irc"] += irc(log)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            for item in formats.read(source, scratch=Path(scratch)):
                if isinstance(item, Message):
                    places[item.conversation.key].append(item)
    return [sorted(talk, key=lambda said: said.sent_at) for talk in places.values()]


def irc(log: Path) -> Iterator[Message]:
    day = datetime.fromisoformat(log.name[:10]).replace(tzinfo=UTC)
    answers: dict[int, int] = {}
    for line in log.with_name(log.name.replace(".ascii.", ".annotation.")).read_text().splitlines():
        first, second = sorted(map(int, line.split()[:2]))
        if first != second:
            answers[second] = first
    for number, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        found = re.match(r"\[(\d\d):(\d\d)\] <([^>]+)> (.*)", line)
        if found and one_line(found[4]):
            yield Message(
                conversation=Conversation(platform="irc", channel="ubuntu"),
                id=f"{log.name}:{number}",
                author=found[3],
                author_name=found[3],
                text=found[4],
                sent_at=day + timedelta(hours=int(found[1]), minutes=int(found[2]), microseconds=number),
                reply_to=f"{log.name}:{answers[number]}" if number in answers else None,
            )


def asked_in(talk: Sequence[Message], window_size: int) -> Iterator[Answered]:
    at = {said.id: index for index, said in enumerate(talk)}
    answered: dict[str, str] = {}
    by_author: dict[str, list[Message]] = defaultdict(list)
    for index, said in enumerate(talk):
        question = at.get(said.reply_to or "")
        if question is not None and question < index and talk[question].author != said.author:
            asker = talk[question]
            before = talk[max(0, question - window_size + 1) : question + 1]
            window = [each for each in before if asker.sent_at - each.sent_at <= GAP]
            old = [
                Exchange(row=at[each.id], said=each.text, sent_at=each.sent_at, answer=answered.get(each.id, ""))
                for each in by_author[asker.author]
                if each.id != asker.id
            ]
            yield Answered(window=window, reply=said, old=old)
            answered.setdefault(asker.id, said.text)
        by_author[said.author].append(said)


def turn(speaker: Speaker, text: str) -> list[Turn]:
    words = one_line(one_line(text)[:LONGEST])
    return [Turn(speaker, words)] if words else []


def exchange(old: Exchange) -> list[Turn]:
    return [*turn(Speaker.PERSON1, old.said), *turn(Speaker.PERSON2, old.answer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--base", default="models/starter")
    parser.add_argument("--adapter", type=Path, default=None)
    parser.add_argument("--most", type=int, default=1_000, help="answers scored of each source")
    parser.add_argument("--window", type=int, default=40, help="messages in view, as many as a bot reads back")
    parser.add_argument("--unanswered", action="store_true", help="recall what nobody answered, too")
    options = parser.parse_args()
    (candidate,) = load_candidates(options.base, {"scored": options.adapter})
    encoder, room = candidate.encoder, candidate.model.context_length
    rng = random.Random(0)
    for source in options.sources:
        found = []
        total, seconds = 0, 0.0
        for talk in archive(source):
            for each in asked_in(talk, options.window):
                old = [one for one in each.old if one.answer or options.unanswered]
                total += 1
                question = each.window[-1]
                began = time.perf_counter()
                chosen = recalled(question.text, old, now=question.sent_at)
                seconds += time.perf_counter() - began
                if chosen:
                    others = [one for one in old if one not in chosen]
                    drawn = rng.sample(others, min(len(chosen), len(others)))
                    found.append((each, chosen, sorted(drawn, key=lambda one: one.row)))
        recalling = len(found)
        if not found:
            print(f"{source.name}: nothing is recalled for any of {total} answers")
            continue
        rng.shuffle(found)
        found = found[: options.most]
        prompts: list[tuple[list[int], list[list[int]]]] = []
        sizes = []
        for each, chosen, drawn in found:
            words = f"{one_line(each.reply.text)[:LONGEST]}\n"
            reply = encoder.reply(words)[: room // 2]
            sizes.append(len(f" {words}".encode()))
            speaker = each.reply.author
            window = merge(
                part
                for said in each.window
                for part in turn(Speaker.PERSON2 if said.author == speaker else Speaker.PERSON1, said.text)
            )
            budget = room - len(reply) - len(encoder.start) - 1

            def count(text: str) -> int:
                return len(encoder.text(text))

            for extra in ([], chosen, drawn):
                front = [part for one in extra for part in exchange(one)]
                front = list(fit(front, budget=int(SHARE * budget), count=count)) if front else []
                used = count("".join(f"{part}\n" for part in front)) if front else 0
                kept = fit(window, budget=budget - used, count=count)
                prompts.append((encoder.prompt(merge([*front, *kept])), [reply]))
        with candidate.active() as model:
            nats = np.array([one[0] for one in continuation_nats(model, prompts)]).reshape(-1, 3)
        size = np.array(sizes)
        print(
            f"{source.name}: {recalling} of {total} answers have something to recall, {len(found)} of these scored; "
            f"{1e3 * seconds / total:.2f} ms a search"
        )
        draws = np.random.default_rng(0).integers(0, len(size), (2_000, len(size)))
        for column, name, beside in ((0, "window alone", 0), (1, "recalled", 0), (2, "random", 0), (1, "recalled", 2)):
            bits = nats[:, column].sum() / math.log(2) / size.sum()
            gap = nats[:, column] - nats[:, beside]
            low, high = np.quantile(gap[draws].sum(1) / math.log(2) / size[draws].sum(1), [0.025, 0.975])
            against = "random" if beside else "the window alone"
            print(
                f"  {name:13} {bits:.4f}  difference from {against} {low:+.4f} to {high:+.4f}"
                f"  better in {(gap < 0).mean():.0%}"
            )


if __name__ == "__main__":
    main()
