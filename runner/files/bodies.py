"""Files on their way out and in: parts, zip files, uploads raw and from forms. In constant memory."""

from __future__ import annotations

import mimetypes
import os
import secrets
from functools import partial
from urllib.parse import quote_from_bytes

import h11
import trio

from runner.files import archive, multipart, ranges
from runner.files.asked import Asked
from runner.files.errors import FileError
from runner.files.exchange import CHUNK, SAFE, Exchange, Headers
from runner.files.ranges import Span
from runner.files.tree import Tree
from runner.files.uploads import Upload

_SMALL = 64 * 1024
"""Bytes of a file that go into one write with the head."""


class _Passed:
    """Stands for bytes that go to the socket past h11, which counts them."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


async def send_spans(
    exchange: Exchange,
    descriptor: int,
    size: int,
    spans: list[Span] | None,
    headers: Headers,
    kind: bytes,
    *,
    head_only: bool,
) -> None:
    """Send a file, or parts of it, RFC 9110 sections 14.4 to 14.6."""
    parts: list[tuple[bytes, Span, bytes]]
    if spans is None:
        status, parts = 200, [(b"", (0, size), b"")]
    elif len(spans) == 1:
        status, parts = 206, [(b"", spans[0], b"")]
        headers = [*headers, (b"content-range", _content_range(spans[0], size))]
    else:
        boundary = secrets.token_hex(12).encode()
        status, parts = 206, [(_part_head(boundary, kind, span, size), span, b"\r\n") for span in spans]
        parts.append((b"--" + boundary + b"--\r\n", (0, 0), b""))
        kind = b"multipart/byteranges; boundary=" + boundary
    length = sum(len(before) + end - start + len(after) for before, (start, end), after in parts)
    headers = [*headers, (b"content-type", kind), (b"content-length", str(length).encode())]
    head = exchange.begin(status, headers)
    if head_only:
        exchange.http.send(h11.EndOfMessage())
        await exchange.send_raw(head)
        return
    if length:
        exchange.http.send_with_data_passthrough(h11.Data(data=_Passed(length)))  # type: ignore[arg-type]  # h11 documents that anything with a length will do
    for before, (start, end), after in parts:
        if end - start <= _SMALL:
            before, start = before + os.pread(descriptor, end - start, start), end
            if len(head) + len(before) < _SMALL:
                head += before + after
                continue
        await exchange.send_raw(head + before)
        await exchange.send_file(descriptor, start, end)
        head = after
    if head:
        await exchange.send_raw(head)
    exchange.http.send(h11.EndOfMessage())


def _content_range(span: Span, size: int) -> bytes:
    return f"bytes {span[0]}-{span[1] - 1}/{size}".encode()


def _part_head(boundary: bytes, kind: bytes, span: Span, size: int) -> bytes:
    lines = [b"--" + boundary, b"content-type: " + kind, b"content-range: " + _content_range(span, size)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def send_zip(exchange: Exchange, tree: Tree, paths: list[bytes], headers: Headers) -> None:
    """Send files and folders as one zip file. When that fails half-way, the answer breaks off."""
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(receiving, False)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_zip, tree, paths, sending)
            try:
                await exchange.send_raw(exchange.begin(200, headers))
                while chunk := await _piped(receiving):
                    await exchange.send(h11.Data(data=chunk))
            finally:
                os.close(receiving)  # which ends the writer, if it hasn't
    except* (BrokenPipeError, FileError, OSError) as group:
        raise trio.BrokenResourceError("the zip file could not be finished") from group
    await exchange.send(h11.EndOfMessage())


async def _write_zip(tree: Tree, paths: list[bytes], pipe: int) -> None:
    await trio.to_thread.run_sync(archive.write, tree, paths, pipe)


async def _piped(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(descriptor)


async def receive_raw(exchange: Exchange, tree: Tree, asked: Asked, *, limit: int) -> None:
    """Take the body as a file: PUT."""
    announced = int(asked.headers.get(b"content-length", b"0"))
    _check_size(announced, limit)
    path = asked.path()
    upload = await trio.to_thread.run_sync(lambda: tree.upload(path, make=asked.flag("mkdir")))
    try:
        received = 0
        while (data := await exchange.body()) is not None:
            received += len(data)
            _check_size(received, limit)
            if upload.take(data):
                await trio.to_thread.run_sync(upload.write)
        created = await _finish(upload, asked, tree, path)
    finally:
        upload.close()
    status = tree.status(path)
    await exchange.json(
        {"success": True, "path": os.fsdecode(path), "size": received, "created": created},
        headers=[(b"etag", ranges.etag(status))],
    )


async def receive_form(exchange: Exchange, tree: Tree, asked: Asked, *, limit: int) -> None:
    """Take the files of a form: POST. `path` is the file, or the folder that they are put into."""
    path = asked.path(required=False)
    try:
        parts = multipart.Parts(asked.headers.get(b"content-type", b""))
    except multipart.Malformed as error:
        raise FileError("BAD_REQUEST", str(error)) from error
    into_folder = path.endswith(b"/") or _is_folder(tree, path)
    saved: list[dict[str, object]] = []
    upload: Upload | None = None
    received = 0
    try:
        while (data := await exchange.body()) is not None:
            try:
                events = parts.feed(bytes(data))
            except multipart.Malformed as error:
                raise FileError("BAD_REQUEST", str(error)) from error
            for event in events:
                match event:
                    case multipart.PartBegins(filename=None):
                        upload = None
                    case multipart.PartBegins(filename=name):
                        if saved and not into_folder:
                            raise FileError("NOT_A_DIRECTORY", "several files want a folder as path")
                        target = _joined(path, name) if into_folder else path
                        received = 0
                        begin = partial(tree.upload, target, make=asked.flag("mkdir"))
                        upload = await trio.to_thread.run_sync(begin)
                        saved.append({"path": os.fsdecode(target), "size": 0})
                    case multipart.PartData(data=content) if upload is not None:
                        received += len(content)
                        _check_size(received, limit)
                        if upload.take(content):
                            await trio.to_thread.run_sync(upload.write)
                        saved[-1]["size"] = received
                    case multipart.PartEnds() if upload is not None:
                        await trio.to_thread.run_sync(upload.finish)
                        upload.close()
                        upload = None
        if not parts.is_complete:
            raise FileError("BAD_REQUEST", "the form breaks off")
        if not saved:
            raise FileError("BAD_REQUEST", "the form holds no file")
    finally:
        if upload is not None:
            upload.close()
    await exchange.json({"success": True, "files": saved, **saved[0]})


async def _finish(upload: Upload, asked: Asked, tree: Tree, path: bytes) -> bool:
    """Put a file into its place where the request's conditions allow it."""
    replace = asked.headers.get(b"if-none-match", b"").strip() != b"*"
    if asked.conditional and replace:
        try:
            status: os.stat_result | None = tree.status(path)
        except FileError:
            status = None
        if not ranges.may_write(asked.headers, status):
            raise FileError("PRECONDITION_FAILED", "the file has changed since you read it")
    return await trio.to_thread.run_sync(lambda: upload.finish(replace=replace))


def _joined(folder: bytes, name: bytes | None) -> bytes:
    base = (name or b"").replace(b"\\", b"/").rpartition(b"/")[2]
    return folder.rstrip(b"/") + b"/" + base


def _is_folder(tree: Tree, path: bytes) -> bool:
    try:
        os.close(tree.open_folder(path))
    except FileError:
        return False
    return True


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise FileError("FILE_TOO_LARGE", f"a file may have {limit} bytes; see server.max_upload_size_mb")


def media_type(path: bytes) -> bytes:
    """Return the Content-Type that a file's name says."""
    kind, encoding = mimetypes.guess_type(os.fsdecode(path.rpartition(b"/")[2]))
    if kind is None or encoding is not None:
        return b"application/octet-stream"
    return f"{kind}; charset=utf-8".encode() if kind.startswith("text/") else kind.encode()


def disposition(name: bytes) -> bytes:
    """Return a Content-Disposition that has a browser save the file, RFC 6266."""
    plain = bytes(x if 0x20 <= x < 0x7F and x not in b'"\\%' else ord("_") for x in name)
    return b'attachment; filename="' + plain + b"\"; filename*=UTF-8''" + quote_from_bytes(name, "").encode()


def zip_headers(name: bytes) -> Headers:
    """Return the headers of a zip file."""
    return [(b"content-type", b"application/zip"), (b"content-disposition", disposition(name)), *SAFE]
