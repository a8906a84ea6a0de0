"""How a session's browser daemon is started: each setting on its command line, and what its sandbox shows."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from runner import browsers
from runner.browsers import Launch
from runner.cgroups import Cgroup
from runner.doorbell import Doorbell
from runner.protocol.messages import BrowserSpec
from runner.protocol.rpc import CallFailed
from runner.sandbox.layout import plan
from runner.sandbox.policy import profile_defaults

SOCKET = Path("/run/s/browser/s.sock")


def launch(folder: Path, *, display: dict[str, str] | None = None, **settings: object) -> Launch:
    return browsers.launch(
        BrowserSpec(**settings),  # type: ignore[arg-type]  # its own fields
        socket=SOCKET,
        profile=folder / "profile",
        workspace=folder / "work",
        inherited=display or {},
    )


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_by_default(tmp_path: Path) -> None:
    found = launch(tmp_path)
    assert Path(found.argv[0]).name == "oqto-browserd"
    assert found.argv[1:] == [
        *("--session", "main", "--profile", str(tmp_path / "profile")),
        *("--downloads", str(tmp_path / "work/downloads"), "serve", "--socket", str(SOCKET)),
    ]
    assert (found.environment, found.readable) == ({}, [])


def test_each_setting(tmp_path: Path) -> None:
    chromium = program(tmp_path / "chrome/chrome")
    extension = tmp_path / "extension"
    extension.mkdir()
    found = launch(
        tmp_path,
        display={"DISPLAY": ":7", "UNRELATED": "x"},
        headed=True,
        executable_path=str(chromium),
        extensions=[str(extension)],
        page_memory_mb=300,
    )
    line = " ".join(found.argv)
    assert f"--executable-path {chromium} " in line
    assert f"--extension {extension} " in line
    assert "--headed " in line
    assert "--page-memory-mb 300 " in line
    assert chromium.parent in found.programs
    assert extension in found.readable
    assert found.environment == {"DISPLAY": ":7"}


def test_another_daemon_gets_a_port_and_a_place_for_its_socket(tmp_path: Path) -> None:
    other = program(tmp_path / "agent-browser")
    found = launch(tmp_path, binary=str(other), stream_port=30007)
    assert Path(found.argv[0]).name == "oqto-browserd"
    assert f"--binary {other} serve" in " ".join(found.argv)
    assert found.environment == {
        "AGENT_BROWSER_SOCKET_DIR": "/run/s/browser",
        "AGENT_BROWSER_STREAM_PORT": "30007",
    }
    assert launch(tmp_path, stream_port=30007).environment == {}, "our own needs none"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"binary": "no-such-daemon"}, "agent_browser.binary"),
        ({"executable_path": "/no/such/chrome"}, "agent_browser.executable_path"),
        ({"extensions": ["/no/such/extension"]}, "agent_browser.extensions"),
        ({"headed": True}, "agent_browser.headed"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, settings: dict[str, object], key: str) -> None:
    with pytest.raises(CallFailed) as failed:
        launch(tmp_path, **settings)
    assert key in f"{failed.value.message} {failed.value.hint}"


def test_a_profile_is_shown_to_its_own_browser_only(tmp_path: Path) -> None:
    """It lies in oqtod's own folder, which is hidden from all sessions."""
    home, work = tmp_path / "home", tmp_path / "work"
    profile, other = browsers.profile_of("one", home), browsers.profile_of("two", home)
    for folder in (profile, other, work):
        folder.mkdir(parents=True)
    policy = profile_defaults("development", home=home)
    state = home / ".local/state/oqto"
    of_browser = plan(policy, workspace=work, home=home, kept=[(profile, "read-write")])
    kinds = {mount.path: mount.kind for mount in of_browser.mounts}
    assert (kinds[state], kinds[profile]) == ("hollow", "read-write")
    assert other not in kinds
    of_terminal = plan(policy, workspace=work, home=home)
    kinds = {mount.path: mount.kind for mount in of_terminal.mounts}
    assert kinds[state] == "denied-folder"
    assert not any(path.is_relative_to(profile) for path in kinds)


def test_a_profile_that_grows_too_large_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "browsers/one"
    assert not browsers.prepare_profile(profile)
    (profile / "deep").mkdir()
    (profile / "deep/store").write_bytes(b"x" * 10_000)
    assert not browsers.prepare_profile(profile)
    monkeypatch.setattr(browsers, "PROFILE_MAX", 9000)
    assert browsers.prepare_profile(profile)
    assert list(profile.iterdir()) == []
    assert profile.stat().st_mode & 0o777 == 0o700


def test_memory_is_limited_where_the_kernel_can(tmp_path: Path) -> None:
    group = Cgroup(tmp_path, starts_below=True).child("session").child("browser", memory_max=1000)
    group.path.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "session"):
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    group.make()
    assert (group.path / "memory.max").read_text() == "1000"
    for folder in (tmp_path, tmp_path / "session"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory"
    assert not group.out_of_memory()
    (group.path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 1\n")
    assert group.out_of_memory()


@pytest.mark.parametrize(("controllers", "starts_below"), [("cpu pids", True), ("memory", False)])
def test_where_it_can_not_nothing_is_limited(tmp_path: Path, controllers: str, starts_below: bool) -> None:
    """Without the controller, or where systemd would put the next runner into the divided group itself."""
    group = Cgroup(tmp_path, starts_below=starts_below).child("session").child("browser", memory_max=1000)
    group.path.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text(controllers)
    group.make()
    assert not (group.path / "memory.max").exists()
    assert not group.out_of_memory()


async def ring(bell: Doorbell) -> str:
    with trio.fail_after(5):
        while True:
            try:
                stream = await trio.open_unix_socket(bell.socket)
                break
            except OSError:
                await trio.lowlevel.checkpoint()  # it isn't listening yet
        async with stream:
            said = b""
            while data := await stream.receive_some():
                said += data
            return said.decode()


async def test_a_doorbell_says_why_nobody_comes(tmp_path: Path, nursery: trio.Nursery) -> None:
    asked = 0

    async def start() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise CallFailed("service_failed", "it is broken", "mend it")

    # An earlier runner's socket is in the way.
    (tmp_path / "start").mkdir()
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(tmp_path / "start/s.sock"))
    bell = Doorbell(tmp_path / "start", start)
    nursery.start_soon(bell.serve)
    assert [await ring(bell) for _ in range(3)] == ["", "it is broken; mend it", ""]
    assert bell.socket.stat().st_mode & 0o777 == 0o600
    bell.close()
