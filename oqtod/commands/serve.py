"""`oqtod serve`: the gateway in the foreground, in personal mode with its own runner."""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from pathlib import Path

import click
import trio

from oqtod.accounts import passwords
from oqtod.accounts.assembly import assemble
from oqtod.accounts.users import UserConflict
from oqtod.api.application import Api
from oqtod.commands.exits import FAILED, REFUSED, configuration_or_exit, configuration_or_none
from oqtod.config import Config, DevUser, Loaded, admin_socket
from oqtod.gateway import limits
from oqtod.gateway.forwarded import TrustedProxies
from oqtod.gateway.front import Front
from oqtod.gateway.listening import PortTaken, listen
from oqtod.gateway.services import Services
from oqtod.placements import browser
from oqtod.placements.accounts import HostDirectory, PersonalDirectory, RunnerDirectory
from oqtod.placements.personal import PersonalRunner
from oqtod.placements.runners import Runners
from oqtod.sessions.activity import Activity
from oqtod.sessions.browsers import Browsers
from oqtod.sessions.context import Gateway
from oqtod.sessions.departure import Departures
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.ports import Ranges
from oqtod.sessions.reaper import Reaper
from oqtod.sessions.records import Records
from oqtod.sessions.recovery import Recovery
from oqtod.store.database import Database, StorageError, open_database
from oqtod.telemetry import logs
from oqtod.telemetry.audit import Audit
from oqtod.telemetry.readiness import Readiness
from runner.protocol.rpc import CallFailed, ConnectionLost

log = logging.getLogger("oqtod.gateway")

_ADMIN_SOCKET_RETRY = 10.0
"""Seconds until an admin socket that could not be made is tried again."""

_FRONTENDS = (Path("/usr/share/oqtod/frontend"), Path(__file__).resolve().parents[2] / "frontend")


def serve(path: Path | None, host: str | None, port: int | None, is_personal: bool) -> None:
    """Run the gateway until it is told to end; exit with what went wrong."""
    overrides: dict[str, object] = {}
    if is_personal:
        overrides |= {"local.enabled": True, "local.single_user": True}
    overrides |= {"server.host": host} if host is not None else {}
    overrides |= {"server.port": port} if port is not None else {}
    loaded = configuration_or_exit(path, overrides)
    logs.start("oqtod-gateway", loaded.config)
    if not loaded.config.local.enabled:
        log.error("sessions in containers are not built yet: set local.enabled = true, or use --personal")
        sys.exit(REFUSED)
    try:
        with open_database(Path(loaded.database_path)) as database:
            trio.run(_run, loaded, database, path, overrides)
    except* UserConflict as conflicts:
        for conflict in conflicts.exceptions:
            log.error("%s", conflict)
        sys.exit(REFUSED)
    except* (StorageError, PortTaken) as group:
        for error in group.exceptions:
            log.error("%s", error)
        sys.exit(FAILED)


async def _run(loaded: Loaded, database: Database, path: Path | None, overrides: dict[str, object]) -> None:
    config, readiness = loaded.config, Readiness()
    listeners = await listen(config.server.host, config.server.port, readiness)
    accounts = assemble(config, database)
    dev_users, login = _dev_users(config)
    await accounts.users.set_from_config(dev_users if config.auth.dev_mode else [])
    audit = _audit(config)
    async with trio.open_nursery() as lasting:
        directory = await _directory(config, lasting)
        records = Records(
            database, ranges=_port_ranges(config), max_live=config.sessions.max_concurrent_sessions
        )
        runners, activity = Runners(directory, config, lasting), Activity(records)
        sessions = Lifecycle(records, runners, activity, config)
        recovery, reaper, browsers = Recovery(sessions), Reaper(sessions), Browsers(sessions)
        departures = Departures(database, sessions)
        gateway = Gateway(config, database, accounts, sessions, reaper, browsers, departures, audit)
        await recovery.reconcile()
        proxies = TrustedProxies(config.server.trusted_proxies)
        application = Api(gateway, _frontend(config)).application()
        limits.use_all_descriptors()
        front = Front(application, Services(gateway), proxies, accounts.connections, gateway.traffic)
        async with trio.open_nursery() as serving:
            serving.start_soon(readiness.keep_alive)
            serving.start_soon(front.serve, listeners)
            await serving.start(_serve_administrators, front, directory, config)
            serving.start_soon(recovery.keep)
            serving.start_soon(departures.keep)
            serving.start_soon(reaper.keep)
            serving.start_soon(browsers.keep)
            serving.start_soon(activity.keep)
            serving.start_soon(accounts.keys.keep)
            serving.start_soon(audit.keep)
            address = _url(listeners, config)
            readiness.ready(f"Serving {address}")
            log.info("serving %s", address)
            for trouble in browser.troubles(config):
                log.warning("sessions' browsers will not start: %s", trouble)
            if login is not None:
                click.echo(
                    f"\n  oqtod is at  {address}\n  log in as    {login[0]}\n  password     {login[1]}\n"
                )
            await _signals(readiness, path, overrides, address, audit)
            readiness.stopping()
            await front.drain()
            serving.cancel_scope.cancel()
        await accounts.keys.flush()
        await audit.close()
        await activity.close()
        await recovery.shut_down()
        lasting.cancel_scope.cancel()


def _port_ranges(config: Config) -> Ranges:
    browser = config.agent_browser
    return Ranges(
        base=config.container.base_port,
        stream_base=browser.stream_port_base,
        stream_count=browser.stream_port_range,
        streams=browser.enabled,
    )


async def _directory(config: Config, nursery: trio.Nursery) -> RunnerDirectory:
    if not config.local.single_user:
        return HostDirectory(nursery)
    folder = Path(tempfile.mkdtemp(prefix="oqto-", dir=os.environ.get("XDG_RUNTIME_DIR")))
    runner = PersonalRunner(folder / "runner.sock")
    await nursery.start(runner.run)
    return PersonalDirectory(runner, admin_socket(config))


async def _serve_administrators(
    front: Front,
    directory: RunnerDirectory,
    config: Config,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin socket, as soon as we have it; reports started after the first try."""
    while True:
        try:
            timeout = float(config.runtime.timeout)
            with await directory.listen_for_administrators(timeout=timeout) as listener:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await front.serve_administrators(listener, personal=config.local.single_user)
        except (CallFailed, ConnectionLost, trio.TooSlowError, OSError) as error:
            log.warning("no admin socket at %s, so no oqtoctl, for now: %s", admin_socket(config), error)
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(_ADMIN_SOCKET_RETRY)


async def _signals(
    readiness: Readiness, path: Path | None, overrides: dict[str, object], address: str, audit: Audit
) -> None:
    """Return when we shall end; SIGHUP reads the configuration again."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number != signal.SIGHUP:
                return
            readiness.reloading()
            audit.reopen()
            reloaded = configuration_or_none(path, overrides)
            if reloaded is not None:
                logs.start("oqtod-gateway", reloaded.config)
                log.info("reloaded: the log level and file; everything else changes with a restart")
            readiness.ready(f"Serving {address}")


def _dev_users(config: Config) -> tuple[list[DevUser], tuple[str, str] | None]:
    """Return the users of the configuration; in personal mode without any, one made for this start."""
    users = list(config.auth.dev_users)
    if users or not (config.local.single_user and config.auth.dev_mode):
        return users, None
    name, password = getpass.getuser(), secrets.token_urlsafe(12)
    made = DevUser(
        id=name, name=name, email=f"{name}@localhost", password_hash=passwords.hashed(password), role="admin"
    )
    return [made], (name, password)


def _audit(config: Config) -> Audit:
    file = config.logging.audit_file
    return Audit(Path(file) if config.logging.audit_enabled and file is not None else None)


def _frontend(config: Config) -> Path | None:
    if config.server.frontend_dir is not None:
        return Path(config.server.frontend_dir)
    return next((folder for folder in _FRONTENDS if (folder / "index.html").is_file()), None)


def _url(listeners: list[socket.socket], config: Config) -> str:
    port = listeners[0].getsockname()[1]
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    return f"http://{host}:{port}/"
