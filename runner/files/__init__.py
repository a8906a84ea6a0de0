"""oqto-files: the file server inside a session."""
