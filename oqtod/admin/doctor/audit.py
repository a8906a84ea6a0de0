"""The audit log: written, of bearable size, rotated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from oqtod.admin.doctor.finding import Finding, note, problem, warning
from oqtod.admin.doctor.host import Host

_BIG = 1024**3
_LOGROTATE = "/etc/logrotate.d/oqtod"


def log(host: Host) -> Iterator[Finding]:
    """Look at the audit log's size, its folder, and who rotates it. Its owner is among the places."""
    settings = host.config.logging
    if not settings.audit_enabled:
        yield note("logging.audit_enabled", "false", "nobody will know who did what", "set it to true")
        return
    if settings.audit_file is None:
        return
    path = PurePosixPath(settings.audit_file)
    if not host.exists(path.parent):
        return  # made when the first line is written
    if host.look(path.parent).kind != "folder":
        yield problem(str(path.parent), "not a folder", "no line can be written", f"ls -ld {path.parent}")
        return
    size = host.look(path).size if host.exists(path) else 0
    if size > _BIG:
        yield warning(
            str(path),
            f"{size // 1024**2} MB",
            "it fills the disk that the database is on",
            f"logrotate -f {_LOGROTATE}; or: mv {path} {path}.1 && systemctl reload oqtod",
        )
    if not host.personal and not host.exists(_LOGROTATE):
        yield note(
            _LOGROTATE,
            "missing",
            f"nobody rotates {path}, so it grows for ever",
            f"write one for {path}, with postrotate: systemctl reload oqtod",
        )
