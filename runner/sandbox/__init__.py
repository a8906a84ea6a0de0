"""The sandbox of a session: its policy, and the bubblewrap command line that enforces it."""
