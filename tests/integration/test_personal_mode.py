"""Personal mode as its user has it: the real command, a real shell in a real sandbox, real files."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.clients import Client, Terminal

BIN = Path(sys.executable).parent


@dataclass
class Gateway:
    """A running `oqtod serve --personal`."""

    process: subprocess.Popen[str]
    port: int
    username: str
    password: str
    folder: Path

    def client(self) -> Client:
        client = Client(self.port)
        assert client.log_in(self.username, self.password).status == 200
        return client


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_STATE_HOME": str(folder / "state"),
        "OQTO__LOCAL__WORKSPACE_DIR": str(folder / "work"),
    }


def start(folder: Path, *, prefix: Sequence[str] = (), **extra: str) -> Gateway:
    process = subprocess.Popen(
        [*prefix, str(BIN / "oqtod"), "serve", "--personal", "--port", "0"],
        env={**environment(folder), **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    text = ""
    assert process.stdout is not None
    for line in process.stdout:
        text += line
        found = re.search(
            r"oqtod is at\s+http://127.0.0.1:(\d+)/\s+log in as\s+(\S+)\s+password\s+(\S+)", text
        )
        if found:
            return Gateway(process, int(found[1]), found[2], found[3], folder)
    raise AssertionError(f"it did not start: {text}")


def stop(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(20) == 0
    assert gateway.process.stdout is not None
    gateway.process.stdout.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    running = start(tmp_path)
    yield running
    stop(running)


def test_from_login_to_shell_and_files(gateway: Gateway) -> None:
    client = gateway.client()
    session = client.post("/api/sessions").json
    assert session["status"] == "running"
    terminal = Terminal(client, session["id"], columns=101, rows=33)
    workspace = str(gateway.folder / "work")
    assert terminal.ask("pwd") == workspace
    assert terminal.ask("stty size") == "33 101"
    terminal.resize(90, 20)
    assert terminal.ask("stty size") == "20 90"
    terminal.ask("echo from the terminal > a.txt")
    files = f"/api/sessions/{session['readable_id']}/files"
    got = client.send("GET", f"{files}/file?path=a.txt")
    assert (got.status, got.body) == (200, b"from the terminal\n")
    assert got.headers["content-security-policy"] == "sandbox"
    assert client.send("PUT", f"{files}/file?path=sub/b.txt&mkdir=true", b"from the web").status == 200
    assert terminal.ask("cat sub/b.txt") == "from the web"
    tree = client.send("GET", f"{files}/tree?path=.&depth=2").json
    assert [entry["name"] for entry in tree] == ["sub", "a.txt"]
    assert tree[0]["children"][0]["path"] == "sub/b.txt"
    terminal.close()
    services = client.send("GET", f"/api/sessions/{session['id']}").json["services"]
    assert (services["terminal"]["state"], services["files"]["state"]) == ("running", "running")


def test_the_sandbox_hides_the_daemon(gateway: Gateway) -> None:
    client = gateway.client()
    session = client.post("/api/sessions").json
    terminal = Terminal(client, session["id"])
    assert terminal.ask("ls /run/oqto 2>&1 | wc -l") == "1"
    assert terminal.ask("touch /usr/x 2>/dev/null || echo refused") == "refused"
    assert terminal.ask("env | grep -c OQTO_SESSION_ID=" + session["id"]) == "1"
    assert terminal.ask("env | grep -c SECRET") == "0"
    terminal.close()


def test_stop_resume_delete(gateway: Gateway) -> None:
    client = gateway.client()
    session = client.post("/api/sessions").json
    path = f"/api/sessions/{session['id']}"
    assert client.send("DELETE", path).status == 409
    terminal = Terminal(client, session["id"])
    assert terminal.ask("echo here") == "here"
    assert client.post(f"{path}/stop").status == 204
    stopped = client.send("GET", path).json
    assert (stopped["status"], stopped["agent_port"]) == ("stopped", None)
    with pytest.raises((EOFError, OSError)):
        terminal.ask("echo still here")
    terminal.close()
    resumed = client.post(f"{path}/resume").json
    assert (resumed["status"], resumed["readable_id"]) == ("running", session["readable_id"])
    assert client.post("/api/sessions/get-or-create").json["id"] == session["id"]
    assert client.post(f"{path}/stop").status == 204
    assert client.send("DELETE", path).status == 204
    assert client.send("GET", path).status == 404


def test_who_may_not(gateway: Gateway) -> None:
    client = gateway.client()
    session = client.post("/api/sessions").json
    path = f"/api/sessions/{session['id']}"
    nobody = Client(gateway.port)
    assert nobody.log_in(gateway.username, "wrong").status == 401
    for route in ("/api/me", "/api/sessions", path, f"{path}/files/tree", f"{path}/terminal/"):
        answer = nobody.send("GET", route)
        assert (answer.status, answer.json["error_code"]) == (401, "unauthorized")
    with pytest.raises(PermissionError):
        Terminal(nobody, session["id"])
    assert client.send("GET", path, Host="evil.example").status == 403
    cookie = {"Cookie": f"auth_token={client.token}"}
    assert nobody.send("POST", "/api/sessions", b"{}", **cookie).status == 403
    assert nobody.send("POST", "/api/sessions", b"{}", Origin="http://evil.example", **cookie).status == 403
    assert nobody.send("GET", "/api/me", **cookie).status == 200
    assert client.post("/api/auth/logout").status == 204
    assert client.send("GET", "/api/me").status == 401


def test_missing_programs_are_named(tmp_path: Path) -> None:
    gateway = start(
        tmp_path, OQTO__LOCAL__TTYD_BINARY="/nowhere/ttyd", OQTO__LOCAL__FILESERVER_BINARY="/nowhere/fs"
    )
    try:
        client = gateway.client()
        session = client.post("/api/sessions").json
        for route, key in (("terminal/", "local.ttyd_binary"), ("files/tree", "local.fileserver_binary")):
            answer = client.send("GET", f"/api/sessions/{session['id']}/{route}")
            assert answer.status == 503
            assert "/nowhere/" in answer.json["error"]
            assert key in answer.json["hint"]
    finally:
        stop(gateway)


def test_a_second_gateway_on_the_database_is_refused(gateway: Gateway) -> None:
    second = subprocess.run(
        [str(BIN / "oqtod"), "serve", "--personal", "--port", "0"],
        env=environment(gateway.folder),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "in use by another oqtod" in second.stderr


def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = subprocess.run(
            [str(BIN / "oqtod"), "serve", "--personal", "--port", str(port)],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert refused.returncode == 1
    assert f"port {port}" in refused.stderr
    assert f"pid {os.getpid()}" in refused.stderr


def test_garbage_and_half_requests(gateway: Gateway) -> None:
    endless = b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20000
    for garbage, status in ((b"\0\1\2\3\r\n\r\n", 400), (endless, 431), (b"GET /\r\n\r\n", 400)):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            try:
                connection.sendall(garbage)
                assert connection.recv(100).startswith(b"HTTP/1.1 %d" % status)
            except ConnectionResetError:
                pass  # it was refused before it was read whole
    assert Client(gateway.port).send("GET", "/api/health").json["status"] == "ok"


def test_descriptors_are_taken_for_the_gateway_alone(gateway: Gateway) -> None:
    """What is started from a shell may have 1024, and a gateway needs three for each connection."""
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard == ours[1]
    client = gateway.client()
    session = client.post("/api/sessions").json
    terminal = Terminal(client, session["id"])
    limit = terminal.ask("ulimit -Sn")
    terminal.close()
    assert limit == ("unlimited" if ours[0] == resource.RLIM_INFINITY else str(ours[0]))


def test_no_process_is_left(gateway: Gateway) -> None:
    client = gateway.client()
    session = client.post("/api/sessions").json
    terminal = Terminal(client, session["id"])
    terminal.ask("(setsid sleep 4711 &)")
    assert client.post(f"/api/sessions/{session['id']}/stop").status == 204
    terminal.close()
    found = [x for x in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x004711" in _read(x)]
    assert found == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_page_is_served(gateway: Gateway) -> None:
    nobody = Client(gateway.port)
    page = nobody.send("GET", "/")
    assert (page.status, b"app.js" in page.body) == (200, True)
    assert nobody.send("GET", "/app.js").status == 200
    assert b"<title>oqto" in nobody.send("GET", "/..%2f..%2fetc/passwd").body
    assert nobody.send("GET", "/api/nothing").status == 404
