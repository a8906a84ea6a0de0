#!/usr/bin/env python3
"""A daemon of another make: the contract of `agent_browser.binary`, with a text instead of a browser.

OTHER_STARTS may name a file that gets a line for each start of the daemon, with the command line that did it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import socket
import sys
import threading
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--session", required=True)
    parser.add_argument("--headed", action="store_true")
    parser.add_argument("--executable-path")
    parser.add_argument("--extension", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    path = Path(os.environ["AGENT_BROWSER_SOCKET_DIR"]) / f"{options.session}.sock"
    if not path.exists():
        with Path(os.environ.get("OTHER_STARTS", os.devnull)).open("a") as starts:
            starts.write(f"{sys.argv[1:]}\n")
        _start(path)
    match options.command:
        case ["die"]:
            print("the disk is on fire", file=sys.stderr)
            return 3
        case ["hang"]:
            threading.Event().wait()
        case ["babble"]:
            print("well, well,")
            return 0
        case ["flood"]:
            print(json.dumps("x" * (9 << 20)))
            return 0
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(path))
        asked.sendall(json.dumps(options.command).encode())
        asked.shutdown(socket.SHUT_WR)
        answer = json.loads(asked.makefile().read())
    print(json.dumps(answer))
    return 0 if answer["success"] else 1


def _start(path: Path) -> None:
    """Leave a daemon behind, which keeps our standard output open, as careless ones do."""
    commands = socket.socket(socket.AF_UNIX)
    commands.bind(str(path))
    commands.listen()
    stream = socket.create_server(("127.0.0.1", int(os.environ["AGENT_BROWSER_STREAM_PORT"])))
    if os.fork() == 0:
        os.setsid()
        threading.Thread(target=_show, args=(stream,), daemon=True).start()
        _serve(commands, path)
        os._exit(0)


def _serve(commands: socket.socket, path: Path) -> None:
    url = None
    while True:
        asked, _ = commands.accept()
        with asked:
            command = json.loads(asked.makefile().read())
            answer: dict[str, object] = {"success": True, "data": None, "error": None}
            match command:
                case ["open", str(url)]:
                    answer["data"] = {"url": url}
                case ["close"]:
                    path.unlink()
                case ["get", "url"]:
                    answer["data"] = url
                case _:
                    answer = {"success": False, "data": None, "error": f"what is {command[0]}?"}
            asked.sendall(json.dumps(answer).encode())
        if command == ["close"]:
            return


def _show(stream: socket.socket) -> None:
    """Accept WebSockets: say which fields the handshake had, then give back all that comes."""
    while True:
        viewer, _ = stream.accept()
        threading.Thread(target=_echo, args=(viewer,), daemon=True).start()


def _echo(viewer: socket.socket) -> None:
    with viewer:
        head = b""
        while b"\r\n\r\n" not in head:
            head += viewer.recv(1 << 16)
        head, _, rest = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        key = next(
            line.split(b": ", 1)[1]
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        accept = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
        names = b",".join(sorted(fields))
        frame = bytes([0x81, len(names)]) + names
        viewer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\n" + accept % base64.b64encode(digest) + b"\r\n" + frame
        )
        viewer.sendall(rest)
        while rest := viewer.recv(1 << 16):
            viewer.sendall(rest)


if __name__ == "__main__":
    sys.exit(main())
