"""The command line without an installation: python -m components.cli."""

from components.cli import main

main()
