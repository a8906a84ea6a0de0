"""A program of its own: looks into the database as the user whose it is, and prints what it saw as JSON.

SQLite reads what the gateway wrote; should that be made to harm its reader, then not root. Started as
``python3 -I inspection.py DATABASE``; imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

_MOST = 20
_QUESTIONS = {
    "failed_sessions": "SELECT readable_id, error_message FROM sessions WHERE status = 'failed' LIMIT 20",
    "users": "SELECT count(*), sum(is_active), sum(is_active AND role = 'admin') FROM users",
    "invites": "SELECT count(*) FROM invites WHERE revoked_at IS NULL AND uses_remaining > 0 "
    "AND (expires_at IS NULL OR expires_at > strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
    "expired_invites": "SELECT code_prefix, expires_at FROM invites WHERE revoked_at IS NULL "
    "AND uses_remaining > 0 AND expires_at <= strftime('%Y-%m-%dT%H:%M:%SZ', 'now') LIMIT 20",
    "departures": "SELECT count(*) FROM departures",
}


def inspect(path: str) -> dict[str, object]:
    """Say whether the database is whole, how new it is, and what is in it."""
    seen: dict[str, object] = {}
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(path)}?{_mode(path)}", uri=True, timeout=3.0)
        ) as connection:
            seen["version"] = connection.execute("PRAGMA user_version").fetchone()[0]
            seen["faults"] = [
                row[0] for row in connection.execute(f"PRAGMA quick_check({_MOST})") if row[0] != "ok"
            ]
            seen["dangling"] = connection.execute("PRAGMA foreign_key_check").fetchone() is not None
            for name, question in _QUESTIONS.items():
                try:
                    seen[name] = connection.execute(question).fetchall()
                except sqlite3.OperationalError:
                    continue  # an older schema
    except sqlite3.Error as error:
        seen["error"] = str(error)
    return seen


def _mode(path: str) -> str:
    """Say how to open it: without a log beside it nobody has it open, and none is made for our look."""
    try:
        is_open = Path(path + "-wal").stat().st_size > 0 or os.path.lexists(path + "-shm")
    except FileNotFoundError:
        is_open = False
    return "mode=ro" if is_open else "mode=ro&immutable=1"


if __name__ == "__main__":
    print(json.dumps(inspect(sys.argv[1])))
