"""The engine against its peers, in one run: replies, batches, mixed adapters, memory, time to start.

    python benchmarks/serve.py --dialogues FILE [--tokenizer FOLDER] [--json FILE]

FILE holds `Person1:`/`Person2:` dialogues (the valid split of any corpus will do). Takes eight minutes or so. Runs of
the engine and of its peers alternate, and ratios are taken run by run, so that a machine that is busy with something
else for a while spoils them little; the absolute figures want a quiet machine. See README.md beside this file.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.material import dialogues_of, random_adapter, small_model
from core.generator import Adapter, Sampling, engine
from core.generator.bases import fetch, locate
from core.generator.benchmark import MARK_TOKENS, REPLY_TOKENS, BenchResult, fitting, marked, prompts, replay
from core.generator.engine import Engine

if TYPE_CHECKING:
    from benchmarks.peers import Peer

MANY = 32
ADAPTERS = 16
BURSTS = 6
IDLE = 5.0
"""Seconds after which the engine gives back what it keeps, in the measurement of memory after bursts."""
TURNS = 3
"""Replies of each conversation."""
GREEDY = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=REPLY_TOKENS, stop="")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dialogues", type=Path, required=True, help="a file of Person1/Person2 dialogues")
    options.add_argument("--tokenizer", type=Path, help="a folder with GPT-2's vocab.json and merges.txt")
    options.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="where models are made and kept")
    options.add_argument("--model", help="a model's folder, or a name such as smollm2, instead of a random GPT-2 small")
    options.add_argument("--starter", type=Path, default=Path("models/starter"), help="for the time to start")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument(
        "--isa",
        default="auto",
        help="the engine's kernels: auto, avx512, avxvnni, avx2, neon, c or torch; build peers alike",
    )
    options.add_argument("--prompt", type=int, default=200, help="tokens of a first reply's prompt")
    options.add_argument(
        "--part",
        choices=("all", "replies", "crowd"),
        default="all",
        help=f"one conversation (without transformers), or {MANY} at once",
    )
    options.add_argument("--rounds", type=int, default=3, help="times each comparison is repeated")
    options.add_argument("--json", type=Path, help="where the raw figures go as well")
    options.add_argument("--only", choices=("memory", "bursts", "start"), help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dialogues = dialogues_of(given.dialogues)
    if given.model:
        folder = fetch(locate(given.model, starter=given.starter))
    else:
        folder = small_model(given.work / "small", dialogues, tokenizer=given.tokenizer)
    if given.only == "start":
        _start(folder, given.threads)
        return
    if given.only == "bursts":
        asyncio.run(_bursts(folder, dialogues, given))
        return
    adapters = [random_adapter(folder, given.work / "adapters" / f"{folder.name}-{n}", seed=n) for n in range(ADAPTERS)]
    if given.only == "memory":
        asyncio.run(_memory(folder, adapters, given.threads, given.isa))
        return
    began = time.perf_counter()
    figures = asyncio.run(_compare(folder, adapters, dialogues, given))
    if given.part != "all":
        return
    figures["memory"] = _child(given, "memory", folder)
    figures["bursts"] = {name: _child(given, "bursts", path) for name, path in _startable(given, folder).items()}
    figures["start"] = {name: _child(given, "start", path) for name, path in _startable(given, folder).items()}
    figures["bounds"] = _bounds()
    figures["machine"] = _machine(given.threads)
    figures["minutes"] = (time.perf_counter() - began) / 60
    print(_table(figures))
    text = json.dumps(figures, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


class _Contest:
    """The engine and its peers on the same prompts, each behind a line of its own, so that all are read anew."""

    def __init__(self, made: Engine, folder: Path, dialogues: Sequence[Any], given: argparse.Namespace) -> None:
        from benchmarks.peers import installed  # transformers is large: children's memory is measured without it

        self.made, self.rounds = made, given.rounds
        longest = made.context_length - REPLY_TOKENS - MARK_TOKENS
        self.talks = fitting(dialogues, count=made.count_tokens, first=given.prompt, last=longest, turns=TURNS)
        least = 2 * given.rounds if given.part == "replies" else MANY
        if len(self.talks) < least:
            raise SystemExit(f"{given.dialogues} has {len(self.talks)} dialogues long enough, and {least} are needed")
        self.exactly = [_exactly(made, talk[0], given.prompt) for talk in self.talks]
        self.peers, self.missing = installed(folder, threads=given.threads, slow=given.part != "replies")
        self._label = iter(range(10_000))

    async def ours(self, talks: Sequence[Sequence[str]], on: Sequence[Adapter | None] = (None,)) -> BenchResult:
        return await replay(
            self.made, talks, sampling=GREEDY, adapters=on, label=f"{next(self._label)}", clock=time.perf_counter
        )

    def marked(self, talk: Sequence[str]) -> list[str]:
        return marked(talk, f"{next(self._label)}/0")

    def theirs(self, peer: "Peer", texts: Sequence[str]) -> float:
        """Seconds."""
        ids = [self.made._tokenizer.encode(text) for text in texts]
        began = time.perf_counter()
        count = peer.reply(ids, REPLY_TOKENS)
        seconds = time.perf_counter() - began
        if count != REPLY_TOKENS * len(texts):
            raise SystemExit(f"{peer.name} made {count} tokens instead of {REPLY_TOKENS * len(texts)}")
        return seconds


async def _compare(
    folder: Path, adapters: Sequence[Adapter], dialogues: Sequence[Any], given: argparse.Namespace
) -> dict[str, Any]:
    made = engine.load(folder, threads=given.threads, max_batch=MANY, kernels=given.isa, templated=False)
    contest = _Contest(made, folder, dialogues, given)
    figures: dict[str, Any] = {"engine": made.status().device, "missing": contest.missing}
    _say("warming up")
    await contest.ours([contest.exactly[:1]])
    for peer in contest.peers:
        contest.theirs(peer, contest.exactly[:1])
    if given.part != "crowd":
        figures |= await _replies(contest, adapters[0])
    if given.part != "replies":
        figures |= await _crowd(contest)
    if given.part == "all":
        figures["adapters_seconds"] = await _mixed(contest, adapters)
    await made.close()
    return figures


async def _replies(contest: _Contest, adapter: Adapter) -> dict[str, Any]:
    """One conversation; first replies of the engine with an adapter too, as bots give them."""
    await contest.made.load(adapter)
    talks = contest.talks
    turn = iter(range(10_000))

    async def first(on: Adapter | None = None) -> float:
        return (await contest.ours([[contest.exactly[next(turn) % len(talks)]]], [on])).first[0]

    def first_peer(peer: "Peer", turns: Iterator[int]) -> float:
        return contest.theirs(peer, contest.marked([contest.exactly[next(turns) % len(talks)]]))

    async def later() -> float:
        return statistics.mean((await contest.ours([talks[next(turn) % len(talks)]])).later)

    def later_peer(peer: "Peer", turns: Iterator[int]) -> float:
        talk = contest.marked(talks[next(turns) % len(talks)])
        contest.theirs(peer, talk[:1])  # what a peer keeps of it, it may use
        return statistics.mean(contest.theirs(peer, [text]) for text in talk[1:])

    figures: dict[str, Any] = {}
    for name, ours, theirs in (("first_reply", first, first_peer), ("later_reply", later, later_peer)):
        peers = {peer.name: partial(theirs, peer, iter(range(10_000))) for peer in contest.peers}
        figures[name] = await _alternate(2 * contest.rounds, ours, peers)
        _say(_lines(figures, name))
    figures["first_reply_adapter"] = {"engine": [await first(adapter) for _ in range(2 * contest.rounds)]}
    _say(_lines(figures, "first_reply_adapter"))
    return figures


async def _crowd(contest: _Contest) -> dict[str, Any]:
    many = contest.talks[:MANY]

    async def crowd() -> float:
        return (await contest.ours(many)).tokens_per_second

    async def first() -> float:
        return (await contest.ours([talk[:1] for talk in many])).tokens_per_second

    def first_peer(peer: "Peer") -> float:
        # one turn is enough for those that read everything again: the others would be alike, with longer prompts
        return REPLY_TOKENS * MANY / contest.theirs(peer, [contest.marked(talk)[0] for talk in many])

    batching = {peer.name: partial(first_peer, peer) for peer in contest.peers if peer.name != "llama.cpp Q8_0"}
    figures: dict[str, Any] = {"crowd_first": await _alternate(contest.rounds, first, batching)}
    _say(_lines(figures, "crowd_first"))
    figures["crowd"] = {"engine": [await crowd() for _ in range(contest.rounds)]}
    return figures


async def _mixed(contest: _Contest, adapters: Sequence[Adapter]) -> dict[str, list[float]]:
    """Seconds of 32 conversations on 16 adapters, on one, on none."""
    for adapter in adapters:
        await contest.made.load(adapter)
    mixed: dict[str, list[float]] = {"none": [], "one": [], "sixteen": []}
    for _ in range(contest.rounds):
        for name, on in (("none", [None]), ("one", adapters[:1]), ("sixteen", adapters)):
            mixed[name].append((await contest.ours(contest.talks[:MANY], on)).seconds)
    return mixed


async def _alternate(
    rounds: int, ours: Callable[[], Awaitable[float]], peers: Mapping[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Everybody in turn, `rounds` times."""
    found: dict[str, list[float]] = {"engine": [], **{name: [] for name in peers}}
    for _ in range(rounds):
        found["engine"].append(await ours())
        for name, run in peers.items():
            found[name].append(run())
    return found


def _exactly(made: Engine, text: str, tokens: int) -> str:
    """A beginning of `text` that is `tokens` long, to a token or two: cut between words."""
    words = text.split(" ")
    while made.count_tokens(" ".join(words)) > tokens:
        words.pop()
    return " ".join(words)


async def _memory(folder: Path, adapters: Sequence[Adapter], threads: int, isa: str) -> None:
    """Resident megabytes with 16 adapters and 32 conversations of 512 tokens each."""
    made = engine.load(folder, threads=threads, max_batch=MANY, kernels=isa)
    for adapter in adapters:
        await made.load(adapter)
    ready = _resident("VmRSS")
    prompt = made._tokenizer.decode(range(1_000, 1_000 + 512))
    prompt = made._tokenizer.decode(made._tokenizer.encode(prompt)[: 512 - REPLY_TOKENS])
    done = await asyncio.gather(
        *(
            made.generate(prompt, sampling=GREEDY, adapter=adapters[n % ADAPTERS], conversation=f"{n}")
            for n in range(MANY)
        )
    )
    tokens = [one.prompt_tokens + one.new_tokens for one in done]
    found = {
        "ready_mb": ready,
        "resident_mb": _resident("VmRSS"),
        "peak_mb": _resident("VmHWM"),
        "conversations_kept": len(made._pool),
        "tokens_each": min(tokens),
        "caches_mb": made._pool.used / 1e6,
    }
    await made.close()
    print(json.dumps(found))


async def _bursts(folder: Path, dialogues: Sequence[Any], given: argparse.Namespace) -> None:
    """Resident megabytes before, after and at most in six bursts of 32 conversations that nobody goes on with, four
    candidates each, and when nothing was asked for a few seconds more than the engine keeps their caches."""
    made = engine.load(folder, threads=given.threads, max_batch=MANY, kernels=given.isa, idle_seconds=IDLE)
    sampling = Sampling(max_new_tokens=REPLY_TOKENS, best_of=4)
    asked = [text for talk in dialogues for text in prompts(talk)][: BURSTS * MANY]
    await made.generate(asked[0], sampling=sampling)
    ready = _resident("VmRSS")
    for burst in range(BURSTS):
        await asyncio.gather(
            *(
                made.generate(text, sampling=sampling, conversation=f"{burst}/{number}")
                for number, text in enumerate(asked[burst * MANY : (burst + 1) * MANY])
            )
        )
    found = {"ready_mb": ready, "resident_mb": _resident("VmRSS"), "peak_mb": _resident("VmHWM")}
    await asyncio.sleep(2 * IDLE)
    print(json.dumps({**found, "idle_mb": _resident("VmRSS")}))
    await made.close()


def _resident(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def _start(folder: Path, threads: int) -> None:
    made = engine.load(folder, threads=threads)
    asyncio.run(made.generate("Person1: hi\nPerson2:", sampling=Sampling(max_new_tokens=1)))
    print(json.dumps({"first_token": True}), flush=True)
    asyncio.run(made.close())


def _startable(given: argparse.Namespace, folder: Path) -> dict[str, Path]:
    starter = {"starter": given.starter} if (given.starter / "config.json").exists() else {}
    return {**starter, folder.name: folder}


def _child(given: argparse.Namespace, what: str, folder: Path) -> Any:
    """A fresh process: what it prints, or the seconds from its start to its first token (best and worst of three)."""
    command = [sys.executable, "-m", "benchmarks.serve", "--only", what, "--dialogues", str(given.dialogues)]
    command += ["--work", str(given.work), "--model", str(folder), "--threads", str(given.threads), "--isa", given.isa]
    _say(f"{what}: {folder}")
    if what != "start":
        return json.loads(_run(command))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
        assert process.stdout is not None
        process.stdout.readline()
        seconds.append(time.perf_counter() - began)
        process.wait()
    return seconds


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - ourselves


def _bounds() -> dict[str, float]:
    """What this machine can do at most, measured just now: gigabytes read a second by all threads."""
    block = torch.ones(256 * 1024 * 1024 // 4)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - began)
    return {"read_gb_per_second": block.nbytes / 1e9 / best}


def _machine(threads: int) -> dict[str, Any]:
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
    }


TITLES = {
    "first_reply": ("one conversation, first reply", "s"),
    "first_reply_adapter": ("the same with an adapter", "s"),
    "later_reply": ("one conversation, later replies", "s"),
    "crowd_first": (f"{MANY} conversations, first replies", "tokens/s"),
}


def _lines(figures: dict[str, Any], key: str) -> str:
    """Medians and spread of everybody, and the engine against the best peer."""
    title, unit = TITLES[key]
    found = figures[key]
    medians = {name: statistics.median(values) for name, values in found.items()}
    lines = [f"{title}, {unit}: median [least – most]"]
    for name, values in found.items():
        lines.append(f"  {name:<18} {medians[name]:8.3f} [{min(values):.3f} – {max(values):.3f}]")
    if peers := [name for name in found if name != "engine"]:
        best = (min if unit == "s" else max)(peers, key=lambda name: medians[name])
        ratios = [ours / theirs for ours, theirs in zip(found["engine"], found[best], strict=True)]
        lines.append(f"  engine / {best}, run by run: {statistics.median(ratios):.2f}")
    return "\n".join(lines)


def _table(figures: dict[str, Any]) -> str:
    lines = [f"engine: {figures['engine']}; not installed: {', '.join(figures['missing']) or 'nothing'}", ""]
    lines += [_lines(figures, key) for key in TITLES]
    crowd = figures["crowd"]["engine"]
    lines.append(f"{MANY} conversations, {TURNS} turns each, tokens/s: {statistics.median(crowd):.0f}")
    mixed = figures["adapters_seconds"]
    for name in ("one", "none"):
        ratios = [a / b for a, b in zip(mixed["sixteen"], mixed[name], strict=True)]
        lines.append(f"{ADAPTERS} adapters against {name}, run by run: {statistics.median(ratios):.2f}")
    memory = figures["memory"]
    lines.append(
        f"resident: {memory['resident_mb']:.0f} MB with {memory['conversations_kept']} conversations of"
        f" {memory['tokens_each']} tokens and {ADAPTERS} adapters ({memory['ready_mb']:.0f} MB before them,"
        f" {memory['peak_mb']:.0f} MB at most)"
    )
    for name, found in figures["bursts"].items():
        lines.append(
            f"resident, {name}: {found['ready_mb']:.0f} MB ready, {found['resident_mb']:.0f} MB after {BURSTS} bursts"
            f" ({found['peak_mb']:.0f} MB at most), {found['idle_mb']:.0f} MB when idle"
        )
    for name, seconds in figures["start"].items():
        lines.append(f"process start to first token, {name}: {statistics.median(seconds):.1f} s")
    lines.append(f"memory is read at {figures['bounds']['read_gb_per_second']:.1f} GB/s")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
