"""Where a platform user's runner is: asked of the supervisor in host mode, our own child in personal mode."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from oqtod.placements import personal
from oqtod.placements.link import Link, only_socket
from oqtod.supervisor import messages


@dataclass(frozen=True, slots=True)
class RunnerAddress:
    """The account that a user's sessions run as, and the socket of its runner."""

    account: str
    uid: int
    home: str
    socket: str


class RunnerDirectory(Protocol):
    """Finds runners."""

    async def locate(self, user_id: str, *, timeout: float) -> RunnerAddress:
        """Return the address of a user's runner, with somebody listening there.

        Raises CallFailed, ConnectionLost, trio.TooSlowError, OSError.
        """

    async def listen_for_administrators(self, *, timeout: float) -> socket.socket:
        """Return the admin socket, listening. Raises the same."""

    async def accounts(self, *, timeout: float) -> list[messages.Account]:
        """Return all accounts that have a runner. Raises the same."""

    async def runner_status(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """Return how an account's runner is. Raises the same."""

    async def restart_runner(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """End an account's runner, and see to it that there is one again. Raises the same."""

    async def end(self, user_id: str, *, remove: bool, remove_home: bool, timeout: float) -> None:
        """End everything that a user's account runs; with `remove`, the account itself. Raises the same."""


class HostDirectory:
    """Host mode: an account for each user, made by the supervisor when it is first needed."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._broker = Link(messages.SOCKET, messages.BROKER, uid=0, nursery=nursery)

    async def locate(self, user_id: str, *, timeout: float) -> RunnerAddress:
        """Have the account made, and systemd listen for its runner."""
        account = await self._broker.call(messages.EnsureAccount(user_id), timeout=timeout)
        await self._broker.call(messages.StartRunner(account.name), timeout=timeout)
        return RunnerAddress(account.name, account.uid, account.home, account.socket)

    async def listen_for_administrators(self, *, timeout: float) -> socket.socket:
        """Return the admin socket, listening, which root has made. Raises as `locate` does."""
        call = messages.ListenForAdministrators()
        _, descriptors = await self._broker.call_for_descriptors(call, timeout=timeout)
        return only_socket(descriptors)

    async def accounts(self, *, timeout: float) -> list[messages.Account]:
        """Return all accounts. Raises as `locate` does."""
        return (await self._broker.call(messages.ListAccounts(), timeout=timeout)).accounts

    async def runner_status(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """Return what systemd says of a runner. Raises as `locate` does."""
        return await self._broker.call(messages.StatusOfRunner(account), timeout=timeout)

    async def restart_runner(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """Stop a runner, whose sessions go on, and listen for it again. Raises as `locate` does."""
        await self._broker.call(messages.StopRunner(account), timeout=timeout)
        return await self._broker.call(messages.StartRunner(account), timeout=timeout)

    async def end(self, user_id: str, *, remove: bool, remove_home: bool, timeout: float) -> None:
        """Have it done by the supervisor; fine when the user never had an account."""
        accounts = (await self._broker.call(messages.ListAccounts(), timeout=timeout)).accounts
        for name in [account.name for account in accounts if account.user_id == user_id]:
            if remove:
                await self._broker.call(messages.DeleteAccount(name, remove_home), timeout=timeout)
            else:
                await self._broker.call(messages.StopRunner(name, sessions=True), timeout=timeout)


class PersonalDirectory:
    """Personal mode: every user is the one who started us."""

    def __init__(self, runner: personal.PersonalRunner, admin_socket: str) -> None:
        self._runner = runner
        self._admin_socket = Path(admin_socket)
        entry = pwd.getpwuid(os.getuid())
        self._address = RunnerAddress(entry.pw_name, entry.pw_uid, entry.pw_dir, str(runner.path))

    async def locate(self, user_id: str, *, timeout: float) -> RunnerAddress:
        """Return the one address."""
        return self._address

    async def listen_for_administrators(self, *, timeout: float) -> socket.socket:
        """Listen at the person's own place."""
        return personal.listen_for_administrators(self._admin_socket)

    async def accounts(self, *, timeout: float) -> list[messages.Account]:
        """Return the one account, which is everybody's."""
        own = self._address
        return [messages.Account("", own.account, own.uid, own.home, own.socket)]

    async def runner_status(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """Return how our child is, in systemd's words."""
        runner = self._runner
        state = "active" if runner.pid is not None else "activating"
        return messages.RunnerStatus(state, state, runner.result, runner.pid, runner.started_at)

    async def restart_runner(self, account: str, *, timeout: float) -> messages.RunnerStatus:
        """End our child, and its sessions with it, and wait for the next. Raises trio.TooSlowError."""
        with trio.fail_after(timeout):
            await self._runner.restart()
        return await self.runner_status(account, timeout=timeout)

    async def end(self, user_id: str, *, remove: bool, remove_home: bool, timeout: float) -> None:
        """Do nothing: the account is the person's own, and the runner has ended the sessions."""
