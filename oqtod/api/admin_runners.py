"""/api/admin/runners: the Linux accounts of users, and how the runner of each fares."""

from __future__ import annotations

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from oqtod.api import known, views
from oqtod.api.contract import RUNNER, Endpoint
from oqtod.api.requests import json, note
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from oqtod.supervisor.messages import Account, RunnerStatus

_AT_ONCE = 8
"""Runners that the supervisor is asked about at the same time."""


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """An account and its runner. `socket` and `service` are ActiveState of org.freedesktop.systemd1(5).

    `result` says how its last run ended. `user_id` is null in personal mode, where it is everybody's.
    """

    account: str
    uid: int
    home: str
    user_id: str | None
    username: str | None
    socket_path: str
    socket: str
    service: str
    result: str
    pid: int | None
    started_at: views.Time | None
    live_sessions: int


class AdminRunners:
    """The endpoints. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the routes. A runner is named by its account, or by its user's id or user name."""
        base = "/api/admin/runners"
        return [
            Endpoint("GET", base, self.list_runners, answers={200: list[Runner]}, refuses=RUNNER),
            Endpoint("GET", f"{base}/{{name}}", self.get, answers={200: Runner}, refuses=RUNNER),
            Endpoint("POST", f"{base}/{{name}}/restart", self.restart, answers={200: Runner}, refuses=RUNNER),
        ]

    async def list_runners(self, request: Request) -> Response:
        """List all runners, by account."""
        accounts = await self._gateway.sessions.runners.accounts()
        statuses: dict[str, RunnerStatus] = {}
        slots = trio.CapacityLimiter(_AT_ONCE)

        async def ask(account: str) -> None:
            async with slots:
                try:
                    statuses[account] = await self._gateway.sessions.runners.status_of(account)
                except Refusal as refusal:
                    statuses[account] = RunnerStatus("unknown", "unknown", refusal.message)

        async with trio.open_nursery() as nursery:
            for account in accounts:
                nursery.start_soon(ask, account.name)
        by_name = sorted(accounts, key=lambda account: account.name)
        return json([self._view(account, statuses[account.name]) for account in by_name])

    async def get(self, request: Request) -> Response:
        """Return one runner."""
        account = await self._account(request)
        return json(self._view(account, await self._gateway.sessions.runners.status_of(account.name)))

    async def restart(self, request: Request) -> Response:
        """End a runner and have the next one take over. In personal mode its sessions end with it."""
        account = await self._account(request)
        note(request, detail=account.name)
        await self._gateway.sessions.runners.restart(account.name)
        await known.of_users(self._gateway, [session.user_id for session in self._live(account)])
        return json(self._view(account, await self._gateway.sessions.runners.status_of(account.name)))

    async def _account(self, request: Request) -> Account:
        name = request.path_params["name"]
        accounts = await self._gateway.sessions.runners.accounts()
        found = next((account for account in accounts if account.name == name), None)
        if found is None:
            user_id = self._gateway.accounts.users.named(name).id
            found = next((account for account in accounts if account.user_id in (user_id, "")), None)
        if found is None:
            raise Refusal(
                "not_found", f"{name} has no Linux account yet", "it is made with the first session"
            )
        return found

    def _live(self, account: Account) -> list[Session]:
        """The account's live sessions; in personal mode everybody's."""
        live = self._gateway.sessions.records.live()
        return [session for session in live if account.user_id in (session.user_id, "")]

    def _view(self, account: Account, status: RunnerStatus) -> Runner:
        user = self._gateway.accounts.users.get(account.user_id)
        return Runner(
            account=account.name,
            uid=account.uid,
            home=account.home,
            user_id=account.user_id or None,
            username=user.username if user is not None else None,
            socket_path=account.socket,
            socket=status.socket,
            service=status.service,
            result=status.result,
            pid=status.pid,
            started_at=status.started_at,
            live_sessions=len(self._live(account)),
        )
