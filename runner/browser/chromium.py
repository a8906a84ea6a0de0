"""The Chromium process: found, started with the right options, and ended with everything that it started."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from runner.browser.errors import Failed
from runner.browser.settings import Settings

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DISK_CACHE: Final = 128 << 20
"""Bytes that Chromium may keep of what it fetched."""

POLITE_SECONDS: Final = 2.0
"""Between SIGTERM, at which Chromium writes its cookies, and SIGKILL."""

_KILLED_FIRST: Final = 400  # proc_pid_oom_score_adj(5): before the terminal and the file server
_PR_SET_CHILD_SUBREAPER: Final = 36
_OF_SOCKETS: Final = re.compile(r"(org\.chromium\.Chromium|com\.google\.Chrome)\.\w+\Z")
_LOCKS: Final = ("SingletonLock", "SingletonSocket", "SingletonCookie")

OPTIONS: Final = (
    "--remote-debugging-pipe",
    "--enable-unsafe-extension-debugging",  # Extensions.loadUnpacked, for who holds the pipe
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-client-side-phishing-detection",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-search-engine-choice-screen",
    "--disable-infobars",
    "--disable-hang-monitor",
    "--disable-back-forward-cache",
    "--disable-ipc-flooding-protection",
    "--hide-crash-restore-bubble",
    "--metrics-recording-only",
    "--no-service-autorun",
    "--password-store=basic",
    "--use-mock-keychain",
    "--mute-audio",
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider,"
    "CalculateNativeWinOcclusion,InterestFeedContentSuggestions,CertificateTransparencyComponentUpdater,"
    "AutofillServerCommunication",
    f"--disk-cache-size={DISK_CACHE}",
    "--media-cache-size=33554432",
)


def find(executable: str | None) -> str:
    """Return Chromium's path. Raises Failed."""
    if executable is not None:
        found = shutil.which(executable)
        if found is None:
            raise Failed("no_browser", f"{executable} isn't there, or may not be executed")
        return found
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise Failed("no_browser", f"none of {', '.join(NAMES)} is on PATH; install the package chromium")


def become_subreaper() -> None:
    """Make orphans of Chromium's our children, prctl(2), so that they are ended with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def can_sandbox() -> bool:
    """Say whether Chromium can make its own sandbox here.

    It needs user namespaces and chroot(2) in them, which a host, or a sandbox around us, can forbid; and it
    refuses to be root.
    """
    if os.geteuid() == 0:
        return False
    attempt = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--root=/", "true"]
    try:
        done = subprocess.run(attempt, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@dataclass(frozen=True, slots=True)
class Pipes:
    """Our ends of the pipes to Chromium."""

    reader: int
    writer: int
    stderr: int


class Chromium:
    """A started Chromium. `end` must be called in any case."""

    def __init__(self, pid: int, pipes: Pipes, profile: Path, *, sandboxed: bool) -> None:
        self.pid = pid
        self._profile = profile
        self.pipes = pipes
        self.sandboxed = sandboxed
        self._pidfd = os.pidfd_open(pid)
        self._outcome: str | None = None

    @classmethod
    def start(cls, settings: Settings, *, sandboxed: bool, size: tuple[int, int]) -> Chromium:
        """Start it with a process group of its own; it dies with the thread that calls this.

        Raises Failed when there is no Chromium, or no display for --headed.
        """
        executable = find(settings.executable)
        if settings.headed and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise Failed("no_browser", "--headed needs a display: neither DISPLAY nor WAYLAND_DISPLAY is set")
        try:
            settings.profile.mkdir(mode=0o700, parents=True, exist_ok=True)
            clear_locks(settings.profile)
        except OSError as error:
            raise Failed(
                "no_browser", f"the profile {settings.profile} can't be used: {error.strerror}"
            ) from error
        arguments = [executable, *OPTIONS, f"--user-data-dir={settings.profile}"]
        arguments.append(f"--window-size={size[0]},{size[1]}")
        if not settings.headed:
            arguments += ["--headless", "--hide-scrollbars"]
        if not sandboxed:
            arguments.append("--no-sandbox")
        arguments.append("about:blank")
        pid, pipes = _spawn(arguments)
        try:
            Path(f"/proc/{pid}/oom_score_adj").write_text(f"{_KILLED_FIRST}\n")
        except OSError:
            pass  # it has ended already, which is found out soon
        return cls(pid, pipes, settings.profile, sandboxed=sandboxed)

    async def watch(self) -> str:
        """Wait for its end, and say how it ended, for people."""
        await trio.lowlevel.wait_readable(self._pidfd)
        if self._outcome is None:
            self._outcome = _outcome(os.waitpid(self.pid, 0)[1])  # noqa: ASYNC222  it has ended
        return self._outcome

    async def end(self, *, polite: bool = True) -> None:
        """End it and all it started, and close what is ours. Bounded, and survives cancellation."""
        with trio.CancelScope(shield=True):
            if self._outcome is None and polite:
                # To it alone: a storage or network process that ended first would take what is unsaved along.
                os.kill(self.pid, signal.SIGTERM)
                with trio.move_on_after(POLITE_SECONDS):
                    await self.watch()
            _signal_group(self.pid, signal.SIGKILL)
            with trio.move_on_after(POLITE_SECONDS):
                await self.watch()
            _reap_orphans()
            os.close(self._pidfd)
            try:
                clear_locks(self._profile)
            except OSError:
                pass  # the next start says what is wrong with the profile


def clear_locks(profile: Path) -> None:
    """Remove the locks that a Chromium left in a profile whose process is gone, and the folder of its socket.

    Nobody else uses the profile: whoever starts Chromium there holds the daemon's socket. Raises OSError.
    """
    socket = profile / "SingletonSocket"
    folder = socket.readlink().parent if socket.is_symlink() else None
    for name in _LOCKS:
        (profile / name).unlink(missing_ok=True)
    # A link that leads elsewhere is not Chromium's; nothing is followed into the folder.
    if folder is not None and folder.parent == Path(tempfile.gettempdir()) and _OF_SOCKETS.match(folder.name):
        shutil.rmtree(folder, ignore_errors=True)


def _spawn(arguments: list[str]) -> tuple[int, Pipes]:
    # Copies far above 3 and 4, so that putting them there can't overwrite one with the other.
    opened: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        above = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in ends]
        for end in ends:
            os.close(end)
        opened.extend(above)
        return above[0], above[1]

    try:
        theirs_in, writer = pipe()
        reader, theirs_out = pipe()
        stderr, theirs_stderr = pipe()
        # setpriv(1): PR_SET_PDEATHSIG, set after the fork and before Chromium.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *arguments]
        pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs_stderr, 2),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError as error:
        for end in opened:
            os.close(end)
        raise Failed("no_browser", f"Chromium can't be started: {error.strerror}") from error
    for end in (theirs_in, theirs_out, theirs_stderr):
        os.close(end)
    return pid, Pipes(reader, writer, stderr)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left in it


def _reap_orphans() -> None:
    """Kill and wait for what Chromium left to us: its group's, and what had left its group."""
    own = Path("/proc/thread-self/children")
    for pid in map(int, own.read_text().split()):
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # waited for elsewhere


def _outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
