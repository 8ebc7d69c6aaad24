"""Who the bot is: a sentence or a file by the operator, put before a conversation.

A model with a chat template gets the text as its system message; any other gets a few turns in front: those of the text
where it is written as a dialogue, else a question that the text answers. Pure text.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from core.dialogue import Dialogue, Speaker, Turn, fit, merge, one_line, prompt, turns_of
from core.errors import SettingsError, reason

LONGEST = 4_000
"""Characters; about half of the longest context (`core.generator.families.MAX_CONTEXT`)."""
QUESTION = "Tell me about yourself."
"""The question that a persona answers, where it is not a dialogue."""


def read_persona(setting: str) -> str:
    """The text of PERSON2_PERSONA: a file's where it names one, else itself. Raises SettingsError."""
    path = Path(setting).expanduser()
    try:
        named = bool(setting) and "\n" not in setting and len(setting) < 1_000 and path.is_file()
        text = path.read_text(encoding="utf-8") if named else setting
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"PERSON2_PERSONA names {path}, which cannot be read ({reason(error)}): give a UTF-8 file"
        ) from error
    if len(text) > LONGEST:
        raise SettingsError(f"PERSON2_PERSONA has {len(text)} characters: at most {LONGEST} are allowed")
    return text.strip()


def persona_turns(persona: str) -> Dialogue:
    """The turns that stand for a persona before a conversation, ending with Person2's."""
    if not one_line(persona):
        return ()
    turns = merge(turns_of(persona))
    if not turns:
        turns = (Turn(Speaker.PERSON1, QUESTION), Turn(Speaker.PERSON2, persona))
    return turns if turns[-1].speaker is Speaker.PERSON2 else turns[:-1]


def with_persona(text: str, persona: str, *, budget: int, count: Callable[[str], int]) -> str:
    """A prompt with the persona's turns in front; where both do not fit in `budget` tokens, turns are dropped.

    A persona that alone is over half of the budget is left out.
    """
    front = persona_turns(persona)
    taken = count("".join(f"{turn}\n" for turn in front)) if front else 0
    if not taken or 2 * taken > budget:
        return text
    kept = fit(turns_of(text), budget=budget - taken, count=count)
    return prompt((*front, *kept))


def messages(turns: Sequence[Turn], persona: str) -> list[dict[str, str]]:
    """A conversation as messages for chat models: the persona is the system, Person1 the user, Person2 the assistant.

    The assistant's messages before the first of the user are left out, since many templates refuse them.
    """
    spoken = list(turns)
    while len(spoken) > 1 and spoken[0].speaker is Speaker.PERSON2:
        spoken.pop(0)
    system = [{"role": "system", "content": persona}] if persona.strip() else []
    roles = {Speaker.PERSON1: "user", Speaker.PERSON2: "assistant"}
    return [*system, *({"role": roles[turn.speaker], "content": turn.text} for turn in spoken)]
