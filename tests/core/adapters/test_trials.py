"""An adapter on trial: who hears it, when members have decided, and all that ends a trial early."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from core.adapters import AdapterRegistry
from core.adapters.judge import TrialJudge
from core.adapters.selection import AdapterSelection
from core.adapters.trials import Judged, Trial, TrialVerdict, difference
from core.chat import ChatSettings
from core.errors import AdapterError, NumericalError, StorageError
from core.memory import open_memory
from core.messages import Conversation
from tests.bots.discord_talk import talking
from tests.core.adapters.test_registry import NOON, adapter, card
from tests.core.adapters.test_selection import Listener
from tests.discord_server import serving
from tests.fakes import Clock, FakeGenerator, chat, said, until

PLACES = [Conversation(platform="test", channel=f"c{number}") for number in range(2_000)]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> AdapterRegistry:
    """Two adapters, of which `one` is current."""
    registry = AdapterRegistry(tmp_path / "adapters", clock=clock)
    made = adapter(tmp_path / "made")
    for hour, name in enumerate(("zero", "one", "two")):
        registry.add(made, card(name, hour=hour))
    registry.use("zero")
    registry.use("one")
    return registry


def judged(liked: int, disliked: int) -> Judged:
    return Judged(liked=liked, disliked=disliked)


def test_a_conversation_keeps_its_voice_for_the_trial() -> None:
    """The challenger has its share of the conversations, always the same ones, and others in the next trial."""
    trial = Trial(challenger="two", champion="one", share=0.3, started_at=NOON, days=14)
    later = Trial(challenger="two", champion="one", share=0.3, started_at=NOON + timedelta(days=30), days=14)
    taken = [trial.takes(place) for place in PLACES]
    assert 0.25 < sum(taken) / len(PLACES) < 0.35
    assert taken == [trial.takes(place) for place in PLACES]
    assert taken != [later.takes(place) for place in PLACES]


def test_the_interval_of_a_difference() -> None:
    """Newcombe's own examples for his method 10, at 95 %."""
    for one, other, low, high in [
        (judged(56, 14), judged(48, 32), 0.0524, 0.3339),
        (judged(9, 1), judged(3, 7), 0.1705, 0.8090),
        (judged(10, 0), judged(0, 20), 0.6791, 1.0000),
    ]:
        found = difference(one, other, z=1.959964)
        assert found == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("challenger", "champion", "days", "verdict"),
    [
        (judged(19, 0), judged(0, 60), 1, TrialVerdict.UNDECIDED),
        (judged(60, 0), judged(0, 19), 1, TrialVerdict.UNDECIDED),
        (judged(20, 0), judged(10, 20), 1, TrialVerdict.BETTER),
        (judged(5, 15), judged(50, 10), 1, TrialVerdict.WORSE),
        (judged(16, 4), judged(40, 20), 1, TrialVerdict.UNDECIDED),
        (judged(16, 4), judged(40, 20), 14, TrialVerdict.EXPIRED),
        (judged(0, 0), judged(0, 0), 14, TrialVerdict.EXPIRED),
        (judged(20, 0), judged(10, 20), 14, TrialVerdict.BETTER),
    ],
)
def test_when_it_is_decided(challenger: Judged, champion: Judged, days: int, verdict: TrialVerdict) -> None:
    """Not before enough answers of both were judged, not within the interval, and not after the last day."""
    trial = Trial(challenger="two", champion="one", share=0.3, started_at=NOON, days=14)
    assert trial.verdict(challenger, champion, NOON + timedelta(days=days)) is verdict


def test_a_trial_that_begins_is_read_by_everybody(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Another process sees it; there is one at a time, and the current voice is not tried beside itself."""
    begun = registry.begin_trial("two", share=0.3, days=7)
    assert AdapterRegistry(tmp_path / "adapters").trials.read() == begun
    with pytest.raises(AdapterError, match="two is on trial already"):
        registry.begin_trial("zero", share=0.3, days=7)
    assert registry.trials.end(begun, "stopped")
    with pytest.raises(AdapterError, match="'one' is already the current adapter"):
        registry.begin_trial("one", share=0.3, days=7)
    with pytest.raises(AdapterError, match="no adapter called 'four'"):
        registry.begin_trial("four", share=0.3, days=7)


@pytest.mark.parametrize(
    ("event", "outcome", "current"),
    [
        ("use two", "two was made current", "two"),
        ("use one", "", "one"),
        ("rollback", "zero was made current", "zero"),
        ("withdraw two", "it is out of service", "one"),
        ("withdraw one", "zero was made current", "zero"),
        ("withdraw zero", "", "one"),
    ],
)
def test_what_ends_a_trial(registry: AdapterRegistry, event: str, outcome: str, current: str) -> None:
    """Another current voice, or an adapter of the trial that goes out of service, such as by forget-me."""
    registry.begin_trial("two", share=0.3, days=7)
    match event.split():
        case ["use", name]:
            registry.use(name)
        case ["withdraw", name]:
            registry.withdraw(name, "a member asked to be forgotten", erase=True)
        case _:
            registry.rollback()
    trial = registry.trials.read()
    assert trial is not None
    assert trial.running is not bool(outcome)
    assert trial.outcome.endswith(outcome)
    speaks = registry.current()
    assert speaks is not None
    assert speaks.id == current


@pytest.mark.parametrize("text", ["", "{", "[]", '{"challenger": 3}', "\x00"])
def test_a_damaged_file_stops_nothing(registry: AdapterRegistry, tmp_path: Path, text: str) -> None:
    """It is one sentence for who asks about the trial, and promotion works all the same."""
    file = tmp_path / "adapters" / "trial"
    file.write_text(text)
    if text:
        with pytest.raises(AdapterError, match="delete that file"):
            registry.trials.read()
    registry.use("two")
    registry.withdraw("two", "damaged")


async def selection_of(registry: AdapterRegistry, generator: Listener) -> AdapterSelection:
    selection = AdapterSelection(registry, generator)
    await selection.refresh()
    return selection


async def speakers(selection: AdapterSelection) -> dict[str, int]:
    found = [await selection.adapter_for(place) for place in PLACES[:200]]
    ids = [voice.id if voice else "none" for voice in found]
    return {name: ids.count(name) for name in sorted(set(ids))}


async def test_both_speak_side_by_side(registry: AdapterRegistry) -> None:
    """The challenger is loaded beside the current voice; a channel's own choice stays; the end is noticed."""
    generator = Listener()
    trial = registry.begin_trial("two", share=0.3, days=7)
    selection = await selection_of(registry, generator)
    assert generator.diary == ["+one", "+two"]
    shares = await speakers(selection)
    assert shares["one"] + shares["two"] == 200
    assert 40 < shares["two"] < 80
    own = [await selection.adapter_for(place, "zero") for place in PLACES[:20]]
    assert {voice.id for voice in own if voice} == {"zero"}
    await selection.refresh()
    assert generator.diary == ["+one", "+two", "+zero"]
    registry.trials.end(trial, "stopped")
    await selection.refresh()
    assert await speakers(selection) == {"one": 200}


@pytest.mark.parametrize("how", ["refused", "stumbles", "overflows", "withdrawn", "operator"])
async def test_a_challenger_that_cannot_speak(registry: AdapterRegistry, how: str) -> None:
    """Its trial ends and says why; the current voice has every conversation. PERSON2_ADAPTER knows no trial."""
    generator = Listener(
        refuses={"two"} if how == "refused" else set(), stumbles={"two"} if how == "stumbles" else set()
    )
    registry.begin_trial("two", share=0.9, days=7)
    selection = AdapterSelection(registry, generator, spec="one" if how == "operator" else "current")
    if how == "operator":
        await selection.start()
        await selection.stop()
    await selection.refresh()
    if how == "withdrawn":
        registry.withdraw("two", "forgotten", erase=True)
        await selection.refresh()
        assert generator.diary[-1] == "-two"
    if how == "overflows":
        two = registry.find("two")
        assert two is not None
        await selection.failed(two, NumericalError("the numbers are not finite"))
    assert await speakers(selection) == {"one": 200}
    trial = registry.trials.read()
    assert trial is not None
    assert trial.running is (how == "operator")


async def test_members_decide(registry: AdapterRegistry, clock: Clock, url: str) -> None:
    """Thumbs, and answers replaced by `again`, promote the better one; `rollback` brings the old one back."""
    memory = open_memory(url)
    generator = Listener(speak=lambda prompt: f"answer {len(generator.prompts)}")
    registry.begin_trial("two", share=0.5, days=7)
    selection = await selection_of(registry, generator)
    talk = chat(
        generator, memory=memory, clock=clock, select_adapter=selection.adapter_for, settings=ChatSettings(user_rate=0)
    )
    judge = TrialJudge(registry, memory.judgements, clock=clock)
    verdicts = []
    for number in range(120):
        question = said("hello", channel=f"c{number}")
        reply = await talk.hear(question)
        assert reply is not None
        await talk.posted(reply, question.conversation, [f"p{number}"])
        if reply.adapter == "two":
            await talk.feedback(question.conversation, f"p{number}", "ann", True)
        else:
            again, replaced = await talk.again(question)
            assert replaced == (f"p{number}",)
            await talk.posted(again, question.conversation, replaced)
        verdicts.append(judge.judge())
        if number == 5:
            assert "two is on trial in 50% of conversations since 2026-11-22: " in judge.standing()
    assert verdicts.count(TrialVerdict.BETTER) == 1
    assert verdicts.index(TrialVerdict.BETTER) >= 39
    assert judge.standing().startswith("two is now active: ")
    await selection.refresh()
    assert await speakers(selection) == {"two": 200}
    registry.rollback()
    await selection.refresh()
    assert await speakers(selection) == {"one": 200}
    memory.close()


async def test_the_loser_retires(registry: AdapterRegistry, clock: Clock) -> None:
    """Disliked answers end the trial; a channel that chose its voice does not count."""
    memory = open_memory("sqlite://")
    generator = FakeGenerator()
    registry.begin_trial("two", share=0.5, days=7)
    selection = await selection_of(registry, Listener())
    talk = chat(
        generator, memory=memory, clock=clock, select_adapter=selection.adapter_for, settings=ChatSettings(user_rate=0)
    )
    judge = TrialJudge(registry, memory.judgements, clock=clock)
    chosen = said("x", channel="own").conversation
    memory.change_settings(chosen, voice="two")
    for number in range(120):
        own = number % 2 == 0
        question = said("hello", channel="own" if own else f"c{number}")
        reply = await talk.hear(question)
        assert reply is not None
        await talk.posted(reply, question.conversation, [f"p{number}"])
        await talk.feedback(question.conversation, f"p{number}", "ann", own or reply.adapter == "one")
    assert judge.judge() is TrialVerdict.WORSE
    assert "two retired and one stays active: 0 of its " in judge.standing()
    assert judge.judge() is None
    speaks = registry.current()
    assert speaks is not None
    assert speaks.id == "one"


def test_a_winner_that_had_failed_the_gate(registry: AdapterRegistry, tmp_path: Path, clock: Clock) -> None:
    """Its card says that it was promoted all the same."""
    registry.add(tmp_path / "made", card("poor", passed=False))
    registry.begin_trial("poor", share=0.3, days=7)
    judge = TrialJudge(registry, lambda adapter, since: (30, 0) if adapter == "poor" else (0, 30), clock=clock)
    assert judge.judge() is TrialVerdict.BETTER
    assert registry.card("poor").promoted_by_force


async def test_a_trial_on_discord(registry: AdapterRegistry, clock: Clock) -> None:
    """Threads are answered by either voice, members' reactions are counted, and `status` says how it stands."""
    registry.begin_trial("two", share=0.5, days=7)
    generator = Listener(lines=("hello",))
    selection = await selection_of(registry, generator)
    memory = open_memory("sqlite://")
    judge = TrialJudge(registry, memory.judgements, clock=clock)
    async with serving() as server:
        ann = server.person("Ann")
        talk = chat(generator, memory=memory, clock=clock, select_adapter=selection.adapter_for)
        async with talking(server, talk=talk, trial=judge.standing):
            for number in range(8):
                thread = ann.opens_thread(f"thread {number}")
                ann.says(f"{ann.bot} hello", where=thread)
                await server.posted(1, thread)
                ann.reacts(server.messages(thread)[0], "👍")
            await server.until(lambda: memory.feedback_counts("discord") == (8, 0))
            answer = await (await ann.uses("person2 status")).answer()
    voices_heard = [voice.id for voice in generator.adapters if voice]
    assert set(voices_heard) == {"one", "two"}
    ones, twos = voices_heard.count("one"), voices_heard.count("two")
    assert f"{twos} of its {twos} judged answers liked, {ones} of {ones} of one; undecided." in answer


def test_the_file_is_whole_and_private(registry: AdapterRegistry, tmp_path: Path) -> None:
    """It is JSON that its owner alone reads."""
    registry.begin_trial("two", share=0.3, days=7)
    file = tmp_path / "adapters" / "trial"
    assert json.loads(file.read_text())["challenger"] == "two"
    assert file.stat().st_mode & 0o077 == 0


async def test_the_judge_looks_by_itself(
    registry: AdapterRegistry, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again until it is stopped, though the database fails meanwhile; a trial that lasted too long ends."""
    fails = [True]

    def count(adapter: str | None, since: datetime) -> tuple[int, int]:
        if fails:
            fails.clear()
            raise StorageError("The database is locked.")
        return 1, 0

    registry.begin_trial("two", share=0.3, days=7)
    judging = asyncio.create_task(TrialJudge(registry, count, clock=clock, every=0.001).keep_judging())
    await until(lambda: not fails)
    clock.move(days=8)
    await until(lambda: not (trial := registry.trials.read()) or not trial.running)
    judging.cancel()
    assert (
        "two retired without a decision and one stays active: 1 of its 1"
        in TrialJudge(registry, count, clock=clock).standing()
    )
    assert any("The database is locked." in line for line in caplog.messages)
