"""GET /metrics: the gateway's metrics, gathered from its parts when somebody reads them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from oqtod import __version__
from oqtod.api.contract import Endpoint, Media
from oqtod.api.requests import principal_of
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.sessions.usage import Meter, UserUse
from oqtod.telemetry import metrics
from oqtod.telemetry.audit import Outcome
from oqtod.telemetry.metrics import Page
from oqtod.telemetry.traffic import ROUTE_KINDS, STATUS_CLASSES

_LEAST_INTERVAL = 1.0
"""Seconds: who reads more often gets the same use of sessions again."""

_LOGINS = {"password": "auth.login", "openid": "auth.oidc_login"}


class Metrics:
    """The endpoint. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._meter = Meter(gateway.sessions)

    def routes(self) -> list[Endpoint]:
        """Return the route."""
        answers = {200: Media("text/plain", "Prometheus' text format.")}
        return [Endpoint("GET", "/metrics", self.metrics, answers=answers, refuses=["not_found"])]

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text format; on TCP only where `server.metrics` says so."""
        at_socket = principal_of(request).kind == "socket"
        if not at_socket and not self._gateway.config.server.metrics:
            hint = "they are at the admin socket; for this port, set server.metrics = true"
            raise Refusal("not_found", "metrics are not served here", hint)
        page = Page()
        page.put("oqtod_build_info", 1, version=__version__, python=platform.python_version())
        self._put_sessions(page)
        self._put_traffic(page)
        self._put_audit(page)
        page.put("oqtod_database_bytes", _database_bytes(self._gateway.database.path))
        reading = await self._meter.read(max_age=_LEAST_INTERVAL)
        page.put("oqtod_runners_silent", len(reading.silent))
        for user, use in biggest(reading.by_user(), metrics.MAX_USERS).items():
            page.put("oqtod_user_sessions", use.sessions, user=user)
            page.put("oqtod_user_memory_bytes", use.memory, user=user)
            if use.cpus is not None:
                page.put("oqtod_user_cpus", use.cpus, user=user)
        return Response(
            page.text(), headers={"cache-control": "no-store", "content-type": metrics.CONTENT_TYPE}
        )

    def _put_sessions(self, page: Page) -> None:
        sessions = self._gateway.sessions
        for status, count in sessions.records.counts().items():
            page.put("oqtod_sessions", count, state=status)
        for outcome, count in sessions.starts.items():
            page.put("oqtod_session_starts_total", count, outcome=outcome)
        page.put_durations("oqtod_session_start_seconds", sessions.start_seconds)
        for reason, count in sessions.stops.items():
            page.put("oqtod_session_stops_total", count, reason=reason)
        page.put("oqtod_runner_reconnections_total", sessions.runners.reconnections)
        ports = sessions.records.port_use()
        page.put("oqtod_port_blocks_used", ports.blocks_used)
        page.put("oqtod_port_blocks", ports.blocks)
        page.put("oqtod_stream_ports_used", ports.streams_used)
        page.put("oqtod_stream_ports", ports.streams)

    def _put_traffic(self, page: Page) -> None:
        traffic = self._gateway.traffic
        page.put("oqtod_connections_open", traffic.connections_open)
        page.put("oqtod_connections_total", traffic.connections_total)
        page.put("oqtod_websockets_open", traffic.websockets_open)
        page.put("oqtod_websockets_total", traffic.websockets_total)
        page.put("oqtod_proxy_bytes_total", traffic.bytes_from_clients, direction="from_clients")
        page.put("oqtod_proxy_bytes_total", traffic.bytes_to_clients, direction="to_clients")
        for kind in ROUTE_KINDS:
            for number, name in enumerate(STATUS_CLASSES, start=1):
                page.put("oqtod_http_requests_total", traffic.requests[kind, number], kind=kind, status=name)

    def _put_audit(self, page: Page) -> None:
        audit = self._gateway.audit
        for (event, outcome), count in sorted(audit.events.items()):
            page.put("oqtod_audit_events_total", count, event=event, outcome=outcome)
        for method, event in _LOGINS.items():
            for outcome in get_args(Outcome):
                page.put("oqtod_logins_total", audit.events[event, outcome], method=method, outcome=outcome)
        page.put("oqtod_audit_lines_waiting", audit.waiting)
        page.put("oqtod_audit_lines_lost_total", audit.lost)
        page.put("oqtod_audit_healthy", audit.trouble is None)


def biggest(users: Mapping[str, UserUse], most: int) -> dict[str, UserUse]:
    """Return the `most` users that use most memory, and the others together as OTHER, which is always there.

    A user who is called that is among the others.
    """
    by_size = sorted(users, key=lambda user: (-users[user].memory, user))
    shown = [user for user in by_size if user != metrics.OTHER][:most]
    others = UserUse()
    for user in users.keys() - shown:
        others.add(users[user])
    return {user: users[user] for user in shown} | {metrics.OTHER: others}


def _database_bytes(path: Path) -> int:
    """Return the size of a database with its write-ahead log, sqlite.org/wal.html."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
