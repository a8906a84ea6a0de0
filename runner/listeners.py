"""Who listens on a TCP port of this host: asked of the kernel, sock_diag(7), one lookup and no list."""

from __future__ import annotations

import errno
import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
_UID_OFFSET = 64
"""Of idiag_uid in struct inet_diag_msg: after four bytes, the socket's id (48) and three words."""


def owner(family: socket.AddressFamily, address: str, port: int) -> int | None:
    """Return the uid of whoever a connection to this address and port would reach, None for nobody.

    Raises OSError where the kernel can't be asked.
    """
    packed = socket.inet_pton(family, address).ljust(16, b"\0")
    identity = struct.pack("!HH", port, 0) + packed + packed + bytes(4) + _NO_COOKIE
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + identity
    request = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(request)
        answer = kernel.recv(8192)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    message = answer[_HEADER.size :]
    if kind == _NLMSG_ERROR:
        code = -int(struct.unpack_from("=i", message)[0])
        if code == errno.ENOENT:
            return None
        raise OSError(code, os.strerror(code))
    return int(struct.unpack_from("=I", message, _UID_OFFSET)[0])
