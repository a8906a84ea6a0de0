"""Our folders, sockets and files: there, of the right kind, with the right owner and mode, changeable."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from msgspec import Struct

from oqtod import config as configuration
from oqtod.admin.doctor import passwd
from oqtod.admin.doctor.finding import Finding, Repair, Run, SetOwner, each, note, problem, warning
from oqtod.admin.doctor.host import Host, Kind, Seen
from oqtod.supervisor import messages
from oqtod.supervisor.registry import Row

REGISTRY = "/var/lib/oqtod-supervisor/accounts.json"
TMPFILES = Run(("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/oqtod.conf"))
RESTART = Run(("systemctl", "restart", "oqtod.service"))
RESTART_GATEWAY = Run(("systemctl", "restart", "oqtod-gateway.service"))
_PUBLIC = "apt-get install --reinstall -o Dpkg::Options::=--force-confmiss oqtod"


class Place(Struct, frozen=True):
    """What should be at a path. `needed` are the bits of `mode` that somebody relies on."""

    path: str
    kind: Kind
    owner: str
    group: str
    mode: int
    needed: int
    matters: str
    missing: tuple[str, Repair | None] | None
    """What to do when it is missing; None where that is no fault."""


def places(host: Host) -> list[Place]:
    """Return what should be where on a host, people's own places excepted."""
    gateway = "nobody can log in or reach a session"
    broker = "the gateway can't reach the supervisor: no account's runner can start"
    root_only = "the gateway and the runners can't pass, or others could put sockets in the place of ours"
    made = ("systemd-tmpfiles --create /usr/lib/tmpfiles.d/oqtod.conf && systemctl restart oqtod", TMPFILES)
    restarted = ("systemctl restart oqtod", RESTART)
    started = ("systemctl start oqtod makes it", Run(("systemctl", "start", "oqtod.service")))
    lost = ("restore it from a backup: systemctl restart oqtod makes an empty one, and new accounts", None)
    data, state = host.config.paths.data_dir, host.config.paths.state_dir
    folders = [
        Place("/run/oqto", "folder", "root", "root", 0o755, 0o755, root_only, made),
        Place("/run/oqto/runner-sockets", "folder", "root", "root", 0o755, 0o755, root_only, made),
        Place("/run/oqto/runners", "folder", "root", "root", 0o755, 0o755, root_only, made),
        Place(data, "folder", "oqtod", "oqtod", 0o700, 0o700, gateway, started),
        Place(str(PurePosixPath(REGISTRY).parent), "folder", "root", "root", 0o700, 0o700, broker, lost),
        Place(REGISTRY, "file", "root", "root", 0o600, 0o400, broker, None),
        Place(
            str(host.config_file or "/etc/oqto/config.toml"),
            *("file", "root", "oqtod", 0o640, 0o040),
            "the gateway can't read it, or others can read or change secrets and who may log in",
            (_PUBLIC, None),
        ),
        Place(
            *("/etc/oqto", "folder", "root", "root", 0o755, 0o755),
            "the daemons can't reach their configuration, or others can exchange it",
            (_PUBLIC, None),
        ),
        Place(
            *("/etc/oqto/sandbox.toml", "file", "root", "root", 0o644, 0o444),
            "sessions are refused when their runner can't read it; who can change it can open the sandbox",
            (_PUBLIC, None),
        ),
        Place(messages.SOCKET, "socket", "root", "oqtod", 0o660, 0o660, broker, restarted),
        Place(
            configuration.admin_socket(host.config),
            *("socket", "oqtod", "oqto-admin", 0o660, 0o660),
            "oqtoctl can't reach the daemon, or others than administrators can",
            ("systemctl restart oqtod-gateway", RESTART_GATEWAY),
        ),
    ]
    if state != data:
        folders.append(Place(state, "folder", "oqtod", "oqtod", 0o700, 0o700, gateway, started))
    database = str(host.database)
    matters = "users, sessions and keys are in it: it can't be used, or others can read password hashes"
    gone = (f"restore it from a backup; without one: systemctl restart oqtod makes an empty {database}", None)
    for path, missing in (
        (database, gone),
        *((f"{database}{end}", None) for end in (".lock", "-wal", "-shm")),
    ):
        folders.append(Place(path, "file", "oqtod", "oqtod", 0o600, 0o600, matters, missing))
    audit = host.config.logging.audit_file
    if host.config.logging.audit_enabled and audit is not None:
        unseen = "what people do is not recorded, or others can read it"
        folders.append(Place(audit, "file", "oqtod", "oqtod", 0o600, 0o600, unseen, None))
    return folders


def permissions(host: Host) -> Iterator[Finding]:
    """Look at every place of ours."""
    if host.personal:
        yield from each([host.config.paths.data_dir, host.config.paths.state_dir], partial(_own, host))
    else:
        yield from each(places(host), lambda place: compare(host, place), lambda place: place.path)


def _own(host: Host, path: str) -> Iterator[Finding]:
    """In personal mode the folders are one's own; they are made at the first start."""
    if not host.exists(path):
        return
    seen = host.look(path)
    if seen.kind != "folder" or seen.uid != host.uid or seen.mode & 0o700 != 0o700:
        yield problem(
            path,
            f"a {seen.kind} of {passwd.user_name(host, seen.uid)}, mode {seen.mode:04o}",
            "oqtod can't keep its database there",
            f"chown $USER {path}; chmod 0700 {path}",
        )


def compare(host: Host, place: Place) -> Iterator[Finding]:
    """Compare what is at a path with what should be."""
    try:
        seen = host.look(place.path)
    except (FileNotFoundError, NotADirectoryError):
        if place.missing is not None:
            yield problem(place.path, "missing", place.matters, place.missing[0], place.missing[1])
        return
    if seen.kind != place.kind:
        yield problem(
            place.path,
            f"a {seen.kind}, where a {place.kind} should be",
            place.matters,
            f"look at what it is: ls -ld {place.path}; move it away, then: systemctl restart oqtod",
        )
        return
    yield from _owned(host, place, seen)


def _owned(host: Host, place: Place, seen: Seen) -> Iterator[Finding]:
    owner, group = passwd.user(host, place.owner), passwd.group(host, place.group)
    if owner is None or group is None:
        return  # told by the check of the system's accounts
    right_owner = (seen.uid, seen.gid) == (owner.uid, group.gid)
    lacking, extra = place.needed & ~seen.mode, seen.mode & ~place.mode
    if right_owner and not lacking and not extra:
        return
    names = f"{passwd.user_name(host, seen.uid)}:{passwd.group_name(host, seen.gid)}"
    yield problem(
        place.path,
        f"{names} {seen.mode:04o}, and should be {place.owner}:{place.group} {place.mode:04o}",
        place.matters,
        f"chown {place.owner}:{place.group} {place.path}; chmod {place.mode:04o} {place.path}",
        SetOwner(place.path, owner.uid, group.gid, place.mode),
    )


def sockets_of_runners(host: Host, rows: list[Row], listening: set[str]) -> Iterator[Finding]:
    """Look at the runner socket of each account that systemd says it listens for."""
    yield from each(
        [row for row in rows if row.state == "active" and row.name in listening],
        lambda row: _runner_socket(host, row),
        lambda row: row.name,
    )


def _runner_socket(host: Host, row: Row) -> Iterator[Finding]:
    path = configuration.runner_socket(host.config, user=row.name, uid=row.uid)
    unit = f"oqto-runner@{row.name}.socket"
    matters = f"the gateway can't reach the sessions of {row.user_id}, or somebody else can"
    again = (f"systemctl restart {unit}", Run(("systemctl", "restart", unit)))
    folder = str(PurePosixPath(path).parent)
    if path.startswith("/run/oqto/"):
        yield from compare(host, Place(folder, "folder", "root", "root", 0o755, 0o755, matters, again))
    yield from compare(host, Place(path, "socket", row.name, "oqtod", 0o660, 0o660, matters, again))


_SYSTEM = (
    *(("/", 0o755), ("/etc", 0o755), ("/usr", 0o755), ("/usr/bin", 0o755), ("/usr/lib", 0o755)),
    *(("/usr/share", 0o755), ("/usr/share/oqtod", 0o755), ("/home", 0o711), ("/run", 0o755)),
    *(("/var", 0o755), ("/var/lib", 0o755), ("/proc", 0o555), ("/tmp", 0o1777), ("/var/tmp", 0o1777)),  # noqa: S108
    *(("/dev", 0o755), ("/dev/null", 0o666), ("/dev/zero", 0o666), ("/dev/urandom", 0o666)),
    *(("/dev/ptmx", 0o666), ("/dev/tty", 0o666), ("/dev/shm", 0o1777), ("/etc/passwd", 0o644)),  # noqa: S108
    *(("/etc/group", 0o644), ("/etc/nsswitch.conf", 0o644), ("/etc/hosts", 0o644)),
)
"""Paths of the system that everybody passes through or reads, with what they need at least."""

_FOR_ALL = 0o1002
"""A folder or device that all may write to, on purpose."""


def system(host: Host) -> Iterator[Finding]:
    """Look at the system's own paths that daemons, runners and sessions rely on."""
    if not host.personal:
        yield from each(_SYSTEM, lambda entry: _of_system(host, *entry), lambda entry: entry[0])


def _of_system(host: Host, path: str, needed: int) -> Iterator[Finding]:
    matters = "services of other users than root can't work without it"
    try:
        seen = host.look(path)
    except (FileNotFoundError, NotADirectoryError):
        yield problem(path, "missing", matters, f"put {path} back; Debian's has mode {needed:04o}")
        return
    lacking = needed & ~seen.mode
    if lacking:
        yield problem(
            path,
            f"mode {seen.mode:04o}, which lacks {lacking:04o}",
            matters,
            f"chmod {needed | seen.mode:04o} {path}",
        )
    if seen.uid != 0 and host.is_real:
        yield problem(
            path,
            f"belongs to {passwd.user_name(host, seen.uid)}",
            "that user can exchange what is in it, and so become anybody on this host",
            f"chown root {path}",
        )
    if seen.mode & 0o002 and not needed & _FOR_ALL:
        yield problem(
            path,
            f"everybody may write to it (mode {seen.mode:04o})",
            "any account can exchange what is in it, and so become anybody on this host",
            f"chmod o-w {path}",
        )


def attributes(host: Host) -> Iterator[Finding]:
    """Look for files that can't be changed because of an attribute, chattr(1), whatever their mode says."""
    if host.personal or host.uid != 0:
        return
    audit = host.config.logging.audit_file
    written = [str(host.database), f"{host.database}-wal", f"{host.database}-shm", f"{host.database}.lock"]
    written += [host.config.paths.data_dir, REGISTRY, str(PurePosixPath(REGISTRY).parent), "/home", "/run"]
    written += [f"/etc/{name}" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")]
    written += ["/etc", "/run/oqto", *([audit] if audit else [])]
    yield from each(written, lambda path: _changeable(host, path))
    config = str(host.config_file or "")
    if config and host.exists(config) and host.attributes(config):
        yield note(
            config,
            "has the attribute immutable or append-only",
            "editors fail on it, root's too",
            f"chattr -ia {config}",
        )


def _changeable(host: Host, path: str) -> Iterator[Finding]:
    try:
        found = host.attributes(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if found == ["append-only"] and path == host.config.logging.audit_file:
        yield warning(
            path,
            "has the attribute append-only",
            "it can't be rotated, and grows for ever",
            f"chattr -a {path} before it fills the disk",
        )
    elif found:
        yield problem(
            path,
            f"has the attribute {' and '.join(found)}",
            "nobody can change it, root included: accounts, sessions or logins fail on it",
            f"chattr -ia {path}",
        )


_TESTS = (
    ("/etc/oqto/config.toml", "-r"),
    ("/usr/bin/oqtod", "-x"),
    ("/usr/bin/python3", "-x"),
    ("/usr/share/oqtod/oqtod/__init__.py", "-r"),
    (messages.SOCKET, "-w"),
    ("/dev/null", "-w"),
)


def reach(host: Host) -> Iterator[Finding]:
    """Try, as the gateway's user, what the gateway needs: access lists and policies count too."""
    if host.personal or host.uid != 0:
        return
    gateway = passwd.user(host, "oqtod")
    if gateway is None:
        return
    tests = [*_TESTS, (host.config.paths.data_dir, "-w"), (str(host.database), "-w")]
    for path, test in tests:
        try:
            host.look(path)
        except OSError:
            continue  # told by other checks
        if host.run("test", test, path, ids=(gateway.uid, gateway.gid)).code != 0:
            word = {"-r": "read", "-w": "write", "-x": "run"}[test]
            yield problem(
                path,
                f"the user oqtod can't {word} it",
                "the gateway fails, or will at its next start",
                f"namei -l {path} shows modes on the way; getfacl {path} shows access lists; "
                f"setfacl -b {path} removes them",
            )
