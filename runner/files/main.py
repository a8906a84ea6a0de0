"""The command `oqto-files`: its arguments, its listener, its orderly end."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

import trio

from runner.files.server import Connection
from runner.files.tree import Tree

MAX_CONNECTIONS = 256


def main() -> int:
    """Run the command; return its exit code."""
    options = parser().parse_args()
    try:
        tree = Tree(options.root)
        listener = _listener(options)
    except OSError as error:
        print(f"oqto-files: {error}", file=sys.stderr)
        return 1
    trio.run(_run, listener, tree, options.max_upload_mb * 1024 * 1024)
    tree.close()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="oqto-files", description="Serve the files of one folder over HTTP."
    )
    parser.add_argument("--root", required=True, metavar="DIR", help="the folder")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="listen on this Unix socket (mode 0600)")
    where.add_argument("--port", type=int, metavar="N", help="listen on this TCP port")
    parser.add_argument(
        "--bind", default="127.0.0.1", metavar="ADDRESS", help="with --port (default: %(default)s)"
    )
    parser.add_argument("--max-upload-mb", type=int, default=100, metavar="N", help="default: %(default)s")
    return parser


def _listener(options: argparse.Namespace) -> socket.socket:
    if options.socket is None:
        return socket.create_server((options.bind, options.port))
    if os.path.lexists(options.socket):
        os.unlink(options.socket)  # noqa: PTH108  a string, as bind takes it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(options.socket)
    finally:
        os.umask(mask)
    listener.listen(128)
    return listener


async def _run(listener: socket.socket, tree: Tree, max_upload: int) -> None:
    slots = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        async with slots:
            await Connection(stream, tree, max_upload=max_upload).run()

    async with trio.open_nursery() as nursery:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        nursery.start_soon(trio.serve_listeners, handle, [accepting])
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()
