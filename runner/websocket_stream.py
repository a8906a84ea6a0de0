"""A WebSocket over a stream of trio's, for the server's side: its frames, its silence, and its end."""

from __future__ import annotations

from typing import Final

import trio

from runner import websocket

_LINGER_SECONDS: Final = 1.0  # for the peer's answer to our close frame
_RECEIVE_SIZE: Final = 1 << 16


class WebSocketStream:
    """One upgraded connection, of which these bytes were received already.

    Nothing here raises for what the peer does: its end, in order or not, shows as None and False.
    """

    def __init__(self, stream: trio.SocketStream, received: bytes) -> None:
        self.stream = stream
        self._reader = websocket.FrameReader()
        self._reader.feed(received)
        self._sending = trio.Lock()
        self._torn = False  # a frame went out in part, or nobody is there: nothing more can be said
        self._peer_closed = False  # its close frame has come
        self._ending: tuple[int | None, str] | None = None  # the close frame to send; the first wins
        self._heard_at = trio.current_time()

    async def next_event(self) -> websocket.Event | None:
        """Return the next message, ping or pong; None at the end."""
        try:
            while (event := self._reader.next_event()) is None:
                try:
                    data = await self.stream.receive_some(_RECEIVE_SIZE)
                except trio.BrokenResourceError:
                    data = b""
                if not data:
                    self._torn = True
                    return None
                self._heard_at = trio.current_time()
                self._reader.feed(bytes(data))
        except websocket.RemoteProtocolError as error:
            self.end_with(error.code, error.reason)
            return None
        if isinstance(event, websocket.Close):
            self._peer_closed = True
            self.end_with(event.code, "")  # RFC 6455, 5.5.1: the answer echoes the code
            return None
        return event

    async def send(self, frame: bytes) -> bool:
        """Send a frame whole, after those before it; False when the connection can't take any more."""
        async with self._sending:
            if self._torn:
                return False
            # The stream's send_all doesn't tell how far a cancelled call came. The socket's send is all or
            # nothing, so only a cancellation between two of them leaves half a frame behind.
            rest = memoryview(frame)
            try:
                while rest:
                    rest = rest[await self.stream.socket.send(rest) :]
                    self._torn = len(rest) > 0
            except (OSError, trio.ClosedResourceError):
                self._torn = True
            return not self._torn

    async def keep(self, interval: float, silence: float, scope: trio.CancelScope) -> None:
        """Ping at each interval, for ever; cancel the scope when the peer has said nothing for so long.

        That is how one who vanished without a word is found out, as one does that changes networks.
        """
        while True:
            await trio.sleep(interval)
            if trio.current_time() - self._heard_at > silence:
                self._torn = True
                scope.cancel()
            elif not self._sending.locked():  # a full socket needs no ping, and would keep this task
                await self.send(websocket.ping_frame())

    def end_with(self, code: int | None, reason: str) -> None:
        """Close with this code and reason, unless others were given before."""
        if self._ending is None:
            self._ending = (code, reason)

    async def close(self) -> None:
        """Send the close frame, if there is a code, and give the peer a moment for its own.

        Closing a socket with unread bytes in it resets the connection, and the peer might never see our last
        frames; so what still comes is read and dropped.
        """
        with trio.move_on_after(_LINGER_SECONDS):
            if self._ending is not None and await self.send(websocket.close_frame(*self._ending)):
                try:
                    await self.stream.send_eof()
                    while not self._peer_closed and (data := await self.stream.receive_some(_RECEIVE_SIZE)):
                        self._look_for_close(bytes(data))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # gone already, which is as good
        await trio.aclose_forcefully(self.stream)

    def _look_for_close(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (event := self._reader.next_event()) is not None:
                self._peer_closed = isinstance(event, websocket.Close)
        except websocket.RemoteProtocolError:
            pass  # the connection is closing for a reason already given
