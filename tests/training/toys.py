"""A few dialogues anyone can read."""

from core.dialogue import Dialogue, Speaker, Turn, render

TALK = [
    ("Do you like films?", "Yes, I like old films.", "Which one is the best?", "The one with the dog."),
    ("What do you eat?", "I eat bread and soup.", "Is the soup good?", "It is hot and good."),
    ("How is the weather?", "It rains, as it does.", "Do you like rain?", "I like the sun more."),
    ("Hello!", "Hello, how are you?", "I am well, thank you.", "That is good to hear."),
    ("Who won the game?", "The red team won it.", "By how much?", "By two goals to one."),
]


def dialogue(*texts: str) -> Dialogue:
    """Texts in turn, Person1 first."""
    sides = (Speaker.PERSON1, Speaker.PERSON2)
    return tuple(Turn(sides[index % 2], text) for index, text in enumerate(texts))


TEXTS = [render(dialogue(*talk)) for talk in TALK]
"""As they stand in a file."""
