"""The program: `app` constructs everything, `cli` holds the commands, `console` shows their results; `logging` and
`healthcheck` inform the operator of a running bot.
"""


def main() -> None:
    """The `person2` command."""
    from person2.cli import run_program

    run_program()
