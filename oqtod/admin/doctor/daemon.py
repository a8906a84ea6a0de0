"""The running daemon, asked: is it there, at its sockets, of this version, and well by its own account."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import msgspec

from oqtod import __version__
from oqtod import config as configuration
from oqtod.admin.doctor import passwd, units
from oqtod.admin.doctor.finding import Finding, Run, each, problem, warning
from oqtod.admin.doctor.host import Host, Unreachable
from oqtod.supervisor import messages

_TIMEOUT = 3.0
_ADVICE = {
    "database": "see the findings about the database; journalctl -u oqtod-gateway",
    "disk": "see the findings about file systems",
    "audit": "see the findings about the audit log; journalctl -u oqtod-gateway",
    "supervisor": "systemctl restart oqtod",
}


class _Part(msgspec.Struct):
    status: str
    error: str = ""


class _Health(msgspec.Struct):
    status: str
    version: str
    checks: dict[str, _Part] = {}


def health(host: Host) -> Iterator[Finding]:
    """Ask the gateway how it is, over the admin socket."""
    if not (host.personal or units.is_active(host, units.GATEWAY)):
        return  # told by the check of units
    try:
        answer = msgspec.convert(host.ask("/api/health?deep=1"), _Health)
    except Unreachable as error:
        severity = warning if host.personal else problem
        yield severity(
            "gateway",
            f"can't be asked: {error}",
            "oqtoctl doesn't work, and maybe nobody's browser either",
            "oqtod serve --personal starts it" if host.personal else "systemctl restart oqtod",
        )
        return
    except msgspec.ValidationError as error:
        yield problem(
            "gateway", f"a strange answer: {error}", "something else may answer", "systemctl restart oqtod"
        )
        return
    for name, part in answer.checks.items():
        if part.status != "ok":
            advice = _ADVICE.get(name, "journalctl -u oqtod-gateway")
            yield problem(f"gateway: {name}", part.error or part.status, "the gateway says so itself", advice)
    if answer.version != __version__:
        yield warning(
            "gateway",
            f"version {answer.version} runs, and {__version__} is installed",
            "an upgrade did not restart it",
            "systemctl restart oqtod",
            Run(("systemctl", "restart", units.SUPERVISOR)),
        )


def sockets(host: Host) -> Iterator[Finding]:
    """Connect to each socket of root's folder: somebody must listen, and be who he should be."""
    if host.personal or not host.is_real:
        return
    gateway = passwd.user(host, "oqtod")
    expected = {messages.SOCKET: {0}}
    if gateway is not None:
        # Root made it listen, and handed it on: the kernel names the one or the other.
        expected[configuration.admin_socket(host.config)] = {0, gateway.uid}
    yield from each(expected, lambda path: _answers(host, path, expected[path]))


def _answers(host: Host, path: str, uids: set[int]) -> Iterator[Finding]:
    unit = units.SUPERVISOR if path == messages.SOCKET else units.GATEWAY
    if not units.is_active(host, unit) or not host.exists(path) or host.look(path).kind != "socket":
        return  # told by the checks of units and places
    again = Run(("systemctl", "restart", unit))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            found = "nobody listens there: it is left over, or another took its place"
            yield problem(
                path, found, "the daemon can't be reached through it", f"systemctl restart {unit}", again
            )
            return
        except (TimeoutError, BlockingIOError):
            yield problem(
                path, "nobody accepts connections", "the daemon hangs", f"systemctl restart {unit}", again
            )
            return
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    listening = struct.unpack("3i", packed)[1]
    if listening not in uids:
        yield problem(
            path,
            f"{passwd.user_name(host, listening)} listens there",
            "somebody stands in the daemon's place",
            f"fuser -v {path}; then: systemctl restart {unit}",
        )
