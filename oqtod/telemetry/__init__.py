"""What the daemon says about itself: logs, readiness."""
