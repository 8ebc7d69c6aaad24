"""The program: `app` constructs everything, `cli` holds the commands, `console` shows their results, and `logging`
and `healthcheck` are what a running bot tells its operator.
"""


def main() -> None:
    """The `person2` command."""
    from person2.cli import run_program

    run_program()
