"""Terminals outlive lost connections and restarts, with each program that may serve them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import TIMEOUT, Http, Terminal
from tests.system.conftest import Host
from tests.system.machine import Machine
from tests.system.test_main_job import Person, arrive, leave

CONFIG = "/etc/oqto/config.toml"

# Draws on the alternate screen, and anew whenever its window changes; a line ends it.
FULL_SCREEN = r"""
import os, signal, sys
def draw(*_):
    size = os.get_terminal_size()
    sys.stdout.write(f"\x1b[H\x1b[2J[drawn {size.columns}x{size.lines}]")
    sys.stdout.flush()
signal.signal(signal.SIGWINCH, draw)
sys.stdout.write("\x1b[?1049h")
draw()
sys.stdin.readline()
sys.stdout.write("\x1b[?1049l")
"""


@dataclass(frozen=True)
class Kind:
    """What serves terminals: the program, and what keeps ttyd's shells."""

    name: str
    program: str
    keeper: str | None
    scrollback: bool


EMBEDDED = Kind("embedded", "oqto-ttyd", None, True)
TMUX = Kind("tmux", "ttyd", "tmux", True)
DTACH = Kind("dtach", "ttyd", "dtach", False)
PLAIN = Kind("plain", "ttyd", None, False)


@pytest.fixture(scope="module")
def kind_host(installed_host: Host) -> Iterator[Callable[[Kind], Host]]:
    """The host, set to serve terminals in one way; as it was when the tests are over."""
    machine = installed_host.machine
    machine.run("apt-get", "install", "--yes", "dtach", timeout=120)
    machine.run("cp", "-a", CONFIG, "/root/config.before")
    now: list[Kind] = []

    def become(kind: Kind) -> Host:
        if now != [kind]:
            for keeper in ("tmux", "dtach"):
                mode = "755" if keeper == kind.keeper else "644"
                machine.run("chmod", mode, f"/usr/bin/{keeper}")
            # Dotted, as the section stands in the file already.
            machine.sh(
                f"sed 's/^# ttyd_binary = .*/ttyd_binary = \"{kind.program}\"/' "
                f"/root/config.before >{CONFIG}; grep -q '^ttyd_binary' {CONFIG}"
            )
            restart(machine)
            now[:] = [kind]
        return installed_host

    yield become
    machine.sh(f"cp -a /root/config.before {CONFIG}; chmod 755 /usr/bin/tmux /usr/bin/dtach")
    restart(machine)


def restart(machine: Machine) -> None:
    machine.sh("systemctl reset-failed; systemctl restart oqtod")  # or so many starts are too many
    machine.run("systemctl", "start", "oqtod-gateway")  # it is starting: this waits until it has


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest, kind_host: Callable[[Kind], Host]) -> Kind:
    chosen: Kind = request.param
    kind_host(chosen)
    return chosen


@pytest.fixture
def alice(kind: Kind, host: Host) -> Iterator[Person]:
    person = arrive(host, "alice")
    yield person
    person.http = host.login("alice")
    leave(person)


kept = pytest.mark.parametrize("kind", [EMBEDDED, TMUX, DTACH], ids=lambda kind: kind.name, indirect=True)
embedded_or_tmux = pytest.mark.parametrize(
    "kind", [EMBEDDED, TMUX], ids=lambda kind: kind.name, indirect=True
)


def words(terminal: Terminal, wanted: str) -> str:
    """Read until the words are on the screen; everything without escapes and with single blanks.

    tmux draws what is on the screen, and not what a program wrote: lines are set apart otherwise.
    """
    seen = ""
    deadline = time.monotonic() + 2 * TIMEOUT
    while True:
        plain = re.sub(
            r"\x1b(\[[0-9;?>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[(][0B]|[=>78c])", " ", seen
        )
        plain = " ".join(plain.split())
        if re.search(wanted, plain):
            return plain
        assert time.monotonic() < deadline, (wanted, plain[-1000:])
        piece = terminal.output()
        assert piece is not None, (wanted, plain[-1000:])
        seen += piece.decode(errors="replace")


def ask(terminal: Terminal, expression: str, mark: list[int] = [0]) -> str:  # noqa: B006  a counter
    """What the shell makes of an expression, a single word."""
    mark[0] += 1
    terminal.type(f'echo "a{mark[0]}="{expression}"="z\n')
    found = re.search(rf"a{mark[0]}=(\S+)=z", words(terminal, rf"a{mark[0]}=(?!\")\S+=z"))
    assert found is not None
    return found[1]


def drop(terminal: Terminal) -> None:
    """Lose the connection, without a word."""
    terminal.websocket.sock.close()


def open_terminal(http: Http, session: str) -> Terminal:
    return Terminal(
        http.websocket(f"/api/sessions/{session}/terminal/ws", subprotocols=("tty",)), columns=90, rows=24
    )


@kept
def test_the_shell_is_the_account_in_its_workspace(alice: Person, kind: Kind) -> None:
    with open_terminal(alice.http, alice.id) as terminal:
        assert ask(terminal, "$(id -un)") == alice.account
        assert ask(terminal, "$PWD") == alice.session["workspace_path"]
        assert ask(terminal, "$0") in ("/bin/bash", "-bash", "bash")
        assert ask(terminal, "$(shopt -q login_shell; echo $?)") == "0"
        assert ask(terminal, "${TMUX-none}${TMUX_PANE-none}") == "nonenone"
        assert ask(terminal, "$(tput colors 2>/dev/null || echo 256)") == "256"
        assert ask(terminal, "$(locale charmap)") == "UTF-8"
        assert ask(terminal, "grüße→") == "grüße→"
        assert ask(terminal, "$(stty size | tr ' ' x)") == "24x90"
        terminal.resize(77, 22)
        assert ask(terminal, "$(stty size | tr ' ' x)") == "22x77"


@kept
def test_a_dropped_connection_changes_nothing(alice: Person, kind: Kind) -> None:
    first = open_terminal(alice.http, alice.id)
    shell = ask(first, "$$")
    first.type("echo mar''ked; sleep 1000\n")
    words(first, "marked$|marked ")
    drop(first)
    with open_terminal(alice.http, alice.id) as second:
        if kind.scrollback:
            words(second, "marked")
        else:
            second.output()  # it is connected, so that what is typed goes to the shell
        second.type("\x03")
        assert ask(second, "$$") == shell
        second.type("seq -f 'line%g' 200\n")
        words(second, "line200")
    if kind.scrollback:
        with open_terminal(alice.http, alice.id) as third:
            shown = words(third, "line200")
            assert "marked" in shown
            assert {f"line{n}" for n in range(1, 201)} <= set(shown.split())


@kept
def test_a_full_screen_program_is_drawn_anew(alice: Person, kind: Kind) -> None:
    alice.http.request("PUT", alice.files("file?path=full.py"), body=FULL_SCREEN.encode())
    first = open_terminal(alice.http, alice.id)
    ask(first, "ready")
    first.type("python3 full.py\n")
    words(first, r"\[drawn 90x24\]")
    drop(first)
    with open_terminal(alice.http, alice.id) as second:
        words(second, r"\[drawn 90x24\]")
        second.type("\n")
        assert ask(second, "left") == "left"


@kept
def test_two_watch_one_shell(alice: Person, kind: Kind) -> None:
    with open_terminal(alice.http, alice.id) as one, open_terminal(alice.http, alice.id) as two:
        shell = ask(one, "$$")
        assert ask(two, "$$") == shell
        one.type("echo fr''om_one\n")
        words(two, "from_one")
        two.type("echo fr''om_two\n")
        words(one, "from_two")


@kept
def test_a_shell_that_ends_closes_its_viewers_and_the_next_is_new(alice: Person, kind: Kind) -> None:
    one, two = open_terminal(alice.http, alice.id), open_terminal(alice.http, alice.id)
    shell = ask(one, "$$")
    ask(two, "here")
    one.type("exit\n")
    for terminal in (one, two):
        while terminal.output() is not None:
            pass
        terminal.close()
    with open_terminal(alice.http, alice.id) as again:
        assert ask(again, "$$") != shell


@pytest.mark.parametrize("kind", [PLAIN], ids=["plain"], indirect=True)
def test_without_a_keeper_the_shell_ends_with_the_connection(alice: Person, kind: Kind) -> None:
    first = open_terminal(alice.http, alice.id)
    shell = ask(first, "$$")
    drop(first)
    with open_terminal(alice.http, alice.id) as second:
        assert ask(second, "$$") != shell


# Kills a unit's main process, and waits until systemd knows.
KILL = """
old=$(systemctl show -P MainPID {unit})
kill -9 $old
timeout 10 sh -c "while [ \\$(systemctl show -P MainPID {unit}) = $old ]; do :; done"
"""
FAULTS = {
    "restart": "systemctl restart oqtod",
    "gateway": KILL.format(unit="oqtod-gateway"),
    "supervisor": KILL.format(unit="oqtod"),
    "runner": KILL.format(unit="oqto-runner@oqto_alice"),
    "upgrade": "apt-get install --yes --reinstall /mnt/oqtod_*.deb",
}


@embedded_or_tmux
@pytest.mark.parametrize("fault", FAULTS)
def test_a_running_program_is_still_there_after(alice: Person, host: Host, kind: Kind, fault: str) -> None:
    host.machine.expect_in_journal("oqto")
    first = open_terminal(alice.http, alice.id)
    shell = ask(first, "$$")
    first.type("echo mar''ked; echo $$ >shell; sleep 1000\n")
    words(first, "marked$|marked ")
    machine = host.machine
    sleeping = machine.sh("timeout 10 sh -c 'until pgrep -x sleep; do :; done'").split()
    machine.sh("systemctl reset-failed; " + FAULTS[fault], timeout=180)
    machine.run("systemctl", "start", "oqtod", "oqtod-gateway")
    restarted = host.login("alice")
    drop(first)
    assert machine.sh("pgrep -x sleep").split() == sleeping
    assert restarted.get(f"/api/sessions/{alice.id}").json()["status"] == "running"
    with open_terminal(restarted, alice.id) as second:
        words(second, "marked")
        second.type("\x03")
        assert ask(second, "$$") == shell


@embedded_or_tmux
def test_nothing_is_left_when_the_session_stops(host: Host, kind: Kind) -> None:
    def processes() -> set[str]:
        pattern = "tmux|bash|sleep|ttyd"
        return set(
            host.machine.run("pgrep", "-af", "-u", "oqto_bob", pattern, check=False).stdout.splitlines()
        )

    others = processes()
    person = arrive(host, "bob")
    terminal = open_terminal(person.http, person.id)
    ask(terminal, "here")
    terminal.type("sleep 31338\n")
    drop(terminal)
    leave(person)
    assert processes() <= others
    assert not Path(f"/run/oqto/runners/{person.account}/s/{person.id}").exists()
