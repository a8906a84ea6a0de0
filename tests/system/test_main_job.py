"""The main job on an installed host: two people, their terminals and files, and the walls between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests.clients import Http, Refused, Terminal
from tests.system.conftest import PASSWORDS, Host

# Tries to connect to each Unix socket named on the command line; prints those that let it.
TRY_SOCKETS = """
import socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(path)
        except OSError:
            continue
        print(path)
"""


@dataclass
class Person:
    """Somebody with a running session."""

    name: str
    account: str
    http: Http
    session: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.session["id"])

    def terminal(self) -> Terminal:
        return self.http.terminal(self.id)

    def files(self, path: str) -> str:
        return f"/api/sessions/{self.id}/files/{path}"


def arrive(host: Host, name: str) -> Person:
    http = host.login(name)
    made = http.post("/api/sessions")
    assert made.status == 201, made
    return Person(name, f"oqto_{name}", http, made.json())


def leave(person: Person) -> None:
    assert person.http.post(f"/api/sessions/{person.id}/stop").status == 204
    assert person.http.request("DELETE", f"/api/sessions/{person.id}").status == 204


@pytest.fixture
def alice(host: Host) -> Iterator[Person]:
    person = arrive(host, "alice")
    yield person
    leave(person)


@pytest.fixture
def bob(host: Host) -> Iterator[Person]:
    person = arrive(host, "bob")
    yield person
    leave(person)


def test_only_the_right_password_opens(host: Host) -> None:
    http = host.http()
    assert http.login("alice", PASSWORDS["bob"]).status == 401
    assert http.login("nobody", "x").status == 401
    assert http.get("/api/me").status == 401
    assert http.post("/api/sessions").status == 401
    answer = http.login("alice", PASSWORDS["alice"])
    assert answer.status == 200
    assert answer.json()["user"] == {
        "id": "alice",
        "name": "Alice",
        "email": "alice@example.com",
        "role": "user",
    }
    assert http.get("/api/me").json()["id"] == "alice"


def test_a_session_is_the_persons_own_account(host: Host, alice: Person) -> None:
    assert alice.session["status"] == "running"
    assert alice.session["runtime_mode"] == "local"
    assert alice.session["linux_user"] == alice.account
    assert alice.session["user_id"] == "alice"
    entry = host.machine.run("getent", "passwd", alice.account).stdout.strip().split(":")
    assert int(entry[2]) >= 2000
    assert entry[5:] == [f"/home/{alice.account}", "/bin/bash"]
    assert host.machine.run("stat", "--format=%U:%G %a", entry[5]).stdout.split() == [
        f"{alice.account}:{alice.account}",
        "700",
    ]
    assert "oqto" in host.machine.run("id", "-Gn", alice.account).stdout.split()


def test_the_terminal_is_the_account_in_its_workspace(alice: Person) -> None:
    with alice.terminal() as terminal:
        assert terminal.websocket.accepted_subprotocol == "tty"
        workspace = alice.session["workspace_path"]
        assert terminal.run("id -un; pwd").splitlines() == [alice.account, workspace]
        assert workspace == f"/home/{alice.account}/oqto/alice"
        terminal.resize(111, 33)
        assert terminal.run("stty size") == "33 111"


def test_terminal_and_files_are_one_workspace(alice: Person) -> None:
    with alice.terminal() as terminal:
        terminal.run("printf 'from the terminal' >one.txt")
        answer = alice.http.get(alice.files("file?path=one.txt"))
        assert (answer.status, answer.body) == (200, b"from the terminal")
        text = "from the browser: äöü\n".encode()
        put = alice.http.request("PUT", alice.files("file?path=two.txt"), body=text)
        assert put.status in (200, 201, 204), put
        assert terminal.run("cat two.txt; stat --format=%U two.txt").splitlines() == [
            "from the browser: äöü",
            alice.account,
        ]
        names = {entry["name"] for entry in alice.http.get(alice.files("tree?path=.")).json()}
        assert {"one.txt", "two.txt"} <= names


def test_files_stay_in_the_workspace(alice: Person) -> None:
    with alice.terminal() as terminal:
        terminal.run("ln -sf /etc/passwd link")
    for path in ("../../.bashrc", "/etc/passwd", "link", "..%2f..%2f.bashrc"):
        answer = alice.http.get(alice.files(f"file?path={quote(path)}"))
        assert answer.status in (400, 403, 404), (path, answer)


def test_somebody_elses_session_isnt_there(alice: Person, bob: Person) -> None:
    theirs = f"/api/sessions/{alice.id}"
    tried = [
        bob.http.get(theirs),
        bob.http.get(f"/api/sessions/{alice.session['readable_id']}"),
        bob.http.post(f"{theirs}/stop"),
        bob.http.post(f"{theirs}/resume"),
        bob.http.post(f"{theirs}/activity"),
        bob.http.request("DELETE", theirs),
        bob.http.get(f"{theirs}/terminal/"),
        bob.http.get(f"{theirs}/files/tree?path=."),
        bob.http.request("PUT", f"{theirs}/files/file?path=x", body=b"x"),
    ]
    assert [answer.status for answer in tried] == [404] * len(tried)
    with pytest.raises(Refused) as refused:
        bob.http.terminal(alice.id)
    assert refused.value.status == 404
    stranger = Http(bob.http.connect)
    with pytest.raises(Refused) as refused:
        stranger.terminal(alice.id)
    assert refused.value.status == 401
    assert [session["id"] for session in bob.http.get("/api/sessions").json()] == [bob.id]
    assert alice.http.get(theirs).json()["status"] == "running"


def test_bob_reaches_nothing_of_alices(host: Host, alice: Person, bob: Person) -> None:
    machine = host.machine
    with alice.terminal() as terminal:
        terminal.run("echo secret >secret.txt")
        alice.http.get(alice.files("file?path=secret.txt"))
        sockets = machine.sh("find /run /tmp /var/tmp /var/lib /home -type s 2>/dev/null").split()
        foreign = [
            path
            for path in sockets
            if (path.startswith("/run/oqto/") and bob.account not in path) or alice.account in path
        ]
        assert any(alice.account in path for path in foreign), sockets
        assert "/run/oqto/supervisor.sock" in foreign

        # As bob, outside any sandbox: as if he had got out of it.
        reached = machine.run("python3", "-c", TRY_SOCKETS, *foreign, user=bob.account).stdout
        assert reached == ""
        closed = (
            "cat /var/lib/oqtod/*",
            "ls /var/lib/oqtod",
            "ls /var/lib/oqtod-supervisor",
            "cat /etc/oqto/config.toml",
            f"ls /home/{alice.account}",
            f"cat {alice.session['workspace_path']}/secret.txt",
            f"ls /run/oqto/runners/{alice.account}",
            f"rm -rf /run/oqto/runner-sockets/{alice.account}/oqto-runner.sock",
            f"touch /run/oqto/runner-sockets/{alice.account}/x",
            "touch /run/oqto/x",
            f"kill -0 $(pgrep -u {alice.account} | head -n1)",
        )
        for command in closed:
            done = machine.run("sh", "-c", command, user=bob.account, check=False)
            if command.startswith("rm"):
                machine.run("test", "-S", f"/run/oqto/runner-sockets/{alice.account}/oqto-runner.sock")
            else:
                assert done.returncode != 0, command
        # Nothing of hers listens on the network.
        listening = machine.sh("ss --listening --tcp --numeric --no-header | awk '{print $4}'").split()
        assert listening == ["127.0.0.1:8080"]

    # And from his own shell.
    with bob.terminal() as terminal:
        tried = " ".join(foreign)
        put = bob.http.request("PUT", bob.files("file?path=try.py"), body=TRY_SOCKETS.encode())
        assert put.status in (200, 201, 204), put
        assert terminal.run(f"python3 try.py {tried}") == ""
        assert "secret" not in terminal.run(f"cat {alice.session['workspace_path']}/secret.txt 2>/dev/null")
        assert terminal.run("ls /var/lib/oqtod /var/lib/oqtod-supervisor 2>/dev/null; true") == ""
        assert terminal.run(f"pgrep -u {alice.account}; true") == ""


def test_the_tree_in_systemctl_status(host: Host, alice: Person) -> None:
    with alice.terminal() as terminal:
        terminal.run("true")
        tree = host.machine.run("systemctl", "status", "--no-pager", "oqto.slice").stdout
        for part in ("oqtod.service", "oqtod-gateway.service", f"oqto-runner@{alice.account}.service"):
            assert part in tree, tree
        assert "oqtod supervise" in tree
        assert "ttyd" in tree
        runner = host.machine.run(
            "systemctl", "show", "-p", "User,Slice,Delegate,KillMode", f"oqto-runner@{alice.account}.service"
        ).stdout.split()
        assert sorted(runner) == [
            "Delegate=yes",
            "KillMode=process",
            f"Slice=oqto-{alice.account}.slice",
            f"User={alice.account}",
        ]


def test_stop_and_start_while_a_terminal_is_open(host: Host, alice: Person) -> None:
    terminal = alice.terminal()
    terminal.run("echo kept >kept.txt; setsid --fork sh -c 'echo $$ >pid; exec sleep 1000'")
    host.machine.run("systemctl", "stop", "oqtod")
    while terminal.output() is not None:
        pass  # what was still on its way
    terminal.close()
    host.machine.run("systemctl", "start", "oqtod", "oqtod-gateway")

    alice.http = host.login("alice")
    session = alice.http.get(f"/api/sessions/{alice.id}").json()
    assert session["status"] == "running"
    with alice.terminal() as again:
        assert again.run("cat kept.txt") == "kept"
        assert again.run("kill -0 $(cat pid) && echo lives; kill $(cat pid)") == "lives"


def test_a_killed_runner_comes_back_with_its_sessions(host: Host, alice: Person) -> None:
    host.machine.expect_in_journal(f"oqto-runner@{alice.account}")
    unit = f"oqto-runner@{alice.account}.service"
    with alice.terminal() as terminal:
        terminal.run("echo $$ >shell")
        host.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)
    with alice.terminal() as again:
        assert again.run("id -un") == alice.account
        assert again.run("ls shell") == "shell"
    assert alice.http.get(f"/api/sessions/{alice.id}").json()["status"] == "running"


def test_stopping_a_session_ends_all_it_started(host: Host) -> None:
    person = arrive(host, "alice")
    with person.terminal() as terminal:
        terminal.run("setsid nohup sleep 31337 >/dev/null 2>&1 & disown")
        assert host.machine.run("pgrep", "-f", "sleep 31337").stdout
        assert person.http.post(f"/api/sessions/{person.id}/stop").status == 204
    assert host.machine.run("pgrep", "-f", "sleep 31337", check=False).stdout == ""
    assert person.http.get(f"/api/sessions/{person.id}").json()["status"] == "stopped"
    assert person.http.request("DELETE", f"/api/sessions/{person.id}").status == 204
    assert person.http.get(f"/api/sessions/{person.id}").status == 404
