"""The table of commands, run as any platform runs it."""

import json

import pytest

from core.commands import COMMANDS, Answer, Commands, Invocation, parse
from core.errors import StorageError
from core.messages import Kind
from core.notices import BROKEN
from tests.fakes import Clock, FakeGenerator, chat, said


@pytest.fixture
def commands() -> Commands:
    clock = Clock()
    return Commands(
        chat=chat(FakeGenerator(lines=["one", "two"]), clock=clock),
        clock=clock,
        started_at=clock.now,
        adapters=lambda: ("pirate", "poet"),
    )


async def run(commands: Commands, line: str, *, admin: bool = False, author: str = "ann") -> Answer:
    name, argument = parse(line)
    message = said(argument, kind=Kind.CHANNEL, author=author)
    return await commands.run(Invocation(name=name, argument=argument, message=message, admin=admin))


@pytest.mark.parametrize(
    ("line", "answer", "private"),
    [
        ("", "Mention me", True),
        ("help", "`/person2 forget-me [yes]`", True),
        ("dance", "I don't know “dance”", True),
        ("ask", "Mention me", True),
        ("again", "haven't asked me anything here", True),
        ("reset", "fresh start", False),
        ("voice", "Available: current, none, pirate, poet", True),
        ("voice pirate", "Only members who may manage", True),
        ("consent", "You haven't said yes or no", True),
        ("consent yes", "Thank you", True),
        ("consent maybe", "`/person2 consent yes` or `/person2 consent no`", True),
        ("consent yes", "To undo this: `/person2 consent no`", True),
        ("ask\thow\nare you", "one", False),
        ("help\nme", "Mention me", True),
        ("forget-me", "cannot be undone", True),
        ("forget-me yes", "Done: I deleted 0 of your messages", True),
        ("my-data", "Everything stored about you: 0 messages", True),
        ("settings", "Only members who may manage", True),
        ("status", "Model fake;", True),
        ("STATUS", "Model fake;", True),
    ],
)
async def test_what_a_member_gets(commands: Commands, line: str, answer: str, private: bool) -> None:
    """Each command answers with a sentence; private matters are private."""
    got = await run(commands, line)
    said_back = got.text or (got.reply.text if got.reply else "")
    assert answer in said_back
    assert got.private is private


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("settings", "answers default, ambient default, cool-down default, allowed default"),
        ("settings ambient 0.2", "Changed. Settings here: answers default, ambient 0.2"),
        ("settings ambient 7", "ambient must be a number from 0 to 1."),
        ("settings ambient often", "ambient must be a number from 0 to 1."),
        ("settings allowed no", "allowed no"),
        ("settings persona You are Captain Nemo.", "persona “You are Captain Nemo.”"),
        ("settings persona none", "persona none"),
        ("settings persona default", "persona default"),
        ("settings persona " + "x" * 4001, "A persona can have at most 4000 characters."),
        ("settings allowed perhaps", "allowed can be yes, no or default."),
        ("settings retention 30", "retention 30"),
        ("settings retention 1.5", "retention must be a whole number of days, 1 or more."),
        ("settings retention nan", "retention must be a whole number of days, 1 or more."),
        ("settings retention", "Here, retention default."),
        ("settings\tambient\n0.3", "ambient 0.3"),
        ("settings ambient default", "ambient default"),
        ("settings answers name", "answers name"),
        ("settings answers loudly", "answers can be mention, name, all, off or default."),
        ("settings cool-down 5", "cool-down 5.0"),
        ("settings cool-down -1", "cool-down must be a number of minutes, 0 or more."),
        ("settings again anyone", "again anyone"),
        ("settings reset admins", "reset admins"),
        ("settings ignore <@123>", "From now on I ignore <@123> here."),
        ("settings ignore Ann B", "Mention the member or role, or give their id."),
        ("settings ignore", "Here, ignore default."),
        ("settings voice poet", "voice poet"),
        ("settings voice opera", "no voice “opera”"),
        (
            "settings colour red",
            "There is no setting “colour”; choose one of answers, ambient, cool-down,",
        ),
        ("voice pirate", "the voice “pirate”"),
        ("voice opera", "There is no voice “opera”"),
    ],
)
async def test_what_an_admin_gets(commands: Commands, line: str, answer: str) -> None:
    """Settings are changed by name; wrong ones get a sentence that says what is right."""
    assert answer in (await run(commands, line, admin=True)).text


async def test_a_setting_without_a_value_is_shown(commands: Commands) -> None:
    """Looking at a setting changes nothing."""
    await run(commands, "settings ambient 0.2", admin=True)
    assert (await run(commands, "settings ambient", admin=True)).text == "Here, ambient 0.2."
    assert "ambient 0.2" in (await run(commands, "settings", admin=True)).text


@pytest.mark.parametrize(
    "model", ["/home/op/models/our-voice/", r"C:\\models\\our-voice", "someone/our-voice", "our-voice"]
)
async def test_members_never_see_the_operators_side(model: str) -> None:
    """A model shows by its last name, a failing database by an apology."""
    clock = Clock()
    talk = chat(FakeGenerator(model=model), clock=clock)
    commands = Commands(chat=talk, clock=clock, started_at=clock.now)
    asked = await run(commands, "ask how are you")
    assert asked.reply is not None
    await talk.posted(asked.reply, said("x", kind=Kind.CHANNEL).conversation, ["p1"])
    assert (await run(commands, "status")).text.startswith("Model our-voice; ")
    about = await commands.why(Invocation(name="why", message=said("", kind=Kind.CHANNEL), post="p1"))
    assert about.text.startswith("model: our-voice\nadapter: none\n")

    def broken(*_: str) -> dict[str, object]:
        raise StorageError("The database failed; check PERSON2_DATABASE_URL.")

    commands.stored = broken
    assert (await run(commands, "my-data")).text == BROKEN


async def test_ask_and_again(commands: Commands) -> None:
    """Ask speaks for everybody to see; again replaces what was posted."""
    asked = await run(commands, "ask how are you")
    assert asked.reply is not None
    assert (asked.reply.text, asked.private) == ("one", False)
    await commands.chat.posted(asked.reply, said("x", kind=Kind.CHANNEL).conversation, ["p1"])
    another = await run(commands, "again")
    assert another.reply is not None
    assert (another.reply.text, another.replaces) == ("two", ("p1",))


async def test_consent_is_kept_and_taken_back(commands: Commands) -> None:
    """Yes, show, no, show."""
    answers = [(await run(commands, f"consent {word}")).text for word in ("yes", "show", "no", "show")]
    assert answers[1].startswith("You said yes.")
    assert answers[3].startswith("You said no")


async def test_my_data_and_forget_me(commands: Commands) -> None:
    """A member sees all that is stored of them, has it deleted, and sees nothing more."""
    await run(commands, "ask where is my umbrella")
    await run(commands, "ask something else", author="bob")
    stored = (await run(commands, "my-data")).attachment
    assert stored is not None
    assert [row["text"] for row in json.loads(stored.data)["messages"]] == ["where is my umbrella"]
    assert (await run(commands, "forget-me yes")).text == "Done: I deleted 1 of your messages and 1 of my answers."
    assert "0 messages" in (await run(commands, "my-data")).text
    assert "1 messages" in (await run(commands, "my-data", author="bob")).text


def test_descriptions_fit_discord() -> None:
    """Discord allows names of 32 and descriptions of 100 characters."""
    assert all(len(row.summary) <= 100 and len(row.name) <= 32 for row in COMMANDS)


async def test_members_and_roles_are_ignored_and_heard_again(commands: Commands) -> None:
    """Mentions of members and roles, or ids; each can be taken back alone."""
    for who in ("<@123>", "<@&9>", "u7"):
        await run(commands, f"settings ignore {who}", admin=True)
    assert (await run(commands, "settings ignore", admin=True)).text == "Here, ignore 123 @9 u7."
    await run(commands, "settings unignore <@123>", admin=True)
    assert (await run(commands, "settings ignore", admin=True)).text == "Here, ignore @9 u7."
    await run(commands, "settings ignore default", admin=True)
    assert (await run(commands, "settings ignore", admin=True)).text == "Here, ignore default."


async def test_reset_is_for_admins_where_they_want_it_so(commands: Commands) -> None:
    """Anyone may, unless the channel's admins keep it to themselves."""
    assert "fresh start" in (await run(commands, "reset")).text
    await run(commands, "settings reset admins", admin=True)
    assert (await run(commands, "reset")).text == "Only members who may manage this channel can reset it."
    assert "fresh start" in (await run(commands, "reset", admin=True)).text


async def test_why_tells_what_was_drawn_and_from_whom_it_was_learned() -> None:
    """Of the last answer to whoever asks: the candidates with their scores, and how many people agreed."""
    clock = Clock()
    talk = chat(FakeGenerator(lines=["yes|no|yes"]), clock=clock)
    commands = Commands(chat=talk, clock=clock, started_at=clock.now, learned_from=lambda adapter: 7)
    assert "I have no record of that answer" in (await run(commands, "why")).text
    asked = await run(commands, "ask is it open?")
    assert asked.reply is not None
    await talk.posted(asked.reply, said("x", kind=Kind.CHANNEL).conversation, ["p1"])
    about = (await run(commands, "why")).text
    assert "drawn: “yes” (2 of 3, 0.7); “no” (1 of 3, 0.0)" in about
    assert "learned from: 7 people who agreed" in about
