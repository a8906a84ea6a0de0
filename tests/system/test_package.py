"""The package on a bare Debian 13: what it puts there, what runs, and what it leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients import Http
from tests.system.conftest import install
from tests.system.machine import Machine

OURS = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /mnt -o -path /var/cache -o -path /var/log \
    -o -path /tmp \) -prune -o -iname '*oqto*' ! -path '/home/*' -print
"""


@pytest.fixture(scope="module")
def bare(boot: Callable[[str], Machine]) -> Machine:
    return boot("package")


@pytest.fixture(scope="module")
def machine(bare: Machine, deb: Path) -> Machine:
    """The bare machine with our package, as apt leaves it."""
    install(bare, deb)
    return bare


@pytest.fixture(autouse=True)
def quiet_journal(machine: Machine) -> Iterator[None]:
    machine.start_watching_the_journal()
    yield
    unexpected = machine.unexpected_lines()
    assert not unexpected, "\n".join(unexpected)


def test_installing_starts_it(machine: Machine) -> None:
    assert machine.run("systemctl", "is-active", "oqtod", "oqtod-gateway").stdout.split() == ["active"] * 2
    assert machine.run("systemctl", "is-enabled", "oqtod").stdout.strip() == "enabled"
    states = machine.run("systemctl", "list-unit-files", "--no-legend", "oqto*").stdout
    assert {line.split()[0]: line.split()[1] for line in states.splitlines()} == {
        "oqtod.service": "enabled",
        "oqtod-gateway.service": "static",
        "oqto-runner@.service": "static",
        "oqto-runner@.socket": "static",
    }
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_the_gateway_answers_but_lets_nobody_in(machine: Machine) -> None:
    http = Http(machine.connect)
    assert http.get("/api/health").json()["status"] == "ok"
    assert http.login("admin", "admin").status == 401
    listening = machine.sh("ss --listening --tcp --numeric --no-header | awk '{print $4}'").split()
    assert listening == ["127.0.0.1:8080"]


def test_owners_and_modes(machine: Machine) -> None:
    paths = {
        "/etc/oqto/config.toml": "root:oqtod 640",
        "/etc/oqto/sandbox.toml": "root:root 644",
        "/run/oqto": "root:root 755",
        "/run/oqto/supervisor.sock": "root:oqtod 660",
        "/run/oqto/runner-sockets": "root:root 755",
        "/run/oqto/runners": "root:root 755",
        "/var/lib/oqtod": "oqtod:oqtod 700",
        "/var/lib/oqtod-supervisor": "root:root 700",
    }
    shown = machine.run("stat", "--format=%n %U:%G %a", *paths).stdout.splitlines()
    assert dict(line.split(" ", 1) for line in shown) == paths


def test_the_system_user_and_groups(machine: Machine) -> None:
    name, _, uid, _, _, home, shell = machine.run("getent", "passwd", "oqtod").stdout.strip().split(":")
    assert (name, home, shell) == ("oqtod", "/nonexistent", "/usr/sbin/nologin")
    assert int(uid) < 1000
    for group in ("oqtod", "oqto-admin", "oqto"):
        machine.run("getent", "group", group)


def test_the_daemons_have_no_more_rights_than_documented(machine: Machine) -> None:
    def status(unit: str) -> dict[str, str]:
        pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout.strip()
        lines = machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    gateway = status("oqtod-gateway")
    assert gateway["Uid"].split()[0] != "0"
    assert {int(gateway[which], 16) for which in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert gateway["NoNewPrivs"] == "1"
    assert gateway["Seccomp"] == "2"
    supervisor = status("oqtod")
    # chown, dac_override, fowner, fsetid, kill, setgid, setuid, audit_write: see capability.h
    assert int(supervisor["CapBnd"], 16) == sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 29))
    assert supervisor["NoNewPrivs"] == "1"
    assert supervisor["Seccomp"] == "2"


def test_the_commands_run_and_use_nothing_of_the_callers(machine: Machine) -> None:
    for command in ("oqtod", "oqtoctl", "oqto-runner", "oqto-files", "oqto-ttyd", "oqto-sandbox"):
        shown = machine.sh(
            f"mkdir -p /tmp/runner; echo 'raise SystemExit(9)' >/tmp/runner/__init__.py; cd /tmp; "
            f"PYTHONPATH=/tmp {command} --help; rm -r /tmp/runner",
        )
        assert "usage" in shown.lower(), command
    assert machine.run("python3", "-c", "import runner", check=False).returncode != 0
    compiled = machine.sh("find /usr/share/oqtod -name '*.pyc' | wc -l")
    assert int(compiled) > 50


def test_the_shipped_configuration_is_accepted(machine: Machine) -> None:
    machine.run("oqtod", "config", "check", "--config", "/etc/oqto/config.toml")


def test_versions_agree(machine: Machine) -> None:
    package = machine.run("dpkg-query", "-W", "-f", "${Version}", "oqtod").stdout
    assert Http(machine.connect).get("/api/health").json()["version"] == package
    assert re.search(rf"\b{re.escape(package)}\b", machine.run("oqtod", "--version").stdout)


def test_stop_start_and_reload(machine: Machine) -> None:
    machine.run("systemctl", "stop", "oqtod")
    states = machine.run("systemctl", "is-active", "oqtod", "oqtod-gateway", check=False).stdout.split()
    assert states == ["inactive", "inactive"]
    with pytest.raises(ConnectionRefusedError):
        machine.connect()
    machine.run("systemctl", "start", "oqtod")
    assert wait_for_gateway(machine).get("/api/health").status == 200
    before = machine.run("systemctl", "show", "-p", "MainPID", "oqtod", "oqtod-gateway").stdout
    machine.run("systemctl", "reload", "oqtod")
    machine.run("systemctl", "reload", "oqtod-gateway")  # returns after the reload that the first one began
    assert Http(machine.connect).get("/api/health").status == 200
    assert machine.run("systemctl", "show", "-p", "MainPID", "oqtod", "oqtod-gateway").stdout == before


def test_installing_again_leaves_a_stopped_daemon_stopped(machine: Machine, deb: Path) -> None:
    machine.run("systemctl", "stop", "oqtod")
    machine.run("apt-get", "install", "--yes", "--reinstall", f"/mnt/{deb.name}", timeout=180)
    assert machine.run("systemctl", "is-active", "oqtod", check=False).stdout.strip() == "inactive"
    machine.run("systemctl", "start", "oqtod")
    pid = machine.run("systemctl", "show", "-p", "MainPID", "oqtod").stdout
    machine.run("apt-get", "install", "--yes", "--reinstall", f"/mnt/{deb.name}", timeout=180)
    assert machine.run("systemctl", "is-active", "oqtod").stdout.strip() == "active"
    assert machine.run("systemctl", "show", "-p", "MainPID", "oqtod").stdout != pid


def test_a_refused_configuration_is_said_and_not_retried(machine: Machine) -> None:
    machine.expect_in_journal(r"oqtod")
    machine.run("sh", "-c", "cp -a /etc/oqto/config.toml /root/kept; echo nonsense=1 >>/etc/oqto/config.toml")
    failed = machine.run("systemctl", "restart", "oqtod", check=False)
    assert failed.returncode != 0
    state = machine.run("systemctl", "show", "-p", "ExecMainStatus,NRestarts", "oqtod").stdout.split()
    assert sorted(state) == ["ExecMainStatus=3", "NRestarts=0"]
    assert "nonsense" in machine.run("journalctl", "-u", "oqtod", "-n20", "-o", "cat").stdout
    machine.sh("mv /root/kept /etc/oqto/config.toml; systemctl reset-failed; systemctl start oqtod")


def test_remove_and_purge_leave_homes_only_and_say_so(machine: Machine, deb: Path) -> None:
    # Somebody with an account, as the supervisor makes them.
    machine.run("useradd", "--create-home", "--groups", "oqto", "oqto_carol")
    machine.run("touch", "/home/oqto_carol/thesis", user="oqto_carol")
    machine.run("systemctl", "start", "oqto-runner@oqto_carol.socket")

    machine.run("apt-get", "remove", "--yes", "oqtod", timeout=120)
    assert machine.run("pgrep", "-af", "oqto", check=False).stdout == ""
    assert machine.run("systemctl", "list-units", "--no-legend", "oqto*").stdout == ""
    assert machine.run("ls", "/etc/oqto").stdout.split() == ["config.toml", "sandbox.toml"]
    assert machine.run("test", "-e", "/run/oqto", check=False).returncode == 1

    purged = machine.run("apt-get", "purge", "--yes", "oqtod", timeout=120).stdout
    assert "oqto_carol" in purged
    assert "userdel" in purged
    assert machine.run("stat", "--format=%U", "/home/oqto_carol/thesis").stdout.strip() == "oqto_carol"
    assert machine.sh(OURS) == ""
    entries = (("passwd", "oqtod"), ("group", "oqtod"), ("group", "oqto"), ("group", "oqto-admin"))
    for database, name in entries:
        assert machine.run("getent", database, name, check=False).returncode == 2

    install(machine, deb)
    assert wait_for_gateway(machine).get("/api/health").status == 200


def wait_for_gateway(machine: Machine) -> Http:
    """The gateway starts after the supervisor; `start` of its own unit waits until it is ready."""
    machine.run("systemctl", "start", "oqtod-gateway")
    return Http(machine.connect)
