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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.material import dialogues_of, random_adapter, small_model
from core.generator import Adapter, Sampling, engine
from core.generator.bases import fetch, locate
from core.generator.benchmark import REPLY_TOKENS, BenchResult, fitting, prompts, replay
from core.generator.engine import Engine

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
    options.add_argument("--replies-only", action="store_true", help="one conversation's replies and nothing else")
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
    if given.replies_only:
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


async def _compare(
    folder: Path, adapters: Sequence[Adapter], dialogues: Sequence[Any], given: argparse.Namespace
) -> dict[str, Any]:
    from benchmarks.peers import Peer, installed  # transformers is large: the children's memory is measured without it

    made = engine.load(folder, threads=given.threads, max_batch=MANY, kernels=given.isa, templated=False)
    talks = fitting(
        dialogues, count=made.count_tokens, first=given.prompt, last=made.context_length - REPLY_TOKENS, turns=TURNS
    )
    least = 2 * given.rounds if given.replies_only else MANY
    if len(talks) < least:
        raise SystemExit(f"{given.dialogues} has {len(talks)} dialogues long enough, and {least} are needed")
    encode = made._tokenizer.encode
    exactly = _exactly(made, talks[0][0], given.prompt)
    peers, missing = installed(folder, threads=given.threads)
    figures: dict[str, Any] = {"engine": made.status().device, "missing": missing}
    label = iter(range(10_000))

    async def ours(texts: Sequence[Sequence[str]], voices: Sequence[Adapter | None] = (None,)) -> BenchResult:
        name = f"{next(label)}"
        return await replay(made, texts, sampling=GREEDY, adapters=voices, label=name, clock=time.perf_counter)

    def theirs(peer: Peer, texts: Sequence[str]) -> float:
        ids = [encode(text) for text in texts]
        began = time.perf_counter()
        count = peer.reply(ids, REPLY_TOKENS)
        seconds = time.perf_counter() - began
        if count != REPLY_TOKENS * len(texts):
            raise SystemExit(f"{peer.name} made {count} tokens instead of {REPLY_TOKENS * len(texts)}")
        return seconds

    _say("warming up")
    await ours([[exactly]])
    for peer in peers:
        theirs(peer, [exactly])

    _say("one conversation, first reply")

    async def first() -> float:
        return (await ours([[exactly]])).first[0]

    figures["first_reply"] = await _alternate(
        2 * given.rounds, first, {peer.name: partial(theirs, peer, [exactly]) for peer in peers}
    )

    _say(_lines(figures, "first_reply"))
    _say("one conversation, later replies")
    turn = iter(range(10_000))

    async def later() -> float:
        played = await ours([talks[next(turn) % len(talks)]])
        return statistics.mean(played.later)

    def later_peer(peer: Peer, turns: Iterator[int]) -> float:
        talk = talks[next(turns) % len(talks)]
        theirs(peer, talk[:1])  # what a peer keeps of it, it may use
        return statistics.mean(theirs(peer, [text]) for text in talk[1:])

    figures["later_reply"] = await _alternate(
        2 * given.rounds, later, {peer.name: partial(later_peer, peer, iter(range(10_000))) for peer in peers}
    )

    _say(_lines(figures, "later_reply"))
    if given.replies_only:
        await made.close()
        return figures
    _say(f"{MANY} conversations, {TURNS} turns")
    many = talks[:MANY]

    async def crowd() -> float:
        return (await ours(many)).tokens_per_second

    def crowd_peer(peer: Peer) -> float:
        # one turn is enough for those that read everything again: the others would be alike, with longer prompts
        texts = [talk[0] for talk in many]
        return REPLY_TOKENS * MANY / theirs(peer, texts)

    async def crowd_first() -> float:
        return (await ours([talk[:1] for talk in many])).tokens_per_second

    batching = [peer for peer in peers if peer.name != "llama.cpp Q8_0"]
    figures["crowd_first"] = await _alternate(
        given.rounds, crowd_first, {peer.name: partial(crowd_peer, peer) for peer in batching}
    )
    figures["crowd"] = {"engine": [await crowd() for _ in range(given.rounds)]}

    _say(_lines(figures, "crowd_first"))
    _say(f"{MANY} conversations on {ADAPTERS} adapters, on one, on none")
    for adapter in adapters:
        await made.load(adapter)
    mixed: dict[str, list[float]] = {"none": [], "one": [], "sixteen": []}
    for _ in range(given.rounds):
        for name, voices in (("none", [None]), ("one", adapters[:1]), ("sixteen", adapters)):
            mixed[name].append((await ours(many, voices)).seconds)
    figures["adapters_seconds"] = mixed
    await made.close()
    return figures


async def _alternate(
    rounds: int, ours: Callable[[], Awaitable[float]], peers: dict[str, Callable[[], float]]
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
    "later_reply": ("one conversation, later replies", "s"),
    "crowd_first": (f"{MANY} conversations, first replies", "tokens/s"),
}


def _lines(figures: dict[str, Any], key: str) -> str:
    """Medians and spread of everybody, and the engine against the best peer."""
    title, unit = TITLES[key]
    found = figures[key]
    medians = {name: statistics.median(values) for name, values in found.items()}
    best = (min if unit == "s" else max)((name for name in found if name != "engine"), key=lambda name: medians[name])
    ratios = [ours / theirs for ours, theirs in zip(found["engine"], found[best], strict=True)]
    return "\n".join(
        (
            f"{title}, {unit}: median [least – most]",
            *(
                f"  {name:<18} {medians[name]:8.3f} [{min(values):.3f} – {max(values):.3f}]"
                for name, values in found.items()
            ),
            f"  engine / {best}, run by run: {statistics.median(ratios):.2f}",
        )
    )


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
