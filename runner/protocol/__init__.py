"""The wire between the daemon and its runners."""
