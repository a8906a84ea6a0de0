"""HTTP for one connection of oqto-files: requests read, answered from the tree, bodies streamed both ways."""

from __future__ import annotations

import json
import mimetypes
import os
import re
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import h11
import trio

from runner.files.tree import STATUS, FileError, Tree, explained

MAX_HEAD = 32 * 1024
IDLE_TIMEOUT = 60.0
_CHUNK = 256 * 1024
_RANGE = re.compile(rb"bytes=(\d*)-(\d*)")
_SAFE = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]


class Connection:
    """One client."""

    def __init__(self, stream: trio.SocketStream, tree: Tree, *, max_upload: int) -> None:
        self._stream = stream
        self._tree = tree
        self._max_upload = max_upload
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def run(self) -> None:
        """Serve until either side is done."""
        try:
            while await self._one_request():
                self._http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            pass  # the client went away
        finally:
            with trio.move_on_after(1, shield=True):
                await self._stream.aclose()

    async def _one_request(self) -> bool:
        try:
            with trio.move_on_after(IDLE_TIMEOUT) as patience:
                request = await self._receive()
            if patience.cancelled_caught or not isinstance(request, h11.Request):
                return False
            try:
                await self._answer(request)
            except OSError as error:
                raise explained(error) from error
        except FileError as error:
            await self._refuse(error.code, str(error))
        except h11.RemoteProtocolError as error:
            await self._refuse("INVALID_PATH", f"not a request: {error}")
            return False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _answer(self, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="surrogateescape"
        )
        asked = dict(pairs)
        file = os.fsencode(asked.get("path", ""))
        match request.method, path:
            case (b"GET" | b"HEAD", b"/health"):
                await self._json({"status": "ok"})
            case (b"GET", b"/tree"):
                depth = int(asked["depth"]) if asked.get("depth", "").isdecimal() else 1
                hidden = asked.get("show_hidden") in ("1", "true")
                entries = await trio.to_thread.run_sync(
                    lambda: self._tree.list(file, depth=depth, hidden=hidden)
                )
                await self._json(entries)
            case (b"GET" | b"HEAD", b"/file"):
                await self._send_file(request, file)
            case (b"PUT", b"/file"):
                await self._receive_file(request, file, make=asked.get("mkdir") in ("1", "true"))
            case (b"PUT", b"/mkdir"):
                self._tree.make_folder(file)
                await self._json({"success": True, "path": asked.get("path", "")})
            case (b"DELETE", b"/file"):
                await trio.to_thread.run_sync(self._tree.remove, file)
                await self._json({"success": True, "path": asked.get("path", "")})
            case (_, b"/health" | b"/tree" | b"/file" | b"/mkdir"):
                raise FileError("METHOD_NOT_ALLOWED", "this is not done that way")
            case _:
                raise FileError("NOT_FOUND", "there is no such route")

    async def _send_file(self, request: h11.Request, path: bytes) -> None:
        descriptor = self._tree.open_file(path)
        try:
            status = os.fstat(descriptor)
            etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'.encode()
            headers = dict(request.headers)
            common = [
                (b"etag", etag),
                (b"last-modified", formatdate(status.st_mtime, usegmt=True).encode()),
                (b"accept-ranges", b"bytes"),
                *_SAFE,
            ]
            if etag in [x.strip() for x in headers.get(b"if-none-match", b"").split(b",")]:
                await self._send(h11.Response(status_code=304, headers=common))
                await self._send(h11.EndOfMessage())
                return
            asked = headers.get(b"range") if headers.get(b"if-range", etag) == etag else None
            span = _span(asked, status.st_size)
            if span is None:
                unsatisfied = [
                    (b"content-range", f"bytes */{status.st_size}".encode()),
                    (b"content-length", b"0"),
                ]
                await self._send(h11.Response(status_code=416, headers=[*common, *unsatisfied]))
                await self._send(h11.EndOfMessage())
                return
            start, end, partial = span
            common += [(b"content-type", _media_type(path)), (b"content-length", str(end - start).encode())]
            if partial:
                common.append((b"content-range", f"bytes {start}-{end - 1}/{status.st_size}".encode()))
            await self._send(h11.Response(status_code=206 if partial else 200, headers=common))
            while start < end and request.method != b"HEAD":
                chunk = await trio.to_thread.run_sync(os.pread, descriptor, min(_CHUNK, end - start), start)
                if not chunk:
                    raise trio.BrokenResourceError("the file became shorter while it was sent")
                await self._send(h11.Data(data=chunk))
                start += len(chunk)
            await self._send(h11.EndOfMessage())
        finally:
            os.close(descriptor)

    async def _receive_file(self, request: h11.Request, path: bytes, *, make: bool) -> None:
        announced = dict(request.headers).get(b"content-length", b"0")
        self._check_size(int(announced))
        upload = self._tree.upload(path, make=make)
        try:
            received = 0
            while not isinstance(event := await self._receive(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    raise trio.BrokenResourceError("the client went away in the middle of the file")
                received += len(event.data)
                self._check_size(received)
                await trio.to_thread.run_sync(_write, upload.descriptor, bytes(event.data))
            await trio.to_thread.run_sync(upload.finish)
        finally:
            upload.close()
        await self._json({"success": True, "size": received})

    def _check_size(self, size: int) -> None:
        if size > self._max_upload:
            raise FileError(
                "FILE_TOO_LARGE", f"a file may have {self._max_upload} bytes; see server.max_upload_size_mb"
            )

    async def _refuse(self, code: str, message: str) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._json({"error": message, "code": code}, status=STATUS[code])

    async def _json(self, content: Any, *, status: int = 200) -> None:
        body = json.dumps(content).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *_SAFE,
        ]
        if self._http.their_state is h11.SEND_BODY and not await self._drained():
            headers.append((b"connection", b"close"))
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def _drained(self) -> bool:
        """Take in the end of a body that nobody wants, if it is here already."""
        return isinstance(self._http.next_event(), h11.EndOfMessage)

    async def _receive(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._stream.receive_some(_CHUNK))

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)


def _span(asked: bytes | None, size: int) -> tuple[int, int, bool] | None:
    """Return start, end and whether that is a part, RFC 9110 section 14; None where it can't be satisfied."""
    match = _RANGE.fullmatch(asked or b"")
    if match is None or not (match[1] or match[2]):
        return 0, size, False
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    return (start, end, True) if start < end else None


def _media_type(path: bytes) -> bytes:
    kind, encoding = mimetypes.guess_type(os.fsdecode(path))
    if kind is None or encoding is not None:
        return b"application/octet-stream"
    return f"{kind}; charset=utf-8".encode() if kind.startswith("text/") else kind.encode()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
