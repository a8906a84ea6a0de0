"""The broker's calls: what the gateway may ask of root. Version 1.

They carry names and choices, never a path or a command. Everything is checked again against the registry.
"""

from __future__ import annotations

import msgspec

from runner.protocol.rpc import Call, Protocol

SOCKET = "/run/oqto/supervisor.sock"
"""Where the broker listens: root:oqtod 0660."""


class Account(msgspec.Struct, frozen=True):
    """A Linux account of a platform user, and where its runner listens."""

    user_id: str
    name: str
    uid: int
    home: str
    socket: str


class Accounts(msgspec.Struct, frozen=True):
    """All accounts that the registry holds as live."""

    accounts: list[Account]


class RunnerStatus(msgspec.Struct, frozen=True):
    """ActiveState of the runner's socket unit and of its service unit, org.freedesktop.systemd1(5)."""

    socket: str
    service: str
    result: str = "success"
    """How its last run ended: Result of systemd.service(5)'s units, such as "core-dump" or "oom-kill"."""
    pid: int | None = None
    started_at: str | None = None
    """When it was started last, RFC 3339."""


class EnsureAccount(Call[Account], frozen=True, tag="ensure"):
    """Make the account of a platform user, or repair it, or answer it as it is."""

    answer = Account
    user_id: str


class DeleteAccount(Call[None], frozen=True, tag="delete"):
    """End everything that an account runs, and remove it. Its uid is never used again."""

    answer = None
    account: str
    remove_home: bool


class ListAccounts(Call[Accounts], frozen=True, tag="list"):
    """Say which accounts there are."""

    answer = Accounts


class StartRunner(Call[RunnerStatus], frozen=True, tag="runner-start"):
    """Have systemd listen on the account's runner socket; the runner itself starts when it is used."""

    answer = RunnerStatus
    account: str


class StopRunner(Call[RunnerStatus], frozen=True, tag="runner-stop"):
    """Stop the account's runner, and listening for it.

    Its sessions go on until the runner is back, unless `sessions` asks for the end of all that it runs.
    """

    answer = RunnerStatus
    account: str
    sessions: bool = False


class StatusOfRunner(Call[RunnerStatus], frozen=True, tag="runner-status"):
    """Say what systemd says of the account's runner."""

    answer = RunnerStatus
    account: str


class ListenForAdministrators(Call[None], frozen=True, tag="listen-admin"):
    """Make the admin socket where root's configuration has it, and send along the listening descriptor."""

    answer = None


BROKER = Protocol(
    "oqto-broker",
    1,
    [
        *(EnsureAccount, DeleteAccount, ListAccounts, StartRunner, StopRunner, StatusOfRunner),
        ListenForAdministrators,
    ],
)
