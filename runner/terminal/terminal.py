"""One terminal: a process on a pseudoterminal, and all who look at it.

It goes on while nobody looks; whoever comes is shown the scrollback first. Nothing is queued without a limit:

- The pseudoterminal is read as fast as the quickest viewer takes the output, so that a single one slows the
  process down, and a slow one among several slows nobody: it falls behind, and is shown the scrollback anew
  when it can take it. Without a viewer, output is read and only the scrollback keeps it.
- Input is taken until INPUT_LIMIT bytes wait for a process that doesn't read them.

The two could wait for each other: a paused viewer pastes a lot, the process can't read for it can't write,
and the resume stands behind the input. So a full input queue overrides a pause.

The window is as large as that of the viewer who last typed, resized or came. The same one is who answers
the queries of programs (where is the cursor, which colours are these): the others don't get to see them,
because a program takes all answers but the first for something typed.
"""

from __future__ import annotations

from typing import Final

import trio

from runner.terminal.process import PtyProcess
from runner.terminal.scrollback import Scrollback
from runner.terminal.sequences import QueryFilter
from runner.terminal.viewer import Viewer

INPUT_LIMIT: Final = 1 << 20
"""Bytes of input that wait for the process before a viewer's socket isn't read any more."""

_EXIT_SECONDS: Final = 1.0  # between the last close of the terminal and the exit of the process
_DRAIN_LIMIT: Final = (
    1 << 18
)  # bytes; more than a terminal holds, less than a job in the background may write
_WRITE_SIZE: Final = 1 << 16
_REDRAW_SECONDS: Final = 0.05  # a program that handles signals late must see the other size


class Terminal:
    """A running process, its scrollback and its viewers.

    `run` must be running for it to live. columns and rows are the size that the process was started with.
    Without keep it ends with its last viewer.
    """

    def __init__(self, process: PtyProcess, columns: int, rows: int, *, keep: bool) -> None:
        self._process = process
        self._size = (columns, rows)
        self._scrollback = Scrollback()
        self._viewers: list[Viewer] = []  # the one who last did something is the last
        self._answering: Viewer | None = None  # who sees everything
        self._filter = QueryFilter()  # what the others see goes through it
        self._room = trio.Event()  # somebody may take output again
        self._input = bytearray()
        self._input_grew = trio.Event()
        self._input_shrank = trio.Event()
        self._redraw = trio.Event()
        self._wiggling = trio.CancelScope()
        self._keep = keep
        self._scope = trio.CancelScope()
        self.is_over = False
        """Whether the process has ended, or is being ended; no viewer should come any more."""
        self.ended = trio.Event()
        """Set when the process has ended: `outcome` says how."""
        self.outcome: str | None = None

    async def run(self) -> None:
        """Move bytes until the process has ended, or until cancelled, which ends it."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump_input)
                    nursery.start_soon(self._pump_output, nursery.cancel_scope)
                    nursery.start_soon(self._make_redraw)
                    await self._process.wait_exit()
                    nursery.cancel_scope.cancel()
            # What is left fits into the terminal's buffer, unless a background job goes on writing.
            drained = 0
            while drained < _DRAIN_LIMIT and (data := self._process.read()):
                drained += len(data)
                self._distribute(data)
        finally:
            self.is_over = True
            self.outcome = await self._process.end()
            self.ended.set()
            for viewer in self._viewers:
                viewer.wake()
            self._input_shrank.set()

    # --- for viewers --------------------------------------------------------------------------------------

    def join(self, viewer: Viewer) -> None:
        """Let a viewer in: it sees the scrollback, then what comes."""
        drawn, rest = self._scrollback.replay()
        self._viewers.append(viewer)
        if len(self._viewers) == 1:
            self._answering = viewer
        elif len(self._viewers) == 2:
            self._filter = QueryFilter(rest)
        viewer.show(drawn + rest if viewer is self._answering else drawn)
        before = self._size
        self._prefer(viewer)
        draws = self._scrollback.full_screen or self._process.is_drawn_on()
        if draws and drawn and self._size == before:
            self._redraw.set()

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go; the process stays."""
        self._viewers.remove(viewer)
        if viewer is self._answering:
            self._answering = self._viewers[-1] if self._viewers else None
            if self._answering is not None:
                self._answering.offer(self._filter.held)
        if self._viewers:
            self._prefer(self._viewers[-1])
        elif not self._keep:
            self.is_over = True
            self._scope.cancel()
        self._room.set()

    async def next_output(self, viewer: Viewer) -> bytes | None:
        """Wait for the next portion of output for this viewer; None after the last."""
        while True:
            if not viewer.paused or self.input_is_stuck or self.outcome is not None:
                if viewer.is_behind:
                    drawn, rest = self._scrollback.replay()
                    viewer.show(drawn + rest if viewer is self._answering else drawn)
                if portion := viewer.take():
                    self._room.set()
                    return portion
                if self.outcome is not None:
                    return None
            await viewer.wait()

    def pause(self, viewer: Viewer, *, on: bool) -> None:
        """Hold a viewer's output back, or let it go again."""
        viewer.paused = on
        viewer.wake()
        self._room.set()

    def resize(self, viewer: Viewer, columns: int | None, rows: int | None) -> None:
        """Note the size of a viewer's window, which becomes everybody's; None leaves that side as it is."""
        viewer.columns = columns or viewer.columns
        viewer.rows = rows or viewer.rows
        self._prefer(viewer)

    def type(self, viewer: Viewer, data: bytes) -> trio.Event | None:
        """Queue input; where that makes the queue too long, return what to wait for before the next."""
        self._prefer(viewer)
        self._wiggling.cancel()
        self._input += data
        self._input_grew.set()
        return self.input_shrinks()

    def input_shrinks(self) -> trio.Event | None:
        """Return an event for the next bytes of a full input queue to be taken; None if it isn't full."""
        if not self.input_is_stuck or self.outcome is not None:
            return None
        for viewer in self._viewers:
            viewer.wake()
        self._room.set()
        if self._input_shrank.is_set():
            self._input_shrank = trio.Event()
        return self._input_shrank

    @property
    def input_is_stuck(self) -> bool:
        """Whether the process doesn't read what is typed."""
        return len(self._input) > INPUT_LIMIT

    def _prefer(self, viewer: Viewer) -> None:
        """Take this viewer for the one in front of whom the person sits."""
        if self._viewers[-1] is not viewer:
            self._viewers.remove(viewer)
            self._viewers.append(viewer)
        self._choose_answering()
        if self._size != (viewer.columns, viewer.rows):
            self._size = (viewer.columns, viewer.rows)
            self._process.resize(*self._size)

    def _choose_answering(self) -> None:
        # Not while half a sequence has gone out to the one and is held back from the others.
        if self._viewers and (len(self._viewers) == 1 or not self._filter.held):
            self._answering = self._viewers[-1]

    # --- the process --------------------------------------------------------------------------------------

    async def _pump_output(self, scope: trio.CancelScope) -> None:
        while True:
            await self._process.wait_readable()
            while not self._may_read():
                self._room = trio.Event()
                await self._room.wait()
            data = self._process.read()
            if data == b"":  # the terminal is closed, which normally is the start of the exit
                await trio.sleep(_EXIT_SECONDS)  # cancelled by the exit
                scope.cancel()
                return
            if data:
                self._distribute(data)

    def _may_read(self) -> bool:
        return not self._viewers or any(
            viewer.is_ready and (not viewer.paused or self.input_is_stuck) for viewer in self._viewers
        )

    def _distribute(self, data: bytes) -> None:
        self._scrollback.append(data)
        if len(self._viewers) < 2:
            for viewer in self._viewers:
                viewer.offer(data)
            return
        filtered = self._filter.feed(data)
        for viewer in self._viewers:
            viewer.offer(data if viewer is self._answering else filtered)
        self._choose_answering()

    async def _pump_input(self) -> None:
        while True:
            while not self._input:
                self._input_grew = trio.Event()
                await self._input_grew.wait()
            try:
                taken = self._process.write(bytes(self._input[:_WRITE_SIZE]))
                if not taken:
                    await self._process.wait_writable()
            except OSError:
                return  # the terminal is hung up; the output side sees the same and ends it
            del self._input[:taken]
            self._input_shrank.set()

    async def _make_redraw(self) -> None:
        """Have a full-screen program draw anew, for which it must see its window change."""
        while True:
            await self._redraw.wait()
            columns, rows = self._size
            self._process.resize(columns, rows - 1 if rows > 1 else rows + 1)
            with trio.CancelScope() as self._wiggling:  # by somebody who types
                await trio.sleep(_REDRAW_SECONDS)
            self._redraw = trio.Event()
            self._process.resize(*self._size)
