"""oqto-files as a program: everything that its interface promises."""

from __future__ import annotations

import email.parser
import http.client
import io
import json
import os
import signal
import zipfile
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest

from tests.integration.oqto_files import LIMIT, Files, files, served

__all__ = ["files", "served"]


def test_there_and_back(files: Files) -> None:
    assert files.get("/health").json == {"status": "ok"}
    put = files.send("PUT", "/file?path=a/b/c.txt&mkdir=true", b"hello")
    assert (put.status, put.json["size"]) == (200, 5)
    assert files.send("PUT", "/file?path=/a/b/c.txt", b"hello!").status == 200
    got = files.get("/file?path=a/b/c.txt")
    assert (got.status, got.body, got.headers["content-type"]) == (
        200,
        b"hello!",
        "text/plain; charset=utf-8",
    )
    assert files.send("HEAD", "/file?path=a/b/c.txt").headers["content-length"] == "6"
    assert files.send("PUT", "/mkdir?path=d/e").status == 200
    assert files.send("DELETE", "/file?path=a").status == 200
    assert files.get("/file?path=a/b/c.txt").status == 404
    assert files.send("PUT", "/file?path=nowhere/x", b"").status == 404
    assert files.get("/nothing").json["code"] == "NOT_FOUND"
    assert files.send("PATCH", "/file?path=x").status == 405


def test_users_content_is_harmless(files: Files) -> None:
    for name in ("page.html", "picture.svg", "script.js"):
        (files.root / name).write_text("<script>alert(1)</script>")
        answer = files.get(f"/file?path={name}")
        assert answer.headers["content-security-policy"] == "sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "attachment" in files.get("/file?path=page.html&download=1").headers["content-disposition"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.txt", b"new\nline", b"sp ace&amp=?#%", "süß".encode(), b"'\"<b>"]
)
def test_any_name_survives_the_round_trip(files: Files, name: bytes) -> None:
    assert files.send("PUT", f"/file?path={quote_from_bytes(name)}", b"x").status == 200
    assert [os.fsencode(path.name) for path in files.root.iterdir()] == [name]
    (entry,) = files.get("/tree?path=").json
    encoded = entry.get("path_encoded") or quote(entry["path"])
    assert files.get(f"/file?path={encoded}").body == b"x"
    assert os.fsencode(entry["name"]) == name


def test_ranges(files: Files) -> None:
    (files.root / "f").write_bytes(bytes(range(100)))
    whole = bytes(range(100))
    for asked, expected, described in (
        ("bytes=0-0", whole[:1], "bytes 0-0/100"),
        ("bytes=90-", whole[90:], "bytes 90-99/100"),
        ("bytes=-5", whole[-5:], "bytes 95-99/100"),
        ("bytes=50-1000", whole[50:], "bytes 50-99/100"),
        ("bytes=-1000", whole, "bytes 0-99/100"),
    ):
        answer = files.get("/file?path=f", Range=asked)
        assert (answer.status, answer.body, answer.headers["content-range"]) == (206, expected, described)
    for ignored in ("bytes=9-1", "bytes=x-", "lines=1-2", "bytes=", "bytes=1-2,x"):
        answer = files.get("/file?path=f", Range=ignored)
        assert (answer.status, answer.body) == (200, whole), ignored
    answer = files.get("/file?path=f", Range="bytes=100-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */100")
    answer = files.get("/file?path=f", Range="bytes=0-1,10-11,-2")
    assert answer.status == 206
    message = email.parser.BytesParser().parsebytes(
        b"content-type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.body
    )
    parts = [(part["content-range"], part.get_payload(decode=True)) for part in message.get_payload()]
    assert parts == [
        ("bytes 0-1/100", whole[:2]),
        ("bytes 10-11/100", whole[10:12]),
        ("bytes 98-99/100", whole[98:]),
    ]
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_conditions(files: Files) -> None:
    etag = files.send("PUT", "/file?path=f", b"one").headers["etag"]
    shown = files.get("/file?path=f")
    assert shown.headers["etag"] == etag
    assert files.get("/file?path=f", If_None_Match=etag).status == 304
    assert files.get("/file?path=f", If_None_Match='"other"').status == 200
    assert files.get("/file?path=f", If_Modified_Since=shown.headers["last-modified"]).status == 304
    assert files.get("/file?path=f", Range="bytes=0-0", If_Range=etag).status == 206
    assert files.get("/file?path=f", Range="bytes=0-0", If_Range='"old"').status == 200
    assert files.send("PUT", "/file?path=f", b"two", If_Match='"old"').status == 412
    assert files.send("PUT", "/file?path=f", b"two", If_None_Match="*").status == 412
    assert files.send("DELETE", "/file?path=f", If_Match='"old"').status == 412
    assert files.get("/file?path=f").body == b"one"
    assert files.send("PUT", "/file?path=f", b"two", If_Match=etag).status == 200
    assert files.send("PUT", "/file?path=g", b"new", If_None_Match="*").status == 200


def test_eight_gigabytes_with_holes(files: Files) -> None:
    size = 8 * 1024**3
    with (files.root / "big").open("wb") as big:
        big.truncate(size)
        big.seek(size - 4)
        big.write(b"tail")
    assert files.send("HEAD", "/file?path=big").headers["content-length"] == str(size)
    assert files.get("/file?path=big", Range="bytes=-4").body == b"tail"
    answer = files.get("/file?path=big", Range=f"bytes={5 * 1024**3}-{5 * 1024**3 + 9}")
    assert answer.body == bytes(10)
    assert files.get("/tree?path=").json[0]["size"] == size


def test_uploads_are_whole_or_nothing(files: Files) -> None:
    (files.root / "f").write_text("before")
    (files.root / "f").chmod(0o755)
    too_big = files.send("PUT", "/file?path=f", bytes(LIMIT + 1))
    assert (too_big.status, too_big.json["code"]) == (413, "FILE_TOO_LARGE")
    chunked = files.connect()
    with chunked:
        chunked.sendall(b"PUT /file?path=f HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(40):
                chunked.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        except BrokenPipeError:
            pass
        assert b" 413 " in chunked.recv(65536)
    assert (files.root / "f").read_text() == "before"
    assert files.send("PUT", "/file?path=f", b"after").status == 200
    assert (files.root / "f").stat().st_mode & 0o777 == 0o755


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    body = b""
    for name, filename, content in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        body += f'--b0undary\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + b"--b0undary--\r\n", "multipart/form-data; boundary=b0undary"


def test_forms(files: Files) -> None:
    body, kind = form(
        ("note", None, b"ignored"), ("file", "../../evil.txt", b"\r\n--b0und\r\n"), ("f", "b", b"")
    )
    (files.root / "in").mkdir()
    answer = files.send("POST", "/file?path=in", body, Content_Type=kind)
    assert answer.status == 200, answer
    assert sorted(path.name for path in (files.root / "in").iterdir()) == ["b", "evil.txt"]
    assert (files.root / "in" / "evil.txt").read_bytes() == b"\r\n--b0und\r\n"
    body, kind = form(("file", "any", b"content"))
    assert files.send("POST", "/file?path=named/x.txt&mkdir=true", body, Content_Type=kind).status == 200
    assert (files.root / "named" / "x.txt").read_bytes() == b"content"
    assert files.send("POST", "/file?path=y", body, Content_Type="text/plain").status == 400
    assert files.send("POST", "/file?path=y", body[:-20], Content_Type=kind).status == 400
    assert (
        files.send("POST", "/file?path=y", form(("f", "x", bytes(LIMIT + 1)))[0], Content_Type=kind).status
        == 413
    )
    assert not (files.root / "y").exists()


def test_renaming_never_overwrites_unasked(files: Files) -> None:
    (files.root / "a").write_text("a")
    (files.root / "b").write_text("b")
    (files.root / "d").mkdir()
    assert files.send("POST", "/rename?old_path=a&new_path=b").json["code"] == "ALREADY_EXISTS"
    assert files.send("POST", "/rename?old_path=a&new_path=b").status == 409
    assert files.send("POST", "/rename?old_path=a&new_path=d/e/f").status == 404
    assert files.send("POST", "/rename?old_path=a&new_path=d/e/f&mkdir=1").status == 200
    assert files.send("POST", "/rename?old_path=d/e/f&new_path=b&overwrite=true").status == 200
    assert (files.root / "b").read_text() == "a"
    assert files.send("POST", "/rename?old_path=d&new_path=d/inside").status == 400
    assert files.send("POST", "/rename?old_path=gone&new_path=x").status == 404


def test_zip_files(files: Files) -> None:
    (files.root / "d" / "empty").mkdir(parents=True)
    (files.root / "d" / "one.txt").write_text("one" * 1000)
    (files.root / "d" / "süß.txt").write_text("two")
    (files.root / "d" / "secret").symlink_to("/etc/passwd")
    os.mkfifo(files.root / "d" / "fifo")
    answer = files.get("/download?path=d")
    assert answer.status == 200
    assert 'filename="d.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["d/", "d/empty/", "d/one.txt", "d/süß.txt"]
        assert archive.read("d/one.txt") == b"one" * 1000
    (files.root / "loose").write_text("loose")
    answer = files.get("/download-zip?paths=d/one.txt&paths=loose&name=some")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert sorted(archive.namelist()) == ["loose", "one.txt"]
    assert files.get("/download-zip?paths=gone").status == 404
    assert files.get("/download?path=loose").body == b"loose"


def test_thumbnails(files: Files) -> None:
    from PIL import Image

    Image.new("RGB", (800, 400), "red").save(files.root / "red.png")
    (files.root / "text.png").write_text("no picture")
    answer = files.get("/thumbnail?path=red.png&size=100")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.body)).size == (100, 50)
    assert files.get("/thumbnail?path=red.png&size=100", If_None_Match=answer.headers["etag"]).status == 304
    assert files.get("/thumbnail?path=text.png").status == 415
    Image.new("1", (30_000, 30_000)).save(files.root / "bomb.png")
    assert (files.root / "bomb.png").stat().st_size < 1_000_000
    assert files.get("/thumbnail?path=bomb.png").status == 415


def test_trees(files: Files) -> None:
    (files.root / "b" / "c").mkdir(parents=True)
    (files.root / "b" / "c" / "deep").write_text("x")
    (files.root / "a.txt").write_text("12345")
    (files.root / ".hidden").write_text("")
    flat = files.get("/tree?path=").json
    assert [(entry["name"], entry["type"]) for entry in flat] == [("b", "directory"), ("a.txt", "file")]
    assert flat[1]["size"] == 5
    assert flat[1]["modified"].endswith("Z")
    assert "children" not in flat[0]
    deep = files.get("/tree?path=&depth=3&show_hidden=true").json
    assert [entry["name"] for entry in deep] == ["b", ".hidden", "a.txt"]
    assert deep[0]["children"][0]["children"][0]["path"] == "b/c/deep"
    assert files.get("/tree?path=b&mode=simple").json == [{"name": "c", "path": "b/c", "type": "directory"}]
    for number in range(50):
        (files.root / "b" / f"{number:03}").touch()
    page = files.get("/tree?path=b&offset=10&limit=20")
    assert [entry["name"] for entry in page.json][:2] == ["009", "010"]
    assert page.headers["x-total-count"] == "51"
    assert page.headers["x-next-offset"] == "30"


def test_watching(files: Files) -> None:
    import wsproto
    from wsproto.events import AcceptConnection, Request, TextMessage

    (files.root / "w").mkdir()
    protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    client = files.connect()
    seen: list[dict[str, Any]] = []
    with client:
        client.sendall(protocol.send(Request(host="files", target="/ws/watch?path=w")))

        def read_until(done: Any) -> None:
            while not done():
                protocol.receive_data(client.recv(65536))
                for event in protocol.events():
                    if isinstance(event, TextMessage):
                        seen.append(json.loads(event.data))
                    accepted.append(isinstance(event, AcceptConnection))

        accepted: list[bool] = []
        read_until(lambda: any(accepted))
        (files.root / "w" / "new").mkdir()
        (files.root / "w" / "new" / "f").write_text("x")
        read_until(lambda: any(x["path"] == "w/new/f" for x in seen))
        assert {"type": "file_changed", "event": "created", "path": "w/new", "is_dir": True} in seen
        seen.clear()
        files.process.send_signal(signal.SIGSTOP)  # so that they are of one moment, however slow this is
        for number in range(5000):
            (files.root / "w" / "new" / str(number)).touch()
        files.process.send_signal(signal.SIGCONT)
        read_until(lambda: any(x["type"] == "overflow" for x in seen))
        seen.clear()
        (files.root / "w" / "new" / "f").unlink()
        read_until(lambda: any(x.get("event") == "deleted" for x in seen))
    assert files.get("/ws/watch?path=w").status == 400


def test_a_connection_goes_on(files: Files) -> None:
    (files.root / "f").write_bytes(b"content")
    connection = http.client.HTTPConnection("files")
    connection.sock = kept = files.connect()
    try:
        for target in ("/file?path=f", "/file?path=f", "/tree?path=", "/file?path=gone", "/download?path="):
            connection.request("GET", target, headers={"Range": "bytes=0-2"})
            connection.getresponse().read()
            assert connection.sock is kept, target
    finally:
        connection.close()
