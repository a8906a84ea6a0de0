"""The command `oqtod` and its subcommands."""
