"""The command line: one file a group of commands.

Heavy parts (torch, discord.py, slack-bolt) are imported by the command that needs them, so that `person2 --help` and a
wrong setting answer at once.
"""

import os
import sys

import typer

from core.errors import Person2Error
from person2.cli import adapters, bench, bots, data, doctor, evaluate, privacy, train
from person2.console import sentence

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A chatbot for Discord and Slack that learns the voice of the channel it lives in. Try `person2 chat`.",
)
cli.add_typer(bots.cli)
cli.add_typer(bots.slack_cli, name="slack")
cli.add_typer(data.cli)
cli.add_typer(train.cli)
cli.add_typer(evaluate.cli)
cli.add_typer(adapters.cli, name="adapters")
cli.add_typer(privacy.cli)
cli.add_typer(doctor.cli)
cli.add_typer(bench.cli)


def run_program() -> None:
    """Run the command that was typed: exit status 0 on success, 2 on wrong use, 1 on a failure said in one sentence."""
    os.umask(0o077)  # what people said is readable by this program's user only
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings are for programmers
    try:
        cli(prog_name="person2")
    except Person2Error as error:
        if os.environ.get("PERSON2_DEBUG"):
            raise
        sys.stderr.write(f"person2: {sentence(str(error) or type(error).__name__)}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); otherwise Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
