"""`oqtod supervise`: the root side in the foreground."""

from __future__ import annotations

import grp
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import trio

from oqtod.commands.exits import FAILED, REFUSED, configuration_or_exit, configuration_or_none
from oqtod.config import Config
from oqtod.supervisor import broker, messages
from oqtod.supervisor.accounts import AccountTable
from oqtod.supervisor.registry import Registry, RegistryError
from oqtod.telemetry import logs
from oqtod.telemetry.readiness import Readiness

log = logging.getLogger("oqtod.supervisor")

REGISTRY = Path("/var/lib/oqtod-supervisor/accounts.json")


def supervise(path: Path | None) -> None:
    """Run the root side until it is told to end; exit with what went wrong."""
    loaded = configuration_or_exit(path)
    config = loaded.config
    logs.start("oqtod", config)
    settings = config.local.linux_users
    if not settings.enabled:
        log.error(
            "local.linux_users.enabled is false: there is nothing to supervise; set it, with local.enabled"
        )
        sys.exit(REFUSED)
    if os.geteuid() != 0 and not settings.use_sudo:
        log.error("accounts need root: start oqtod.service, or set local.linux_users.use_sudo")
        sys.exit(FAILED)
    try:
        accounts = AccountTable(Registry(REGISTRY), config)
        gateway = grp.getgrnam(broker.GATEWAY_ACCOUNT).gr_gid
        listener = broker.listen(Path(messages.SOCKET), owner=0, group=gateway)
    except (RegistryError, OSError) as error:
        log.error("%s", error)
        sys.exit(FAILED)
    except KeyError as error:
        log.error("the system account oqtod is missing (%s): systemd-sysusers makes it", error)
        sys.exit(FAILED)
    with listener:
        trio.run(_run, listener, accounts, config, path)


async def _run(listener: socket.socket, accounts: AccountTable, config: Config, path: Path | None) -> None:
    readiness = Readiness()
    await accounts.finish_deletions()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.keep_alive)
        nursery.start_soon(broker.Broker(accounts, config).serve, trio.socket.from_stdlib_socket(listener))
        readiness.ready(f"{len(accounts.live())} accounts")
        log.info("ready, with %d accounts", len(accounts.live()))
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                readiness.reloading()
                reloaded = configuration_or_none(path)
                if reloaded is not None:
                    logs.start("oqtod", reloaded.config)
                readiness.ready(f"{len(accounts.live())} accounts")
        readiness.stopping()
        nursery.cancel_scope.cancel()
