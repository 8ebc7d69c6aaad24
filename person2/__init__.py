"""The command line. `wiring` constructs, `screen` shows, the other modules hold the commands by what they are for.

Heavy parts (torch, discord.py, slack-bolt) are imported by the command that needs them, so that `person2 --help` and a
wrong setting answer at once.
"""

import os
import sys

import typer

from core.errors import Person2Error
from person2 import care, judge, learn, people, shelf, talk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A chatbot for Discord and Slack that learns the voice of the channel it lives in. Try `person2 chat`.",
)
app.add_typer(talk.app)
app.add_typer(talk.slack_app, name="slack")
app.add_typer(learn.app)
app.add_typer(judge.app)
app.add_typer(shelf.app, name="adapters")
app.add_typer(people.app)
app.add_typer(care.app)


def main() -> None:
    """Run the program: exit status 0 on success, 2 on wrong use, 1 on a failure said in one sentence."""
    os.umask(0o077)  # what people said is written for this program's user alone
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice is for programmers
    try:
        app(prog_name="person2")
    except Person2Error as error:
        if os.environ.get("PERSON2_DEBUG"):
            raise
        sys.stderr.write(f"person2: {_sentence(error)}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _sentence(error: Person2Error) -> str:
    text = " ".join(str(error).split()) or error.__class__.__name__
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
