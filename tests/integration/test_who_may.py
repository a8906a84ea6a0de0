"""Who may do what: everybody who can come, at every path of /api/openapi.json, and whether they get in.

What is expected stands here, written down from the interface and not taken from the code. A path that no line
of RULES fits fails the test.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.accounts import CONFIG, Host, running
from tests.integration.clients import Client

RULES: list[tuple[str, str, str]] = [
    ("GET", r"/api/(health|features|openapi\.json|auth/(methods|oidc/(login|callback)))", "public"),
    ("POST", r"/api/auth/(login|register)", "public"),
    ("GET", r"/api/me", "anyone"),
    ("POST", r"/api/auth/ticket", "anyone"),
    ("GET", r"/api/gateway/authorize", "anyone"),
    ("PUT", r"/api/me", "person"),
    ("POST", r"/api/auth/(logout|change-password)", "person"),
    ("GET|POST|DELETE", r"/api/keys(/\{key_id\})?", "person"),
    ("GET", r"/api/sessions(/\{key\}(/events)?)?", "sessions:read"),
    ("POST", r"/api/sessions(/get-or-create(-for-workspace)?)?", "sessions:write"),
    ("POST|DELETE", r"/api/sessions/\{key\}(/(stop|resume|activity))?", "sessions:write"),
    ("GET", r"/api/sessions/\{key\}/terminal(/.*)?", "terminal"),
    ("GET", r"/api/sessions/\{key\}/files/.*", "files:read"),
    ("PUT|POST|DELETE", r"/api/sessions/\{key\}/files/.*", "files:write"),
    (".*", r"/api/sessions/\{key\}/ports/\{port\}/.*", "previews"),
    ("GET", r"/api/sessions?/\{key\}/browser/stream", "browser"),
    ("POST", r"/api/browser/(start|action)", "browser"),
    (".*", r"/api/admin/.*|/metrics", "admin"),
]
"""What each path wants: nothing, any credentials, a person, a scope of the owner's, or an administrator."""

SCOPES = {
    *("sessions:read", "sessions:write", "files:read", "files:write", "terminal", "previews"),
    *("browser", "projects:read", "projects:write"),
}
"""All but `admin`: a key without scopes has these."""

IN, UNKNOWN, DENIED, NOT_FOUND = "in", "401", "403", "404"
FOREIGN = "https://evil.example"


@dataclass
class Person:
    """Somebody who comes, and what they should meet."""

    headers: dict[str, str] = field(default_factory=dict)
    level: str = "nobody"
    """nobody, key, person or socket."""
    scopes: set[str] | None = None
    is_admin: bool = False
    is_owner: bool = False
    origin: str = "none"
    """For cookies: own, foreign or missing; none where there is no cookie."""
    in_url: Callable[[], str] | None = None
    """What to put into the URL; it counts for WebSockets only."""
    at_socket: bool = False

    @property
    def ambient(self) -> bool:
        """Whether a browser sent the credentials by itself."""
        return "Cookie" in self.headers


@dataclass
class Scene:
    """A gateway, a user with two sessions, and who else there is."""

    host: Host
    owner: Client
    session: dict[str, Any]
    spare: dict[str, Any]
    operations: list[tuple[str, str, dict[str, Any]]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    config = f"{CONFIG}\n[sessions]\nmax_concurrent_sessions = 100\n[agent_browser]\nenabled = true\n"
    with running(tmp_path_factory.mktemp("who"), config) as host:
        owner = host.user("owner")
        host.user("other")
        host.user("program", role="service")
        session, spare = (owner.post("/api/sessions").json for _ in range(2))
        document = host.client().send("GET", "/api/openapi.json").json
        operations = [
            (method.upper(), path, operation)
            for path, node in document["paths"].items()
            for method, operation in node.items()
            if method != "parameters"
        ]
        # Logging out comes last: it ends what the others need.
        operations.sort(key=lambda x: "logout" in x[1])
        yield Scene(host, owner, session, spare, operations)


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def key_of(client: Client, **fields: Any) -> dict[str, Any]:
    made = client.post("/api/keys", {"name": "k", **fields})
    assert made.status == 201, made.body
    answer: dict[str, Any] = made.json
    return answer


def expired(scene: Scene) -> str:
    """An API key that was good once."""
    moment = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    text: str = key_of(scene.owner, expires_at=moment)["api_key"]
    deadline = time.monotonic() + 10
    while Client(scene.host.port, token=text).send("GET", "/api/me").status == 200:
        assert time.monotonic() < deadline
    return text


def revoked(scene: Scene) -> str:
    made = key_of(scene.owner)
    assert scene.owner.send("DELETE", f"/api/keys/{made['id']}").status == 204
    text: str = made["api_key"]
    return text


def logged_out(scene: Scene) -> str | None:
    client = scene.host.logged_in("owner")
    assert client.post("/api/auth/logout").status == 204
    return client.token


def disabled(scene: Scene) -> str | None:
    client = scene.host.user("disabled")
    assert scene.host.admin.post("/api/admin/users/disabled/disable").status == 200
    return client.token


def cookie(scene: Scene, origin: str | None) -> Person:
    headers = {"Cookie": f"auth_token={scene.host.logged_in('owner').token}"}
    if origin is None:
        return Person(headers, "person", is_owner=True, origin="missing")
    own = f"http://127.0.0.1:{scene.host.port}"
    sort = "foreign" if origin == FOREIGN else "own"
    return Person(headers | {"Origin": origin or own}, "person", is_owner=True, origin=sort)


def owners_key(scene: Scene, *scopes: str) -> Person:
    text = key_of(scene.owner, scopes=list(scopes))["api_key"]
    return Person({"X-API-Key": text}, "key", set(scopes), is_owner=True)


def token_in_url(scene: Scene) -> Person:
    token = scene.host.logged_in("owner").token
    return Person(level="person", is_owner=True, in_url=lambda: f"token={token}")


def ticket_in_url(scene: Scene) -> Person:
    client = scene.host.logged_in("owner")
    return Person(
        level="person",
        is_owner=True,
        in_url=lambda: f"ticket={client.post('/api/auth/ticket').json['ticket']}",
    )


WHO: dict[str, Callable[[Scene], Person]] = {
    "nobody": lambda scene: Person(),
    "garbage": lambda scene: Person(bearer("x")),
    "a password": lambda scene: Person({"Authorization": "Basic b3duZXI6eA=="}),
    "a cookie that is no token": lambda scene: Person({"Cookie": "auth_token=x"}, origin="missing"),
    "the owner": lambda scene: Person(bearer(scene.host.logged_in("owner").token), "person", is_owner=True),
    "another user": lambda scene: Person(bearer(scene.host.logged_in("other").token), "person"),
    "a service": lambda scene: Person(bearer(scene.host.logged_in("program").token), "person"),
    "an administrator": lambda scene: Person(
        bearer(scene.host.logged_in("root").token), "person", is_admin=True
    ),
    "an administrator's key": lambda scene: Person(
        bearer(key_of(scene.host.admin)["api_key"]), "key", SCOPES, is_admin=True
    ),
    "an administrator's key for that": lambda scene: Person(
        bearer(key_of(scene.host.admin, scopes=["admin"])["api_key"]), "key", {"admin"}, is_admin=True
    ),
    "a key": lambda scene: Person(bearer(key_of(scene.owner)["api_key"]), "key", SCOPES, is_owner=True),
    "a key without scopes": owners_key,
    **{f"a key for {x}": (lambda scene, x=x: owners_key(scene, x)) for x in sorted(SCOPES)},  # type: ignore[misc]  # mypy infers no lambda with a default
    "a key in a cookie": lambda scene: Person(
        {"Cookie": f"auth_token={key_of(scene.owner)['api_key']}"}, origin="missing"
    ),
    "an expired key": lambda scene: Person(bearer(expired(scene))),
    "a revoked key": lambda scene: Person(bearer(revoked(scene))),
    "who logged out": lambda scene: Person(bearer(logged_out(scene))),
    "who is disabled": lambda scene: Person(bearer(disabled(scene))),
    "our page": lambda scene: cookie(scene, ""),
    "an allowed page": lambda scene: cookie(scene, "https://ui.example"),
    "a foreign page": lambda scene: cookie(scene, FOREIGN),
    "a cookie without a page": lambda scene: cookie(scene, None),
    "a foreign page without a cookie": lambda scene: Person({"Origin": FOREIGN}, origin="foreign"),
    "a token in the URL": token_in_url,
    "a ticket in the URL": ticket_in_url,
    "the admin socket": lambda scene: Person(level="socket", is_admin=True, at_socket=True),
}


def rule(method: str, path: str) -> str:
    found = [
        wants
        for methods, pattern, wants in RULES
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path)
    ]
    assert found, f"nothing says who may {method} {path}: RULES wants a line for it"
    return found[0]


def expected(person: Person, method: str, path: str, *, websocket: bool) -> str:
    """Return what should become of a request."""
    wants = rule(method, path)
    changes = method not in ("GET", "HEAD")
    if person.origin == "foreign" and (websocket or (changes and (person.ambient or wants == "public"))):
        return DENIED
    if wants == "public":
        return IN
    if person.origin == "missing" and (changes or websocket):
        return DENIED
    if person.level == "nobody" or (person.in_url is not None and not websocket):
        return UNKNOWN
    if wants == "anyone":
        return IN
    if wants == "person":
        return IN if person.level == "person" else DENIED
    if wants == "admin":
        may = person.is_admin and (person.scopes is None or "admin" in person.scopes)
        return IN if may else DENIED
    if person.level == "socket" or (person.scopes is not None and wants not in person.scopes):
        return DENIED
    return IN if person.is_owner or "{key}" not in path else NOT_FOUND


class _AtSocket(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "tty",
}


def request(
    scene: Scene, person: Person, method: str, path: str, operation: dict[str, Any], *, websocket: bool
) -> str:
    """Send it; say what became of it. Bodies don't fit, so that who gets in does no harm."""
    ends = path.endswith(("/stop", "/resume")) or (method == "DELETE" and path.endswith("/{key}"))
    values = {
        "key": scene.spare["id"] if ends else scene.session["id"],
        **({"key": "no-such-session"} if path.startswith("/api/admin/") else {}),
        "port": str(scene.session["preview_ports"][0]),
        "asset": "xterm.js",
        "name": "no-such-user",
        "path": "x",
    }
    target = re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], "no-such-id"), path)
    names = [x["name"] for x in operation.get("parameters", []) if x["in"] == "query" and x["required"]]
    query = [f"{name}=no-such-file" for name in names]
    if person.in_url is not None:
        query.append(person.in_url())
    address = scene.host.client().headers  # everybody guesses from somewhere else
    body = b"[]" if "requestBody" in operation else None
    headers = {**(UPGRADE if websocket else {}), **address, **person.headers}
    connection = (
        _AtSocket(f"{scene.host.folder}/state/oqto/oqtoctl.sock")
        if person.at_socket
        else http.client.HTTPConnection("127.0.0.1", scene.host.port, timeout=20)
    )
    try:
        connection.request(method, "?".join(filter(None, [target, "&".join(query)])), body, headers)
        response = connection.getresponse()
        if response.status == 101:
            return IN
        kind = response.getheader("content-type", "")
        answer = response.read() if "event-stream" not in kind else b""
    finally:
        connection.close()
    is_error = response.status in (401, 403, 404) and kind == "application/json"
    code = json.loads(answer).get("error_code") if is_error else None
    if response.status in (401, 403):
        # A session's service refuses in its own words: then the request has come as far as that.
        return str(response.status) if code is not None else IN
    if (
        response.status == 404
        and code == "not_found"
        and path.startswith(("/api/sessions/", "/api/session/"))
    ):
        assert b"there is no session" in answer, answer
        return NOT_FOUND
    assert response.status < 500 or response.status == 502, (response.status, answer)
    assert not websocket, f"a WebSocket got {response.status}: {answer!r}"
    return IN


@pytest.mark.parametrize("who", WHO)
def test_who_may_do_what(scene: Scene, who: str) -> None:
    person = WHO[who](scene)
    wrong = []
    for method, path, operation in scene.operations:
        sorts = [False, True] if "101" in operation["responses"] else [False]
        for websocket in sorts:
            should = expected(person, method, path, websocket=websocket)
            came = request(scene, person, method, path, operation, websocket=websocket)
            if came != should:
                wrong.append(f"{method} {path}{' as a WebSocket' if websocket else ''}: {came}, not {should}")
    assert not wrong, "\n".join([f"{who}:", *wrong])


@pytest.mark.parametrize("who", ["nobody", "the owner", "another user", "a key without scopes"])
def test_a_head_gets_in_where_a_get_does(scene: Scene, who: str) -> None:
    person = WHO[who](scene)
    for method, path, operation in scene.operations:
        streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
        if method == "GET" and not streams and "101" not in operation["responses"]:
            target = path.replace("{key}", scene.session["id"]).replace("{port}", "1").replace("{path}", "x")
            answer = scene.host.client(**person.headers).send("HEAD", target)
            assert answer.body == b""
            denied = expected(person, "GET", path, websocket=False) in (UNKNOWN, DENIED)
            assert (answer.status in (401, 403)) == denied, f"{who}: HEAD {path}: {answer.status}"


def test_other_methods_are_told_which_there_are(scene: Scene) -> None:
    methods: dict[str, set[str]] = {}
    for method, path, operation in scene.operations:
        streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
        methods.setdefault(path, set()).update(
            {method} | ({"HEAD"} if method == "GET" and not streams else set())
        )
    for path, allowed in methods.items():
        if re.search("/(files|ports)/|/ws$", path):
            continue  # the service's own
        answer = scene.host.client().send("PATCH", path.replace("{key}", scene.session["id"]))
        assert answer.status == 405, path
        assert set(answer.headers["allow"].split(", ")) >= allowed, path  # "stats" could be a user's name
        assert answer.json["error_code"] == "method_not_allowed"
