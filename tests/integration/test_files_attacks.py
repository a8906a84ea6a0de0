"""oqto-files as a program, with what people try instead of using it."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from tests.integration.oqto_files import Files, files, served

__all__ = ["files", "served"]


OUT = [
    "../outside/secret",
    "..%2foutside%2fsecret",
    "a/../../outside/secret",
    "/../outside/secret",
    "....//outside/secret",
    "out/secret",
    "absolute",
    "up",
    "proc/self/root/etc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
]


@pytest.mark.parametrize("path", OUT)
@pytest.mark.parametrize("how", ["get", "put", "delete", "rename", "download", "thumbnail", "mkdir", "tree"])
def test_nothing_leads_out(files: Files, path: str, how: str) -> None:
    outside = files.root.parent / "outside"
    (files.root / "a").mkdir()
    (files.root / "out").symlink_to(outside)
    (files.root / "absolute").symlink_to("/etc/passwd")
    (files.root / "up").symlink_to("../outside/secret")
    (files.root / "proc").symlink_to("/proc")
    (files.root / "mine").write_text("mine")
    answer = {
        "get": lambda: files.get(f"/file?path={path}"),
        "put": lambda: files.send("PUT", f"/file?path={path}&mkdir=1", b"x"),
        "delete": lambda: files.send("DELETE", f"/file?path={path}/x"),
        "rename": lambda: files.send("POST", f"/rename?old_path=mine&new_path={path}/new&mkdir=1"),
        "download": lambda: files.get(f"/download?path={path}"),
        "thumbnail": lambda: files.get(f"/thumbnail?path={path}"),
        "mkdir": lambda: files.send("PUT", f"/mkdir?path={path}/new"),
        "tree": lambda: files.get(f"/tree?path={path}/.."),
    }[how]()
    assert b"secret" not in answer.body.replace(path.encode(), b"")
    assert b"root:" not in answer.body
    if path != "....//outside/secret":
        assert answer.status in (400, 403, 404), answer
    assert [x.name for x in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_links_that_stay_inside_work_and_are_removed_as_links(files: Files) -> None:
    (files.root / "real.txt").write_text("real")
    (files.root / "folder").mkdir()
    (files.root / "folder" / "link").symlink_to("../real.txt")
    assert files.get("/file?path=folder/link").body == b"real"
    assert files.send("PUT", "/file?path=folder/link", b"new").status == 200
    assert (files.root / "real.txt").read_text() == "new"
    assert (files.root / "folder" / "link").is_symlink()
    (entry,) = files.get("/tree?path=folder").json
    assert entry["is_symlink"]
    assert files.send("DELETE", "/file?path=folder/link").status == 200
    assert (files.root / "real.txt").exists()


def test_a_swapped_link_never_leads_out(files: Files) -> None:
    inside, outside = files.root / "in", files.root.parent / "outside"
    inside.mkdir()
    (inside / "secret").write_text("harmless")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (files.root / "x").symlink_to(inside)
            (files.root / "x").unlink()
            (files.root / "x").symlink_to(outside)
            (files.root / "x").unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(300):
            answer = files.get("/file?path=x/secret")
            assert answer.status in (200, 403, 404)
            assert answer.body == b"harmless" or answer.status != 200
            files.send("PUT", "/file?path=x/planted", b"x")
    finally:
        done.set()
        swapper.join()
    assert [x.name for x in outside.iterdir()] == ["secret"]


def test_odd_things_are_no_files(files: Files) -> None:
    os.mkfifo(files.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(files.root / "sock"))
        for name in ("fifo", "sock", "", "."):
            assert files.get(f"/file?path={name}").status == 400
    assert files.get(f"/file?path={'x' * 5000}").status == 400
    assert files.get(f"/file?path={'x' * 300}").status == 400
    assert files.get("/file?path=a%00b").status == 400
    assert files.get("/tree?path=fifo").status == 400


def test_garbage_and_half_requests(files: Files) -> None:
    for said in (b"\x16\x03\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 40_000):
        with files.connect() as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer
    with files.connect() as client:  # two at once
        client.sendall(b"GET /health HTTP/1.1\r\nHost: f\r\n\r\n" * 2)
        answer = b""
        while answer.count(b'{"status": "ok"}') < 2:
            answer += client.recv(65536)


def test_a_hundred_uploads_cut_off_half_way(files: Files) -> None:
    clients = []
    for number in range(100):
        client = files.connect()
        client.sendall(
            f"PUT /file?path=u{number} HTTP/1.1\r\nHost: f\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        client.sendall(bytes(500))
        clients.append(client)
    for client in clients:
        client.close()
    assert files.get("/health").status == 200
    assert files.get("/tree?path=&show_hidden=1").json == []
