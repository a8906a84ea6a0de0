"""Where a session runs."""
