"""Runs inside a machine, as root: kills whoever makes or removes an account at every step, and asks again.

Prints a line for each thing that is not as it should be. Python announces what it is about to do to the
system as audit events (sys.addaudithook): dying at the first one, then at the second, and so on, is dying
between any two steps.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, "/usr/share/oqtod")

import trio

from oqtod.config import Config
from oqtod.config.model import LinuxUsers, Local
from oqtod.supervisor.accounts import AccountTable
from oqtod.supervisor.registry import Registry, Row

STEPS = {"os.rename", "os.mkdir", "os.chown", "os.chmod", "os.remove", "os.rmdir", "subprocess.Popen"}
CONFIG = Config(
    local=Local(linux_users=LinuxUsers(enabled=True, prefix="crash_", uid_start=5000, group="crashers"))
)
Work = Callable[[AccountTable], Awaitable[object]]


def fault(text: str) -> None:
    print(text, flush=True)


def steps(event: str, _: tuple[object, ...]) -> None:
    """An audit hook: counts the steps, and dies at the one it was told."""
    if event in STEPS:
        if Counter.steps == Counter.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        Counter.steps += 1


class Counter:
    """How many steps a child has taken, and at which one it dies."""

    steps = 0
    deadly: int | None = None


def start(registry: Path, work: Work, *, deadly: int | None = None) -> int:
    """Start a child that does `work`; it ends with 0, or dies at the given step."""
    child = os.fork()
    if child:
        return child
    Counter.deadly = deadly
    sys.addaudithook(steps)
    code = 1
    try:
        trio.run(work, AccountTable(Registry(registry), CONFIG))
        code = 0
    except BaseException:
        fault(traceback.format_exc())
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a child ended: 0, or the number of the signal that killed it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ensure(table: AccountTable) -> Awaitable[object]:
    return table.ensure("alice")


async def delete(table: AccountTable, *, remove_home: bool) -> None:
    """What the broker does when it is asked again after a crash: nothing, if it is done."""
    await table.finish_deletions()
    for row in table.live():
        await table.delete(row.name, remove_home=remove_home)


def check_whole(registry: Path, what: str) -> Row | None:
    """The account of alice must be complete, and hers the only one."""
    live = [row for row in Registry(registry).rows if row.state != "deleted"]
    if [(row.user_id, row.state) for row in live] != [("alice", "active")]:
        fault(f"{what}: the registry has {live}")
        return None
    (row,) = live
    made = [entry for entry in pwd.getpwall() if entry.pw_name.startswith("crash_")]
    if [(x.pw_name, x.pw_uid, x.pw_gid) for x in made] != [(row.name, row.uid, row.uid)]:
        fault(f"{what}: the accounts are {made}, not {row}")
    home = Path("/home", row.name).stat()
    if (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode)) != (row.uid, row.uid, 0o700):
        fault(f"{what}: the home is {home}")
    if row.name not in grp.getgrnam("crashers").gr_mem or grp.getgrnam(row.name).gr_gid != row.uid:
        fault(f"{what}: the groups are not right")
    if f"\n{row.name}:" not in Path("/etc/shadow").read_text():
        fault(f"{what}: no entry in /etc/shadow")
    return row


def check_gone(registry: Path, what: str, *, home_stays: bool) -> None:
    live = [row for row in Registry(registry).rows if row.state != "deleted"]
    names = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("crash_")]
    groups = [entry.gr_name for entry in grp.getgrall() if entry.gr_name.startswith("crash_")]
    shadow = [x for x in Path("/etc/shadow").read_text().splitlines() if x.startswith("crash_")]
    if live or names or groups or shadow:
        fault(f"{what}: left are {live} {names} {groups} {shadow}")
    homes = [home.name for home in Path("/home").iterdir() if home.name.startswith("crash_")]
    if len(homes) != home_stays:
        fault(f"{what}: the homes are {homes}")


def clean_up(registry: Path, what: str) -> None:
    if ended(start(registry, partial(delete, remove_home=True))) != 0:
        fault(f"{what}: could not be removed afterwards")
    check_gone(registry, f"{what}, afterwards", home_stays=False)


def remove_kept_homes() -> None:
    for home in Path("/home").glob("crash_*"):
        shutil.rmtree(home)


def die_at_every_step(registry: Path, what: str, work: Work, check: Callable[[str], object]) -> None:
    """Do `work` with a death at its first step, second, …, each time once more without; then check."""
    for step in range(100):
        if work is not ensure and ended(start(registry, ensure)) != 0:
            fault(f"{what}: no account to begin with")
        died = ended(start(registry, work, deadly=step))
        if died == 0:
            remove_kept_homes()
            clean_up(registry, what)
            if step < 5:
                fault(f"{what}: only {step} steps were seen, this tests nothing")
            return
        if ended(start(registry, work)) != 0:
            fault(f"{what} failed after a crash at step {step}")
        check(f"{what} after a crash at step {step}")
        if work is not ensure:
            remove_kept_homes()
        clean_up(registry, what)


def inode(path: str) -> int:
    """Which file is at `path` now; 0 for none. Shadow's programs write a new one and rename it."""
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return 0


TRACES = [
    f"/etc/{file}" for file in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid", "passwd.lock")
]


def kill_inside(program: str, child: int, trace: str) -> None:
    """Kill `program`, which `child` starts, as soon as `trace` is another file than before; and `child`."""
    before = inode(trace)
    victim = None
    while victim is None:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return  # quicker than us this time: nothing to repair
        victim = next((pid for pid in children(child) if command(pid) == program), None)
    os.kill(child, signal.SIGSTOP)  # it must not see how its program ends
    while inode(trace) == before and command(victim) == program:
        pass
    os.kill(victim, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    ended(child)


def die_inside_programs(registry: Path) -> None:
    """Kill useradd and userdel themselves, between any two of their files."""
    for trace in [*TRACES, "/home/crash_alice", "/home/crash_alice/.bashrc"]:
        what = f"useradd killed at {trace}"
        kill_inside("useradd", start(registry, ensure), trace)
        if ended(start(registry, ensure)) != 0:
            fault(f"{what}: the next call failed")
        check_whole(registry, what)
        clean_up(registry, what)
    remove = partial(delete, remove_home=True)
    for trace in [*TRACES, "/home/crash_alice/.bashrc"]:
        what = f"userdel killed at {trace}"
        ended(start(registry, ensure))
        for number in range(500):
            Path(f"/home/crash_alice/{number}").touch()
        kill_inside("userdel", start(registry, remove), trace)
        if ended(start(registry, remove)) != 0:
            fault(f"{what}: the next call failed")
        check_gone(registry, what, home_stays=False)


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command(pid: int) -> str:
    """The name of a process that runs; none of one that has ended and is not yet waited for."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if "\nState:\tZ" in status else status.partition("\n")[0].removeprefix("Name:").strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "accounts.json"
        die_at_every_step(registry, "ensure", ensure, partial(check_whole, registry))
        for remove_home in (True, False):
            die_at_every_step(
                registry,
                f"delete (remove_home={remove_home})",
                partial(delete, remove_home=remove_home),
                partial(check_gone, registry, home_stays=not remove_home),
            )
        die_inside_programs(registry)
        uids = [row.uid for row in Registry(registry).rows]
        if len(set(uids)) != len(uids) or len(uids) < 20:
            fault(f"uids were given twice, or too few: {uids}")
        print(f"done: {len(uids)} accounts")


main()
