"""`python -m cloudfsck` is the command."""

from cloudfsck.cli import main

main()
