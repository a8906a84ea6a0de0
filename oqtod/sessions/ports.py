"""Which ports a session gets: free in the database, and not bound by anybody on this host."""

from __future__ import annotations

import functools
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from oqtod.errors import Refusal

PREVIEW_PORTS = 10
BLOCK = 3 + PREVIEW_PORTS
"""Consecutive ports of a session: agent, file server, terminal, then those for app previews."""

_LAST = 65535
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_TIME_WAIT = "06"
_LISTEN = "0A"
_EVERYWHERE = ("00000000", "0" * 32)
_LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")
_DUAL = socket.has_dualstack_ipv6()
_FAMILY = socket.AF_INET6 if _DUAL else socket.AF_INET


class Bound:
    """Which TCP ports somebody on this host uses, at any address; for one search, at one moment."""

    def __call__(self, port: int) -> bool:
        """Say whether a port can't be taken: by trying to."""
        try:
            with socket.create_server(("", port), family=_FAMILY, dualstack_ipv6=_DUAL, backlog=0):
                return False
        except OSError:
            return True

    @functools.cached_property
    def lingering(self) -> set[int]:
        """The ports of connections that are over, and free within a minute: TIME_WAIT in proc_net_tcp(5).

        Read only when a port can't be taken: on a host with much memory the kernel takes milliseconds to
        write the table.
        """
        over: set[int] = set()
        others: set[int] = set()
        for table in _TABLES:
            try:
                lines = table.read_text().splitlines()[1:]
            except FileNotFoundError:
                continue  # a kernel without IPv6
            for line in lines:
                _, local, _, state, *_ = line.split()
                (over if state == _TIME_WAIT else others).add(int(local.rpartition(":")[2], 16))
        return over - others


def listeners() -> dict[int, int]:
    """Return whose programs listen on which ports of the loopback: uids, proc_net_tcp(5)."""
    everywhere: dict[int, int] = {}
    loopback: dict[int, int] = {}
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            _, local, _, state, _, _, _, uid, *_ = line.split()
            address, _, port = local.rpartition(":")
            if state == _LISTEN and address in (*_EVERYWHERE, *_LOOPBACK):
                found = loopback if address in _LOOPBACK else everywhere
                found[int(port, 16)] = int(uid)
    return everywhere | loopback


def preview_ports(base: int) -> range:
    """Return the ports of a block that are for the person's own programs."""
    return range(base + BLOCK - PREVIEW_PORTS, base + BLOCK)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where ports come from: `container.base_port`, `agent_browser.stream_port_base` and `_range`."""

    base: int
    stream_base: int
    stream_count: int
    streams: bool = True
    """Whether sessions get a stream port: `agent_browser.enabled`."""

    def blocks(self) -> Iterator[int]:
        """Return the first port of every block that lies outside the streams' range."""
        first, past = self.stream_base, self.stream_base + self.stream_count
        for base in range(self.base, _LAST - BLOCK + 2, BLOCK):
            if not self.streams or base + BLOCK <= first or base >= past:
                yield base


def take(
    connection: sqlite3.Connection,
    ranges: Ranges,
    session_id: str,
    *,
    block: int | None,
    stream: int | None,
) -> tuple[int, int | None]:
    """Take a block and a stream port for a session, those that it had before where they are free.

    Runs inside the caller's transaction. Raises Refusal (unavailable) when a range is exhausted.
    """
    is_bound = Bound()
    taken = {row[0] for row in connection.execute("SELECT port FROM ports")}

    def free(ports: range) -> bool:
        return taken.isdisjoint(ports) and not any(map(is_bound, ports))

    def free_soon(ports: range) -> bool:
        return taken.isdisjoint(ports) and all(x in is_bound.lingering for x in ports if is_bound(x))

    blocks = [range(x, x + BLOCK) for x in ranges.blocks()]
    found = range(block, block + BLOCK) if block is not None else None
    if found is None or not free_soon(found):
        found = next((x for x in blocks if free(x)), None) or next(filter(free_soon, blocks), None)
    if found is None:
        raise Refusal(
            "unavailable",
            f"no {BLOCK} consecutive ports from {ranges.base} up are free for another session",
            "stop sessions or what else listens there, or lower container.base_port",
        )
    port = _stream_port(ranges, free, stream) if ranges.streams else None
    mine = [*found] if port is None else [*found, port]
    connection.executemany(
        "INSERT INTO ports (port, session_id) VALUES (?, ?)", [(x, session_id) for x in mine]
    )
    return found.start, port


def release(connection: sqlite3.Connection, session_id: str) -> None:
    """Give back what a session holds; inside the caller's transaction."""
    connection.execute("DELETE FROM ports WHERE session_id = ?", (session_id,))


def _stream_port(ranges: Ranges, free: Callable[[range], bool], had: int | None) -> int:
    span = range(ranges.stream_base, min(ranges.stream_base + ranges.stream_count, _LAST + 1))
    for port in chain([had] if had in span else [], span):
        assert port is not None
        if free(range(port, port + 1)):
            return port
    raise Refusal(
        "unavailable",
        f"none of the {len(span)} ports from {ranges.stream_base} up is free for another browser stream",
        "stop sessions, or raise agent_browser.stream_port_range",
    )
