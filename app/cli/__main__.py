"""The command line without an installation: python -m app.cli."""

from app.cli import main

main()
