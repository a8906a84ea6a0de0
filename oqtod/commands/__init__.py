"""The command `oqtod` and its subcommands."""

from oqtod.commands.main import main

__all__ = ["main"]
