"""A connection to a runner or to the broker that is made when it is needed, and made again when it broke."""

from __future__ import annotations

import os
import socket
from typing import TypeVar

import trio

from oqtod import __version__
from runner.protocol import rpc

A = TypeVar("A")

_ATTEMPTS = 2


class Link:
    """Calls to one socket. Every call may be repeated, so a broken connection costs a retry."""

    def __init__(self, path: str, protocol: rpc.Protocol, *, uid: int, nursery: trio.Nursery) -> None:
        self.path = path
        self._protocol = protocol
        self._uid = uid
        self._nursery = nursery
        self._client: rpc.Client | None = None
        self._dialling = trio.Lock()
        self.reconnections = 0

    async def call(self, call: rpc.Call[A], *, timeout: float) -> A:
        """Make a call, within `timeout` seconds in all.

        Raises CallFailed, ConnectionLost, trio.TooSlowError, OSError.
        """
        result, _ = await self._call(call, timeout, descriptors=False)
        return result

    async def call_for_descriptors(self, call: rpc.Call[A], *, timeout: float) -> tuple[A, list[int]]:
        """Make a call whose answer brings descriptors, which the caller closes."""
        return await self._call(call, timeout, descriptors=True)

    async def _call(self, call: rpc.Call[A], timeout: float, *, descriptors: bool) -> tuple[A, list[int]]:
        with trio.fail_after(timeout):
            for attempt in range(_ATTEMPTS):
                client = await self._connected(timeout)
                try:
                    if descriptors:
                        return await client.call_for_descriptors(call, timeout=timeout)
                    return await client.call(call, timeout=timeout), []
                except rpc.ConnectionLost:
                    if attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError("unreachable: every attempt returns or raises")

    async def _connected(self, timeout: float) -> rpc.Client:
        async with self._dialling:
            if self._client is None or self._client.lost is not None:
                self.reconnections += self._client is not None
                program = f"oqtod {__version__}"
                self._client = await rpc.dial(
                    self.path, self._protocol, program=program, uid=self._uid, timeout=timeout
                )
                self._nursery.start_soon(self._client.read_answers)
            return self._client


def only_socket(descriptors: list[int]) -> socket.socket:
    """Take the stream socket that an answer must bring, and close whatever else came.

    A runner is the account's own program: what it sends is looked at. Raises ConnectionLost.
    """
    try:
        if len(descriptors) == 1:
            found = socket.socket(fileno=descriptors[0])
            descriptors.clear()
            if found.type == socket.SOCK_STREAM:
                return found
            found.close()
    except OSError:
        pass  # it is no socket at all
    for descriptor in descriptors:
        os.close(descriptor)
    raise rpc.ConnectionLost("its answer brought no connection")
