"""`oqto-browserd serve`: the daemon in the foreground, from its listening socket to its orderly end."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import stat
from pathlib import Path

import trio

from runner.browser import chromium
from runner.browser.daemon import Daemon
from runner.browser.other import Other
from runner.browser.server import Server, report
from runner.browser.settings import Settings


class ListenError(Exception):
    """The socket or port can't be listened on; the text says why."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM, SIGINT, or a command that ends the daemon. Raises ListenError."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(_unix(settings.socket))
        undo.callback(_remove, settings.socket, settings.socket.lstat())
        token, tcp = None, None
        if settings.stream_port and settings.binary is None:
            tcp = undo.enter_context(_tcp(settings.stream_port))
            token = secrets.token_hex(32)
            _write(settings.token, token)
            undo.callback(settings.token.unlink, missing_ok=True)
        trio.run(_run, settings, listener, tcp, token)


async def _run(
    settings: Settings, listener: socket.socket, tcp: socket.socket | None, token: str | None
) -> None:
    async with trio.open_nursery() as outer:
        daemon: Daemon | Other
        if settings.binary is not None:
            daemon = Other(settings, settings.binary)
        else:
            chromium.become_subreaper()
            daemon = Daemon(settings, outer)
        server = Server(daemon)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, _listener(listener))
            if tcp is not None:
                nursery.start_soon(_serve_tcp, server, tcp, token)
            nursery.start_soon(_end_with, server.closed, nursery.cancel_scope)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                report(f"listening on {settings.socket}")
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break
        with trio.CancelScope(shield=True):
            await daemon.end()
        outer.cancel_scope.cancel()


async def _serve_tcp(server: Server, tcp: socket.socket, token: str | None) -> None:
    await server.serve(_listener(tcp), token=token)


async def _end_with(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _unix(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the start: between bind and chmod anybody could connect.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ListenError(f"can't listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return listener


def _remove(path: Path, made: os.stat_result) -> None:
    """Remove our socket, but not the one of a daemon that came after us."""
    try:
        found = path.lstat()
    except OSError:
        return  # removed already
    if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Make room for a socket: remove one on which nobody listens, and nothing else. Raises ListenError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"can't listen on {path}: there is something that isn't a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(str(path))
    if result in (0, errno.EAGAIN):
        raise ListenError(f"can't listen on {path}: another daemon does already")
    path.unlink(missing_ok=True)


def _tcp(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ListenError(f"can't listen on 127.0.0.1 port {port}: {error.strerror}") from error
    return listener


def _write(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(secret)
