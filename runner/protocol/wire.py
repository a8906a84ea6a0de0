"""Frames on a Unix stream socket: length-prefixed bytes, with descriptors and the sender's credentials.

A frame is a five byte head (payload length as a big-endian u32, number of descriptors as a u8) and the
payload. Descriptors travel as SCM_RIGHTS with the first byte of their frame, see unix(7), and the kernel
never delivers them later than that byte; so they are queued in order of arrival, and a frame takes as many
from the queue as its head announces.

What frames mean is not known here: see `rpc` and `messages`.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

MAX_FRAME = 1 << 20
"""Largest payload in bytes; a longer one ends the connection."""

MAX_DESCRIPTORS = 4
"""Most descriptors one frame may carry."""

FRAME_TIMEOUT = 10.0
"""Seconds a peer may take from the first byte of a frame to its last, and to accept one of ours."""

_HEAD = struct.Struct(">IB")
_UCRED = struct.Struct("3i")
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4) + socket.CMSG_SPACE(_UCRED.size)


class WireError(Exception):
    """The peer broke the framing: too long, cut off half-way, or too slow. The connection is done for."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says: process id, user id, group id."""

    pid: int
    uid: int
    gid: int


@dataclass(slots=True)
class Frame:
    """One received frame. Whoever takes it owns the descriptors."""

    payload: bytes
    descriptors: list[int]

    def close(self) -> None:
        """Close the descriptors that nobody wanted."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def peer_of(sock: trio.socket.SocketType | socket.socket) -> Peer:
    """Return who connected to (or listens at) the other end of `sock`: SO_PEERCRED, unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(raw))


class Wire:
    """One connection. `send` may be called by many tasks, `receive` by one."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._sending = trio.Lock()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self.sender: Peer | None = None
        """The sender of the newest bytes, where SO_PASSCRED is set on the socket."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end (for a connection made through systemd's listener: systemd)."""
        return peer_of(self._sock)

    async def send(self, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one frame; the caller keeps its own copies of the descriptors.

        Raises WireError when the payload is too long or the peer does not take it within FRAME_TIMEOUT
        seconds, trio.BrokenResourceError when it is gone.
        """
        if len(payload) > MAX_FRAME:
            raise WireError(f"a frame of {len(payload)} bytes is over the limit of {MAX_FRAME}")
        data = memoryview(_HEAD.pack(len(payload), len(descriptors)) + payload)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        async with self._sending:
            sent = 0
            try:
                with trio.move_on_after(FRAME_TIMEOUT) as patience:
                    sent = await self._sock.sendmsg([data], rights if descriptors else [])
                    while sent < len(data):
                        sent += await self._sock.send(data[sent:])
            except OSError as error:
                raise trio.BrokenResourceError(f"the peer is gone: {error}") from error
            finally:
                if 0 < sent < len(data):
                    self.close()  # whatever came next would be read as the rest of this frame
        if patience.cancelled_caught:
            self.close()
            raise WireError(f"the peer took no frame for {FRAME_TIMEOUT:g} seconds")

    async def receive(self) -> Frame | None:
        """Return the next frame, or None when the peer closed between two frames.

        Waits as long as it takes for a frame to begin. Raises WireError on anything that is not a frame.
        """
        if not self._buffer and not await self._fill():
            return None
        with trio.move_on_after(FRAME_TIMEOUT):
            return await self._rest_of_frame()
        raise WireError(f"half a frame, and nothing more for {FRAME_TIMEOUT:g} seconds")

    async def _rest_of_frame(self) -> Frame:
        await self._need(_HEAD.size)
        length, count = _HEAD.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
        if count > MAX_DESCRIPTORS:
            raise WireError(f"a frame with {count} descriptors is over the limit of {MAX_DESCRIPTORS}")
        await self._need(_HEAD.size + length)
        if count > len(self._descriptors):
            raise WireError("a frame came without the descriptors that it announces")
        payload = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        return Frame(payload, [self._descriptors.popleft() for _ in range(count)])

    async def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            if not await self._fill():
                raise WireError("the peer closed in the middle of a frame")

    async def _fill(self) -> bool:
        try:
            data, ancillary, flags, _ = await self._sock.recvmsg(65536, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise WireError(f"the connection broke: {error}") from error
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self._descriptors.extend(received)
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.sender = Peer(*_UCRED.unpack(content))
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > 4 * MAX_DESCRIPTORS:
            raise WireError("more descriptors than a frame may carry")
        self._buffer += data
        return bool(data)

    def close(self) -> None:
        """Close the connection and every descriptor that no frame claimed."""
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
