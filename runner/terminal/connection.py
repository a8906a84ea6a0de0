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
from runner.websocket_stream import WebSocketStream

HELLO_SECONDS: Final = 10.0
"""How long a client may take from the upgrade to its first message."""

_FLUSH_SECONDS: Final = 20.0  # for a viewer to take what was left when the process ended
_SILENT_PINGS: Final = 4  # a client that sent nothing for so many ping intervals is gone


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
        self._websocket = WebSocketStream(stream, received)
        self._terminal = terminal
        self._greeting = greeting
        self._writable = writable
        self._ping_seconds = ping_seconds

    async def run(self) -> None:
        """Serve until the end; never raises for what the client does."""
        try:
            hello = await self._wait_for_hello()
            if hello is not None:
                await self._watch(hello)
        except Exception:
            self._websocket.end_with(CloseCode.INTERNAL_ERROR, "a fault in the terminal server")
            raise
        finally:
            if trio.current_effective_deadline() == -math.inf:
                self._websocket.end_with(CloseCode.GOING_AWAY, "the terminal server is stopping")
            with trio.CancelScope(shield=True):
                await self._websocket.close()

    async def _wait_for_hello(self) -> protocol.Hello | None:
        with trio.move_on_after(HELLO_SECONDS):
            while (message := await self._next_message()) is not None:
                if isinstance(message, protocol.Hello):
                    return message
            return None
        self._websocket.end_with(
            CloseCode.POLICY_VIOLATION, f"no first message within {HELLO_SECONDS:.0f} seconds"
        )
        return None

    async def _watch(self, hello: protocol.Hello) -> None:
        try:
            terminal = self._terminal(hello.columns, hello.rows)
        except SpawnError as error:
            self._websocket.end_with(CloseCode.INTERNAL_ERROR, str(error))
            return
        viewer = Viewer(hello.columns, hello.rows)
        terminal.join(viewer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_client, terminal, viewer, nursery.cancel_scope)
                nursery.start_soon(self._bound_the_end, terminal, nursery.cancel_scope)
                if self._ping_seconds > 0:
                    silence = _SILENT_PINGS * self._ping_seconds
                    nursery.start_soon(
                        self._websocket.keep, self._ping_seconds, silence, nursery.cancel_scope
                    )
                await self._send_output(terminal, viewer)
                nursery.cancel_scope.cancel()
        finally:
            terminal.leave(viewer)
        if terminal.outcome is not None:
            self._websocket.end_with(CloseCode.NORMAL, terminal.outcome)

    async def _send_output(self, terminal: Terminal, viewer: Viewer) -> None:
        """Send the greeting and all output; return when there is no more, or nobody takes it."""
        for message in self._greeting:
            await self._websocket.send(websocket.binary_frame(message))
        while (data := await terminal.next_output(viewer)) is not None:
            if not await self._websocket.send(websocket.binary_frame(protocol.output(data))):
                return

    async def _bound_the_end(self, terminal: Terminal, scope: trio.CancelScope) -> None:
        await terminal.ended.wait()
        await trio.sleep(_FLUSH_SECONDS)
        scope.cancel()

    # --- from the client ----------------------------------------------------------------------------------

    async def _next_message(self) -> protocol.ClientMessage | None:
        """Return the next message with a meaning; None when the client has ended or broken the protocol."""
        try:
            while (event := await self._websocket.next_event()) is not None:
                match event:
                    case websocket.Message(data):
                        if (message := protocol.parse(data)) is not None:
                            return message
                    case websocket.Ping(payload):
                        if not await self._websocket.send(websocket.pong_frame(payload)):
                            return None
        except protocol.MalformedMessageError as error:
            self._websocket.end_with(CloseCode.INVALID_DATA, str(error))
        return None

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
            hangup.register(self._websocket.stream.socket.fileno(), select.EPOLLRDHUP | select.EPOLLHUP)

            async def watch() -> None:
                await trio.lowlevel.wait_readable(hangup.fileno())
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await event.wait()
                nursery.cancel_scope.cancel()
        return event.is_set()
