"""Pipes between real sockets."""

from __future__ import annotations

import fcntl
import socket
import struct

from oqtod.gateway.splicing import Pipe

_SIOCOUTQNSD = 0x894B
"""How many bytes of a socket are not sent yet: linux/sockios.h."""


def test_what_is_moved_is_sent_at_once() -> None:
    """The kernel is not told to wait for more: that costs a fifth of a second where none comes."""
    pipe = Pipe()
    source, service = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        sink, _ = listener.accept()
    with source, service, client, sink:
        service.sendall(b"a piece")
        assert pipe.fill(source.fileno(), 1 << 20) == 7
        assert pipe.empty(sink.fileno()) == 7
        assert struct.unpack("i", fcntl.ioctl(sink, _SIOCOUTQNSD, bytes(4))) == (0,)
        assert client.recv(100) == b"a piece"
    pipe.close()
