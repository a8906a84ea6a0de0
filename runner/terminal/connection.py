"""One viewer's WebSocket: its messages to the terminal, the terminal's output to it, and its end.

The first message brings it to the terminal. It ends with the connection or with the terminal's process,
whichever goes first; how much waits on the way is the terminal's matter.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Sequence
from typing import Final

import trio

from runner import websocket
from runner.terminal import protocol
from runner.terminal.process import SpawnError
from runner.terminal.terminal import Terminal
from runner.terminal.viewer import Viewer
from runner.websocket import CloseCode

HELLO_SECONDS: Final = 10.0
"""How long a client may take from the upgrade to its first message."""

_FLUSH_SECONDS: Final = 20.0  # for a viewer to take what was left when the process ended
_LINGER_SECONDS: Final = 1.0  # for the peer's answer to our close frame
_SILENT_PINGS: Final = 4  # a client that sent nothing for so many ping intervals is gone
_RECEIVE_SIZE: Final = 1 << 16


class TerminalConnection:
    """Serves one upgraded connection; `run` returns when it is closed.

    terminal gives the terminal for a viewer's size (columns, rows) and may raise SpawnError. greeting is sent
    before the first output. Without writable, input is read and dropped. ping_seconds is the interval of
    pings, 0 for none.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        received: bytes,
        *,
        terminal: Callable[[int, int], Terminal],
        greeting: Sequence[bytes],
        writable: bool,
        ping_seconds: float,
    ) -> None:
        self._stream = stream
        self._reader = websocket.FrameReader()
        self._reader.feed(received)
        self._terminal = terminal
        self._greeting = greeting
        self._writable = writable
        self._ping_seconds = ping_seconds

        self._send_lock = trio.Lock()
        self._torn = False  # a frame went out in part: nothing more can be said on this connection
        self._peer_closed = False  # its close frame has come
        self._ending: tuple[int | None, str] | None = None  # the close frame to send; the first wins
        self._last_heard = trio.current_time()

    async def run(self) -> None:
        """Serve until the end; never raises for what the client does."""
        try:
            hello = await self._wait_for_hello()
            if hello is not None:
                await self._watch(hello)
        except Exception:
            self._end_with(CloseCode.INTERNAL_ERROR, "a fault in the terminal server")
            raise
        finally:
            if trio.current_effective_deadline() == -math.inf:
                self._end_with(CloseCode.GOING_AWAY, "the terminal server is stopping")
            with trio.CancelScope(shield=True):
                await self._close()

    async def _wait_for_hello(self) -> protocol.Hello | None:
        with trio.move_on_after(HELLO_SECONDS):
            while (message := await self._next_message()) is not None:
                if isinstance(message, protocol.Hello):
                    return message
            return None
        self._end_with(CloseCode.POLICY_VIOLATION, f"no first message within {HELLO_SECONDS:.0f} seconds")
        return None

    async def _watch(self, hello: protocol.Hello) -> None:
        try:
            terminal = self._terminal(hello.columns, hello.rows)
        except SpawnError as error:
            self._end_with(CloseCode.INTERNAL_ERROR, str(error))
            return
        viewer = Viewer(hello.columns, hello.rows)
        terminal.join(viewer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_client, terminal, viewer, nursery.cancel_scope)
                nursery.start_soon(self._bound_the_end, terminal, nursery.cancel_scope)
                if self._ping_seconds > 0:
                    nursery.start_soon(self._ping, nursery.cancel_scope)
                await self._send_output(terminal, viewer)
                nursery.cancel_scope.cancel()
        finally:
            terminal.leave(viewer)
        if terminal.outcome is not None:
            self._end_with(CloseCode.NORMAL, terminal.outcome)

    async def _send_output(self, terminal: Terminal, viewer: Viewer) -> None:
        """Send the greeting and all output; return when there is no more, or nobody takes it."""
        for message in self._greeting:
            await self._send(websocket.binary_frame(message))
        while (data := await terminal.next_output(viewer)) is not None:
            if not await self._send(websocket.binary_frame(protocol.output(data))):
                return

    async def _bound_the_end(self, terminal: Terminal, scope: trio.CancelScope) -> None:
        await terminal.ended.wait()
        await trio.sleep(_FLUSH_SECONDS)
        scope.cancel()

    # --- from the client ----------------------------------------------------------------------------------

    async def _next_message(self) -> protocol.ClientMessage | None:
        """Return the next message with a meaning; None when the client has ended or broken the protocol."""
        try:
            while (event := await self._next_event()) is not None:
                match event:
                    case websocket.Message(data):
                        if (message := protocol.parse(data)) is not None:
                            return message
                    case websocket.Ping(payload):
                        if not await self._send(websocket.pong_frame(payload)):
                            return None
                    case websocket.Close(code):
                        self._peer_closed = True
                        self._end_with(code, "")  # RFC 6455, 5.5.1: the answer echoes the code
                        return None
        except websocket.RemoteProtocolError as error:
            self._end_with(error.code, error.reason)
        except protocol.MalformedMessageError as error:
            self._end_with(CloseCode.INVALID_DATA, str(error))
        return None

    async def _next_event(self) -> websocket.Event | None:
        """Return the next frame's event, None at the end of the stream."""
        while (event := self._reader.next_event()) is None:
            try:
                data = await self._stream.receive_some(_RECEIVE_SIZE)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self._torn = True  # nobody is there to read a close frame
                return None
            self._last_heard = trio.current_time()
            self._reader.feed(bytes(data))
        return event

    async def _follow_client(self, terminal: Terminal, viewer: Viewer, scope: trio.CancelScope) -> None:
        while (message := await self._next_message()) is not None:
            match message:
                case protocol.Input(data) if self._writable:
                    full = terminal.type(viewer, data)
                    while full is not None and await self._client_stays_until(full):
                        full = terminal.input_shrinks()
                    if full is not None:
                        break
                case protocol.Resize(columns, rows):
                    terminal.resize(viewer, columns, rows)
                case protocol.Pause():
                    terminal.pause(viewer, on=True)
                case protocol.Resume():
                    terminal.pause(viewer, on=False)
        scope.cancel()

    async def _client_stays_until(self, event: trio.Event) -> bool:
        """Wait for the event without reading the socket; False if the client hangs up first.

        A hang-up stands behind the bytes that aren't read, so it takes epoll's EPOLLRDHUP to see it; trio
        waits for the epoll descriptor, which is readable when the one event in it has happened.
        """
        with select.epoll() as hangup:
            hangup.register(self._stream.socket.fileno(), select.EPOLLRDHUP | select.EPOLLHUP)

            async def watch() -> None:
                await trio.lowlevel.wait_readable(hangup.fileno())
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await event.wait()
                nursery.cancel_scope.cancel()
        return event.is_set()

    async def _ping(self, scope: trio.CancelScope) -> None:
        """Find out about a client that vanished without a word, as one does that changes networks."""
        while True:
            await trio.sleep(self._ping_seconds)
            if trio.current_time() - self._last_heard > self._ping_seconds * _SILENT_PINGS:
                self._torn = True
                scope.cancel()
            elif not self._send_lock.locked():  # a full socket needs no ping, and would keep this task
                await self._send(websocket.ping_frame())

    async def _send(self, frame: bytes) -> bool:
        """Send a frame whole; False when the connection can't take any more."""
        async with self._send_lock:
            if self._torn:
                return False
            # The stream's send_all doesn't tell how far a cancelled call came. The socket's send is all or
            # nothing, so only a cancellation between two of them leaves half a frame behind.
            rest = memoryview(frame)
            try:
                while rest:
                    rest = rest[await self._stream.socket.send(rest) :]
                    self._torn = len(rest) > 0
            except (OSError, trio.ClosedResourceError):
                self._torn = True
            return not self._torn

    # --- the end ------------------------------------------------------------------------------------------

    def _end_with(self, code: int | None, reason: str) -> None:
        if self._ending is None:
            self._ending = (code, reason)

    async def _close(self) -> None:
        """Send the close frame, and give the peer a moment for its own.

        Closing a socket with unread bytes in it resets the connection, and the peer might never see our last
        frames; so what still comes is read and dropped.
        """
        with trio.move_on_after(_LINGER_SECONDS):
            if self._ending is not None and await self._send(websocket.close_frame(*self._ending)):
                try:
                    await self._stream.send_eof()
                    while not self._peer_closed and (data := await self._stream.receive_some(_RECEIVE_SIZE)):
                        self._look_for_close(bytes(data))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # gone already, which is as good
        await trio.aclose_forcefully(self._stream)

    def _look_for_close(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (event := self._reader.next_event()) is not None:
                self._peer_closed = isinstance(event, websocket.Close)
        except websocket.RemoteProtocolError:
            pass  # the connection is closing for a reason already given
