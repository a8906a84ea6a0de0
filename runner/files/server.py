"""What oqto-files does with each request: the routes of its interface."""

from __future__ import annotations

import os
from typing import Any

import h11
import trio

from runner.files import bodies, ranges, sockets, thumbnails
from runner.files.asked import Asked
from runner.files.errors import FileError, explained
from runner.files.exchange import SAFE, Exchange, Headers, prepare
from runner.files.listing import PAGE, Listing
from runner.files.tree import Tree

_MAX_PAGE = 50_000
_METHODS = {
    b"/health": b"GET, HEAD",
    b"/tree": b"GET, HEAD",
    b"/file": b"DELETE, GET, HEAD, POST, PUT",
    b"/mkdir": b"POST, PUT",
    b"/rename": b"POST",
    b"/download": b"GET, HEAD",
    b"/download-zip": b"GET, HEAD",
    b"/thumbnail": b"GET, HEAD",
    b"/ws/watch": b"GET",
}


class Connection:
    """One client."""

    def __init__(self, stream: trio.SocketStream, tree: Tree, *, max_upload: int) -> None:
        self._exchange = Exchange(stream)
        self._tree = tree
        self._max_upload = max_upload
        prepare(stream)

    async def run(self) -> None:
        """Serve until either side is done."""
        exchange = self._exchange
        try:
            while (request := await exchange.next_request()) is not None:
                try:
                    await self._answer(request)
                except OSError as error:
                    await exchange.refuse(explained(error))
                except FileError as error:
                    await exchange.refuse(error)
                if not exchange.can_go_on:
                    break
        except h11.RemoteProtocolError as error:
            await self._refuse_garbage(error)
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            h11.LocalProtocolError,
        ):
            pass  # the client went away
        finally:
            await exchange.close()

    async def _refuse_garbage(self, error: h11.RemoteProtocolError) -> None:
        try:
            await self._exchange.refuse(FileError("BAD_REQUEST", f"not a request: {error}"))
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            h11.LocalProtocolError,
        ):
            pass  # it doesn't want to know

    async def _answer(self, request: h11.Request) -> None:
        route, _, query = request.target.partition(b"?")
        asked = Asked(request, query)
        match request.method, route:
            case (b"GET" | b"HEAD", b"/health"):
                await self._exchange.json({"status": "ok"})
            case (b"GET" | b"HEAD", b"/tree"):
                await self._list(asked)
            case (b"GET" | b"HEAD", b"/file"):
                await self._send_file(asked)
            case (b"PUT", b"/file"):
                await bodies.receive_raw(self._exchange, self._tree, asked, limit=self._max_upload)
            case (b"POST", b"/file"):
                await bodies.receive_form(self._exchange, self._tree, asked, limit=self._max_upload)
            case (b"DELETE", b"/file"):
                await self._remove(asked)
            case (b"PUT" | b"POST", b"/mkdir"):
                await trio.to_thread.run_sync(self._tree.make_folder, asked.path())
                await self._done(asked.text("path"))
            case (b"POST", b"/rename"):
                await self._rename(asked)
            case (b"GET" | b"HEAD", b"/download"):
                await self._download(asked)
            case (b"GET" | b"HEAD", b"/download-zip"):
                await self._download_several(asked)
            case (b"GET" | b"HEAD", b"/thumbnail"):
                await self._thumbnail(asked)
            case (b"GET", b"/ws/watch"):
                await sockets.watch(self._exchange, self._tree, asked)
            case (_, found) if found in _METHODS:
                message = f"{found.decode()} doesn't know that method"
                raise FileError("METHOD_NOT_ALLOWED", message, ((b"allow", _METHODS[found]),))
            case _:
                raise FileError("NOT_FOUND", "there is no such route")

    async def _list(self, asked: Asked) -> None:
        listing = Listing(
            depth=asked.number("depth", 1, 1, 1000),
            hidden=asked.flag("show_hidden"),
            simple=asked.text("mode") == b"simple",
            offset=asked.number("offset", 0, 0, 2**62),
            limit=asked.number("limit", PAGE, 1, _MAX_PAGE),
        )
        path = asked.path(required=False).strip(b"/")

        def look() -> list[dict[str, Any]]:
            folder = self._tree.open_folder(path)
            try:
                return listing.of(folder, path)
            finally:
                os.close(folder)

        entries = await trio.to_thread.run_sync(look)
        headers = [(b"x-total-count", str(listing.total).encode())]
        if listing.truncated:
            headers.append((b"x-truncated", b"true"))
            if listing.offset + len(entries) < listing.total:
                headers.append((b"x-next-offset", str(listing.offset + len(entries)).encode()))
        await self._exchange.json(entries, headers=headers)

    async def _send_file(self, asked: Asked, *, attached: bool = False) -> None:
        path = asked.path()
        descriptor = self._tree.open_file(path)
        try:
            status = os.fstat(descriptor)
            common: Headers = [
                (b"etag", ranges.etag(status)),
                (b"last-modified", ranges.last_modified(status)),
                (b"accept-ranges", b"bytes"),
                (b"cache-control", b"private, no-cache"),
                *SAFE,
            ]
            if attached or asked.flag("download"):
                common.append((b"content-disposition", bodies.disposition(path.rpartition(b"/")[2])))
            if ranges.is_unchanged(asked.headers, status):
                await self._exchange.respond(304, common)
                return
            wanted = asked.headers.get(b"range") if ranges.range_is_meant(asked.headers, status) else None
            try:
                spans = ranges.spans(wanted, status.st_size)
            except ranges.Unsatisfiable:
                whole = (b"content-range", f"bytes */{status.st_size}".encode())
                await self._exchange.respond(416, [*common, whole])
                return
            head_only = asked.method == b"HEAD"
            await bodies.send_spans(
                self._exchange,
                descriptor,
                status.st_size,
                spans,
                common,
                bodies.media_type(path),
                head_only=head_only,
            )
        finally:
            os.close(descriptor)

    async def _remove(self, asked: Asked) -> None:
        path = asked.path()
        if asked.conditional and not ranges.may_write(asked.headers, self._status(path)):
            raise FileError("PRECONDITION_FAILED", "the file has changed since you read it")
        await trio.to_thread.run_sync(self._tree.remove, path)
        await self._done(asked.text("path"))

    async def _rename(self, asked: Asked) -> None:
        old, new = asked.path("old_path"), asked.path("new_path")
        replace, make = asked.flag("overwrite"), asked.flag("mkdir")
        await trio.to_thread.run_sync(lambda: self._tree.rename(old, new, replace=replace, make=make))
        await self._done(asked.text("new_path"))

    async def _download(self, asked: Asked) -> None:
        path = asked.path(required=False)
        try:
            os.close(self._tree.open_folder(path))
        except FileError as error:
            if error.code != "NOT_A_DIRECTORY":
                raise
            await self._send_file(asked, attached=True)
            return
        name = path.strip(b"/").rpartition(b"/")[2] or b"workspace"
        await self._send_zip(asked, [path], name + b".zip")

    async def _download_several(self, asked: Asked) -> None:
        paths = [path for value in asked.every("paths") for path in value.split(b",") if path]
        if not paths:
            raise FileError("INVALID_PATH", "say which: paths=a,b or paths=a&paths=b")
        for path in paths:
            self._tree.status(path)
        name = asked.text("name").rpartition(b"/")[2] or b"files"
        await self._send_zip(asked, paths, name if name.endswith(b".zip") else name + b".zip")

    async def _send_zip(self, asked: Asked, paths: list[bytes], name: bytes) -> None:
        headers = bodies.zip_headers(name)
        if asked.method == b"HEAD":
            await self._exchange.send_raw(self._exchange.begin(200, headers))
            await self._exchange.send(h11.EndOfMessage())
            return
        await bodies.send_zip(self._exchange, self._tree, paths, headers)

    async def _thumbnail(self, asked: Asked) -> None:
        size = asked.number("size", 256, thumbnails.SIZES.start, thumbnails.SIZES.stop - 1)
        descriptor = self._tree.open_file(asked.path())
        try:
            status = os.fstat(descriptor)
            headers: Headers = [
                (b"etag", ranges.etag(status)[:-1] + f'-{size}"'.encode()),
                (b"content-type", b"image/png"),
                (b"cache-control", b"private, max-age=60"),
                *SAFE,
            ]
            if asked.headers.get(b"if-none-match") == headers[0][1]:
                await self._exchange.respond(304, headers)
                return
            picture = await thumbnails.make(descriptor, size)
            await self._exchange.respond(200, headers, picture if asked.method != b"HEAD" else b"")
        finally:
            os.close(descriptor)

    def _status(self, path: bytes) -> os.stat_result | None:
        try:
            return self._tree.status(path)
        except FileError as error:
            if error.code != "NOT_FOUND":
                raise
            return None

    async def _done(self, path: bytes) -> None:
        await self._exchange.json({"success": True, "path": os.fsdecode(path)})
