"""`python -m person2` is the `person2` command."""

from person2 import main

main()
