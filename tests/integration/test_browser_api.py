"""A session's browser through the API: a real Chromium, watched and driven over its stream."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wsproto.utilities import RemoteProtocolError

from tests.clients import Http, Refused
from tests.integration.accounts import CONFIG, PASSWORD, Host, running
from tests.viewer import Viewer

WHITE, GREEN, RED = (255, 255, 255), (0, 200, 0), (220, 0, 0)

# The whole page is one colour: green once it was clicked, red once "Žluťoučký kůň" was typed.
PAGE = """<!doctype html><meta charset=utf-8><title>A page</title><body style="margin:0;background:#fff">
<input id=field style="position:absolute;left:10px;top:200px;font-size:20px"
 oninput="if(this.value=='Žluťoučký kůň')document.body.style.background='rgb(220,0,0)'">
<script>
addEventListener('mousedown',event=>{if(event.target!=field)document.body.style.background='rgb(0,200,0)'})
</script>"""

# Setting a cookie is over when the script goes on.
REMEMBERING = """<!doctype html><script>
let seen=document.cookie;document.cookie='seen=yes;max-age=9999';document.title=seen||'never seen'
</script>"""


def http(host: Host, username: str = "dev") -> Http:
    found = Http(lambda: socket.create_connection(("127.0.0.1", host.port)), host=f"127.0.0.1:{host.port}")
    assert found.login(username, PASSWORD).status == 200
    return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("browser")
    with running(folder, CONFIG, OQTO__AGENT_BROWSER__ENABLED="true") as found:
        yield found


@pytest.fixture
def dev(host: Host) -> Http:
    return http(host)


@pytest.fixture
def session(dev: Http) -> Iterator[dict[str, Any]]:
    made = dev.post("/api/sessions").json()
    (Path(made["workspace_path"]) / "page.html").write_text(PAGE)
    yield made
    dev.post(f"/api/sessions/{made['id']}/stop")
    assert dev.request("DELETE", f"/api/sessions/{made['id']}").status == 204


def page_of(session: dict[str, Any]) -> str:
    return f"file://{session['workspace_path']}/page.html"


def start(client: Http, session: dict[str, Any], url: str | None = None) -> dict[str, Any]:
    asked = {"session_id": session["id"], "url": url or page_of(session)}
    answer = client.post("/api/browser/start", {**asked, "viewport_width": 640, "viewport_height": 480})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def state(client: Http, session: dict[str, Any]) -> str:
    shown = client.get(f"/api/sessions/{session['id']}").json()
    found: str = shown["services"]["browser"]["state"]
    return found


def chromiums(session: dict[str, Any]) -> dict[int, str]:
    """The processes of a session's browser, by pid: its profile stands on their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if f"browsers/{session['id']}" in line:
                found[int(folder.name)] = line
    return found


def test_opened_watched_clicked_typed_and_resized(dev: Http, session: dict[str, Any]) -> None:
    assert session["urls"]["browser"] == f"/api/sessions/{session['id']}/browser/stream"
    assert state(dev, session) == "stopped"
    assert start(dev, session) == {"session_id": session["id"]}
    assert state(dev, session) == "running"
    with Viewer.of(dev, session["readable_id"]) as one, Viewer.of(dev, session["id"]) as two:
        for viewer in (one, two):
            viewer.sees(WHITE, (300, 100))
            viewer.until(lambda viewer=viewer: viewer.status.get("title") == "A page")
        assert (one.status["viewportWidth"], one.status["viewportHeight"]) == (640, 480)
        one.click(300, 100)
        for viewer in (one, two):
            viewer.sees(GREEN, (300, 100))
        two.click(60, 215)
        two.type("Žluťoučký kůň")
        for viewer in (one, two):
            viewer.sees(RED, (300, 100))
        one.send(type="viewport", width=800, height=600)
        two.until(lambda: two.status["viewportWidth"] == 800)
        two.sees(RED, (790, 590))


def test_the_other_path_of_the_stream(dev: Http, session: dict[str, Any]) -> None:
    with Viewer(dev.websocket(f"/api/session/{session['readable_id']}/browser/stream")) as viewer:
        viewer.until(lambda: viewer.status.get("connected"))
    assert dev.get(f"/api/session/{session['id']}/browser/stream").status == 400
    assert dev.post(f"/api/sessions/{session['id']}/browser/stream").status == 405
    assert dev.post(f"/api/sessions/{session['id']}/browser/command", {"args": ["status"]}).status in (
        404,
        405,
    )


def test_in_the_history_and_to_a_page_that_is_not_there(dev: Http, session: dict[str, Any]) -> None:
    def act(action: str, **more: str) -> int:
        asked = {"session_id": session["readable_id"], "action": action, **more}
        return dev.post("/api/browser/action", asked).status

    start(dev, session)
    assert act("navigate", url="data:text/html,<title>second</title>") == 204
    with Viewer.of(dev, session["id"]) as viewer:
        viewer.until(lambda: viewer.status.get("title") == "second")
        assert act("back") == 204
        viewer.until(lambda: viewer.status["title"] == "A page")
        assert act("forward") == 204
        viewer.until(lambda: viewer.status["title"] == "second")
        assert act("reload") == 204
        assert act("close") == 204
        viewer.until(lambda: viewer.status["browser"] == "stopped")
    assert chromiums(session).keys() == {
        pid for pid, line in chromiums(session).items() if "browserd" in line
    }
    answer = start(dev, session, "http://127.0.0.1:1/")
    assert answer["session_id"] == session["id"]
    assert "127.0.0.1:1" in answer["error"]


def test_what_is_asked_for_wrongly(dev: Http, session: dict[str, Any]) -> None:
    def status(path: str, **asked: object) -> int:
        return dev.post(f"/api/browser/{path}", asked).status

    for url in ("example.org", "--help", "javascript:alert(1)", "chrome://settings", "http:/\n/x"):
        assert status("start", session_id=session["id"], url=url) == 400, url
    assert status("start", session_id=session["id"]) == 422
    assert status("start", session_id="nothing", url="about:blank") == 404
    assert (
        status("start", session_id=session["id"], url="about:blank", viewport_width=1, viewport_height=9)
        == 422
    )
    assert status("action", session_id=session["id"], action="explode") == 422
    assert status("action", session_id=session["id"], action="navigate") == 400
    assert status("action", session_id="nothing", action="reload") == 404
    assert state(dev, session) == "stopped"
    assert status("action", session_id=session["id"], action="close") == 204
    assert state(dev, session) == "stopped", "closing what is not there starts nothing"


def test_a_session_is_found_or_made_by_its_workspace(dev: Http) -> None:
    asked = {"url": "about:blank", "workspace_path": "by-path"}
    made = dev.post("/api/browser/start", asked).json()["session_id"]
    assert (
        dev.post("/api/browser/start", {**asked, "session_id": "of-another-tool"}).json()["session_id"]
        == made
    )
    dev.post(f"/api/sessions/{made}/stop")
    with pytest.raises(Refused) as refused:
        Viewer.of(dev, made)
    assert refused.value.status == 409
    assert (
        dev.post("/api/browser/start", {"url": "about:blank", "session_id": made}).json()["session_id"]
        == made
    )
    dev.post(f"/api/sessions/{made}/stop")
    assert dev.request("DELETE", f"/api/sessions/{made}").status == 204


def test_others_get_nothing(host: Host, dev: Http, session: dict[str, Any]) -> None:
    start(dev, session)
    other = http(host, "root")
    for key in (session["id"], session["readable_id"]):
        for path in (f"/api/sessions/{key}/browser/stream", f"/api/session/{key}/browser/stream"):
            with pytest.raises(Refused) as refused:
                other.websocket(path)
            assert refused.value.status == 404
        asked = {"session_id": key, "url": "about:blank"}
        assert other.post("/api/browser/start", asked).status == 404
        assert other.post("/api/browser/action", {"session_id": key, "action": "close"}).status == 404
    nobody = Http(other.connect, host=other.host)
    with pytest.raises(Refused) as refused:
        nobody.websocket(f"/api/sessions/{session['id']}/browser/stream")
    assert refused.value.status == 401
    assert nobody.post("/api/browser/start", {"url": "about:blank"}).status == 401
    key = dev.post("/api/keys", {"name": "files only", "scopes": ["files:read"]}).json()["api_key"]
    nobody.token = key
    assert nobody.post("/api/browser/action", {"session_id": session["id"], "action": "close"}).status == 403
    assert state(dev, session) == "running"


def test_the_agent_in_the_terminal_drives_the_same_browser(dev: Http, session: dict[str, Any]) -> None:
    command = "$OQTO_BROWSER"
    with dev.terminal(session["id"]) as terminal:
        assert terminal.run(f"echo {command}") == str(Path(sys.executable).parent / "oqto-browser")
        assert state(dev, session) == "stopped"
        said = terminal.run(f"{command} open {page_of(session)}")
        assert '"success":true' in said.replace(" ", ""), said
        assert state(dev, session) == "running"
        with Viewer.of(dev, session["id"]) as viewer:
            viewer.sees(WHITE, (300, 100))
            before = viewer.status.get("lastCommandAt")
            terminal.run(f"{command} open 'data:text/html,<body style=background:rgb(0,200,0)>'")
            viewer.sees(GREEN, (300, 100))
            viewer.until(lambda: viewer.status["lastCommandAt"] != before)
        shown = terminal.run("ls $(dirname $OQTO_BROWSER_SOCKET)/..").split()
        assert shown == ["browser", "start", "terminal"]
        said = terminal.run('touch "$(dirname $OQTO_BROWSER_SOCKET)/x" 2>&1')
        assert "Read-only" in said
        said = terminal.run("ls ~/.local/state/oqto/browsers 2>&1")
        assert session["id"] not in said, "the profile is the browser's alone"


def watching_again(client: Http, session: dict[str, Any]) -> Viewer:
    """Connect as the page does: again and again while what served the stream is on its way out."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return Viewer.of(client, session["id"])
        except (Refused, RemoteProtocolError, ConnectionError):
            assert time.monotonic() < deadline


def test_killed_chromium_and_daemon_come_back(dev: Http, session: dict[str, Any]) -> None:
    start(dev, session)
    with Viewer.of(dev, session["id"]) as viewer:
        viewer.sees(WHITE, (300, 100))
        (chromium,) = [
            pid
            for pid, line in chromiums(session).items()
            if "remote-debugging-pipe" in line and "--type=" not in line and "/chromium" in line.split()[0]
        ]
        os.kill(chromium, signal.SIGKILL)
        viewer.until(lambda: viewer.status["browser"] == "crashed")
        viewer.click(300, 100)
        viewer.until(lambda: viewer.status["browser"] == "running")
        (daemon,) = [
            pid
            for pid, line in chromiums(session).items()
            if "browserd" in line and "bwrap" not in line and "inner.py" not in line
        ]
        os.kill(daemon, signal.SIGKILL)
        with pytest.raises(EOFError):
            viewer.until(lambda: False)
    viewer = watching_again(dev, session)
    with viewer:
        viewer.until(lambda: viewer.status.get("browser") == "running")
    assert (
        len(
            [
                line
                for line in chromiums(session).values()
                if "inner.py" not in line and "browserd" in line and "bwrap" not in line
            ]
        )
        == 1
    )


def test_what_a_browser_remembers(dev: Http) -> None:
    """Cookies outlive the browser and a stop of the session, and go with the session."""
    session = dev.post("/api/sessions").json()
    (Path(session["workspace_path"]) / "remembering.html").write_text(REMEMBERING)
    profile = Path.home() / ".local/state/oqto/browsers" / session["id"]
    path = f"/api/sessions/{session['id']}"

    def title() -> str:
        """What the page is called, served by a program of the session's."""
        with dev.terminal(session["id"]) as terminal:
            terminal.run("(python3 -m http.server $PORT --bind 127.0.0.1 >/dev/null 2>&1 &)")
        url = f"http://127.0.0.1:{session['preview_ports'][0]}/remembering.html"
        deadline = time.monotonic() + 20
        while "error" in (answer := start(dev, session, url)):
            assert time.monotonic() < deadline, answer
        with Viewer.of(dev, session["id"]) as viewer:
            viewer.until(lambda: "seen" in viewer.status.get("title", ""))
            shown: str = viewer.status["title"]
        return shown

    assert title() == "never seen"
    assert dev.post("/api/browser/action", {"session_id": session["id"], "action": "close"}).status == 204
    assert title() == "seen=yes"
    assert dev.post(f"{path}/stop").status == 204
    assert profile.is_dir()
    assert not chromiums(session)
    assert dev.post(f"{path}/resume").status == 200
    assert title() == "seen=yes"
    dev.post(f"{path}/stop")
    assert dev.request("DELETE", path).status == 204
    assert not profile.exists()


def test_sessions_have_none_unless_the_administrator_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        dev = http(host)
        session = dev.post("/api/sessions").json()
        assert dev.get("/api/features").json()["agent_browser_enabled"] is False
        assert session["urls"]["browser"] is None
        answer = dev.post("/api/browser/start", {"session_id": session["id"], "url": "about:blank"})
        assert answer.status == 404
        assert "agent_browser.enabled" in answer.json()["hint"]
        with pytest.raises(Refused) as refused:
            Viewer.of(dev, session["id"])
        assert refused.value.status == 404
        with dev.terminal(session["id"]) as terminal:
            assert terminal.run("env | grep OQTO_BROWSER") == ""


def test_a_daemon_of_another_make(tmp_path: Path) -> None:
    """`agent_browser.binary`: in the sandbox, on the session's stream port, behind the same routes."""
    other = Path(__file__).parents[1] / "browserd/other_daemon.py"
    settings = {"OQTO__AGENT_BROWSER__ENABLED": "true", "OQTO__AGENT_BROWSER__BINARY": str(other)}
    with running(tmp_path, CONFIG, **settings) as host:
        dev = http(host)
        session = dev.post("/api/sessions").json()
        asked = {"session_id": session["id"], "url": "https://example.org/"}
        assert dev.post("/api/browser/start", asked).json() == {"session_id": session["id"]}
        with dev.websocket(session["urls"]["browser"]) as viewer:
            names = viewer.receive()
            assert isinstance(names, str)
            assert names.startswith("connection,host,sec-websocket-")
        refused = dev.post("/api/browser/action", {"session_id": session["id"], "action": "back"})
        assert (refused.status, refused.json()["error"]) == (422, "what is back?")
        assert dev.post("/api/browser/action", {"session_id": session["id"], "action": "close"}).status == 204
        assert dev.post(f"/api/sessions/{session['id']}/stop").status == 204
