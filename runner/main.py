"""The command `oqto-runner`: its arguments, its start and its orderly end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import tomllib
from pathlib import Path

import sdnotify
import trio

from runner import cgroups, logs, processes, server
from runner.registry import Registry

log = logging.getLogger("oqto-runner")

LINGER = 30.0
"""Seconds without a session and without a call after which the runner ends."""

_LEVELS = {"error": 40, "warn": 30, "info": 20, "debug": 10, "trace": 10}


def main() -> int:
    """Run the command; return its exit code (0 done, 1 failed, 2 usage, 3 configuration refused)."""
    options = parser().parse_args()
    logs.start("oqto-runner", _LEVELS.get(os.environ.get("OQTO_LOG", "info").lower(), logging.INFO))
    try:
        runner_id = _runner_id(options.config)
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        log.error("%s: %s", options.config, error)
        return 3
    try:
        listener = server.listener_from_systemd() or (options.socket and server.listener_at(options.socket))
        if not listener:
            log.error("no listener: systemd passed none, and there is no --socket PATH")
            return 2
    except OSError as error:
        log.error("can't listen: %s", error)
        return 1
    folder = Path(os.environ.get("RUNTIME_DIRECTORY") or Path(listener.getsockname()).parent) / "s"
    linger = 0.0 if options.personal else options.linger
    try:
        trio.run(_run, listener, folder, runner_id, linger, options.personal)
    finally:
        listener.close()
        if options.socket:
            Path(options.socket).unlink(missing_ok=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="oqto-runner",
        description="Runs the sessions of one account: started by systemd when its socket is first used "
        "(oqto-runner@ACCOUNT.socket), or by hand with --socket.",
    )
    parser.add_argument("--config", metavar="FILE", help="take [runner] runner_id from this file")
    parser.add_argument("--socket", metavar="PATH", help="listen here instead of on systemd's socket")
    parser.add_argument(
        "--personal",
        action="store_true",
        help="personal mode: run until told to stop, and end all sessions then",
    )
    parser.add_argument(
        "--linger",
        type=float,
        default=LINGER,
        metavar="SECONDS",
        help="end after this long without a session and without a call (default: %(default)g; 0: never)",
    )
    return parser


def _runner_id(config: str | None) -> str:
    """Return what names this runner to people: OQTO_RUNNER_ID, `runner.runner_id`, or the host's name."""
    chosen = os.environ.get("OQTO_RUNNER_ID")
    if chosen is None and config is not None:
        with Path(config).open("rb") as file:
            chosen = tomllib.load(file).get("runner", {}).get("runner_id")
        if chosen is not None and not isinstance(chosen, str):
            raise TypeError(f"runner.runner_id must be a string, found {chosen!r}")
    return chosen or socket.gethostname()


async def _run(listener: socket.socket, folder: Path, runner_id: str, linger: float, personal: bool) -> None:
    group = None if personal else cgroups.delegated()
    if group is None:
        processes.become_subreaper()
    else:
        own = group.child("runner")
        own.make()
        own.add(os.getpid())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    notify = sdnotify.SystemdNotifier().notify
    async with trio.open_nursery() as watchers:
        registry = Registry(folder, group, watchers, personal=personal)
        registry.adopt()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
            nursery.start_soon(_keep_alive)
            if personal:
                nursery.start_soon(_stop_with_parent, nursery.cancel_scope)
            notify(f"READY=1\nSTATUS=Serving {len(registry)} sessions")
            log.info("ready, with %d sessions", len(registry))
            await server.Server(
                trio.socket.from_stdlib_socket(listener), registry, runner_id=runner_id, linger=linger
            ).run()
            nursery.cancel_scope.cancel()
        notify("STOPPING=1")
        if group is None:
            # Nothing could find these sessions again: they end with their runner.
            with trio.CancelScope(shield=True):
                await registry.stop_all()
        watchers.cancel_scope.cancel()
    log.info("ended")


async def _keep_alive() -> None:
    """Feed systemd's watchdog, WatchdogSec= in systemd.service(5), for as long as the event loop turns."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while interval:
        sdnotify.SystemdNotifier().notify("WATCHDOG=1")
        await trio.sleep(interval)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


async def _stop_with_parent(scope: trio.CancelScope) -> None:
    """In personal mode the gateway holds our stdin open; its end, however it came, ends us."""
    await trio.lowlevel.wait_readable(sys.stdin.fileno())
    scope.cancel()
