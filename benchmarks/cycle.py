"""End to end: import, train, promote under load, feedback, retrain, forget, roll back.

    python -m benchmarks.cycle EXPORTS --home NEW_FOLDER [--base starter] [--later python-help]

EXPORTS is a folder of channel exports. Those whose name holds `--later` are not imported: two members who agreed say
them in the bot's channels, so that there is a log to learn from. Every step runs the program's own commands and the
real bot (on a Discord server on loopback) and prints a line with its figures; the exit status is 1 if a check failed.
Takes ten minutes on two cores with `--epochs 1 --contexts 60`. Needs the development extra (simcord).
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.material import dialogues_of
from benchmarks.town import Done, Question, Town, kill
from core.dialogue import Speaker
from core.messages import Message
from models.starter.recipe.reading import LINES
from training.data import formats

NAME = "channel-voice"
NOTICED_WITHIN = 5.0
"""Seconds within which a running bot must notice a promotion."""
STEADY = 15.0
"""Seconds before and after a promotion over which waiting times are compared."""
RUN = re.compile(rb"(?:[A-Za-z0-9,.]+ ){6}[A-Za-z0-9,.]+")
"""Seven plain words in a row, which JSON, HTML and dialogue files write alike."""


@dataclass
class Cycle:
    town: Town
    options: argparse.Namespace
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home: Path = self.options.home
        self.talk, self.held = self.home / "talk.txt", self.home / "held.txt"

    # Output

    def tell(self, step: str, words: str) -> None:
        print(f"{step:<9} {words}", flush=True)

    def check(self, step: str, ok: bool, words: str) -> None:
        self.tell(step, f"{'ok' if ok else 'FAILED'}: {words}")
        if not ok:
            self.failed.append(words)

    async def must(self, *words: str) -> Done:
        """A command that has to succeed."""
        done = await self.town.command(*words)
        if done.status:
            raise SystemExit(f"person2 {' '.join(words)} ended with {done.status}:\n{done.err}")
        return done

    async def current(self) -> str:
        cards = json.loads((await self.must("adapters", "list", "--json")).out)
        return next((card["id"] for card in cards if card["current"]), "none")

    # The steps

    async def learn(self) -> None:
        """Exports → dialogues → adapter, and its scores on talk it never saw."""
        files = sorted(str(file) for file in self.options.exports.iterdir() if self.options.later not in file.name)
        done = await self.must(
            *("import", *files, "--out", str(self.talk), "--held-out", str(self.held), "--json"),
            *("--attest", self.options.attest),
        )
        counts = json.loads(done.out)
        self.tell(
            "import",
            f"{counts['read']:,} messages → {counts['dialogues']:,} dialogues ({counts['held_out']} newest held out), "
            f"{counts['tokens']:,} tokens of {counts['people']} people in {done.seconds:.1f} s",
        )
        before = await self._bits("none")
        done = await self.must(
            *("train", str(self.talk), "--held-out", str(self.held), "--name", NAME, "--json"),
            *("--epochs", str(self.options.epochs), "--contexts", str(self.options.contexts)),
        )
        outcome = json.loads(done.out)
        after = await self._bits(NAME)
        self.tell(
            "train",
            f"{outcome['train_dialogues']} dialogues, {outcome['steps']} steps, "
            f"{outcome['targets_per_second']:.0f} of Person2's tokens a second, {done.seconds:.0f} s with evaluation",
        )
        self.check("scores", after < before, f"held-out bits per byte of replies {before:.4f} → {after:.4f}")
        scores = json.loads((await self.must("adapters", "show", NAME)).out)["scores"]
        for who, figures in scores.items():
            shown = (f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float))
            self.tell("scores", f"{who}: {', '.join(shown)}")
        self.tell("gate", outcome["verdict"])
        self.passed = bool(outcome["passed"])

    async def _bits(self, adapter: str) -> float:
        done = await self.must("evaluate", str(self.held), "--adapter", adapter, "--contexts", "0", "--json")
        return float(json.loads(done.out)["reply_bits_per_byte"])

    async def promote(self) -> None:
        """Promote the adapter while people talk to the bot."""
        seconds = await self.town.start_bot()
        openings = tomllib.loads(LINES.read_text(encoding="utf-8"))["openings"]
        self.town.crowd(self.options.members, openings)  # not words from the channels, which are searched for later
        await self._until(lambda: sum(bool(each.answered) for each in self.town.requests) >= 3 * self.options.members)
        self.tell("bot", f"connected after {seconds:.1f} s; {self.options.members} people talk to it without a pause")
        began = time.time()
        await asyncio.sleep(STEADY)
        calm = self._between(began, time.time())
        await self._switch(NAME, calm, "adapters", "use", NAME, *([] if self.passed else ["--force"]))

    def _between(self, start: float, end: float) -> list[Question]:
        return [each for each in self.town.requests if each.answered and each.asked < end and each.answered > start]

    async def _switch(self, adapter: str, calm: Sequence[Question], *command: str) -> None:
        """A command that makes another adapter active, and what that does to the answers people wait for meanwhile."""
        began = time.time()
        await self.must(*command)
        noticed = await self.town.logged(f"{adapter} is now active", since=began)
        if noticed is None:
            self.check("swap", False, f"the bot never noticed {adapter}")
            return
        await asyncio.sleep(STEADY)
        promoted = max(began, (self.town.home / "adapters" / "current").stat().st_mtime)
        meanwhile = self._between(began, time.time())
        spoken = self.town.adapters()
        first = min((each.answered for each in meanwhile if spoken.get(each.post) == adapter), default=None)
        late = [each for each in meanwhile if each.asked > noticed and spoken.get(each.post, adapter) != adapter]
        longest, usual = max(each.wait for each in meanwhile), max(each.wait for each in calm)
        self.check(
            "swap",
            first is not None and noticed - promoted < NOTICED_WITHIN and not late,
            f"{' '.join(command[:3])}: noticed after {noticed - promoted:.1f} s, first reply with it "
            f"{(first or 0) - promoted:.1f} s after, {len(late)} asked later and answered by the old one",
        )
        failed = sum(each.failed for each in meanwhile)
        self.check(
            "swap",
            not failed and longest <= 2 * usual,
            f"{len(meanwhile)} requests meanwhile, {failed} failed, longest wait {longest:.2f} s "
            f"(before, {len(calm)} requests: {usual:.2f} s)",
        )

    async def live(self) -> None:
        """Consent, talk that may be learned, talk that may not, and members' feedback."""
        town = self.town
        self.ann, self.ben, self.cat = (town.server.person(name) for name in ("Ann", "Ben", "Cat"))
        self.early = "before I ever agreed to anything I wrote this very line about walnut trees"
        garden = town.channel("garden")
        self.ann.says(self.early, where=garden)
        for member, word in ((self.ann, "yes"), (self.ben, "yes"), (self.cat, "no")):
            used = await member.uses("person2 consent", choice=word)
            self.tell("consent", f"{member.name}: {await used.answer()}")
        self.unsaid = "nobody may ever learn what Cat keeps under the third flower pot"
        self.said: tuple[list[bytes], list[bytes]] = [], []  # Ben's and Ann's
        later = [file for file in self.options.exports.iterdir() if self.options.later in file.name]
        with tempfile.TemporaryDirectory() as scratch:
            other = Town(home=Path(scratch), base=self.options.base)
            done = await other.command(
                *("import", *map(str, later), "--out", f"{scratch}/later.txt", "--attest", "theirs")
            )
            if done.status:
                raise SystemExit(done.err)
            talks = dialogues_of(Path(scratch) / "later.txt")
        for number, talk in enumerate(talks):
            where = town.channel(f"later-{number}")
            for turn in talk:
                speaker = self.ann if turn.speaker is Speaker.PERSON1 else self.ben
                speaker.says(turn.text[:1900], where=where)
                self.said[speaker is self.ann].append(turn.text.encode())
            if number % 10 == 0:
                self.cat.says(self.unsaid, where=where)
            await asyncio.sleep(0.02)
        questions = [turn.text for talk in talks for turn in talk if turn.speaker is Speaker.PERSON1][
            : self.options.asks
        ]
        asked = [await town.ask(self.ann, text, where=garden) for text in questions]
        posts = {str(post.id): post for post in town.server.messages(garden)}
        answers = [each for each in asked if not each.failed]
        self.liked, self.disliked = answers[: len(answers) // 2], answers[len(answers) // 2 :]
        for answer, thumb in [*((each, "👍") for each in self.liked), *((each, "👎") for each in self.disliked)]:
            self.ann.reacts(posts[answer.post], thumb)
        await (await self.ann.uses("person2 again", where=garden)).answer()
        mine = json.loads((await self.must("export", f"discord:{self.ann.id}")).out)[0]
        votes = [vote["liked"] for vote in mine["feedback"]]
        self.check(
            "feedback",
            votes.count(True) == len(self.liked) and votes.count(False) == len(self.disliked),
            f"{votes.count(True)} 👍, {votes.count(False)} 👎 and one `again` are kept; "
            f"{len(mine['messages'])} messages of Ann's are stored",
        )

    async def choose(self) -> None:
        """A channel's own adapter, chosen by somebody who may manage the channel."""
        town = self.town
        where, keeper = town.channel("plain"), town.server.admin("Keeper")
        no = await (await self.cat.uses("person2 voice", where=where, name="none")).answer()
        yes = await (await keeper.uses("person2 voice", where=where, name="none")).answer()
        answer = await town.ask(self.cat, "Hello there, how are you?", where=where)
        await self._until(lambda: answer.post in town.adapters())  # it is stored once it is said
        used = town.adapters()[answer.post]
        self.check("voice", used == "none" and "Only members" in no, f"“{no}” “{yes}” and `{used}` answered there")

    async def retrain(self) -> None:
        """Retrain: a dry run, a killed run, two at once, and a complete one."""
        counts = json.loads((await self.must("retrain", "--dry-run", "--json")).out)
        left = [file for file in (self.home / "retrain").rglob("*") if file.is_file()]
        self.check("dry run", not left, f"would use {counts['dialogues']} dialogues of {counts['people']} people")
        words = ("retrain", "--json", "--epochs", str(self.options.epochs), "--contexts", str(self.options.contexts))
        before = await self.current()
        process = await self.town.begin(*words)
        await self._until(lambda: any((self.home / "runs").glob("retrained-*/checkpoint-*")), process)
        await kill(process)
        self.check("kill -9", await self.current() == before, f"in the middle of training; {before} stays active")
        began = time.monotonic()
        killed = {*(self.home / "runs").glob("retrained-*/plan.json")}
        process = await self.town.begin(*words)
        await self._until(lambda: bool({*(self.home / "runs").glob("retrained-*/plan.json")} - killed), process)
        second = await self.town.command("retrain")
        self.check("lock", second.status == 1 and "under way" in second.err, second.err.strip())
        moment = time.time()
        out, err = await process.communicate()
        if process.returncode:
            raise SystemExit(f"person2 retrain ended with {process.returncode}:\n{err.decode()}")
        outcome = json.loads(out)
        self.retrained = str(outcome["adapter"])
        self.tell(
            "retrain",
            f"{outcome['train_dialogues']} dialogues, {outcome['before']:.4f} → {outcome['after']:.4f} bits per byte, "
            f"{time.monotonic() - began:.0f} s beside the talking bot. {outcome['verdict']}",
        )
        now = await self.current()
        self.check("gate", (now == self.retrained) == bool(outcome["passed"]), f"{now} is active")
        if outcome["passed"]:
            await self.town.logged(f"{now} is now active", since=moment)
        text = next((self.home / "retrain").glob("*/log.txt")).read_text(encoding="utf-8")
        targets = [line for line in text.splitlines() if line.startswith("Person2:")]
        learned = [sum(self._told(each, line) for line in targets) for each in (*self.liked, *self.disliked)]
        self.check(
            "learned",
            self.unsaid not in text and self.early not in text and not any(learned[len(self.liked) :]),
            f"{sum(map(bool, learned))} liked replies are targets, no disliked one; nothing of Cat's, nothing older "
            "than consent",
        )

    def _told(self, answer: Question, line: str) -> bool:
        return line == f"Person2: {' '.join(answer.text.split())}"

    async def _until(self, so: Callable[[], bool], process: asyncio.subprocess.Process | None = None) -> None:
        """Wait until `so` holds; raise SystemExit if the process ends before."""
        while not so():
            if process is not None and process.returncode is not None:
                raise SystemExit((await process.communicate())[1].decode())
            await asyncio.sleep(0.05)

    async def back(self) -> None:
        """Roll back and forth."""
        now = await self.current()
        calm = self._between(time.time() - STEADY, time.time())
        older = "small-talk" if now == NAME and self.options.base == "starter" else NAME if now != NAME else "none"
        label = "the base model" if older == "none" else older
        await self._switch(label, calm, "adapters", "rollback")
        await self.must("adapters", "use", now, "--force")

    async def forget(self) -> None:
        """Two members: one of the bot's own log, one of the imported channels."""
        bens, anns = ({run for text in texts for run in RUN.findall(text)} for texts in self.said)
        said = {
            run for run in anns - bens - self._known_runs(self.talk, self.held) if run not in b"\n".join(self.said[0])
        }
        await self._forget(f"discord:{self.ann.id}", said, "Ann, of the log")
        who, runs = self._loudest()
        await self._forget(who, runs, "who wrote most in the imported channels")

    async def _forget(self, member: str, runs: set[bytes], title: str) -> None:
        stored = json.loads((await self.must("export", member)).out)[0]
        before = self._holding(runs)
        began = time.time()
        done = await self.must("forget", member, "--json")
        receipt = json.loads(done.out)
        after = self._holding(runs)
        self.tell(
            "my-data",
            f"{title}: {len(stored['messages'])} messages, {len(stored['dialogues'])} dialogues, "
            f"{len(stored['voices'])} voices",
        )
        self.check(
            "forget",
            bool(before) and not after,
            f"{title}: {len(runs)} runs of seven words, in {len(before)} files before and {len(after)} after "
            f"{sorted(after)[:3] or ''}; {receipt['removed']['messages']} messages, {receipt['dialogues']} dialogues",
        )
        now = await self.current()
        spoke = {voice["id"] for voice in stored["voices"] if voice["in service"]}
        self.check(
            "forget",
            spoke == set(receipt["adapters"]) and now == receipt["speaks_now"],
            f"out of service: {', '.join(receipt['adapters']) or 'nothing'}; {now} is active; to rebuild: "
            f"{'; '.join(receipt['rebuild']) or 'nothing'}",
        )
        if receipt["adapters"]:
            heard = await self.town.logged("is now active", since=began, within=10)
            self.check("forget", heard is not None, f"the bot switched adapters {(heard or 0) - began:.1f} s later")
        left = json.loads((await self.must("export", member)).out)[0]
        kept = {name: value for name, value in left.items() if value and isinstance(value, list)}
        voices = [voice["id"] for voice in kept.pop("voices", []) if not voice["in service"]]
        self.check("forget", not kept and left["consent"] is None, f"left: the names of {', '.join(voices) or 'none'}")

    def _holding(self, runs: Iterable[bytes]) -> set[str]:
        """The files under the home that contain one of these runs."""
        found = set()
        for file in self.home.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # SQLite's temporary files
                if file.is_file() and any(run in content for content in [file.read_bytes()] for run in runs):
                    found.add(str(file.relative_to(self.home)))
        return found

    def _known_runs(self, *files: Path) -> set[bytes]:
        return {run for file in files for run in RUN.findall(file.read_bytes())}

    def _loudest(self) -> tuple[str, set[bytes]]:
        """The member with the most messages in the imported files, and word runs that nobody else wrote."""
        own: dict[str, list[str]] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for file in sorted(self.options.exports.iterdir()):
                if self.options.later not in file.name:
                    for item in formats.read(file, scratch=Path(scratch)):
                        if isinstance(item, Message) and not item.from_bot:
                            own.setdefault(f"{item.conversation.platform}:{item.author}", []).append(item.text)
        who = max(own, key=lambda each: len(own[each]))
        others = "\n".join(itertools.chain.from_iterable(texts for each, texts in own.items() if each != who)).encode()
        runs = {run for text in own[who] for run in RUN.findall(text.encode())}
        return who, {run for run in runs if run not in others}

    async def rebuild(self) -> None:
        """Rebuild the adapter with the command that the receipt gives."""
        card = json.loads((await self.must("adapters", "show", NAME)).out)
        people = set(card["people"])
        await self.must(*card["config"]["command"].split()[1:])
        card = json.loads((await self.must("adapters", "show", NAME)).out)
        bits = card["scores"]["new"]["reply_bits_per_byte"]
        self.check(
            "rebuild",
            not card["withdrawn"] and set(card["people"]) < people,
            f"{NAME} again, from {len(card['people'])} instead of {len(people)} people: {bits:.4f} bits per byte",
        )

    async def finish(self) -> None:
        """Stop the bot and summarise all requests."""
        await self.town.quiet_down()
        status = await self.town.stop_bot()
        asked, failed = len(self.town.requests), sum(each.failed for each in self.town.requests)
        waits = sorted(each.wait for each in self.town.requests if each.answered)
        self.check(
            "load",
            not failed and status == 0,
            f"{asked} requests, {failed} failed; median wait {waits[len(waits) // 2]:.2f} s, "
            f"longest {waits[-1]:.2f} s (while training ran); the bot exited with {status}",
        )


async def cycle(options: argparse.Namespace) -> int:
    async with Town(home=options.home, base=options.base) as town:
        run = Cycle(town, options)
        steps = [run.learn, run.promote, run.live, run.choose, run.retrain, run.back, run.forget]
        for step in [*steps, *([run.rebuild] if options.rebuild else []), run.finish]:
            await step()
    print(f"{len(run.failed)} checks failed" if run.failed else "every check passed")
    return 1 if run.failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path, help="a folder of channel exports")
    parser.add_argument("--home", type=Path, required=True, help="PERSON2_HOME: a new folder")
    parser.add_argument("--base", default="starter", help="as for person2 train")
    parser.add_argument("--later", default="python-help", help="files with this in their name are the bot's own log")
    parser.add_argument("--attest", default="published by the community itself", help="as for person2 import")
    parser.add_argument("--epochs", type=float, default=3.0, help="as for person2 train")
    parser.add_argument("--contexts", type=int, default=200, help="as for person2 train")
    parser.add_argument("--members", type=int, default=4, help="people who talk to the bot continuously")
    parser.add_argument("--asks", type=int, default=8, help="answers that get a thumb")
    parser.add_argument(
        "--rebuild", action="store_true", help="also run the commands that forgetting gives to rebuild the adapter"
    )
    options = parser.parse_args()
    options.home = options.home.absolute()
    if options.home.exists() and any(options.home.iterdir()):
        parser.error(f"{options.home} is not empty; give a new folder")
    sys.exit(asyncio.run(cycle(options)))


if __name__ == "__main__":
    main()
