"""The clock: set by a time service, and not behind what it has already stamped."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

from oqtod.admin.doctor.finding import Finding, note, problem, warning
from oqtod.admin.doctor.host import Host

_TOLERATED = 120.0
_RTC = "/sys/class/rtc/rtc0/since_epoch"
_TIME_ERROR = 5
_SIZE_OF_TIMEX = 256  # more than struct timex has


def clock(host: Host) -> Iterator[Finding]:
    """Compare the clock with time stamps of our files, with the hardware's clock, and ask the kernel."""
    now = host.clock()
    yield from _behind(host, now)
    try:
        hardware = float(host.read(_RTC))
    except (OSError, ValueError):
        hardware = None  # a machine without one
    if hardware is not None and abs(hardware - now) > 86_400:
        yield warning(
            "clock",
            f"{_shown(now)} here, and {_shown(hardware)} in the hardware's clock",
            "one of them is wrong: tokens, idle times and the audit log depend on it",
            "timedatectl set-ntp true; if the system's is right: hwclock --systohc",
        )
    if host.is_real and not _synchronised():
        needs = host.config.auth.oidc_issuer is not None
        yield (warning if needs else note)(
            "clock",
            "no time service keeps it right, says the kernel (adjtimex)",
            "tokens of the login provider are refused when the clock is off" if needs else "it drifts",
            "apt install systemd-timesyncd, or: timedatectl set-ntp true",
        )


def _behind(host: Host, now: float) -> Iterator[Finding]:
    stamped = [str(host.database), f"{host.database}-wal", "/var/lib/oqtod-supervisor/accounts.json"]
    stamped += ["/var/lib/dpkg/status", "/etc/passwd", str(host.config_file or "")]
    for path in filter(None, stamped):
        try:
            modified = host.look(path).modified
        except OSError:
            continue  # told by the checks whose subject it is
        if modified > now + _TOLERATED:
            yield problem(
                "clock",
                f"{_shown(now)}, and {path} was written at {_shown(modified)}",
                "the clock was set back: valid tokens are refused as not yet valid, and old ones live on",
                "timedatectl set-ntp true, or: timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
            )
            return


def _synchronised() -> bool:
    """Ask adjtimex(2), without changing anything: whether somebody disciplines the clock."""
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_SIZE_OF_TIMEX))
    return state not in (_TIME_ERROR, -1)


def _shown(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
