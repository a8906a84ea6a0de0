"""Pages and networks that misbehave, a Chromium that dies: each command ends, says why, the next works."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.browserd.daemon import PATIENCE, Daemon, browserd, until, watching
from tests.browserd.server import SMALL


def test_pages_that_can_not_be_loaded(daemon: Daemon, pages: str) -> None:
    port = pages.rpartition(":")[2]
    for url, reason in (
        ("http://nowhere.invalid/", "no host of that name"),
        ("http://127.0.0.1:4", "nothing listens there"),
        (f"{pages}/broken", "navigation"),
        (f"https://localhost:{port}/", "ERR_SSL"),
    ):
        code, text = daemon.fails("open", url, timeout=10)
        assert code == "navigation"
        assert reason in f"{code} {text}"
    assert daemon.do("open", f"{pages}/missing")["status"] == 404
    assert daemon.fails("open", "javascript:alert(1)")[0] == "usage"
    assert daemon.fails("open", "")[0] == "usage"


def test_pages_that_never_come_or_never_end(daemon: Daemon, pages: str) -> None:
    assert daemon.fails("open", f"{pages}/silent", timeout=0.5)[0] == "timeout"
    opened = daemon.do("open", f"{pages}/unfinished", timeout=0.5)
    assert opened["title"] == "Unfinished"
    assert opened["loading"] is True
    assert daemon.do("get", "text", "h1") == {"value": "Here"}
    assert daemon.do("open", f"{pages}/form.html")["title"] == "Form"


def test_a_page_that_never_rests_makes_way(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    daemon.eval("setTimeout(() => { for (;;); })")
    assert daemon.fails("get", "text", "#name", timeout=0.5)[0] == "timeout"
    assert daemon.do("open", f"{pages}/shadow.html", timeout=15)["title"] == "Shadow"


def test_downloads(daemon: Daemon, pages: str, folder: Path) -> None:
    daemon.do("open", f"{pages}/downloads.html")
    with watching(daemon) as viewer:
        for _ in range(2):
            daemon.do("click", "#small")
            daemon.do("downloads", "--wait")
        assert viewer.next_told("download")["state"] == "inProgress"
        daemon.do("click", "#sly")
        until(lambda: len(daemon.do("downloads")["downloads"]) == 3, "the third download")
        found = daemon.do("downloads", "--wait")["downloads"]
        names = [Path(each["path"]).name for each in found]
        assert names == ["small report.txt", "small report (1).txt", "_.._sly.txt"]
        assert Path(found[1]["path"]).read_bytes() == SMALL
        daemon.do("click", "#endless")
        until(lambda: len(daemon.do("downloads")["downloads"]) == 4, "the fourth download")
        last = daemon.do("downloads", "--wait")["downloads"][-1]
        assert (last["state"], last["error"]) == ("canceled", "it is larger than 3 MB")
    names = sorted(path.name for path in (folder / "downloads").iterdir())
    until(lambda: len(list((folder / "downloads").iterdir())) == 3, f"only the kept ones: {names}")


def test_a_page_that_crashes_is_loaded_again(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    with watching(daemon) as viewer:
        viewer.until(lambda: viewer.frame, "a frame")
        code, _ = daemon.fails("open", "chrome://crash", timeout=5)
        assert code == "usage"
        renderer = _renderer(daemon)
        renderer.kill()
        assert "crashed" in viewer.next_told("error")["message"]
        assert daemon.do("get", "title") == {"value": "Form"}
        assert "crashed" in daemon.status()["last_error"]


def _renderer(daemon: Daemon) -> psutil.Process:
    """The process of the page: that of the renderers which uses the most memory after it was told to."""
    daemon.eval("globalThis.kept = Array.from({length: 30}, () => new Uint8Array(1 << 20).fill(1)).length")
    renderers = [each for each in daemon.processes() if "--type=renderer" in each.cmdline()]
    return max(renderers, key=lambda each: each.memory_info().rss)


def test_a_killed_chromium_is_started_again_where_it_was(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/shadow.html")
    daemon.do("set", "viewport", "700", "500")
    with watching(daemon) as viewer:
        viewer.until(lambda: viewer.frame, "a frame")
        killed = daemon.status()["pid"]
        os.kill(killed, signal.SIGKILL)
        assert "was killed by SIGKILL" in viewer.next_told("error")["message"]
        assert daemon.status()["browser"] == "crashed"
        assert "SIGKILL" in daemon.status()["last_error"]
        viewer.click(5, 5)  # the next use
        until(lambda: daemon.status()["browser"] == "running", "it runs again")
        daemon.do("wait", "text=Pay")
        assert daemon.eval("[innerWidth, innerHeight]") == [700, 500]
        assert daemon.status()["pid"] != killed
        frames = viewer.frames
        viewer.until(lambda: viewer.frames > frames, "a frame of the new one")
    daemon.do("set", "viewport", "1280", "720")


def test_a_page_that_eats_memory_is_ended(folder: Path, pages: str) -> None:
    with browserd(folder / "m", "--page-memory-mb", "300") as daemon:
        daemon.do("open", f"{pages}/form.html", timeout=60)
        daemon.eval(
            "setInterval(() => (globalThis.hoard ??= []).push(new Uint8Array(8 << 20).fill(1)), 10), 0"
        )
        until(lambda: "MB of memory" in (daemon.status()["last_error"] or ""), "it is ended")
        assert daemon.do("get", "title") == {"value": "Form"}
        assert daemon.eval("typeof hoard") == "undefined"


def test_nothing_is_left_of_a_killed_daemon(folder: Path, pages: str) -> None:
    with browserd(folder / "k") as daemon:
        daemon.do("open", f"{pages}/form.html", timeout=60)
        daemon.do("cookies", "set", "kept", "yes")
        kept = folder / "k/profile/oqto-last-page"
        until(lambda: kept.exists() and kept.read_text() == f"{pages}/form.html", "the page is kept")
        assert kept.stat().st_mode & 0o777 == 0o600
        processes = daemon.processes()
        daemon.process.kill()
        daemon.process.wait()
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
        assert not alive
    assert (folder / "k/s.sock").exists()
    with browserd(folder / "k") as again:  # over the socket, and the profile's locks, that were left
        assert again.do("get", "url", timeout=60) == {"value": f"{pages}/form.html"}
        again.do("open", f"{pages}/shadow.html")
    with browserd(folder / "k") as third:  # which ended in order
        with watching(third) as viewer:
            viewer.until(
                lambda: any(x.get("title") == "Shadow" for x in viewer.told), "the page that was there"
            )
        third.do("close")
    with browserd(folder / "k") as last:
        assert last.do("get", "url", timeout=60) == {"value": "about:blank"}


def test_closing_and_using_again(folder: Path, pages: str) -> None:
    with browserd(folder / "c") as daemon:
        assert daemon.status()["browser"] == "stopped"
        daemon.do("open", f"{pages}/form.html", timeout=60)
        chromium = daemon.chromium()
        daemon.do("close")
        assert not chromium.is_running()
        assert daemon.processes() == []
        assert daemon.status()["browser"] == "stopped"
        assert daemon.do("get", "url", timeout=60) == {"value": "about:blank"}


def test_no_chromium(folder: Path) -> None:
    with browserd(folder / "n", "--executable-path", "/nowhere/chromium") as daemon:
        code, text = daemon.fails("open", "about:blank")
        assert code == "no_browser"
        assert "/nowhere/chromium" in text
    with browserd(folder / "f", "--executable-path", "/bin/false") as daemon:
        code, text = daemon.fails("open", "about:blank")
        assert (code, text) == ("no_browser", "Chromium ended with status 1")


@pytest.fixture
def display(tmp_path: Path) -> Iterator[str]:
    """An X display without a screen: Xvfb(1), which says its number on the descriptor."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as said:
            yield f":{said.readline().strip()}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_a_window_on_a_display(folder: Path, pages: str, display: str) -> None:
    with browserd(folder / "headed", "--headed", DISPLAY=display) as daemon:
        daemon.do("open", f"{pages}/play.html", timeout=60)
        assert daemon.status()["headed"] is True
        assert "--headless" not in " ".join(daemon.chromium().cmdline())
        with watching(daemon) as viewer:
            viewer.until(lambda: viewer.shows(900, 600, (255, 255, 255)), "the page")
            viewer.click(900, 600)
            viewer.until(lambda: viewer.shows(900, 600, (255, 0, 0)), "what a click does")


def test_a_window_without_a_display(folder: Path) -> None:
    with browserd(folder / "blind", "--headed", DISPLAY="", WAYLAND_DISPLAY="") as daemon:
        code, text = daemon.fails("open", "about:blank")
        assert code == "no_browser"
        assert "display" in text.lower()
