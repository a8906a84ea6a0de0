"""Programs and packages: installed, whole, executable for those who run them, and new enough."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from oqtod import __version__
from oqtod.admin.doctor import passwd
from oqtod.admin.doctor.finding import Finding, SetOwner, each, note, problem, warning
from oqtod.admin.doctor.host import Host
from runner.programs import CHROMIUM

FLOORS = {
    "trio": "0.22",
    "anyio": "3.6",
    "starlette": "0.46",
    "h11": "0.14",
    "msgspec": "0.19",
    "tomli": "2.0",
    "jeepney": "0.9",
    "sdnotify": "0.3",
    "psutil": "5.9",
    "pyjwt": "2.6",
    "cryptography": "38",
    "bcrypt": "4.0",
    "httpx": "0.23",
    "click": "8.1",
    "rich": "13.3",
    "prometheus-client": "0.16",
}
"""The lowest version of each Python part, as the package depends on them."""

_STARTED = (
    *("oqtod.commands.serve", "oqtod.commands.supervise", "oqtod.api.application"),
    *("runner.main", "runner.terminal.main", "runner.files.main", "runner.sandbox.main"),
)
"""Modules that import all of what each program is made of."""

_IMPORT = "import sys, importlib; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2])"
_CODE = Path(__file__).parents[3]
_PYTHON = (3, 11)
_SYSTEMD = 247
_ACCOUNT_PROGRAMS = ("useradd", "userdel", "groupadd", "groupdel")
_BWRAP_OPTIONS = ("--bind-fd", "--disable-userns", "--args")
_LIST = "/var/lib/dpkg/info/oqtod.list"


def needed(host: Host) -> Iterator[Finding]:
    """Look for each program that a daemon, a runner or a session starts."""
    local = host.config.local
    yield from _program(host, "bwrap", "no session starts: the sandbox is made by it", "bubblewrap")
    if not host.personal:
        for name in _ACCOUNT_PROGRAMS:
            yield from _program(host, name, "no account can be made or removed", "passwd")
        for name in ("oqtod", "oqto-runner", "oqto-ttyd", "oqto-files", "oqto-sandbox"):
            yield from _program(host, name, "a part of oqtod itself can't be started", "oqtod")
        yield from _program(host, local.linux_users.shell, "terminals end as soon as they start", "bash")
        yield from _program(host, "/bin/kill", "accounts can't be removed while they run anything", "procps")
    if host.which(local.ttyd_binary) is None and local.ttyd_binary != "ttyd":
        yield _missing(local.ttyd_binary, "no terminal opens", "install it, or take out local.ttyd_binary")
    if host.which(local.fileserver_binary) is None and local.fileserver_binary != "fileserver":
        advice = "install it, or take out local.fileserver_binary"
        yield _missing(local.fileserver_binary, "no file can be seen", advice)
    if host.which("tmux") is None and host.which("ttyd") is not None:
        matters = "with ttyd, shells end when the browser's connection does"
        yield note("tmux", "not installed", matters, "apt install tmux")
    if host.config.agent_browser.enabled:
        yield from _browser(host)
    if not local.enabled:
        container = host.config.container
        matters = "the sessions that are configured can't start"
        yield from _one_of(host, container.binary or container.runtime, ("docker", "podman"), matters)


def _program(host: Host, name: str, matters: str, package: str) -> Iterator[Finding]:
    found = host.which(name)
    install = f"apt-get install --reinstall {package}"
    if found is None:
        # In a checkout, our own commands lie beside this one.
        if not (host.personal and name.startswith("oqto")):
            yield _missing(name, matters, install)
        return
    if not found.mode & 0o001 and found.uid != host.uid:
        yield problem(
            found.path,
            f"others may not run it (mode {found.mode:04o})",
            matters,
            f"chmod 0755 {found.path}",
        )
    if found.mode & 0o022 or (found.uid != 0 and host.is_real and not host.personal):
        yield problem(
            found.path,
            f"belongs to {passwd.user_name(host, found.uid)}, mode {found.mode:04o}",
            "who can change it can do what root and every person can",
            f"{install}; then look at what changed it",
        )
    if not found.size:
        yield problem(found.path, "an empty file", matters, install)


def _missing(name: str, matters: str, advice: str) -> Finding:
    return problem(name, "not found on the path of services", matters, advice)


def _browser(host: Host) -> Iterator[Finding]:
    """What `oqtod.placements.browser` hands to runners: here as the host's files have it."""
    browser, matters = host.config.agent_browser, "no session's browser starts"
    if Path(browser.binary).name != "oqto-browserd":
        if host.which(browser.binary) is None:
            yield _missing(browser.binary, matters, "install it, or take out agent_browser.binary")
    else:
        if not host.personal:
            yield from _program(host, browser.binary, matters, "oqtod")
        yield from _one_of(host, browser.executable_path, CHROMIUM, matters)
    for folder in browser.extensions:
        if not host.exists(f"{folder}/manifest.json"):
            advice = "unpack it there, or take it out of agent_browser.extensions"
            yield problem(folder, "holds no unpacked extension", matters, advice)


def _one_of(host: Host, named: str | None, usual: tuple[str, ...], matters: str) -> Iterator[Finding]:
    names = (named,) if named else usual
    if not any(host.which(name) for name in names):
        what = " or ".join(names)
        yield _missing(what, matters, f"apt install {usual[0]}")


def versions(host: Host) -> Iterator[Finding]:
    """Compare versions with the lowest ones that oqtod works with."""
    if sys.version_info < _PYTHON:
        yield problem("python3", sys.version.split()[0], "oqtod needs 3.11", "upgrade the host to Debian 13")
    for name, floor in FLOORS.items():
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield problem(name, "not installed", "the daemons don't start", f"apt install python3-{name}")
            continue
        if _numbers(there) < _numbers(floor):
            yield problem(name, f"version {there}", f"oqtod needs {floor} or newer", "apt full-upgrade")
    yield from each(["bwrap", "systemd"], lambda name: _VERSIONS[name](host))


def imports(host: Host) -> Iterator[Finding]:
    """Import what the programs import, as the gateway's user: a part that is missing or broken shows."""
    if host.is_real:
        yield from each(_STARTED, lambda module: _imports(host, module))


def _imports(host: Host, module: str) -> Iterator[Finding]:
    gateway = passwd.user(host, "oqtod") if host.uid == 0 and not host.personal else None
    ids = (gateway.uid, gateway.gid) if gateway is not None else None
    answer = host.run(sys.executable, "-I", "-c", _IMPORT, str(_CODE), module, timeout=20.0, ids=ids)
    if answer.code == 0:
        return
    said = answer.error.strip().splitlines()[-1:] or [f"it ended with {answer.code}"]
    part = re.search(r"No module named '(\w+)", said[0])
    package = f"python3-{part[1]}" if part and part[1] not in ("oqtod", "runner") else "oqtod"
    yield problem(
        module,
        f"can't be imported: {said[0]}",
        "the program that is made of it doesn't start",
        f"apt-get install --reinstall {package}",
    )


def _bwrap(host: Host) -> Iterator[Finding]:
    if host.which("bwrap") is None:
        return
    shown = host.run("bwrap", "--help")
    lacking = [option for option in _BWRAP_OPTIONS if option not in shown.out + shown.error]
    if lacking:
        yield problem(
            "bwrap",
            f"knows no {', '.join(lacking)}",
            "no session starts",
            "apt install bubblewrap of Debian 13 or newer; remove another one from /usr/local/bin",
        )


def _systemd(host: Host) -> Iterator[Finding]:
    if host.personal:
        return
    found = re.match(r"systemd (\d+)", host.run("systemctl", "--version").out)
    if found and int(found[1]) < _SYSTEMD:
        yield problem("systemd", f"version {found[1]}", f"oqtod needs {_SYSTEMD}", "upgrade to Debian 13")


_VERSIONS = {"bwrap": _bwrap, "systemd": _systemd}


def package(host: Host) -> Iterator[Finding]:
    """Compare the installed files with the package's own list and checksums."""
    if host.personal or not host.exists(_LIST):
        return
    yield from each(["files"], lambda _: _modes(host), lambda _: "oqtod's files")
    state = host.run(
        "dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Version}", "oqtod"
    ).out.split()
    if state and state[0] not in ("ii", "hi"):
        yield problem(
            "oqtod",
            f"the package is in the state {state[0]}",
            "an installation or upgrade did not end",
            "dpkg --configure -a; apt-get -f install",
        )
    if state and state[-1] != __version__ and state[0] in ("ii", "hi"):
        yield warning(
            "oqtod",
            f"the package is {state[-1]}, and the code that runs this command is {__version__}",
            "another copy of oqtod is in the way",
            "type -a oqtoctl shows which ones there are",
        )
    for line in host.run("dpkg", "--verify", "oqtod", timeout=20.0).out.splitlines():
        match = re.match(r"(missing|\S{9})\s+(c )?\s*(/\S+)", line)
        if match is None or (match[2] and match[1] != "missing"):
            continue  # configuration is there to be changed
        missing = match[1] == "missing"
        confmiss = "-o Dpkg::Options::=--force-confmiss " if match[2] else ""
        yield problem(
            match[3],
            "missing, though the package has it" if missing else "not what the package installed",
            "the daemons don't start, or do something else than they should",
            f"apt-get install --reinstall {confmiss}oqtod",
        )


def _modes(host: Host) -> Iterator[Finding]:
    """Everybody reads our code; nobody but root changes it."""
    yield from each(
        [path for path in host.read(_LIST).splitlines() if "oqto" in path and not path.startswith("/etc/")],
        lambda path: _mode(host, path),
    )


def _mode(host: Host, path: str) -> Iterator[Finding]:
    try:
        seen = host.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return  # dpkg --verify tells it
    needed = 0o555 if seen.kind == "folder" or path.startswith("/usr/bin/") else 0o444
    wanted = (seen.mode | needed) & ~0o022
    if seen.mode == wanted and (seen.uid == 0 or not host.is_real):
        return
    yield problem(
        path,
        f"{passwd.user_name(host, seen.uid)} {seen.mode:04o}, and should be root {wanted:04o}",
        "a daemon can't run or read it, or others than root can change what root runs",
        f"chown root:root {path}; chmod {wanted:04o} {path}",
        SetOwner(path, 0, 0, wanted) if seen.kind in ("file", "folder") else None,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
