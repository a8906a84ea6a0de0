"""Which ports a session gets: free in the database, and not bound by anybody on this host."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oqtod.errors import Refusal

PREVIEW_PORTS = 10
BLOCK = 3 + PREVIEW_PORTS
"""Consecutive ports of a session: agent, file server, terminal, then those for app previews."""

_LAST = 65535
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_TIME_WAIT = "06"


def bound() -> frozenset[int]:
    """Return the TCP ports that somebody on this host uses now, listening or connected: proc_net_tcp(5)."""
    found = set()
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state != _TIME_WAIT:
                found.add(int(local.rpartition(":")[2], 16))
    return frozenset(found)


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
    in_use: Callable[[], frozenset[int]] = bound,
) -> tuple[int, int | None]:
    """Take a block and a stream port for a session, those that it had before where they are free.

    Runs inside the caller's transaction. Raises Refusal (unavailable) when a range is exhausted.
    """
    unfree = in_use() | {row[0] for row in connection.execute("SELECT port FROM ports")}
    had_block = [] if block is None else [block]
    base = next((x for x in [*had_block, *ranges.blocks()] if unfree.isdisjoint(range(x, x + BLOCK))), None)
    if base is None:
        raise Refusal(
            "unavailable",
            f"no {BLOCK} consecutive ports from {ranges.base} up are free for another session",
            "stop sessions or what else listens there, or lower container.base_port",
        )
    taken = list(range(base, base + BLOCK))
    port = None
    if ranges.streams:
        port = _stream_port(ranges, unfree, [] if stream is None else [stream])
        taken.append(port)
    connection.executemany(
        "INSERT INTO ports (port, session_id) VALUES (?, ?)", [(x, session_id) for x in taken]
    )
    return base, port


def release(connection: sqlite3.Connection, session_id: str) -> None:
    """Give back what a session holds; inside the caller's transaction."""
    connection.execute("DELETE FROM ports WHERE session_id = ?", (session_id,))


def _stream_port(ranges: Ranges, unfree: frozenset[int], had: Sequence[int]) -> int:
    span = range(ranges.stream_base, min(ranges.stream_base + ranges.stream_count, _LAST + 1))
    for port in [*(x for x in had if x in span), *span]:
        if port not in unfree:
            return int(port)
    raise Refusal(
        "unavailable",
        f"none of the {len(span)} ports from {ranges.stream_base} up is free for another browser stream",
        "stop sessions, or raise agent_browser.stream_port_range",
    )
