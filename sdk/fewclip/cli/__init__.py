"""The `fewclip` command line. `main` parses argv; each subcommand imports what it needs itself."""

from fewclip.cli.main import main

__all__ = ["main"]
