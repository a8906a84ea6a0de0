"""oqtoctl on an installed host: who may use it, real accounts and runners, and what the package brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.system.conftest import Host

MANY = [f"m{number:02}" for number in range(20)]


def oqtoctl(host: Host, *arguments: str, user: str = "root", stdin: str = "") -> CompletedProcess[str]:
    return host.machine.run("oqtoctl", *arguments, user=user, stdin=stdin, check=False, timeout=120)


def done(host: Host, *arguments: str, user: str = "root", stdin: str = "") -> str:
    """What a command prints that must work."""
    ran = oqtoctl(host, *arguments, user=user, stdin=stdin)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def told(host: Host, *arguments: str) -> Any:
    return json.loads(done(host, *arguments, "--json"))


@pytest.fixture
def clerk(host: Host) -> Iterator[str]:
    """An ordinary account of the host, nobody's at oqtod."""
    host.machine.run("useradd", "--create-home", "clerk")
    yield "clerk"
    host.machine.run("userdel", "--remove", "clerk")


def test_who_may_administrate(host: Host, clerk: str) -> None:
    machine = host.machine
    assert "status" in done(host, "status")

    machine.expect_in_journal(r"refused uid \d+ at the admin socket")
    refused = oqtoctl(host, "status", user=clerk)
    assert refused.returncode == 5
    assert "adduser NAME oqto-admin" in refused.stderr

    machine.run("gpasswd", "--add", clerk, "oqto-admin")
    assert "status" in done(host, "status", user=clerk)

    # A login from before still has the group, so the file's mode lets it through: the gateway asks again.
    uid, group = machine.sh("id -u clerk; getent group oqto-admin | cut -d: -f3").split()
    machine.run("gpasswd", "--delete", clerk, "oqto-admin")
    old_login = ("setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={group}", "--", "oqtoctl")
    ran = machine.run(*old_login, "status", "--json", check=False)
    assert ran.returncode == 5
    assert json.loads(ran.stderr)["error_code"] == "forbidden"
    # And the audit log knows root from others.
    lines = [json.loads(line) for line in machine.sh("cat /var/lib/oqtod/audit.log.jsonl").splitlines()]
    assert {"kind": "socket", "uid": 0} in [line["actor"] for line in lines]


def test_it_answers_as_soon_as_systemd_says_that_it_runs(host: Host) -> None:
    host.machine.run("systemctl", "restart", "oqtod")
    host.machine.run("systemctl", "start", "oqtod-gateway")
    assert told(host, "status")["health"]["status"] == "ok"
    assert told(host, "status")["health"]["checks"]["supervisor"]["status"] == "ok"


def test_many_people_at_once(host: Host) -> None:
    file = "username,email\n" + "".join(f"{name},{name}@example.org\n" for name in MANY)
    try:
        words = ("user", "create", "--from", "-", "--provision", "--skip-existing")
        lines = done(host, *words, stdin=file).splitlines()
        assert lines[0].startswith("line 2: m00: made, account oqto_m00")
        assert lines[-1] == "20 made"
        accounts = host.machine.sh("getent passwd | cut -d: -f1").split()
        assert {f"oqto_{name}" for name in MANY} <= set(accounts)
        assert done(host, *words, stdin=file).splitlines()[-1] == "0 made, 20 there already"
        runners = {runner["username"]: runner for runner in told(host, "runner", "list")}
        assert {runners[name]["socket"] for name in MANY} == {"active"}
        assert {runners[name]["service"] for name in MANY} == {"inactive"}
    finally:
        names = " ".join(MANY)
        host.machine.sh(
            f"printf '%s\\n' {names} | xargs -P 4 -I N oqtoctl user delete N --yes --remove-home", timeout=120
        )
    left = host.machine.sh("getent passwd | cut -d: -f1").split()
    assert not {f"oqto_{name}" for name in MANY} & set(left)


def test_sessions_and_their_runner(host: Host) -> None:
    alice = host.login("alice")
    session = alice.post("/api/sessions").json()
    name = session["readable_id"]
    try:
        with alice.terminal(session["id"]) as terminal:
            shell = terminal.run("echo $$")
            assert name in done(host, "session", "list", "--user", "alice", "--status", "running")
            assert "terminal" in told(host, "session", "logs", name)["services"]
            (row,) = [x for x in told(host, "session", "top") if x["readable_id"] == name]
            assert row["tasks"] > 0
            assert row["linux_user"] == "oqto_alice"
        (port, *_) = [x for x in told(host, "port", "list") if x["readable_id"] == name]
        assert port["linux_user"] == "oqto_alice"

        # systemd's warning that the session outlives its runner, which is meant.
        host.machine.expect_in_journal("Found left-over process|unclean termination of a previous run")
        before = told(host, "runner", "status", "alice")
        assert (before["account"], before["service"]) == ("oqto_alice", "active")
        after = told(host, "runner", "restart", "alice")
        assert after["service"] == "active"
        assert after["pid"] != before["pid"]
        assert told(host, "session", "show", name)["status"] == "running"
        with alice.terminal(session["id"]) as terminal:
            assert terminal.run("echo $$") == shell  # it outlived its runner

        rules = done(host, "sandbox", "explain", "--user", "alice", "/home/oqto_alice/.ssh", "/etc/passwd")
        assert "/home/oqto_alice/.ssh\n  read   no" in rules
    finally:
        done(host, "session", "delete", name, "--yes")
    assert oqtoctl(host, "session", "show", name).returncode == 1


def test_what_the_package_brings(host: Host) -> None:
    pages = host.machine.sh("cd /usr/share/man; ls man1/oqto* man5/oqto* man8/oqto*").split()
    assert {"man8/oqtod.8.gz", "man8/oqtoctl.8.gz", "man5/oqto-config.toml.5.gz"} <= set(pages)
    suggested = host.machine.run(
        "bash",
        "--norc",
        "-euc",
        "source /usr/share/bash-completion/completions/oqtoctl;"
        "COMP_WORDS=(oqtoctl user show al); COMP_CWORD=3; _oqtoctl_completion oqtoctl; echo ${COMPREPLY[@]}",
    ).stdout
    assert suggested.split() == ["alice"]
