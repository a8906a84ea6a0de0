"""Changes of files as they happen, over a WebSocket (RFC 6455)."""

from __future__ import annotations

import json

import h11
import trio

from runner import websocket
from runner.files.asked import Asked
from runner.files.errors import FileError
from runner.files.exchange import BODY_TIMEOUT, CHUNK, Exchange
from runner.files.tree import Tree
from runner.files.watch import Watch
from runner.websocket import Close, CloseCode, FrameReader, Ping, RemoteProtocolError

PING_INTERVAL = 20.0
"""Seconds; a client that doesn't answer two is gone."""

_MAX_MESSAGE = 4096


async def watch(exchange: Exchange, tree: Tree, asked: Asked) -> None:
    """Serve ``/ws/watch?path=&recursive=``: one JSON text message for each change. Raises FileError."""
    accepted = _accepted(asked)
    recursive = asked.flag("recursive") or not asked.every("recursive")
    path = asked.path(required=False)
    watching = await trio.to_thread.run_sync(lambda: Watch.begin(tree, path, recursive=recursive))
    try:
        while not isinstance(await exchange.receive(), h11.EndOfMessage):
            pass
        await exchange.send(accepted)
        sending = trio.Lock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, exchange, watching, sending)
            nursery.start_soon(_ping, exchange, sending)
            await _listen(exchange, sending)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
        raise trio.BrokenResourceError("the watcher went away") from group
    finally:
        watching.close()


def _accepted(asked: Asked) -> h11.InformationalResponse:
    upgrade = asked.headers.get(b"upgrade", b"").lower()
    if upgrade != b"websocket" or asked.headers.get(b"sec-websocket-version") != b"13":
        raise FileError("BAD_REQUEST", "this is a WebSocket, version 13")
    try:
        key = websocket.accept_key(asked.headers.get(b"sec-websocket-key", b""))
    except ValueError as error:
        raise FileError("BAD_REQUEST", str(error)) from None
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", key.decode())]
    return h11.InformationalResponse(status_code=101, reason=b"Switching Protocols", headers=headers)


async def _tell(exchange: Exchange, watching: Watch, sending: trio.Lock) -> None:
    while True:
        for change in await watching.changes():
            await _send(exchange, sending, websocket.text_frame(json.dumps(change).encode()))


async def _ping(exchange: Exchange, sending: trio.Lock) -> None:
    while True:
        await trio.sleep(PING_INTERVAL)
        await _send(exchange, sending, websocket.ping_frame())


async def _listen(exchange: Exchange, sending: trio.Lock) -> None:
    """Take what the client says until it says goodbye, breaks the protocol or falls silent."""
    reader = FrameReader(max_frame=_MAX_MESSAGE, max_message=_MAX_MESSAGE)
    reader.feed(exchange.http.trailing_data[0])
    try:
        while True:
            while (event := reader.next_event()) is not None:
                if isinstance(event, Ping):
                    await _send(exchange, sending, websocket.pong_frame(event.payload))
                if isinstance(event, Close):
                    await _send(exchange, sending, websocket.close_frame(CloseCode.NORMAL))
                    return
            with trio.fail_after(2 * PING_INTERVAL + 5):
                data = await exchange.stream.receive_some(CHUNK)
            if not data:
                return
            reader.feed(data)
    except RemoteProtocolError as error:
        await _send(exchange, sending, websocket.close_frame(error.code, error.reason))


async def _send(exchange: Exchange, sending: trio.Lock, frame: bytes) -> None:
    async with sending:
        with trio.fail_after(BODY_TIMEOUT):
            await exchange.stream.send_all(frame)
