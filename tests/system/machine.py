"""Owns one booted Debian 13: a container with its own systemd, network and a tmpfs over the pristine root.

What it does dies with it: nothing of the root is written, and if the test process is killed the kernel takes
the container down.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

BOOT_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
_CLONE_NEWNET = 0x40000000
_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
_libc = ctypes.CDLL(None, use_errno=True)


class Machine:
    """A running container; call `power_off` when done with it."""

    def __init__(self, root: Path, name: str, *, shown: Sequence[Path] = (), remembers: bool = False) -> None:
        """Boot `root` and wait until systemd says that it is up. `shown` appears read-only in /mnt.

        What is written goes to a tmpfs and is lost, unless the machine `remembers`: then it is in `root`.
        """
        self.name = name
        self._cursor: str | None = None
        self._expected: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="oqtod-machine-"))
        self._log = (self._folder / "console").open("w+b")
        # Its own: two machines in the same control group would take each other's units for theirs.
        self._cgroups = [mount / f"oqtod-tests-{name}" for mount in _cgroup_mounts()]
        for cgroup in self._cgroups:
            cgroup.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._folder / "notify"))
            self._nspawn = subprocess.Popen(
                [
                    *("sh", "-ec", _ENTER, "sh", *map(str, self._cgroups), "--"),
                    *("setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet"),
                    *("--boot", f"--directory={root}", f"--machine={name}"),
                    *([] if remembers else ["--volatile=overlay"]),
                    *("--private-network", "--register=no", "--keep-unit", "--notify-ready=yes"),
                    *(f"--bind-ro={path}:/mnt/{path.name}" for path in shown),
                ],
                env={**os.environ, "NOTIFY_SOCKET": str(self._folder / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
            try:
                self.leader = self._await_ready(notify)
            except BaseException:
                self.power_off()
                raise

    def _await_ready(self, notify: socket.socket) -> int:
        leader = 0
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            notify.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                message = notify.recv(4096).decode()
            except TimeoutError:
                raise RuntimeError(f"no boot within {BOOT_TIMEOUT:g} s:\n{self.console()}") from None
            if found := re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", message, re.MULTILINE):
                leader = int(found[1])
            if re.search(r"^READY=1$", message, re.MULTILINE) and leader:
                return leader

    def console(self) -> str:
        """What the boot printed."""
        return (self._folder / "console").read_text(errors="replace")[-4000:]

    def run(
        self,
        *command: str,
        user: str = "root",
        timeout: float = 60.0,
        check: bool = True,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or another user, and wait for it.

        Raises AssertionError with everything it printed when it fails, unless `check` is off.
        """
        as_user = [] if user == "root" else ["runuser", "-u", user, "--"]
        # systemd-run's unit would show up in the journal and the tree under test: nsenter leaves no trace.
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", "--", *as_user, *command],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
                "HOME": "/root",
            },
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def sh(self, script: str, *, user: str = "root", timeout: float = 60.0) -> str:
        """What a shell script prints. Raises AssertionError when it fails."""
        return self.run("sh", "-euc", script, user=user, timeout=timeout).stdout

    def connect(self, port: int = 8080) -> socket.socket:
        """A TCP connection from inside to one of its loopback ports; the caller closes it."""
        made: list[socket.socket] = []
        failed: list[OSError] = []

        def connect_inside() -> None:
            # Only this thread changes the network it lives in, and it ends here; the socket stays inside.
            try:
                with Path(f"/proc/{self.leader}/ns/net").open("rb") as namespace:
                    if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=connect_inside)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def start_watching_the_journal(self) -> None:
        """From now on: `unexpected_lines` reports what was written after this."""
        shown = self.run("journalctl", "--quiet", "-n1", "-o", "json").stdout
        self._cursor = json.loads(shown)["__CURSOR"]
        self._expected.clear()

    def expect_in_journal(self, pattern: str) -> None:
        """Lines that match are part of what is being tested."""
        self._expected.append(pattern)

    def unexpected_lines(self) -> list[str]:
        """Warnings and worse from our units, or about them, that nobody announced."""
        shown = self.run(
            *("journalctl", "--quiet", "-o", "json", "--priority=warning", "--no-pager"),
            *([] if self._cursor is None else [f"--after-cursor={self._cursor}"]),
        ).stdout
        lines = []
        for entry in map(json.loads, shown.splitlines()):
            source = f"{entry.get('UNIT') or entry.get('_SYSTEMD_UNIT') or ''}"
            if "oqto" not in source + str(entry.get("SYSLOG_IDENTIFIER", "")):
                continue
            line = f"{source}: {entry.get('MESSAGE')}"
            if not any(re.search(pattern, line) for pattern in self._expected):
                lines.append(line)
        return lines

    def power_off(self) -> None:
        """Shut it down in order, or by force when that takes too long, and leave nothing on this host."""
        if self._nspawn.poll() is None:
            self._nspawn.send_signal(signal.SIGTERM)
            try:
                self._nspawn.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait(10)
        self._log.close()
        for cgroup in self._cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                Path(folder).rmdir()
        shutil.rmtree(self._folder)
        with contextlib.suppress(OSError):
            Path(f"/run/systemd/nspawn/propagate/{self.name}").rmdir()


def _cgroup_mounts() -> list[Path]:
    """Where systemd keeps its control groups: the unified hierarchy, and its own on a hybrid host."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            mounts.append(Path(fields.split()[4]))
    return mounts
