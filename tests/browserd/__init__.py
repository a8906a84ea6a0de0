"""oqto-browserd with the real Chromium, and pages served from here."""
