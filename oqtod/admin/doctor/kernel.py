"""The kernel: what the sandbox, the control groups and the sessions need of it, and the limits it sets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from oqtod.admin.doctor import units
from oqtod.admin.doctor.finding import Finding, Run, each, note, problem, warning
from oqtod.admin.doctor.host import Host, Ids
from oqtod.sessions.ports import BLOCK

_NOBODY: Ids = (65534, 65534)
_CONTROLLERS = ("memory", "pids", "cpu")
_SYSCTL_FILE = "/usr/lib/sysctl.d/50-oqtod.conf"
_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_LEAST = {
    "/proc/sys/fs/inotify/max_user_watches": (
        8192,
        524288,
        "changes of files are not seen in big workspaces",
    ),
    "/proc/sys/fs/inotify/max_user_instances": (64, 512, "changes of files are not seen in some sessions"),
    "/proc/sys/kernel/pid_max": (32768, 4194304, "no process can be started once so many run"),
    "/proc/sys/fs/file-max": (65536, 9223372036854775807, "the host runs out of open files"),
    "/proc/sys/user/max_user_namespaces": (64, 15000, "no further sandbox can be made"),
    "/proc/sys/user/max_net_namespaces": (16, 15000, "no sandbox without network can be made"),
    "/proc/sys/net/core/somaxconn": (128, 4096, "connections are refused when many come at once"),
}
"""File of a setting: the least that will do, what to set, and why."""

_NOFILE = 65536
_LITTLE_MEMORY = 0.05


class _Checked(msgspec.Struct):
    enabled: bool
    host: list[_Part]


class _Part(msgspec.Struct):
    part: str
    works: bool
    needed: bool
    detail: str


def sandbox(host: Host) -> Iterator[Finding]:
    """Make a sandbox as somebody without rights, with oqto-sandbox check: the real thing, not its traces."""
    program = host.which("oqto-sandbox")
    if program is None:
        return  # told by the check of programs
    ids = _NOBODY if host.uid == 0 else None
    answer = host.run(
        *(program.path, "check", "--json", "--workspace", "/usr"),
        *(["--personal"] if host.personal else []),
        timeout=25.0,
        ids=ids,
    )
    try:
        checked = msgspec.json.decode(answer.out, type=_Checked)
    except msgspec.DecodeError:
        said = (answer.error or answer.out).strip().splitlines()[-1:] or ["no answer"]
        yield problem(
            "sandbox",
            f"oqto-sandbox check ended with {answer.code}: {said[0]}",
            "no session starts",
            "as an account: oqto-sandbox check",
        )
        return
    for part in checked.host:
        if not part.works:
            yield (problem if part.needed else note)(
                f"sandbox: {part.part}",
                part.detail,
                "no session starts" if part.needed else "one wall less around what runs in a session",
                "see the message; afterwards, as an account: oqto-sandbox check",
            )


def control_groups(host: Host) -> Iterator[Finding]:
    """Look for the unified hierarchy and the controllers that limits and clean ends rest on."""
    unified = "/sys/fs/cgroup"
    if not host.exists(f"{unified}/cgroup.controllers"):
        hybrid = host.exists(f"{unified}/unified/cgroup.procs") or host.exists(f"{unified}/unified")
        yield (warning if hybrid or host.personal else problem)(
            "control groups",
            "hybrid: version 2 is at /sys/fs/cgroup/unified" if hybrid else "no version 2",
            "the limits of memory and processes for each person are not enforced",
            "boot with systemd.unified_cgroup_hierarchy=1 (Debian's default)",
        )
        return
    have = host.read(f"{unified}/cgroup.controllers").split()
    lacking = [name for name in _CONTROLLERS if name not in have]
    if lacking:
        yield warning(
            "control groups",
            f"no controller {', '.join(lacking)}",
            "[limits] can't be enforced: one person can take all of the host",
            "take cgroup_disable= out of the kernel's command line, and restart the host",
        )
    if not host.personal:
        slices = "/sys/fs/cgroup/system.slice"
        if host.exists(slices) and not host.exists(f"{slices}/cgroup.kill"):
            yield problem(
                "control groups", "no cgroup.kill", "sessions don't end whole", "use Linux 5.14 or newer"
            )


def features(host: Host) -> Iterator[Finding]:
    """Try system calls that programs of ours make."""
    if not host.is_real:
        return
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        found = f"doesn't work: {error.strerror}"
        yield problem("pidfd_open(2)", found, "processes can't be watched", "use Linux 5.10 or newer")
    for path in ("/proc/self/status", "/sys/kernel", "/dev/pts"):
        if not host.exists(path):
            yield problem(path, "not there", "terminals or services don't start", f"findmnt {path}; mount -a")


def limits(host: Host) -> Iterator[Finding]:
    """Compare the kernel's limits with what many sessions take."""
    yield from each(_LEAST, lambda path: _limit(host, path))
    opened, _, most = (int(word) for word in host.read("/proc/sys/fs/file-nr").split())
    if opened > 0.9 * most:
        found = f"{opened} of {most} are open"
        yield problem(
            "open files", found, "nothing can be opened soon", "lsof | awk '{print $1}' | sort | uniq -c"
        )
    if host.personal:
        return
    for unit in units.show(host, [units.GATEWAY]):
        most_files = unit["LimitNOFILE"]
        if most_files.isdecimal() and int(most_files) < _NOFILE:
            yield warning(
                unit.name,
                f"LimitNOFILE={most_files}, and the package has {_NOFILE}",
                "each connection takes two to four: the gateway refuses people when it has none left",
                f"systemctl edit {unit.name}: take LimitNOFILE= out; systemctl restart oqtod",
            )


def _limit(host: Host, path: str) -> Iterator[Finding]:
    least, better, matters = _LEAST[path]
    if not host.exists(path):
        return
    value = int(host.read(path))
    name = path.removeprefix("/proc/sys/").replace("/", ".")
    if value < least:
        yield (problem if value == 0 else warning)(
            name,
            f"{value}, and {least} is the least that will do",
            matters,
            f"echo '{name} = {better}' >/etc/sysctl.d/60-local.conf; sysctl --system",
        )


def memory(host: Host) -> Iterator[Finding]:
    """Look for memory that is short, or was."""
    lines = (line.partition(":") for line in host.read("/proc/meminfo").splitlines())
    figures = {key: int(value.split()[0]) for key, _, value in lines if value.split()}
    total, free = figures["MemTotal"], figures["MemAvailable"]
    if free < total * _LITTLE_MEMORY:
        found = f"{free // 1024} of {total // 1024} MB are left"
        yield warning(
            "memory", found, "the kernel soon kills processes", "oqtoctl session top; set [limits] memory_max"
        )
    if figures.get("SwapTotal", 0) == 0 and host.config.limits.memory_max is None and not host.personal:
        yield note(
            "memory",
            "no swap, and no limits.memory_max",
            "one person's build can bring the host to a stop",
            'set limits.memory_max = "25%" or the like in the configuration',
        )
    counted = dict(
        line.split() for line in host.read("/proc/vmstat").splitlines() if line.startswith("oom_kill")
    )
    if int(counted.get("oom_kill", "0")) > 0:
        found = f"the kernel has killed {counted['oom_kill']} processes since the boot"
        yield note(
            "memory",
            found,
            "something of a session or of oqtod may be among them",
            "journalctl -k -g 'Killed process'",
        )
    if (
        host.exists("/proc/sys/vm/overcommit_memory")
        and host.read("/proc/sys/vm/overcommit_memory").strip() == "2"
    ):
        found = "vm.overcommit_memory = 2"
        yield note(
            "memory", found, "browsers and runtimes reserve much and fail", "sysctl -w vm.overcommit_memory=0"
        )


def reserved_ports(host: Host) -> Iterator[Finding]:
    """Look whether the sessions' ports are kept from outgoing connections."""
    if host.personal or not host.exists(_RESERVED):
        return
    low, high = (int(word) for word in host.read(_EPHEMERAL).split())
    base = host.config.container.base_port
    wanted = {port for port in range(base, min(base + BLOCK * 10, 65536)) if low <= port <= high}
    lacking = wanted - set(ports_in(host.read(_RESERVED)))
    if not lacking:
        return
    packaged = host.exists(_SYSCTL_FILE) and "reserved_ports" in host.read(_SYSCTL_FILE)
    applies = packaged and base == 41820 and os.access(_RESERVED, os.W_OK)
    yield note(
        "net.ipv4.ip_local_reserved_ports",
        f"lacks {min(lacking)} to {max(lacking)}, the ports of the first sessions",
        "an outgoing connection may take a port that a session's program means to listen at",
        f"/usr/lib/systemd/systemd-sysctl {_SYSCTL_FILE}"
        if applies
        else "set it in /etc/sysctl.d, and: sysctl --system",
        Run(("/usr/lib/systemd/systemd-sysctl", _SYSCTL_FILE)) if applies else None,
    )


def ports_in(text: str) -> Iterator[int]:
    """Return the ports of a list like "80,41820-42859"."""
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
