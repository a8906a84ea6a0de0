"""Which ports a session gets: free in the database, and not bound by anybody on this host."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from oqtod.errors import Refusal

PREVIEW_PORTS = 10
BLOCK = 3 + PREVIEW_PORTS
"""Consecutive ports of a session: agent, file server, terminal, then those for app previews."""

_LAST = 65535
_DUAL = socket.has_dualstack_ipv6()
_FAMILY = socket.AF_INET6 if _DUAL else socket.AF_INET


def is_bound(port: int) -> bool:
    """Say whether somebody on this host uses a TCP port now, at any address: by trying to take it."""
    try:
        # Any address of both families, where there are two. What only lingers (TIME_WAIT) is no use.
        with socket.create_server(("", port), family=_FAMILY, dualstack_ipv6=_DUAL, backlog=0):
            return False
    except OSError:
        return True


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
    in_use: Callable[[int], bool] = is_bound,
) -> tuple[int, int | None]:
    """Take a block and a stream port for a session, those that it had before where they are free.

    Runs inside the caller's transaction. Raises Refusal (unavailable) when a range is exhausted.
    """
    taken = {row[0] for row in connection.execute("SELECT port FROM ports")}

    def free(ports: range) -> bool:
        return taken.isdisjoint(ports) and not any(map(in_use, ports))

    had = [] if block is None else [range(block, block + BLOCK)]
    blocks = (range(x, x + BLOCK) for x in ranges.blocks())
    found = next((x for x in chain(had, blocks) if free(x)), None)
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
