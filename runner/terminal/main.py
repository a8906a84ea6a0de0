"""The command line of oqto-ttyd.

The options are those of ttyd 1.7.7 as far as oqtod uses them, with ttyd's letters. Two defaults are stricter
than ttyd's: without --interface it listens on loopback only, and on TCP a handshake's Origin is always
checked. One thing is different on purpose: clients share one process that outlives their connections, unless
--separate is given.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import trio

from runner.terminal.listeners import Listener, ListenError, address_of
from runner.terminal.server import Settings, TerminalServer, report

_EXIT_DONE: Final = 0
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2

_MAX_INDEX: Final = 8 << 20  # bytes; ttyd's own page has under one MiB


class _UsageError(Exception):
    """An option's value can't be used; the text names the option."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="oqto-ttyd",
        usage="%(prog)s [options] COMMAND [ARG ...]",
        description="Serve a terminal to browsers. The first client starts COMMAND; it goes on when its "
        "clients are gone, and whoever connects later sees the same terminal, scrollback included. Several "
        "may watch and type at once. When COMMAND ends, its clients are closed and the next one starts it "
        "anew.",
        epilog="Speaks the protocol of ttyd, and takes ttyd's options. ttyd starts COMMAND for each client "
        "and ends it with the connection: --separate does that here.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-i", "--interface", metavar="ADDR", help="IP address, or path of a Unix socket (default: 127.0.0.1)")
    add(
        "-p", "--port", type=int, default=7681, help="TCP port, 0 for any that is free (default: %(default)s)"
    )
    add("-W", "--writable", action="store_true", help="let clients type; without it they only watch")
    add(
        "-t",
        "--client-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="option for the page's terminal, such as fontSize=16; may be given again",
    )
    add("-w", "--cwd", metavar="DIR", help="working directory of the command")
    add(
        "-m",
        "--max-clients",
        metavar="N",
        type=int,
        default=0,
        help="clients at a time (default: no limit)",
    )
    add("-I", "--index", metavar="FILE", type=Path, help="page to serve instead of the built-in one")
    add("-T", "--terminal-type", metavar="TERM", default="xterm-256color", help="(default: %(default)s)")
    add(
        "-P",
        "--ping-interval",
        metavar="S",
        type=float,
        default=30.0,
        help="seconds, 0 for none (default: 30)",
    )
    add("-O", "--check-origin", action="store_true", help="check the origin on a Unix socket too")
    add(
        "--separate",
        action="store_true",
        help="start COMMAND for each client, and end it with the connection, as ttyd does",
    )
    add("-o", "--once", action="store_true", help="serve one client, then end COMMAND and exit")
    add(
        "-q", "--exit-no-conn", action="store_true", help="end COMMAND and exit when the last client has gone"
    )
    add("command", metavar="COMMAND", help="program to run")
    add("arguments", metavar="ARG", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def _preferences(options: Sequence[str]) -> dict[str, object]:
    """Read KEY=VALUE; a value that is JSON is meant as such, as with ttyd, and anything else is text."""
    values: dict[str, object] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not key or not equals:
            raise _UsageError(f"--client-option {option}: give KEY=VALUE")
        try:
            values[key] = json.loads(text)
        except (ValueError, RecursionError):
            values[key] = text
    return values


def _settings(options: argparse.Namespace) -> Settings:
    if not 0 <= options.port <= 65535:
        raise _UsageError(f"--port {options.port}: give a number from 0 to 65535")
    if options.max_clients < 0:
        raise _UsageError(f"--max-clients {options.max_clients}: give 0 for no limit, or more")
    if not 0 <= options.ping_interval <= 86400:
        raise _UsageError(f"--ping-interval {options.ping_interval}: give seconds from 0 to 86400")
    if options.cwd is not None and not Path(options.cwd).is_dir():
        raise _UsageError(f"--cwd {options.cwd}: there is no such directory")
    return Settings(
        command=(options.command, *options.arguments),
        cwd=options.cwd,
        writable=options.writable,
        terminal_type=options.terminal_type,
        preferences=_preferences(options.client_option),
        max_clients=options.max_clients,
        index=None if options.index is None else _read_index(options.index),
        separate=options.separate,
        once=options.once,
        exit_when_unused=options.exit_no_conn,
        check_origin=options.check_origin,
        ping_seconds=options.ping_interval,
    )


def _read_index(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_INDEX + 1)
    except OSError as error:
        raise _UsageError(f"--index {path}: {error.strerror}") from error
    if len(content) > _MAX_INDEX:
        raise _UsageError(f"--index {path}: a page has at most {_MAX_INDEX} bytes")
    return content


async def _serve(settings: Settings, listener: Listener) -> None:
    async with trio.open_nursery() as nursery:

        async def stop_on_signal() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                ready.set()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        ready = trio.Event()
        nursery.start_soon(stop_on_signal)
        await ready.wait()
        # Who waits for this line may send a signal, or connect, from now on.
        report(f"listening on {listener.name}")
        await TerminalServer(settings).serve([listener.for_trio()])
        nursery.cancel_scope.cancel()


def _fail(text: str, status: int) -> NoReturn:
    report(text)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run oqto-ttyd; exits 0 after SIGTERM or its last client, 1 if it can't listen, 2 for a wrong option."""
    options = parser().parse_args(arguments)
    try:
        settings = _settings(options)
        address = address_of(options.interface, options.port)
    except (_UsageError, ListenError) as error:
        _fail(f"{error}; see oqto-ttyd --help", _EXIT_USAGE)
    try:
        with Listener(address) as listener:
            trio.run(_serve, settings, listener)
    except ListenError as error:
        _fail(str(error), _EXIT_FAILED)
    sys.exit(_EXIT_DONE)


if __name__ == "__main__":
    main()
