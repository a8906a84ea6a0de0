"""The per-user side of oqtod: the runner, and the programs that run inside a session."""
