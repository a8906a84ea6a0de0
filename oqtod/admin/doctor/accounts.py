"""Linux accounts: the system's own for oqtod, and people's, compared with the registry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from oqtod.admin.doctor import passwd, places, units
from oqtod.admin.doctor.finding import Finding, Run, each, not_looked_at, note, problem, warning
from oqtod.admin.doctor.host import Host
from oqtod.admin.doctor.passwd import User
from oqtod.supervisor import names
from oqtod.supervisor.registry import Registry, RegistryError, Row

SYSUSERS = Run(("systemd-sysusers", "/usr/lib/sysusers.d/oqtod.conf"))
_MAKE = "systemd-sysusers /usr/lib/sysusers.d/oqtod.conf && systemctl restart oqtod"
_ACCOUNT_FILES = {"passwd": 7, "group": 4, "shadow": 9, "gshadow": 4}
_LOCKS = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
_SOME_TIME = 120.0


def system(host: Host) -> Iterator[Finding]:
    """Look for the system user and the groups that the package makes."""
    if host.personal:
        return
    gateway = passwd.user(host, "oqtod")
    if gateway is None:
        yield problem(
            "oqtod (user)", "not in /etc/passwd", "neither daemon can start without it", _MAKE, SYSUSERS
        )
    elif gateway.uid == 0:
        yield problem(
            *("oqtod (user)", "has uid 0", "the gateway, which is reachable for everybody, runs as root"),
            f"userdel -f oqtod; {_MAKE}",
        )
    shared = host.config.local.linux_users.group
    for name, matters in (
        ("oqtod", "neither daemon can start without it"),
        ("oqto-admin", "there is no admin socket without it, so no oqtoctl"),
        (shared, "the group that every account is in"),
    ):
        if passwd.group(host, name) is None:
            make = SYSUSERS if name != shared or shared == "oqto" else None
            yield problem(f"{name} (group)", "not in /etc/group", matters, _MAKE, make)
    if gateway is not None:
        own = passwd.group(host, "oqtod")
        if own is not None and gateway.gid != own.gid:
            found = f"its group is {passwd.group_name(host, gateway.gid)}"
            matters = "sockets and files are given to the group oqtod"
            yield problem("oqtod (user)", found, matters, "usermod -g oqtod oqtod; systemctl restart oqtod")
        if host.is_real:
            yield from _looked_up(host, gateway)


def _looked_up(host: Host, gateway: User) -> Iterator[Finding]:
    """Ask the way that programs ask, nsswitch.conf(5): what is in the file can still be hidden."""
    answer = host.run("getent", "passwd", "oqtod")
    if f":{gateway.uid}:" not in answer.out:
        yield problem(
            "/etc/nsswitch.conf",
            f"a look-up of oqtod answers {answer.out.strip() or 'nothing'}, "
            f"and /etc/passwd has uid {gateway.uid}",
            "programs don't see the accounts that are there",
            "the line passwd: in /etc/nsswitch.conf should begin with: files",
        )


def files(host: Host) -> Iterator[Finding]:
    """Look at the account files themselves, and at their locks."""
    if host.personal:
        return
    yield from each(_ACCOUNT_FILES, lambda name: _file(host, name), lambda name: f"/etc/{name}")
    yield from each(_LOCKS, lambda name: _lock(host, name), lambda name: f"/etc/{name}.lock")


def _file(host: Host, name: str) -> Iterator[Finding]:
    path, matters = f"/etc/{name}", "accounts can't be made or removed, and people may not be found"
    try:
        wrong = passwd.broken_lines(host, path, _ACCOUNT_FILES[name])
    except FileNotFoundError:
        yield problem(path, "missing", matters, f"cp -p {path}- {path} takes the last copy")
        return
    for number in wrong:
        yield problem(path, f"line {number} is not whole", matters, f"correct line {number}: vipw, vigr")
    if name == "passwd":
        entries = passwd.users(host)
        for uid, count in Counter(entry.uid for entry in entries).items():
            if count > 1:
                twice = [entry.name for entry in entries if entry.uid == uid]
                found = f"uid {uid} is that of {' and '.join(twice)}"
                matters = "for the kernel they are one: each can do what the other can"
                yield problem(path, found, matters, f"usermod -u NEWUID {twice[-1]}")


def _lock(host: Host, name: str) -> Iterator[Finding]:
    path = f"/etc/{name}.lock"
    try:
        seen = host.look(path)
        holder = host.read(path, 32).strip("\0 \n")
    except (FileNotFoundError, NotADirectoryError):
        return
    if host.clock() - seen.modified < _SOME_TIME and holder.isdecimal():
        return  # somebody is at it
    alive = holder.isdecimal() and host.exists(f"/proc/{holder}")
    if alive or not holder.isdecimal():
        yield problem(
            path,
            f"a lock, held by {f'process {holder}' if alive else 'nobody: it names no process'}",
            "useradd and userdel wait for it in vain, so nobody new gets an account",
            f"make sure that nobody edits accounts (ps -p {holder or '?'}), then: rm {path}",
        )


def rows_of(host: Host) -> tuple[Row, ...]:
    """Return the registry's rows. Raises RegistryError, OSError."""
    if not host.exists(places.REGISTRY):
        return ()
    host.read(places.REGISTRY, 1)  # for its better message where it can't be read
    return Registry(host.root / places.REGISTRY.lstrip("/")).rows


def registry(host: Host) -> Iterator[Finding]:
    """Compare people's accounts with the registry, both ways."""
    if host.personal:
        return
    try:
        rows = rows_of(host)
    except RegistryError as error:
        yield problem(
            places.REGISTRY,
            str(error),
            "the supervisor doesn't start: it could give a uid out twice",
            f"restore {places.REGISTRY} from a backup; don't delete it while accounts exist",
        )
        return
    known = passwd.users(host)
    yield from each(
        [row for row in rows if row.state != "deleted"], lambda row: _account(host, row, known), _name_of
    )
    yield from _strangers(host, rows, known)
    if host.exists(places.REGISTRY):
        yield from _sockets(host, rows)


def _name_of(row: Row) -> str:
    return row.name


def _sockets(host: Host, rows: tuple[Row, ...]) -> Iterator[Finding]:
    names_ = {units_name for units_name in units.runners(host) if units_name.endswith(".socket")}
    if names_:
        shown = units.show(host, sorted(names_))
        listening = {
            unit.name.partition("@")[2].removesuffix(".socket") for unit in shown if unit.active == "active"
        }
        yield from places.sockets_of_runners(host, list(rows), listening)


def _account(host: Host, row: Row, known: list[User]) -> Iterator[Finding]:
    entry = next((user for user in known if user.name == row.name), None)
    if row.state in ("creating", "deleting"):
        yield warning(
            row.name,
            f"{row.state}: the registry says that this did not end",
            f"{row.user_id} has no account yet" if row.state == "creating" else "the account is still there",
            "systemctl restart oqtod finishes it; journalctl -u oqtod says what is in the way",
        )
        return
    settings = host.config.local.linux_users
    if entry is None:
        yield problem(
            row.name,
            f"in the registry (uid {row.uid}), and not in /etc/passwd",
            f"{row.user_id} can't work; the home keeps its files under the bare uid",
            f"it is made again, with its uid, when {row.user_id} opens a session; "
            f"to make it now: groupadd -g {row.uid} {row.name}; useradd -u {row.uid} -g {row.uid} "
            f"-G {settings.group} -s {settings.shell} -M {row.name}",
        )
        yield from _home(host, row)
        return
    if entry.uid != row.uid:
        yield problem(
            row.name,
            f"uid {entry.uid} in /etc/passwd, and {row.uid} in the registry",
            "the supervisor refuses the account: it may be somebody else's",
            f"if somebody changed it by hand: usermod -u {row.uid} -g {row.uid} {row.name}",
        )
    yield from _entry(host, row, entry)
    yield from _home(host, row)


def _entry(host: Host, row: Row, entry: User) -> Iterator[Finding]:
    shell = host.which(entry.shell) if entry.shell.startswith("/") else None
    if shell is None or not shell.mode & 0o001 or entry.shell.endswith(("/nologin", "/false")):
        yield problem(
            row.name,
            f"its shell is {entry.shell or 'none'}, which can't be used",
            f"terminals of {row.user_id} end as soon as they start",
            f"usermod -s {host.config.local.linux_users.shell} {row.name}",
        )
    if entry.home != f"/home/{row.name}":
        yield problem(
            row.name,
            f"its home is {entry.home} in /etc/passwd",
            f"the daemon works with /home/{row.name}",
            f"usermod -d /home/{row.name} {row.name}",
        )
    shared = passwd.group(host, host.config.local.linux_users.group)
    if shared is not None and row.name not in shared.members and entry.gid != shared.gid:
        yield warning(
            row.name,
            f"not in the group {shared.name}",
            "rules that administrators make for all accounts don't count for it",
            f"usermod -a -G {shared.name} {row.name}",
        )
    own = passwd.group(host, row.name)
    if own is None or own.gid != entry.gid:
        yield problem(
            row.name,
            f"has no group of its own with gid {entry.gid}",
            "its runner doesn't start: the unit has Group= with the account's name",
            f"groupadd -g {row.uid} {row.name}; usermod -g {row.uid} {row.name}",
        )


def _home(host: Host, row: Row) -> Iterator[Finding]:
    path = f"/home/{row.name}"
    if not host.config.local.linux_users.create_home:
        return
    try:
        seen = host.look(path)
    except FileNotFoundError:
        yield problem(
            path,
            "missing",
            f"sessions of {row.user_id} find no workspace",
            "restore it from a backup; an empty one is made when its person opens a session",
        )
        return
    except OSError as error:
        yield not_looked_at(path, error)
        return
    if seen.kind != "folder":
        yield problem(path, f"a {seen.kind}", f"sessions of {row.user_id} fail", f"ls -ld {path}")
        return
    if seen.uid != row.uid:
        yield problem(
            path,
            f"belongs to {passwd.user_name(host, seen.uid)}, and not to {row.name}",
            f"{row.user_id} can't write there, or somebody else reads it",
            f"chown {row.uid}:{row.uid} {path}",
        )
    if seen.mode & 0o700 != 0o700:
        matters = f"sessions of {row.user_id} can't use it"
        yield problem(path, f"mode {seen.mode:04o}", matters, f"chmod 0700 {path}")
    elif seen.mode & 0o077:
        severity = problem if seen.mode & 0o022 else warning
        yield severity(
            path, f"mode {seen.mode:04o}", "other accounts can look into it, or write", f"chmod 0700 {path}"
        )


def _strangers(host: Host, rows: tuple[Row, ...], known: list[User]) -> Iterator[Finding]:
    prefix = host.config.local.linux_users.prefix
    live = {row.name for row in rows if row.state != "deleted"}
    gone = {row.uid for row in rows if row.state == "deleted"} - {
        row.uid for row in rows if row.state != "deleted"
    }
    for entry in known:
        if names.is_account_name(entry.name, prefix) and entry.name not in live:
            yield warning(
                entry.name,
                f"in /etc/passwd (uid {entry.uid}), and not in the registry",
                "it is not one of oqtod's: its person would get another account",
                f"left from an earlier installation? userdel {entry.name}, once its home is saved",
            )
        if entry.uid in gone:
            yield problem(
                entry.name,
                f"has uid {entry.uid}, which belonged to a deleted account",
                "files that the deleted account left somewhere belong to this one now",
                f"find / -xdev -uid {entry.uid}; then usermod -u NEWUID {entry.name}",
            )
    duplicates = [uid for uid, count in Counter(row.uid for row in rows).items() if count > 1]
    for uid in duplicates:
        yield problem(places.REGISTRY, f"uid {uid} twice", "two people share one account", "restore a backup")
    homes = [name for name in host.listed("/home") if re.fullmatch(rf"{re.escape(prefix)}[a-z0-9_]*", name)]
    for name in sorted(set(homes) - live - {entry.name for entry in known}):
        yield note(
            f"/home/{name}",
            "a home without an account",
            "kept when its account was deleted, or its account was removed by hand",
            f"ls -ldn /home/{name}; delete it when nobody needs it",
        )
