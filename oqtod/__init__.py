"""oqtod: a multi-user session daemon for one Debian host."""

__version__ = "0.1.0"
