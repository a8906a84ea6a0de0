"""A WebSocket server that sends back what it gets, lean enough not to be what is measured.

python -m tests.bench.echo PORT. It knows whole masked frames of up to 125 bytes, as `tests.bench.load` sends.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import sys

_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)\r\n", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def main() -> None:
    """Serve for ever."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    waiting: dict[int, bytes] = {}
    """What came of a head or a frame that isn't whole; a head is expected where there is an entry."""
    open_: set[int] = set()
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            client = clients[number]
            try:
                data = client.recv(65536)
                if data and (before := waiting.pop(number, None)):
                    data = before + data
                answer, rest = _frames(data) if number in open_ else _handshake(data)
                if answer:
                    open_.add(number)
                    client.sendall(answer)
                if rest:
                    waiting[number] = rest
            except ConnectionError:
                data = b""
            if not data:
                open_.discard(number)
                waiting.pop(number, None)
                clients.pop(number).close()


def _handshake(head: bytes) -> tuple[bytes, bytes]:
    if not head.endswith(b"\r\n\r\n"):
        return b"", head
    key = _KEY.search(head)
    assert key is not None, head
    accept = base64.b64encode(hashlib.sha1(key[1].strip() + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n",
        b"",
    )


def _frames(data: bytes) -> tuple[bytes, bytes]:
    answer = b""
    while len(data) >= 6 and len(data) >= (end := 6 + (data[1] & 0x7F)):
        length = end - 6
        mask = (data[2:6] * (length // 4 + 1))[:length]
        payload = int.from_bytes(data[6:end], "big") ^ int.from_bytes(mask, "big")
        answer += bytes((data[0], length)) + payload.to_bytes(length, "big")
        data = data[end:]
    return answer, data


if __name__ == "__main__":
    main()
