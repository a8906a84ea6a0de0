"""The daemon's log: `logging.level` and `logging.file` of the configuration applied."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from oqtod.config import Config
from runner import logs

_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


def start(identifier: str, config: Config) -> None:
    """Log to the journal or stderr, and to `logging.file` where that is set. Raises OSError.

    Can be called again with a changed configuration.
    """
    handlers = [logs.handler(identifier)]
    if config.logging.file is not None:
        path = Path(config.logging.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.WatchedFileHandler(path)  # reopened when logrotate moved it away
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=_LEVELS[config.logging.level], handlers=handlers, force=True)
