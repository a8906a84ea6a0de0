"""oqto-ttyd: the terminal inside a session, for hosts without ttyd."""
