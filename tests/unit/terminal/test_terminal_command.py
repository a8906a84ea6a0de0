"""Which program keeps a session's shell depends on what the host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import terminals

SOCKET = Path("/run/session/terminal/s.sock")
SERVED = ["-i", str(SOCKET), "-W", "-P", "30", "-w", "/home/a/work"]
LOGIN = ["/bin/zsh", "-l"]


def command(terminal: str) -> list[str]:
    return terminals.command(terminal, socket=SOCKET, workspace=Path("/home/a/work"), shell="/bin/zsh")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(host: Path, *names: str) -> None:
    for name in names:
        (host / name).touch(mode=0o755)


def test_the_embedded_terminal_keeps_the_shell_itself(host: Path) -> None:
    install(host, "tmux", "dtach")
    assert command("/usr/bin/oqto-ttyd") == ["/usr/bin/oqto-ttyd", *SERVED, *LOGIN]


def test_ttyd_has_tmux_first(host: Path) -> None:
    install(host, "tmux", "dtach")
    folder = Path(terminals.__file__).parent / "terminal"
    keeper = [str(host / "tmux"), "/run/session/terminal/t.sock", str(folder / "tmux.conf")]
    script = ["/bin/sh", str(folder / "tmux.sh")]
    assert command("/usr/bin/ttyd") == [
        *(*script, "serve", *keeper),
        *("/usr/bin/ttyd", *SERVED),
        *(*script, "attach", *keeper, "/bin/zsh"),
    ]
    for file in ("tmux.conf", "tmux.sh"):
        assert (folder / file).is_file()


def test_ttyd_has_dtach_next(host: Path) -> None:
    install(host, "dtach")
    dtach = [str(host / "dtach"), "-A", "/run/session/terminal/t.sock", "-E", "-z", "-r", "winch"]
    assert command("/usr/bin/ttyd") == ["/usr/bin/ttyd", *SERVED, *dtach, *LOGIN]


def test_ttyd_alone_runs_the_shell(host: Path) -> None:
    assert command("/usr/bin/ttyd") == ["/usr/bin/ttyd", *SERVED, *LOGIN]
