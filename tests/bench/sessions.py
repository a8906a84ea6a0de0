"""How long a person waits for a terminal, and what it costs: python -m tests.bench.sessions (as root).

On a booted Debian 13 with the package installed. A terminal is usable when the shell has answered over the
WebSocket; the clock starts with the call that creates the session.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import bcrypt

from tests.clients import Http
from tests.system.machine import Machine
from tests.system.pristine import pristine_root

CHECKOUT = Path(__file__).parents[2]
TARGETS = {"warm runner": 40, "cold runner": 250, "new account": 400, "20 at once": 1000}
"""Milliseconds, on an idle machine with two cores."""

_PASSWORD = "correct horse"


def main() -> None:
    """Measure, and print a table; with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each kind (default: 15)")
    options = parser.parse_args()
    subprocess.run([CHECKOUT / "packaging/build-deb"], check=True, stdout=subprocess.DEVNULL)
    (deb,) = (CHECKOUT / "dist").glob("oqtod_*_all.deb")
    machine = Machine(pristine_root(), "oqtod-bench", shown=[deb])
    try:
        results = measure(machine, deb.name, options.rounds)
    finally:
        machine.power_off()
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'from the call to a usable terminal':36} {'p50':>9} {'p99':>9}  target")
    for name, target in TARGETS.items():
        shown = results["milliseconds"][name]
        print(f"{name:36} {shown['p50']:6.0f} ms {shown['p99']:6.0f} ms  {target} ms")
    for name, kilobytes in results["kilobytes"].items():
        print(f"{name:36} {kilobytes / 1024:6.1f} MB")


def measure(machine: Machine, deb: str, rounds: int) -> dict[str, dict[str, object]]:
    """Install the package in a booted machine, and measure there."""
    machine.run("apt-get", "install", "--yes", f"/mnt/{deb}", timeout=180)
    people = [f"user{number}" for number in range(rounds)]
    digest = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    users = "".join(
        f'\n[[auth.dev_users]]\nid = "{name}"\nname = "{name}"\nemail = "{name}@example.com"\n'
        f'password_hash = "{digest}"\nrole = "user"\n'
        for name in people
    )
    machine.run("tee", "-a", "/etc/oqto/config.toml", stdin=users)
    machine.run("mkdir", "-p", "/run/systemd/system/oqtod-gateway.service.d")
    more = "[Service]\nEnvironment=OQTO__SESSIONS__MAX_CONCURRENT_SESSIONS=40\n"
    machine.run("tee", "/run/systemd/system/oqtod-gateway.service.d/bench.conf", stdin=more)
    machine.sh("systemctl daemon-reload; systemctl restart oqtod; systemctl start oqtod-gateway")
    clients = [_login(machine, name) for name in people]
    times = {"new account": [_usable(client) for client in clients]}
    for client in clients:
        _clear(client)
    cold = []
    for name, client in zip(people, clients, strict=True):
        machine.run("systemctl", "stop", f"oqto-runner@oqto_{name}.service")
        cold.append(_usable(client))
    times["cold runner"] = cold
    first = clients[0]
    _clear(first)
    times["warm runner"] = [_usable(first) for _ in range(rounds)]
    _clear(first)
    times["20 at once"] = [_together(first, 20) for _ in range(3)]
    _clear(first)
    return {
        "milliseconds": {name: _percentiles(found) for name, found in times.items()},
        "kilobytes": dict(_memory(machine, people[0], first)),
    }


def _login(machine: Machine, name: str) -> Http:
    client = Http(machine.connect)
    assert client.login(name, _PASSWORD).status == 200
    return client


def _usable(client: Http) -> float:
    """Return the milliseconds from the call to the shell's first answer."""
    started = time.perf_counter()
    session = client.post("/api/sessions")
    assert session.status == 201, session
    terminal = client.terminal(session.json()["id"])
    terminal.type("echo $((6*7))\n")
    seen = b""
    while not re.search(rb"(?<!\d)42", seen):
        piece = terminal.output()
        assert piece is not None, seen
        seen += piece
    passed = time.perf_counter() - started
    terminal.websocket.sock.close()
    return passed * 1000


def _together(client: Http, count: int) -> float:
    """Return the milliseconds until so many, asked for at once, are all usable."""
    started = time.perf_counter()
    threads = [threading.Thread(target=_usable, args=(client,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    _clear(client)
    return passed * 1000


def _clear(client: Http) -> None:
    for session in client.get("/api/sessions").json():
        client.post(f"/api/sessions/{session['id']}/stop")
        client.request("DELETE", f"/api/sessions/{session['id']}")


def _memory(machine: Machine, name: str, client: Http) -> Sequence[tuple[str, int]]:
    session = client.post("/api/sessions").json()
    with client.terminal(session["id"]) as terminal:
        terminal.run("true")
        client.get(f"/api/sessions/{session['id']}/files/tree?path=.")
        together = _pss(machine, f"pgrep -u oqto_{name}")
        runner = _pss(machine, f"pgrep -u oqto_{name} -f oqto-runner")
        files = _pss(machine, f"pgrep -u oqto_{name} -f 'oqto-files|fileserver'")
    return [
        ("session with terminal and files", together),
        ("  its runner", runner),
        ("  its file server, with bwrap", files),
        ("gateway", _pss(machine, "pgrep -f 'oqtod serve'")),
        ("supervisor", _pss(machine, "pgrep -f 'oqtod supervise'")),
    ]


def _pss(machine: Machine, pids: str) -> int:
    """Return the proportional share of memory of processes in kB, proc_pid_smaps_rollup(5)."""
    script = f'for pid in $({pids}); do grep -s "^Pss:" /proc/$pid/smaps_rollup || :; done'
    return sum(int(line.split()[1]) for line in machine.sh(script).splitlines())


def _percentiles(found: list[float]) -> dict[str, float]:
    p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
    return {"p50": statistics.median(found), "p99": p99, "n": len(found)}


if __name__ == "__main__":
    main()
