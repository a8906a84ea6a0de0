"""oqto-browserd: one Chromium for one session, shown to who watches and driven by who asks."""
