"""oqtod behind nginx and Caddy, set up with the files of contrib/: what works without them does, no more."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Http, Refused, Response, Terminal, WebSocket
from tests.integration import accounts
from tests.integration.accounts import PASSWORD
from tests.integration.preview_app import POLICY, App, app
from tests.integration.reverse_proxies import KINDS, NAME, PATIENCE, ReverseProxy, listens

HANDED = [kind for kind in KINDS if "handed" in kind]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[accounts.Host]:
    """A gateway as in production, with two people."""
    folder = tmp_path_factory.mktemp("host")
    with accounts.running(folder) as host:
        for name in ("alice", "bob"):
            host.user(name)
    config = accounts.CONFIG[: accounts.CONFIG.index("[[auth.dev_users]]")]
    with accounts.running(folder, config.replace("[auth]", "[auth]\ndev_mode = false")) as host:
        yield host


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, host: accounts.Host, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReverseProxy]:
    with KINDS[request.param](tmp_path_factory.mktemp("proxy"), host.port) as running:
        yield running


@dataclass
class Person:
    """Somebody in a browser: the cookie is all that the requests carry, and the page's origin."""

    http: Http
    origin: str
    cookie: str
    session: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def log_in(cls, proxy: ReverseProxy, name: str) -> Person:
        client = proxy.client()
        answer = client.post("/api/auth/login", {"username": name, "password": PASSWORD})
        assert answer.status == 200
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert {"Secure", "HttpOnly"} <= set(attributes)
        return cls(client, proxy.origin, cookie)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        named = {"Cookie": self.cookie, "Origin": self.origin}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, path, body=body, headers=named)

    def websocket(self, path: str, **headers: str) -> WebSocket:
        named = {"Cookie": self.cookie, "Origin": self.origin, **headers}
        protocols = ("tty",) if "/terminal/" in path else ()
        return WebSocket(self.http.connect(), self.http.host, path, subprotocols=protocols, headers=named)


@pytest.fixture
def alice(proxy: ReverseProxy) -> Iterator[Person]:
    person = Person.log_in(proxy, "alice")
    answer = person.send("POST", "/api/sessions", b"{}")
    assert answer.status == 201, answer.body
    person.session = answer.json()
    yield person
    assert person.send("POST", f"/api/sessions/{person.session['id']}/stop").status == 204


def test_plain_http_leads_to_https(host: accounts.Host, tmp_path: Path) -> None:
    with KINDS["nginx"](tmp_path, host.port) as proxy:
        assert proxy.plain_port is not None
        connection = http.client.HTTPConnection("127.0.0.1", proxy.plain_port, timeout=20)
        connection.request("GET", "/a%20b?c=d", headers={"Host": NAME})
        answer = connection.getresponse()
        connection.close()
        assert (answer.status, answer.headers["Location"]) == (301, f"https://{NAME}/a%20b?c=d")


def test_terminal_and_files(alice: Person, proxy: ReverseProxy) -> None:
    base = f"/api/sessions/{alice.session['id']}"
    page = alice.send("GET", f"{base}/terminal/")
    assert page.status == 200
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    with Terminal(alice.websocket(f"{base}/terminal/ws")) as terminal:
        assert terminal.run("echo from the terminal > 'a b.txt'; echo $((6*7))") == "42"
        content = os.urandom(3 << 20)
        assert alice.send("PUT", f"{base}/files/file?path=sub/c%2520d.bin&mkdir=true", content).status == 200
        assert terminal.run("wc -c <sub/c%20d.bin") == str(len(content))
    assert alice.send("GET", f"{base}/files/file?path=a%20b.txt").body == b"from the terminal\n"
    got = alice.send("GET", f"{base}/files/file?path=sub/c%2520d.bin")
    assert got.body == content
    assert got.headers["content-security-policy"] == "sandbox"


def test_others_get_nothing(alice: Person, proxy: ReverseProxy) -> None:
    base = f"/api/sessions/{alice.session['id']}"
    port = alice.session["preview_ports"][0]
    bob = Person.log_in(proxy, "bob")
    with app(port):
        paths = [base, f"{base}/files/tree?path=.", f"{base}/terminal/", f"{base}/ports/{port}/"]
        assert [bob.send("GET", path).status for path in paths] == [404] * 4
        assert [proxy.client().get(path).status for path in paths] == [401] * 4
        with pytest.raises(Refused, match="404"):
            bob.websocket(f"{base}/terminal/ws")
        foreign = "https://evil.example"
        with pytest.raises(Refused, match="403"):
            alice.websocket(f"{base}/terminal/ws", Origin=foreign)
        assert alice.send("POST", f"{base}/ports/{port}/", b"", Origin=foreign).status == 403
        assert alice.send("GET", f"{base}/ports/{port + 20}/").status == 404
        assert alice.send("GET", f"{base}/ports/{port + 1}/").status == 502


def test_the_gateway_knows_where_people_are(proxy: ReverseProxy, host: accounts.Host) -> None:
    said = {"X-Forwarded-For": "203.0.113.9"}
    wrong = {"username": "alice", "password": "wrong, and from elsewhere"}
    answer = proxy.client().request("POST", "/api/auth/login", document=wrong, headers=said)
    assert answer.status == 401
    # What a client says of itself counts for nothing.
    assert host.audited(answer.headers["x-request-id"])["actor"]["ip"] == "127.0.0.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_previews(alice: Person, method: str) -> None:
    port = alice.session["preview_ports"][0]
    prefix = f"/api/sessions/{alice.session['readable_id']}/ports/{port}"
    body = b"a body" * 10_000 if method in ("POST", "PUT") else None
    with app(port):
        sent = {
            "Authorization": f"Bearer {alice.cookie.partition('=')[2]}",
            "X_API_Key": "octo_sk_x",
            "Forwarded": "for=192.0.2.1",
            "X_Forwarded_For": "192.0.2.1",
            "X_Oqto_Upstream": "127.0.0.1:1",
            "X_Oqto_Path": "/elsewhere",
            "X_Oqto_Policy": "default-src *",
            "X_Mine": "kept",
        }
        answer = alice.send(method, f"{prefix}/a%2Fb/..%2F%20c/d?x=1&y=%26", body, **sent)
    assert answer.status == 200
    assert not {"set-cookie", "clear-site-data", "service-worker-allowed"} & set(answer.headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    policies = answer.headers["content-security-policy"].split(", ")
    assert POLICY in policies
    assert set(policies) <= {POLICY, "img-src 'none'"}
    if method == "HEAD":
        return
    told = answer.json()
    assert (told["method"], told["path"]) == (method, "/a%2Fb/..%2F%20c/d?x=1&y=%26")
    assert told["body"].encode() == (body or b"")
    headers = told["headers"]
    assert not {"cookie", "authorization", "x-api-key"} & set(headers)
    ours = f'for=127.0.0.1;host="{alice.http.host}";proto=https'
    assert headers.get("forwarded", ours) == ours, "a proxy that is handed previews says nothing"
    assert headers["x-mine"] == "kept"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-prefix"] == prefix
    assert headers["x-forwarded-host"] == headers["host"] == alice.http.host


def test_a_preview_speaks_websocket(alice: Person) -> None:
    port = alice.session["preview_ports"][0]
    echo = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", str(port)])
    try:
        until = time.monotonic() + PATIENCE
        while not listens(port):
            assert time.monotonic() < until
            time.sleep(0.02)
        with alice.websocket(f"/api/sessions/{alice.session['id']}/ports/{port}/ws") as websocket:
            websocket.send("anybody there?")
            assert websocket.receive() == "anybody there?"
    finally:
        echo.terminate()
        echo.wait(PATIENCE)


@pytest.mark.parametrize("kind", HANDED)
def test_what_is_handed_over_goes_on_without_the_gateway(
    kind: str, host: accounts.Host, tmp_path: Path
) -> None:
    with KINDS[kind](tmp_path, host.port) as proxy:
        alice = Person.log_in(proxy, "alice")
        alice.session = alice.send("POST", "/api/sessions", b"{}").json()
        port = alice.session["preview_ports"][0]
        base = f"/api/sessions/{alice.session['id']}"
        App.go_on.clear()
        with app(port), alice.http.connect() as connected:
            connected.sendall(
                f"GET {base}/ports/{port}/slow HTTP/1.1\r\nHost: {alice.http.host}\r\n"
                f"Cookie: {alice.cookie}\r\n\r\n".encode()
            )
            answer = http.client.HTTPResponse(connected)
            answer.begin()
            host.process.send_signal(signal.SIGSTOP)
            try:
                App.go_on.set()
                assert json.loads(answer.read())["path"] == "/slow"
            finally:
                host.process.send_signal(signal.SIGCONT)
            answer.close()
        assert alice.send("POST", f"{base}/stop").status == 204


@pytest.mark.parametrize("kind", HANDED)
def test_a_sandbox_with_a_network_of_its_own_is_reached_by_the_gateway(
    kind: str, host: accounts.Host, tmp_path: Path
) -> None:
    workspace = host.folder / "work/isolated"
    (workspace / ".oqto").mkdir(parents=True, exist_ok=True)
    (workspace / ".oqto/sandbox.toml").write_text("isolate_network = true\n")
    (workspace / "who.txt").write_text("the session\n")
    with KINDS[kind](tmp_path, host.port) as proxy:
        alice = Person.log_in(proxy, "alice")
        made = alice.send("POST", "/api/sessions", json.dumps({"workspace_path": str(workspace)}).encode())
        assert made.status == 201, made.body
        alice.session = made.json()
        port = alice.session["preview_ports"][0]
        base = f"/api/sessions/{alice.session['id']}"
        # Who has the port out here gets nothing.
        with app(port), Terminal(alice.websocket(f"{base}/terminal/ws")) as terminal:
            terminal.type("python3 -m http.server $PORT --bind 127.0.0.1\n")
            until = time.monotonic() + PATIENCE
            while (answer := alice.send("GET", f"{base}/ports/{port}/who.txt")).status == 502:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert answer.body == b"the session\n"
            terminal.type("\x03")
        assert alice.send("POST", f"{base}/stop").status == 204
