"""What the kernel's files say: limits, control groups, memory, reserved ports, listeners."""

from __future__ import annotations

import json

import pytest

from oqtod.admin.doctor import kernel, ports
from oqtod.admin.doctor.host import Answer
from tests.unit.doctor.conftest import Fake, bad, only

TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def listening(port: int, uid: int, state: str = "0A") -> str:
    return (
        f" 0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 42\n"
    )


@pytest.fixture
def running(fake: Fake) -> Fake:
    active = "Id=oqtod-gateway.service\nActiveState=active\nMainPID=77\nLimitNOFILE=65536\n"
    fake.answers[("systemctl", "show")] = Answer(0, active)
    return fake


def heard(fake: Fake, *lines: str) -> list[str]:
    fake.write("/proc/net/tcp", TCP + "".join(lines))
    return [f"{one.subject}: {one.found}" for one in ports.ours(fake.host())]


def test_the_gateway_alone_at_its_port_is_well(running: Fake) -> None:
    running.write("/etc/passwd", "oqtod:x:900:900::/:/bin/sh\n")
    assert heard(running, listening(8080, 900), listening(41825, 5, state="01")) == []


def test_a_foreign_listener_is_named(running: Fake) -> None:
    running.write("/etc/passwd", "oqtod:x:900:900::/:/bin/sh\ngames:x:5:60::/:/bin/sh\n")
    said = heard(running, listening(8080, 5), listening(41825, 5), listening(22, 0))
    assert any(x.startswith("port 8080:") and "listens there too" in x for x in said)
    assert any(x.startswith("port 41825: taken by a program of games") for x in said) or any(
        x.startswith("port 41825: taken by process") for x in said
    )
    assert not any("port 22" in x for x in said)


def test_an_accounts_own_program_in_the_range_is_fine(running: Fake) -> None:
    running.write("/etc/passwd", "oqtod:x:900:900::/:/bin/sh\noqto_alice:x:2000:2000::/:/bin/sh\n")
    assert heard(running, listening(8080, 900), listening(41825, 2000)) == []


def test_a_gateway_that_runs_and_does_not_listen(running: Fake) -> None:
    assert any("nobody listens there" in line for line in heard(running))


def test_loopback_that_is_down(running: Fake) -> None:
    running.write("/sys/class/net/lo/flags", "0x8\n")
    assert "lo: the loopback interface is down" in heard(running)


@pytest.mark.parametrize(
    ("path", "value", "severity"),
    [
        ("/proc/sys/user/max_user_namespaces", "0", "problem"),
        ("/proc/sys/fs/inotify/max_user_watches", "100", "warning"),
        ("/proc/sys/kernel/pid_max", "1000", "warning"),
    ],
)
def test_limits_that_are_too_low(running: Fake, path: str, value: str, severity: str) -> None:
    running.write("/proc/sys/fs/file-nr", "100\t0\t1000000\n")
    assert list(kernel.limits(running.host())) == []
    running.write(path, value)
    assert only(kernel.limits(running.host())).severity == severity


def test_open_files_that_are_nearly_used_up(running: Fake) -> None:
    running.write("/proc/sys/fs/file-nr", "950\t0\t1000\n")
    assert "950 of 1000" in only(kernel.limits(running.host())).found


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("cgroup.controllers", "cpu memory pids io\n", None),
        ("cgroup.controllers", "cpu io\n", "no controller memory, pids"),
        ("unified/cgroup.procs", "", "hybrid"),
        ("memory/tasks", "", "no version 2"),
    ],
)
def test_control_groups(fake: Fake, file: str, text: str, said: str | None) -> None:
    fake.write(f"/sys/fs/cgroup/{file}", text)
    found = list(kernel.control_groups(fake.host()))
    assert not found if said is None else said in only(found).found


def memory(total: int, available: int, killed: int = 0) -> tuple[str, str]:
    return f"MemTotal: {total} kB\nMemAvailable: {available} kB\nSwapTotal: 9 kB\n", f"oom_kill {killed}\n"


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (memory(1000, 500), []),
        (memory(102400, 1024), ["1 of 100 MB are left"]),
        (memory(1000, 500, killed=3), ["the kernel has killed 3 processes since the boot"]),
    ],
)
def test_memory(fake: Fake, figures: tuple[str, str], said: list[str]) -> None:
    fake.write("/proc/meminfo", figures[0])
    fake.write("/proc/vmstat", f"pgfault 3\n{figures[1]}")
    assert [one.found for one in kernel.memory(fake.host())] == said


@pytest.mark.parametrize(
    ("reserved", "is_lacking"), [("", True), ("41820-42859\n", False), ("80,41820\n", True)]
)
def test_reserved_ports(fake: Fake, reserved: str, is_lacking: bool) -> None:
    fake.write("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
    fake.write("/proc/sys/net/ipv4/ip_local_reserved_ports", reserved)
    assert bool(list(kernel.reserved_ports(fake.host()))) == is_lacking


def part(name: str, *, works: bool, needed: bool) -> dict[str, object]:
    return {"part": name, "works": works, "needed": needed, "detail": "try: sysctl"}


def test_what_the_sandbox_check_says_is_passed_on(fake: Fake) -> None:
    fake.write("/usr/bin/oqto-sandbox", "#!", 0o755)
    host = [part("namespaces", works=False, needed=True), part("Landlock", works=False, needed=False)]
    program = ("/usr/bin/oqto-sandbox",)
    fake.answers[program] = Answer(1, json.dumps({"enabled": True, "host": host}))
    found = list(kernel.sandbox(fake.host()))
    assert [(one.subject, one.severity) for one in found] == [
        ("sandbox: namespaces", "problem"),
        ("sandbox: Landlock", "note"),
    ]
    fake.answers[program] = Answer(3, "", "the sandbox is refused")
    assert "the sandbox is refused" in only(bad(kernel.sandbox(fake.host()))).found
