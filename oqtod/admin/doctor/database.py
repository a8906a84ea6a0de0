"""The database: there, whole, of a version that we know, and held by the one gateway that should hold it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import msgspec
from msgspec import structs

from oqtod.admin.doctor import passwd, processes, units
from oqtod.admin.doctor.finding import Finding, each, note, problem, warning
from oqtod.admin.doctor.host import Host, Ids

_TIMEOUT = 30.0
_BACKUP = "restore it from a backup"


class Inspected(msgspec.Struct):
    """What `inspection` prints."""

    version: int | None = None
    faults: list[str] = []
    dangling: bool = False
    error: str | None = None
    failed_sessions: list[tuple[str, str | None]] = []
    users: list[tuple[int, int | None, int | None]] = []
    invites: list[tuple[int]] = []
    expired_invites: list[tuple[str, str]] = []
    departures: list[tuple[int]] = []


def whole(host: Host) -> Iterator[Finding]:
    """Look into the database, as its owner."""
    path = str(host.database)
    yield from each([path], lambda _: _deleted_under_us(host))
    yield from each([f"{path}.lock"], lambda _: _holders(host))
    try:
        seen = host.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return  # told by the check of places; in personal mode it is made at the first start
    if seen.kind != "file":
        yield problem(path, f"a {seen.kind}", "the gateway doesn't start", f"ls -l {path}")
        return
    if seen.size == 0:
        yield problem(path, "an empty file", "whatever was in it is gone", f"systemctl stop oqtod; {_BACKUP}")
        return
    ids: Ids | None = None
    if host.uid == 0:
        gateway = passwd.user(host, "oqtod") if not host.personal else None
        ids = (gateway.uid, gateway.gid) if gateway is not None else (seen.uid, seen.gid)
    elif seen.uid != host.uid:
        raise PermissionError(13, "only root and its owner may look into it", path)
    program = Path(__file__).with_name("inspection.py")
    answer = host.run(sys.executable, "-I", str(program), path, timeout=_TIMEOUT, ids=ids)
    if answer.code != 0:
        last = answer.error.strip().splitlines()[-1:] or ["no answer"]
        raise OSError(0, f"the inspection ended with {answer.code}: {last[0]}", path)
    yield from judged(host, path, msgspec.json.decode(answer.out, type=Inspected))


def judged(host: Host, path: str, inspected: Inspected) -> Iterator[Finding]:
    """Say what is wrong with what was seen."""
    save = f"systemctl stop oqtod; cp -a {path}* /root/; then {_BACKUP}, or try: sqlite3 {path} .recover"
    if inspected.error is not None:
        locked = "locked" in inspected.error
        yield problem(
            path,
            f"SQLite says: {inspected.error}",
            "users, sessions and keys can't be read",
            f"fuser -v {path} says who holds it" if locked else save,
        )
        return
    for fault in inspected.faults[:5]:
        yield problem(path, f"damaged: {fault}", "users, sessions or keys are lost, or soon will be", save)
    if inspected.dangling:
        yield problem(path, "rows refer to others that aren't there", "the gateway doesn't start", save)
    known = sum(
        1 for file in (resources.files("oqtod.store") / "migrations").iterdir() if file.name.endswith(".sql")
    )
    if inspected.version is not None and inspected.version > known:
        yield problem(
            path,
            f"of version {inspected.version}, made by a newer oqtod than this, which knows {known}",
            "the gateway doesn't start",
            "install the newer oqtod again",
        )
    elif inspected.version is not None and inspected.version < known:
        found = f"of version {inspected.version}, while this oqtod has {known}"
        advice = "systemctl restart oqtod"
        yield note(path, found, "it is brought up to date when the gateway starts", advice)
    yield from _content(host, inspected)


def _holders(host: Host) -> Iterator[Finding]:
    """Compare who has the lock open with who should: the gateway, and nobody else."""
    if host.personal or host.uid != 0:
        return
    path = f"{host.database}.lock"
    (unit,) = units.show(host, [units.GATEWAY])
    holding = processes.holding(host, {path, f"{path} (deleted)"})
    for pid in sorted(set(holding) - {unit.pid}):
        yield problem(
            path,
            f"open in {processes.described(host, pid)}, which is not the gateway",
            "another oqtod has the database: the gateway can't start, or both write to it",
            f"kill {pid}; then: systemctl restart oqtod",
        )
    if unit.active == "active" and holding.get(unit.pid) == f"{path} (deleted)":
        yield problem(
            path,
            "removed under the gateway, which still runs",
            "a second gateway could open the same database",
            "systemctl restart oqtod-gateway",
        )


def _content(host: Host, inspected: Inspected) -> Iterator[Finding]:
    for name, reason in inspected.failed_sessions:
        yield note(
            f"session {name}",
            f"failed: {reason or 'no reason was recorded'}",
            "its person sees this too",
            f"oqtoctl session show {name}; oqtoctl session resume {name}",
        )
    for prefix, expired in inspected.expired_invites:
        yield note(
            f"invite {prefix}…",
            f"expired on {expired}, with uses left",
            "whoever was sent it can't register with it",
            "oqtoctl invite create makes another",
        )
    for total, active, _ in inspected.users:
        if total and not active:
            matters = "nobody can log in"
            yield warning("users", f"all {total} are disabled", matters, "oqtoctl user enable NAME")
    for (left,) in inspected.departures:
        if left:
            yield warning(
                "users",
                f"{left} are being disabled or deleted, and that has not ended",
                "their sessions or accounts may still be there",
                "journalctl -u oqtod-gateway says what is in the way; systemctl restart oqtod tries again",
            )


def _deleted_under_us(host: Host) -> Iterator[Finding]:
    """Look whether the gateway works on a file that is no longer at its path: it can still be saved."""
    if host.personal or host.uid != 0:
        return
    (unit,) = units.show(host, [units.GATEWAY])
    if not unit.pid:
        return
    folder = f"/proc/{unit.pid}/fd"
    for number in host.listed(folder):
        try:
            target = host.link(f"{folder}/{number}")
        except OSError:
            continue  # closed meanwhile
        if target == f"{host.database} (deleted)":
            found = problem(
                str(host.database),
                f"deleted or replaced, while the gateway (process {unit.pid}) still has the old one open",
                "at the gateway's next restart everything in it is lost: users, sessions, keys",
                f"don't restart it; save it first: for f in {folder}/*; do case $(readlink $f) in "
                f"*/oqto.db*deleted*) n=$(readlink $f); n=${{n##*/}}; cp $f /root/${{n%% *}};; esac; done; "
                f"then: systemctl stop oqtod; install -o oqtod -g oqtod -m 0600 /root/oqto.db* "
                f"{host.database.parent}/; systemctl start oqtod",
            )
            yield structs.replace(found, holds=True)
            return
