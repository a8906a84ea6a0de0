"""TCP ports: who listens at ours, and whether the gateway can be reached at its own."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from msgspec import Struct

from oqtod.admin.doctor import passwd, processes, units
from oqtod.admin.doctor.finding import Finding, each, note, problem, warning
from oqtod.admin.doctor.host import Host
from oqtod.sessions.ports import BLOCK
from oqtod.supervisor import names

_LISTEN = "0A"
_LOOPBACK = "/sys/class/net/lo/flags"
_SESSIONS = 80
_TIMEOUT = 3.0
_MOST_TOLD = 5


class Listener(Struct, frozen=True):
    """A socket that listens, proc_net_tcp(5)."""

    port: int
    uid: int
    inode: int


def listeners(host: Host) -> list[Listener]:
    """Return what listens at TCP. Raises OSError."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if table.endswith("6") and not host.exists(table):
            continue  # a kernel without IPv6
        for line in host.read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                port = int(fields[1].rpartition(":")[2], 16)
                found.append(Listener(port, int(fields[7]), int(fields[9])))
    return found


def ours(host: Host) -> Iterator[Finding]:
    """Look for others at the ports that sessions and browsers get, and at the gateway's."""
    if host.exists(_LOOPBACK) and not int(host.read(_LOOPBACK), 16) & 1:
        matters = "the gateway listens there, and nobody reaches it"
        yield problem("lo", "the loopback interface is down", matters, "ip link set lo up")
    heard = listeners(host)
    yield from each(["server.port"], lambda _: _gateways(host, heard))
    if host.personal:
        return
    base, browser = host.config.container.base_port, host.config.agent_browser
    ranges = {"container.base_port": range(base, min(base + BLOCK * _SESSIONS, 65536))}
    if browser.enabled:
        first = browser.stream_port_base
        ranges["agent_browser.stream_port_base"] = range(first, first + browser.stream_port_range)
    prefix = host.config.local.linux_users.prefix
    accounts = {user.uid for user in passwd.users(host) if names.is_account_name(user.name, prefix)}
    for key, ports in ranges.items():
        foreign = [one for one in heard if one.port in ports and one.uid not in accounts]
        for listener in foreign[:_MOST_TOLD]:
            yield warning(
                f"port {listener.port}",
                f"taken by {owner(host, listener)}, in the range from {key} ({ports.start}) up",
                "sessions leave it out: the range is shorter, and who expects a session there finds another",
                f"move that program to another port, or set {key} elsewhere",
            )


def owner(host: Host, listener: Listener) -> str:
    """Name who listens."""
    if host.uid == 0:
        for pid in processes.holding(host, {f"socket:[{listener.inode}]"}):
            return processes.described(host, pid)
    return f"a program of {passwd.user_name(host, listener.uid)}"


def _gateways(host: Host, heard: list[Listener]) -> Iterator[Finding]:
    """The gateway's own port: free while it is down, its own while it is up, and answering."""
    server = host.config.server
    at_port = [one for one in heard if one.port == server.port]
    if host.personal or not server.port:
        return
    (unit,) = units.show(host, [units.GATEWAY])
    advice = "stop it, or set server.port; then: systemctl restart oqtod"
    if unit.active != "active":
        for listener in at_port:
            found = f"taken by {owner(host, listener)}"
            yield problem(f"port {server.port}", found, "the gateway can't start", advice)
        return
    gateway = passwd.user(host, "oqtod")
    foreign = [one for one in at_port if gateway is not None and one.uid != gateway.uid]
    for listener in foreign:
        found = f"{owner(host, listener)} listens there too"
        yield problem(f"port {server.port}", found, "people may reach it in place of the gateway", advice)
    if not at_port:
        yield problem(
            f"port {server.port}",
            "the gateway runs, and nobody listens there",
            "nobody can reach it; it may run with another configuration than the file's",
            "systemctl restart oqtod",
        )
    elif host.is_real:
        yield from _connects(server.host, server.port)


def _connects(name: str, port: int) -> Iterator[Finding]:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - compared, not listened at
    try:
        with socket.create_connection((address, port), timeout=_TIMEOUT) as connection:
            connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head = connection.recv(64)
    except socket.gaierror as error:
        advice = "the line of localhost in /etc/hosts: 127.0.0.1 localhost"
        yield problem(
            f"server.host {name}", f"can't be looked up: {error.strerror}", "nobody can connect", advice
        )
        return
    except OSError as error:
        rules = "nft list ruleset; ip addr show lo (systemctl restart networking, or: ip link set lo up)"
        late = isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT
        why = f"no answer within {_TIMEOUT:g} seconds" if late else str(error.strerror)
        yield problem(
            f"{name}:{port}",
            f"a connection from this host fails: {why}",
            "reverse proxies and browsers here fail as well: a firewall rule, or loopback is down",
            rules if not late else f"{rules}; the gateway may hang: journalctl -u oqtod-gateway",
        )
        return
    if not head.startswith(b"HTTP/1."):
        yield problem(
            f"{name}:{port}",
            "what answers there doesn't speak HTTP" if head else "the connection is closed without an answer",
            "people don't reach the gateway",
            "systemctl restart oqtod-gateway; ss -tlnp shows who listens",
        )
    elif b" 200" not in head:
        status = head.split(b"\r\n")[0].decode("ascii", "replace")
        yield note(
            f"{name}:{port}",
            f"answers {status}",
            "the health check should answer 200",
            "journalctl -u oqtod-gateway",
        )
