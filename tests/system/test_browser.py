"""The browser of a session on an installed host: Debian's Chromium as the account, none of it for others."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.clients import Refused
from tests.system.conftest import Host
from tests.system.test_main_job import TRY_SOCKETS, Person, arrive, leave
from tests.viewer import Viewer

WHITE, GREEN = (255, 255, 255), (0, 200, 0)
PAGE = (
    "<!doctype html><title>inside</title><body style=margin:0;height:100vh;background:#fff "
    "onmousedown=\"document.body.style.background='rgb(0,200,0)'\">"
)
CHROMIUM = "pgrep -u {account} -f -- --remote-debugging-pipe"


@pytest.fixture(scope="module")
def browsing_host(installed_host: Host) -> Iterator[Host]:
    """Sessions have browsers here; as it was afterwards."""
    installed_host.machine.run(
        *("apt-get", "install", "--yes", "--no-install-recommends", "chromium"), timeout=180
    )
    installed_host.configure(OQTO__AGENT_BROWSER__ENABLED="true")
    yield installed_host
    installed_host.configure()


@pytest.fixture
def alice(browsing_host: Host, host: Host) -> Iterator[Person]:
    person = arrive(host, "alice")
    yield person
    leave(person)


@pytest.fixture
def bob(browsing_host: Host, host: Host) -> Iterator[Person]:
    person = arrive(host, "bob")
    yield person
    leave(person)


def open_page(person: Person) -> str:
    """Serve the page from inside the session, as somebody's own server does, and open it."""
    url = f"http://127.0.0.1:{person.session['preview_ports'][0]}/page.html"
    put = person.http.request("PUT", person.files("file?path=page.html"), body=PAGE.encode())
    assert put.status in (200, 201, 204), put
    with person.terminal() as terminal:
        terminal.run("(python3 -m http.server $PORT --bind 127.0.0.1 >/dev/null 2>&1 &)")
    deadline = time.monotonic() + 30
    while True:
        answer = person.http.post("/api/browser/start", {"session_id": person.id, "url": url})
        assert answer.status == 200, answer
        if "error" not in answer.json():
            return url
        assert time.monotonic() < deadline, answer


def test_opened_seen_clicked_and_nothing_of_it_for_bob(host: Host, alice: Person, bob: Person) -> None:
    url = open_page(alice)
    with Viewer.of(alice.http, alice.id) as viewer:
        viewer.sees(WHITE, (300, 100))
        asked = {"session_id": alice.id, "action": "reload"}
        assert alice.http.post("/api/browser/action", asked).status == 204
        viewer.sees(WHITE, (300, 100))
        viewer.click(300, 100)
        viewer.sees(GREEN, (300, 100))

        machine = host.machine
        chromium = machine.sh(CHROMIUM.format(account=alice.account)).split()
        owners = machine.sh(f"ps -o user:32=,args= -p {','.join(chromium)}").splitlines()
        assert all(line.split()[0] == alice.account for line in owners)
        assert not any("--no-sandbox" in line for line in owners), "Chromium's own sandbox works inside ours"

        # By name, by any path, by the sockets, by what listens on a port, by its files: nothing.
        for key in (alice.id, alice.session["readable_id"]):
            for path in (f"/api/sessions/{key}/browser/stream", f"/api/session/{key}/browser/stream"):
                with pytest.raises(Refused) as refused:
                    bob.http.websocket(path)
                assert refused.value.status == 404
            asked = {"session_id": key, "url": "about:blank"}
            assert bob.http.post("/api/browser/start", asked).status == 404
            assert bob.http.post("/api/browser/action", {"session_id": key, "action": "close"}).status == 404
        sockets = machine.sh(f"find /run/oqto/runners/{alice.account} /home/{alice.account} -type s").split()
        assert any("/browser/" in path for path in sockets)
        assert any("/start/" in path for path in sockets)
        tried = machine.run("python3", "-c", TRY_SOCKETS, *sockets, user=bob.account)
        assert tried.stdout == ""
        listening = machine.sh("ss -Hltnp").splitlines()
        assert not [line for line in listening if "chrom" in line or "browserd" in line], "no port at all"
        profile = f"/home/{alice.account}/.local/state/oqto/browsers/{alice.id}"
        machine.run("test", "-d", profile)
        assert machine.run("ls", profile, user=bob.account, check=False).returncode != 0
        with bob.terminal() as terminal:
            assert "No such file" in terminal.run(f"ls {profile} 2>&1")
        viewer.send(type="status")
        viewer.until(lambda: viewer.status["url"] == url)


def test_nothing_outlives_a_killed_daemon_and_an_adopted_one_goes_on(host: Host, alice: Person) -> None:
    open_page(alice)
    machine = host.machine
    machine.sh(f"systemctl kill --signal=KILL --kill-whom=main oqto-runner@{alice.account}")
    machine.expect_in_journal("oqto")
    with Viewer.of(alice.http, alice.id) as viewer:
        viewer.sees(WHITE, (300, 100))
    before = machine.sh(CHROMIUM.format(account=alice.account)).split()
    assert before
    machine.sh(f"pkill -KILL -u {alice.account} -f 'oqto-browserd.* serve'")
    deadline = time.monotonic() + 10
    while set(before) & set(machine.run("pgrep", "-u", alice.account).stdout.split()):
        assert time.monotonic() < deadline, "Chromium outlives its daemon"
    assert alice.http.post("/api/browser/action", {"session_id": alice.id, "action": "close"}).status in (
        204,
        502,
    )
