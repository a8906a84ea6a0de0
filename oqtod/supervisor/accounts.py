"""Linux accounts: made, repaired and removed with shadow's own programs, which hold the locks.

Each step is recorded before it is taken and can be taken again: after a crash the next call goes on where
the last one stopped.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import re
import shutil
import signal
from itertools import islice
from pathlib import Path

import msgspec
import trio

from oqtod.config import Config
from oqtod.supervisor import names
from oqtod.supervisor.registry import Registry, RegistryError, Row
from runner.protocol.rpc import CallFailed

log = logging.getLogger(__name__)

_TIMEOUT = 60.0
"""Seconds one of shadow's programs may take; it waits for other administrators' locks."""

_NAME_ATTEMPTS = 100
_KILL_ROUNDS = 50
_HOMES = Path("/home")
_FILES = [Path("/etc", name) for name in ("shadow", "group", "gshadow", "subuid", "subgid")]


class AccountTable:
    """The accounts of one registry. Not for concurrent use: the broker holds a lock."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._settings = config.local.linux_users
        self._sudo = ["sudo", "-n"] if self._settings.use_sudo and os.geteuid() != 0 else []

    def live(self) -> list[Row]:
        """Return the rows of accounts that exist."""
        return [row for row in self._registry.rows if row.state == "active"]

    def named(self, name: str) -> Row:
        """Return the live row of an account. Raises CallFailed when it isn't one of ours."""
        row = self._registry.of_account(name)
        if row is None:
            raise CallFailed("no_account", f"{name} is not an account of this registry")
        return row

    async def ensure(self, user_id: str) -> Row:
        """Return the account of a platform user, made or repaired if need be. Raises CallFailed."""
        if not names.is_user_id(user_id):
            raise CallFailed("bad_request", f"{user_id!r} is not a user id")
        row = self._registry.of_user(user_id)
        if row is not None and row.state == "deleting":
            await self._finish_deletion(row)
            row = None
        if row is None:
            row = self._registry.put(self._choose(user_id))
        homeless = self._settings.create_home and not _home(row).exists()
        if row.state == "creating" or _entry(row) is None or homeless:
            await self._create(row)
            row = self._registry.put(msgspec.structs.replace(row, state="active"))
        return row

    async def delete(self, name: str, *, remove_home: bool) -> None:
        """Remove an account and all its processes. Raises CallFailed."""
        row = msgspec.structs.replace(self.named(name), state="deleting", remove_home=remove_home)
        await self._finish_deletion(self._registry.put(row))

    async def finish_deletions(self) -> None:
        """Take up what a crash interrupted."""
        for row in self._registry.rows:
            if row.state == "deleting":
                try:
                    await self._finish_deletion(row)
                except (CallFailed, RegistryError) as error:
                    log.error("the account %s can't be removed yet: %s", row.name, error)

    def _choose(self, user_id: str) -> Row:
        """Pick a name and a uid that nobody has, had, or left a home under."""
        uid = self._registry.next_uid(self._settings.uid_start)
        while _taken(uid):
            uid += 1
        for name in islice(names.candidates(self._settings.prefix, user_id), _NAME_ATTEMPTS):
            if not _known(name) and not os.path.lexists(_HOMES / name):
                return Row(user_id=user_id, name=name, uid=uid, state="creating")
        raise CallFailed("conflict", f"no free account name was found for {user_id!r}")

    async def _create(self, row: Row) -> None:
        await self._shared_group()
        if row.state == "creating" and _entry(row) is not None:
            # Nobody has used it yet, and useradd may have been killed between two of its files: start anew.
            await self._run("userdel", "--", row.name)
        if _entry(row) is None:
            if not _group_exists(row.name):
                await self._run("groupadd", "--gid", str(row.uid), "--", row.name)
            home = "--create-home" if self._settings.create_home else "--no-create-home"
            identity = ["--uid", str(row.uid), "--gid", str(row.uid), "--groups", self._settings.group]
            looks = ["--shell", self._settings.shell, "--home-dir", str(_home(row)), "--comment", "oqtod"]
            await self._run("useradd", *identity, *looks, home, "--key", "HOME_MODE=0700", "--", row.name)
            log.info("made the account %s", row.name, extra={"LINUX_USER": row.name})
        if self._settings.create_home:
            _own_home(row)

    async def _shared_group(self) -> None:
        if not _group_exists(self._settings.group):
            await self._run("groupadd", "--system", "--", self._settings.group)

    async def _finish_deletion(self, row: Row) -> None:
        await _end_processes(row.uid)
        if _entry(row) is not None:
            await self._run("userdel", *(["--remove"] if row.remove_home else []), "--", row.name)
        if _group_exists(row.name) and grp.getgrnam(row.name).gr_gid == row.uid:
            await self._run("groupdel", "--", row.name)
        if _has_traces(row.name):
            # userdel was killed between two of its files: what is whole again can be removed whole.
            await self._shared_group()
            identity = ["--uid", str(row.uid), "--gid", self._settings.group, "--no-user-group"]
            await self._run("useradd", *identity, "--no-create-home", "--", row.name)
            await self._run("userdel", "--", row.name)
        if row.remove_home:
            await _remove_home(row)
        self._registry.put(msgspec.structs.replace(row, state="deleted"))
        log.info("removed the account %s", row.name, extra={"LINUX_USER": row.name})

    async def _run(self, *argv: str) -> None:
        # A caller who goes away must not kill it between two of its files.
        with trio.move_on_after(_TIMEOUT, shield=True):
            done = await trio.run_process([*self._sudo, *argv], capture_stderr=True, check=False)
            if done.returncode != 0:
                reason = done.stderr.decode(errors="replace").strip()
                raise CallFailed("account_failed", f"{argv[0]} {argv[-1]} failed: {reason}")
            return
        raise CallFailed("account_failed", f"{argv[0]} {argv[-1]} did not end within {_TIMEOUT:g} seconds")


def _home(row: Row) -> Path:
    return _HOMES / row.name


def _entry(row: Row) -> pwd.struct_passwd | None:
    """Return the account's entry. Raises CallFailed where somebody else's has its name."""
    try:
        entry = pwd.getpwnam(row.name)
    except KeyError:
        return None
    if entry.pw_uid != row.uid:
        raise CallFailed(
            "conflict",
            f"the account {row.name} has uid {entry.pw_uid}, and the registry says {row.uid}",
            "somebody changed it by hand: rename that account",
        )
    return entry


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return _group_exists(name)
    return True


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _has_traces(name: str) -> bool:
    """Say whether a name stands in one of the files beside passwd(5)."""
    found = re.compile(rf"(^|[:,]){re.escape(name)}($|[:,])", re.MULTILINE)
    return any(found.search(file.read_text()) for file in _FILES if file.exists())


def _taken(number: int) -> bool:
    """Say whether a number is a uid or a gid already."""
    try:
        pwd.getpwuid(number)
    except KeyError:
        try:
            grp.getgrgid(number)
        except KeyError:
            return False
    return True


def _own_home(row: Row) -> None:
    """Make sure that the home is the account's own and 0700, even where useradd was killed half-way.

    Only root can change names in /home, and the descriptor is of the very folder that was looked at.
    """
    home = _home(row)
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        pass
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(descriptor).st_uid
        if owner == 0:
            os.fchown(descriptor, row.uid, row.uid)
            os.fchmod(descriptor, 0o700)
        elif owner != row.uid:
            raise CallFailed("conflict", f"the folder {home} belongs to uid {owner}, not to {row.name}")
    finally:
        os.close(descriptor)


async def _remove_home(row: Row) -> None:
    """Remove a home that userdel left behind: it was killed, or there is no entry any more to find it by.

    Raises CallFailed where the folder is somebody else's.
    """
    home = _home(row)
    try:
        owner = home.lstat().st_uid
    except FileNotFoundError:
        return
    if owner != row.uid:
        raise CallFailed("conflict", f"the folder {home} belongs to uid {owner}, not to {row.name}")
    try:
        # It follows no link, and no process of the account is left that could swap one in.
        await trio.to_thread.run_sync(shutil.rmtree, home)
    except OSError as error:
        raise CallFailed("account_failed", f"the folder {home} can't be removed: {error}") from error


async def _end_processes(uid: int) -> None:
    """Kill every process of an account: kill(2) with -1, sent as that account, misses none that forks."""
    for _ in range(_KILL_ROUNDS):
        if not _has_processes(uid):
            return
        killer = ["/bin/kill", "-KILL", "--", "-1"]
        # It fails when it finds nothing more to kill, which the next look will show.
        await trio.run_process(killer, check=False, capture_stderr=True, user=uid, group=uid, extra_groups=[])
        await trio.sleep(0.05)
    raise CallFailed("account_failed", f"processes of uid {uid} survive {signal.SIGKILL.name}")


def _has_processes(uid: int) -> bool:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            ids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
            if str(uid) in ids and "\nState:\tZ" not in status:
                return True
    return False
