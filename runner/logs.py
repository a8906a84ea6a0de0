"""Where log lines go: to the journal with fields under systemd, to stderr otherwise.

`log.info("…", extra={"SESSION_ID": id})`: upper-case attributes of a record become journal fields, see
systemd.journal-fields(7).
"""

from __future__ import annotations

import logging
import os
import sys

_PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class JournalHandler(logging.Handler):
    """Writes records to the journal, with SESSION_ID, LINUX_USER and the like as fields."""

    def __init__(self, identifier: str) -> None:
        super().__init__()
        from systemd import journal  # a compiled part that only hosts with systemd have

        self._send = journal.send
        self._identifier = identifier
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a journal that can't be reached is reported as logging does."""
        try:
            fields = {name: str(value) for name, value in record.__dict__.items() if name.isupper()}
            self._send(
                self.format(record),
                PRIORITY=_PRIORITY.get(record.levelno, 6),
                SYSLOG_IDENTIFIER=self._identifier,
                LOGGER=record.name,
                **fields,
            )
        except Exception:  # logging.Handler's contract: a failed log line never stops the program
            self.handleError(record)


def stderr_is_journal() -> bool:
    """Say whether systemd connected our stderr to the journal: JOURNAL_STREAM in systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def handler(identifier: str) -> logging.Handler:
    """Return the handler for this process: the journal's where stderr is the journal, else stderr's."""
    if stderr_is_journal():
        return JournalHandler(identifier)
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return plain


def start(identifier: str, level: int) -> None:
    """Send this process's log there, from `level` on."""
    logging.basicConfig(level=level, handlers=[handler(identifier)], force=True)
