"""The sandbox of a session: its rules, the file system it shows, and the walls that enforce it."""
