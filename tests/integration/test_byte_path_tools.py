"""The byte path as curl, wget and git use it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import h11
import pytest

from tests.integration.preview_app import serve
from tests.integration.previews import (
    PATIENCE,
    Heard,
    Preview,
    Wire,
    answering,
    preview,
    serving,
    session,
    stamped,
    talk,
)

__all__ = ["preview", "session"]

MORE_MEMORY = 4 << 20
"""Bytes by which the gateway may grow while it moves what is many times as big."""

BIG = 300 << 20


def run(*command: str | Path, given: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
    """Run a program to its good end; return what it wrote."""
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        timeout=6 * PATIENCE,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, (command, done.stderr.decode(), done.stdout[-2000:])
    return done.stdout


def curl(preview: Preview, *options: str | Path, given: bytes = b"") -> bytes:
    """Run curl as the session's owner, whose token is on no command line."""
    config = preview.folder.parent / "curlrc"
    config.write_text(f'header = "{preview.authorization.decode()}"\n')
    return run("curl", "--silent", "--show-error", "--fail", "--config", config, *options, given=given)


def heads(dumped: bytes) -> list[bytes]:
    """The status lines that curl's --dump-header has written."""
    return re.findall(rb"^HTTP/1.1 ([0-9]{3})", dumped, re.MULTILINE)


def test_curl_asks_for_a_head(preview: Preview) -> None:
    (preview.folder / "f").write_bytes(bytes(1000))
    for _ in range(2):
        said = curl(preview, "--head", f"{preview.files}?path=f").lower()
        assert said.startswith(b"http/1.1 200")
        assert b"content-length: 1000\r\n" in said


def test_curl_asks_for_parts(preview: Preview) -> None:
    content = bytes(range(256)) * 40
    (preview.folder / "f").write_bytes(content)
    for asked, expected in (
        ("5-9", content[5:10]),
        ("-7", content[-7:]),
        ("10000-", content[10000:]),
        ("0-99999", content),
    ):
        assert curl(preview, "--range", asked, f"{preview.files}?path=f") == expected
    parts = curl(preview, "--range", "0-1,300-302", f"{preview.files}?path=f")
    assert b"\r\n\r\n" + content[:2] + b"\r\n" in parts
    assert b"\r\n\r\n" + content[300:303] + b"\r\n" in parts


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_curl_waits_before_it_uploads(preview: Preview, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    expecting = ["--header", "Expect: 100-continue", "--expect100-timeout", str(PATIENCE)]
    dumped = ["--dump-header", "-", "--output", os.devnull]
    said = curl(preview, *expecting, *dumped, "--upload-file", tmp_path / "f", f"{preview.files}?path=up")
    assert heads(said) == ([b"100", b"200"] if size else [b"200"])
    assert (preview.folder / "up").read_bytes() == content


def test_curl_uploads_nothing_where_it_may_not(preview: Preview, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(5_000_000))
    url = preview.files.replace(preview.session, "another")
    expecting = ["--header", "Expect: 100-continue", "--expect100-timeout", str(PATIENCE), "--no-fail"]
    told = ["--write-out", "%{http_code} %{size_upload}", "--output", os.devnull]
    assert curl(preview, *expecting, *told, "--upload-file", tmp_path / "f", f"{url}?path=up") == b"404 0"


def test_curl_uploads_what_has_no_length(preview: Preview) -> None:
    content = os.urandom(300_000)
    with answering(preview.port) as (wires, heard):
        assert curl(preview, "--upload-file", "-", f"{preview.url}/x", given=content) == b"ok"
    assert [x.body for x in heard] == [content]
    assert b"\r\ntransfer-encoding: chunked\r\n" in wires[0].seen
    assert b"content-length" not in wires[0].seen.partition(b"\r\n\r\n")[0].lower()


def test_curl_speaks_the_old_version(preview: Preview, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    (tmp_path / "f").write_bytes(content)
    curl(preview, "--http1.0", "--upload-file", tmp_path / "f", f"{preview.files}?path=old")
    assert curl(preview, "--http1.0", f"{preview.files}?path=old") == content
    said = curl(preview, "--http1.0", "--head", f"{preview.files}?path=old")
    assert b"connection: close\r\n" in said
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n"

    def serve(wire: Wire) -> None:
        wire.head()
        wire.send(chunked)

    with serving(preview.port, serve):
        said = curl(preview, "--http1.0", "--include", preview.url)
    assert b"chunked" not in said
    assert said.endswith(b"\r\n\r\nbye")


def test_curl_takes_several_on_one_connection(preview: Preview) -> None:
    with answering(preview.port) as (wires, heard):
        urls = [f"{preview.url}/{number}" for number in range(5)]
        outputs = [option for _ in urls for option in ("--output", os.devnull)]
        told = curl(preview, "--write-out", "%{num_connects} ", *outputs, *urls)
        assert told == b"1 0 0 0 0 "
        assert (len(wires), len(heard)) == (1, 5)


def test_curl_takes_many_at_once(preview: Preview, tmp_path: Path) -> None:
    """As a browser does the parts of a page: over a few connections, which are kept on both sides."""
    count, most = 50, 6
    heard: list[Heard] = []

    def content_of(target: bytes) -> bytes:
        return target * 2000

    def answer(request: h11.Request, _: bytes) -> bytes:
        content = content_of(request.target)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)

    with serving(preview.port, lambda wire: talk(wire, answer, heard)) as wires:
        wanted = ["--parallel", "--parallel-max", str(most), "--output", str(tmp_path / "#1.js")]
        told = curl(preview, *wanted, "--write-out", "%{num_connects}\n", f"{preview.url}/[1-{count}].js")
        assert 0 < len(wires) <= most
    assert len(heard) == count
    for number in range(1, count + 1):
        name = f"{number}.js"
        assert (tmp_path / name).read_bytes() == content_of(b"/" + name.encode())
    assert sum(map(int, told.split())) <= most


def test_wget_goes_on_with_a_half(preview: Preview, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (preview.folder / "movie").write_bytes(content)
    (tmp_path / "half").write_bytes(content[:1_234_567])
    rc = tmp_path / "wgetrc"
    rc.write_text(f"header = {preview.authorization.decode()}\n")
    log = tmp_path / "log"
    places = ("-O", tmp_path / "half", "-o", log, f"{preview.files}?path=movie")
    run("wget", "--tries=1", "--continue", "--server-response", *places, environment={"WGETRC": str(rc)})
    said = log.read_text().lower()
    assert "http/1.1 206" in said
    assert "content-range: bytes 1234567-2999999/3000000" in said
    assert (tmp_path / "half").read_bytes() == content


def test_wget_tries_again_what_was_cut(preview: Preview, tmp_path: Path) -> None:
    """It can see that the first answer was not whole, and asks for the rest."""
    content = os.urandom(100_000)

    def serve(wire: Wire) -> None:
        asked = re.search(rb"\r\nrange: bytes=(\d+)-\r\n", wire.head())
        start = int(asked[1]) if asked else 0
        status = b"206 Partial Content" if asked else b"200 OK"
        place = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(content) - 1, len(content))
        length = b"Accept-Ranges: bytes\r\nContent-Length: %d\r\n" % (len(content) - start)
        wire.send(b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, place if asked else b"", length))
        wire.send(content[start : start + 40_000])

    rc = tmp_path / "wgetrc"
    rc.write_text(f"header = {preview.authorization.decode()}\nwaitretry = 0\nretry_connrefused = on\n")
    with serving(preview.port, serve) as wires:
        run("wget", "--tries=5", "-q", "-O", tmp_path / "whole", preview.url, environment={"WGETRC": str(rc)})
        assert len(wires) == 3  # each brought what was sent of it
    assert (tmp_path / "whole").read_bytes() == content


class Git(BaseHTTPRequestHandler):
    """Runs git-http-backend(1), as a web server does by CGI (RFC 3875)."""

    protocol_version = "HTTP/1.1"
    root: Path
    chunked = 0

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        known = {"CONTENT_TYPE": "Content-Type", "HTTP_CONTENT_ENCODING": "Content-Encoding"}
        known |= {"HTTP_GIT_PROTOCOL": "Git-Protocol"}
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.body(),
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REMOTE_USER": "dev",
                "REMOTE_ADDR": "127.0.0.1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                **{name: self.headers[field] for name, field in known.items() if field in self.headers},
            },
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers["Transfer-Encoding"] is None:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Git.chunked += 1
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            assert self.rfile.readline() == b"\r\n"
        assert self.rfile.readline() == b"\r\n"
        return body

    do_GET = do_POST = answer  # noqa: N815  names of http.server

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def repository(preview: Preview, folder: Path) -> Iterator[Path]:
    """A bare repository, served."""
    Git.root = folder
    run("git", "init", "--quiet", "--bare", "--initial-branch=main", folder / "r.git")
    with serve(preview.port, Git):
        yield folder / "r.git"


def test_git_pushes_and_clones(preview: Preview, tmp_path: Path) -> None:
    settings = {
        "http.extraHeader": preview.authorization.decode(),
        "user.name": "Developer",
        "user.email": "dev@example.com",
        "http.postBuffer": "65536",  # what is more is pushed in chunks
        "protocol.version": "2",
    }
    told = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_TERMINAL_PROMPT": "0", "HOME": str(tmp_path)}
    for number, (name, value) in enumerate(settings.items()):
        told |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    work, again = tmp_path / "work", tmp_path / "again"
    run("git", "init", "--quiet", "--initial-branch=main", work, environment=told)
    for number in range(20):
        (work / f"{number}.bin").write_bytes(os.urandom(50_000))
    run("git", "-C", work, "add", ".", environment=told)
    run("git", "-C", work, "commit", "--quiet", "--message", "all of it", environment=told)
    before = Git.chunked
    with repository(preview, tmp_path):
        run("git", "-C", work, "push", "--quiet", f"{preview.url}/r.git", "main", environment=told)
        assert Git.chunked == before + 1
        run("git", "clone", "--quiet", f"{preview.url}/r.git", again, environment=told)
        run("git", "-C", again, "pull", "--quiet", environment=told)
    assert run("git", "-C", again, "rev-parse", "HEAD") == run("git", "-C", work, "rev-parse", "HEAD")
    run("git", "-C", again, "fsck", "--strict")
    assert (again / "7.bin").read_bytes() == (work / "7.bin").read_bytes()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_big_file_takes_no_memory(preview: Preview, tmp_path: Path) -> None:
    """To the session's files, and back."""
    big, back = tmp_path / "big", tmp_path / "back"
    stamped(big, BIG)
    (tmp_path / "small").write_bytes(bytes(1 << 20))
    curl(preview, "--upload-file", tmp_path / "small", f"{preview.files}?path=small")
    curl(preview, "--output", back, f"{preview.files}?path=small")
    before = preview.forget_memory()
    curl(preview, "--upload-file", big, f"{preview.files}?path=big")
    assert preview.most_memory() - before < MORE_MEMORY
    curl(preview, "--output", back, f"{preview.files}?path=big")
    assert preview.most_memory() - before < MORE_MEMORY
    assert digest_of(back) == digest_of(preview.folder / "big") == digest_of(big)
    for path in (big, back, preview.folder / "big"):
        path.unlink()


def test_big_chunks_take_no_memory(preview: Preview, tmp_path: Path) -> None:
    """To a preview that sends back what it gets while it gets it, in chunks both ways."""
    big, back = tmp_path / "big", tmp_path / "back"
    stamped(big, BIG)

    def serve(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            data = wire.receive()
            assert data, "the upload was not whole"
            wire.forget()
            wire.send(data)
            last = (last + data)[-7:]

    def uploaded(path: Path) -> None:
        fields = ["--header", "Transfer-Encoding: chunked", "--header", "Expect:"]
        with serving(preview.port, serve):
            curl(preview, *fields, "--upload-file", path, "--output", back, f"{preview.url}/")

    (tmp_path / "small").write_bytes(bytes(1 << 20))
    uploaded(tmp_path / "small")
    before = preview.forget_memory()
    uploaded(big)
    assert preview.most_memory() - before < MORE_MEMORY
    assert digest_of(back) == digest_of(big)
    for path in (big, back):
        path.unlink()
