"""The stream: pictures for whoever watches, and what viewers do, as the page sees it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browserd.daemon import PATIENCE, Daemon, Viewer, browserd, until, watching

WHITE, RED = (255, 255, 255), (255, 0, 0)
SPOT = (900, 600)


@pytest.fixture
def play(daemon: Daemon, pages: str) -> str:
    daemon.do("open", f"{pages}/play.html")
    return pages


def sees(viewer: Viewer, colour: tuple[int, int, int]) -> None:
    viewer.until(lambda: viewer.shows(*SPOT, colour), f"{colour}")


def test_two_see_what_one_does(daemon: Daemon, play: str) -> None:
    with watching(daemon) as one, watching(daemon) as two:
        for viewer in (one, two):
            sees(viewer, WHITE)
        one.click(*SPOT)
        for viewer in (one, two):
            sees(viewer, RED)
        two.click(*SPOT)
        for viewer in (one, two):
            sees(viewer, WHITE)
        assert daemon.status()["viewers"] == 2


def test_nobody_watches_and_nothing_is_captured(daemon: Daemon, play: str) -> None:
    daemon.eval("animate()")
    assert daemon.status()["screencasting"] is False
    with watching(daemon) as viewer:
        viewer.until(lambda: viewer.frames > 3, "pictures")
        assert daemon.status()["screencasting"] is True
    until(lambda: daemon.status()["viewers"] == 0, "the viewer left")
    assert daemon.status()["screencasting"] is False


def test_who_is_slow_misses_pictures_and_makes_nobody_wait(daemon: Daemon, play: str) -> None:
    daemon.eval("animate()")
    with watching(daemon, acks=False) as slow, watching(daemon) as quick:
        slow.until(lambda: slow.frame is not None, "a picture")
        assert slow.frame is not None
        slow.send("ack", id=slow.frame["id"])  # from now on the daemon goes by what it acknowledges
        quick.until(lambda: quick.frames >= 50, "many pictures")
        assert quick.frame is not None
        newest = quick.frame["id"]
        slow.acks = True
        slow.send("ack", id=newest)
        slow.until(lambda: slow.frame is not None and slow.frame["id"] > newest, "the newest picture")
        assert slow.frames < quick.frames, "it got what it could take"


def test_pictures_for_a_narrow_line(daemon: Daemon, play: str) -> None:
    """Each acknowledgement comes later than the one before: what a line does that can't take them."""
    daemon.eval("animate()")
    with watching(daemon, acks=False) as viewer:
        end = time.monotonic() + PATIENCE
        late = 0.0
        viewer.until(lambda: viewer.frame is not None, "a picture")
        while viewer.picture().width > 700:
            assert time.monotonic() < end, viewer.picture().size
            seen = viewer.frames
            time.sleep(late)  # the line
            late = 0.5
            assert viewer.frame is not None
            viewer.send("ack", id=viewer.frame["id"])
            viewer.until(lambda seen=seen: viewer.frames > seen, "the next picture")
        daemon.do("open", f"{play}/form.html")
        viewer.acks = True
        viewer.until(lambda: viewer.picture().width == 1280, "a page at rest, sharp")


def test_typing(daemon: Daemon, play: str, viewer: Viewer) -> None:
    viewer.click(300, 25)
    for letter in "Žluť":
        viewer.key(letter, letter)
    viewer.send("input_text", text=" kůň 🐎")
    daemon.until("field.value", "Žluť kůň 🐎")
    viewer.key("a", code="KeyA", modifiers=2)
    viewer.key("Delete")
    daemon.until("field.value", "")
    assert "keydown C-a" in daemon.eval("events")


def test_an_input_method(daemon: Daemon, play: str, viewer: Viewer) -> None:
    viewer.click(300, 25)
    for text in ("に", "にほ", "にほん"):
        viewer.send("input_composition", text=text, selectionStart=len(text), selectionEnd=len(text))
    daemon.until("field.value", "にほん")
    viewer.send("input_composition", text="日本", commit=True)
    daemon.until("field.value", "日本")
    events = daemon.eval("events")
    assert events.index("compositionstart") < events.index("compositionupdate")
    assert events.count("compositionstart") == events.count("compositionend") == 1


def test_the_mouse_and_fingers(daemon: Daemon, play: str, viewer: Viewer) -> None:
    viewer.click(640, 500, count=2)
    daemon.until("events.includes('dblclick')")
    viewer.mouse("mouseWheel", 640, 500, deltaX=0, deltaY=120)
    daemon.until("events.includes('wheel')")
    viewer.send("input_touch", eventType="touchStart", touchPoints=[{"x": 640, "y": 500, "id": 1}])
    viewer.send("input_touch", eventType="touchEnd", touchPoints=[])
    daemon.until("events.includes('touchend')")


def test_the_clipboard(daemon: Daemon, play: str, viewer: Viewer) -> None:
    viewer.click(300, 25)
    viewer.send("clipboard", eventType="paste", text="from the viewer")
    daemon.until("field.value", "from the viewer")
    daemon.eval("field.select()")
    viewer.send("clipboard", eventType="copy")
    assert viewer.next_told("clipboard")["text"] == "from the viewer"
    viewer.send("clipboard", eventType="cut")
    assert viewer.next_told("clipboard")["text"] == "from the viewer"
    daemon.until("field.value", "")


def test_agent_and_person_see_each_other(daemon: Daemon, play: str, viewer: Viewer) -> None:
    assert "person" not in daemon.try_("get", "title")
    sees(viewer, WHITE)
    viewer.click(*SPOT)
    sees(viewer, RED)
    told = daemon.try_("get", "title")["person"]
    assert told["viewers"] == 1
    assert 0 <= told["seconds_ago"] < PATIENCE
    assert "person" not in daemon.try_("get", "title"), "it is told once"
    before = daemon.status()["last_command_at"]
    status, answer = daemon.request("POST", "/command", {"args": ["reload"], "person": True})
    assert (status, answer["success"], "person" in answer) == (200, True, False)
    assert daemon.status()["last_command_at"] == before, "no agent drives"
    assert "person" in daemon.try_("get", "title"), "the person has reloaded the page"


def test_another_size(daemon: Daemon, play: str, viewer: Viewer) -> None:
    sees(viewer, WHITE)
    viewer.send("viewport", width=800, height=500, deviceScaleFactor=2)
    daemon.until("`${innerWidth} ${innerHeight} ${devicePixelRatio}`", "800 500 2")
    viewer.until(lambda: viewer.picture().size == (800, 500), "pictures of that size")
    viewer.send("viewport", width=1280, height=720)
    daemon.until("`${innerWidth} ${innerHeight} ${devicePixelRatio}`", "1280 720 1")
    viewer.until(lambda: viewer.picture().size == (1280, 720), "the first size")


def test_a_dialog_is_answered_by_who_watches(daemon: Daemon, play: str, viewer: Viewer) -> None:
    daemon.do("eval", "setTimeout(() => { field.value = prompt('Who?', 'nobody') })")
    dialog = viewer.next_told("dialog")
    assert (dialog["kind"], dialog["message"], dialog["default"]) == ("prompt", "Who?", "nobody")
    viewer.send("dialog", accept=True, text="me")
    viewer.next_told("dialog_closed")
    daemon.until("field.value", "me")


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "explode"},
        {"kind": "input_mouse", "eventType": "mouseMoved", "x": "left", "y": 0},
        {"kind": "viewport", "width": 1, "height": 1 << 40},
        {"kind": "input_text", "text": "x" * (1 << 19 | 1)},
    ],
)
def test_what_is_not_understood(viewer: Viewer, said: dict[str, object]) -> None:
    viewer.send(**said)  # type: ignore[arg-type]  # anything
    assert viewer.next_told("error")["message"].startswith("not understood: ")
    viewer.send("status")
    assert viewer.next_told("status")["connected"] is True


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[tuple[Daemon, int]]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    with browserd(folder / "port", AGENT_BROWSER_STREAM_PORT=str(number)) as daemon:
        yield daemon, number


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Basic x", "Bearer "])
def test_the_port_is_for_who_brings_the_secret(port: tuple[Daemon, int], authorization: str | None) -> None:
    daemon, number = port
    fields = f"Authorization: {authorization}\r\n" if authorization is not None else ""
    for path in ("/stream", "/", "/status", "/command"):
        with socket.create_connection(("127.0.0.1", number), timeout=PATIENCE) as stranger:
            stranger.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
            assert stranger.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
    assert daemon.status()["browser"] == "stopped"


def test_the_port_with_the_secret(port: tuple[Daemon, int]) -> None:
    daemon, number = port
    secret = daemon.path.with_suffix(".token")
    assert secret.stat().st_mode & 0o777 == 0o600
    sock = socket.create_connection(("127.0.0.1", number), timeout=2 * PATIENCE)
    viewer = Viewer(sock, headers={"Authorization": f"Bearer {secret.read_text()}"})
    try:
        viewer.until(lambda: viewer.frames > 0, "a picture")
    finally:
        viewer.leave()


def test_extensions(folder: Path, pages: str) -> None:
    """One works on pages; another is broken, which is told, and keeps nobody from browsing."""
    good, broken = folder / "good", folder / "broken"
    for made in (good, broken):
        made.mkdir()
    script = {"matches": ["<all_urls>"], "js": ["mark.js"]}
    manifest = {"manifest_version": 3, "name": "Marker", "version": "1", "content_scripts": [script]}
    (good / "manifest.json").write_text(json.dumps(manifest))
    (good / "mark.js").write_text("document.documentElement.dataset.marked = 'yes'")
    (broken / "manifest.json").write_text("{")
    options = ("--extension", str(good), "--extension", str(broken))
    with browserd(folder / "extended", *options) as daemon, watching(daemon) as viewer:
        told = viewer.next_told("error")["message"]
        assert str(broken) in told, told
        daemon.do("open", f"{pages}/form.html", timeout=60)
        daemon.until("document.documentElement.dataset.marked", "yes")
