"""/api/health: that we are there, and with `?deep=1` whether what we need is."""

from __future__ import annotations

import os
import shutil
from typing import Literal

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from oqtod import __version__
from oqtod.api import views
from oqtod.api.contract import Endpoint
from oqtod.api.requests import json, query
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.store.database import StorageError

_TIMEOUT = 2.0
_FREE_BYTES = 64 * 1024 * 1024
"""Less space than this for the database is trouble to come."""


class Depth(msgspec.Struct):
    """The query of GET /api/health. `deep` looks at what the gateway needs."""

    deep: bool = False


class Health:
    """The endpoint."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the route."""
        return [Endpoint("GET", "/api/health", self.health, asks=Depth, answers={200: views.Health})]

    async def health(self, request: Request) -> Response:
        """Say that we are there; `status` is `degraded` when something that was looked at is not well."""
        if not query(request, Depth).deep:
            return json(views.Health(status="ok", version=__version__))
        checks = {
            "database": self._database(),
            "disk": self._disk(),
            "audit": "the audit log can't be written" if self._gateway.audit.trouble else None,
        }
        if not self._gateway.config.local.single_user:
            checks["supervisor"] = await self._supervisor()
        looked_at = {
            name: views.Check(status="ok") if trouble is None else views.Check(status="failed", error=trouble)
            for name, trouble in checks.items()
        }
        status: Literal["ok", "degraded"] = "degraded" if any(checks.values()) else "ok"
        return json(views.Health(status=status, version=__version__, checks=looked_at))

    def _database(self) -> str | None:
        try:
            self._gateway.database.row("SELECT 1 FROM users LIMIT 1")
        except StorageError:
            return "the database can't be read"
        return None

    def _disk(self) -> str | None:
        folder = self._gateway.database.path.parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            return "the folder of the database can't be looked at"
        if not os.access(folder, os.W_OK):
            return "the folder of the database can't be written"
        return None if free >= _FREE_BYTES else f"{free // 1024**2} MB are free for the database"

    async def _supervisor(self) -> str | None:
        try:
            with trio.fail_after(_TIMEOUT):
                await self._gateway.sessions.runners.accounts()
        except (Refusal, trio.TooSlowError):
            return "the supervisor can't be reached"
        return None
