"""oqtoctl's command line where no daemon is needed: help, usage, exit codes, what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from oqtod.admin.caller import Command, Group
from oqtod.admin.oqtoctl import main
from oqtod.commands.exits import FORBIDDEN, UNREACHABLE, USAGE


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No oqtod to be found, and nothing of the caller's environment."""
    for name in ("OQTO_SERVER_URL", "OQTO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OQTO_ADMIN_SOCKET", str(tmp_path / "none.sock"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    assert code is None or isinstance(code, int)
    shown = capsys.readouterr()
    return code or 0, shown.out, shown.err


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield (*path, name)
            yield from commands(below, (*path, name))


EVERY = list(commands(main))


def command_at(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, Group)
        below = found.get_command(click.Context(found), name)
        assert below is not None
        found = below
    return found


def test_every_command_of_the_interface_is_there() -> None:
    wanted = {
        "user": "create list show disable enable delete set-password set-role",
        "session": "list show stop resume delete logs top",
        "runner": "list status restart",
        "invite": "create list revoke",
        "key": "create list revoke",
        "port": "list",
        "config": "check show",
        "sandbox": "show check explain",
    }
    found = {" ".join(path) for path in EVERY}
    assert {f"{group} {name}" for group, names in wanted.items() for name in names.split()} <= found
    assert {"status", "hash-password", "completion"} <= found


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_teaches(capsys: pytest.CaptureFixture[str], path: tuple[str, ...]) -> None:
    code, out, err = run(capsys, *path, "--help")
    assert (code, err) == (0, "")
    command = command_at(path)
    assert isinstance(command, Command | Group)
    if isinstance(command, Command):
        assert command.examples
        assert all(f"oqtoctl {' '.join(path)}" in "\n".join(command.examples) for _ in command.examples)
        assert all(example in out for example in command.examples)
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["usr"], "user"), (["sesion", "list"], "session"), (["user", "lst"], "list"), (["keys"], "key")],
)
def test_did_you_mean(capsys: pytest.CaptureFixture[str], typed: list[str], meant: str) -> None:
    code, out, err = run(capsys, *typed)
    assert (code, out) == (USAGE, "")
    assert f"Did you mean {meant}" in err


def test_a_command_that_resembles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "\x1b[2Jxyzzy")
    assert code == USAGE
    assert "--help" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["user", "create"],
        ["user", "create", "alice", "--from", __file__],
        ["user", "create", "--from", __file__, "--role", "admin"],
        ["user", "create", "alice", "--skip-existing"],
        ["user", "create", "alice", "--password-stdin", "--no-password"],
        ["user", "create", "alice", "--role", "king"],
        ["user", "set-role", "alice"],
        ["user", "show", "alice", "--no-such-option"],
        ["user", "delete", "alice"],  # nobody can be asked here
        ["session", "delete", "one"],
        ["session", "logs", "one", "-n", "0"],
        ["invite", "create", "--expires", "tomorrow"],
        ["status", "--server", "http://localhost", "--admin-socket", "/run/x"],
        ["status", "--admin-socket", "/run/x", "--token-file", "/x"],
        ["status", "--server", "ftp://localhost"],
        ["status", "--server", "http://user:secret@localhost"],
        ["completion", "tcsh"],
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    as_json: bool,
) -> None:
    monkeypatch.setenv("OQTO_TOKEN", "octo_sk_x")
    code, out, err = run(capsys, *arguments, *(["--json"] if as_json else []))
    assert (code, out) == (USAGE, "")
    assert "Traceback" not in err
    if as_json:
        assert json.loads(err)["error_code"] == "usage"


def test_a_token_is_not_sent_in_the_clear(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OQTO_TOKEN", "octo_sk_x")
    code, _, err = run(capsys, "--server", "http://oqto.example.org", "status")
    assert code == USAGE
    assert "https" in err


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_options_of_every_command_stand_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    option = ["--json", "--admin-socket", str(tmp_path / "other.sock")]
    words = {
        "before": [*option, "user", "list"],
        "between": ["user", *option, "list"],
        "after": ["user", "list", *option],
    }
    code, out, err = run(capsys, *words[place])
    assert (code, out) == (UNREACHABLE, "")
    told = json.loads(err)
    assert told["error_code"] == "unreachable"
    assert "other.sock" in told["error"]
    assert "systemctl status oqtod" in told["hint"]


def test_what_is_typed_counts_more_than_a_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OQTO_TOKEN", "octo_sk_x")
    code, _, err = run(capsys, "--server", "http://127.0.0.1:1", "status")
    assert code == UNREACHABLE
    assert "127.0.0.1:1" in err


def test_a_server_wants_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--server", "http://127.0.0.1:1", "status")
    assert code == FORBIDDEN
    assert "OQTO_TOKEN" in err


def test_a_token_that_everybody_can_read_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("octo_sk_x\n")
    token.chmod(0o644)
    words = ["--server", "http://127.0.0.1:1", "--token-file", str(token), "status"]
    code, _, err = run(capsys, *words)
    assert code == FORBIDDEN
    assert "octo_sk_x" not in err
    token.chmod(0o600)
    assert run(capsys, *words)[0] == UNREACHABLE


CLOSED = """
import os, socket, sys
from oqtod.admin.client import Daemon, NotPermitted, Where
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os.chmod(sys.argv[1], 0)
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    Daemon(Where(admin_socket=sys.argv[1])).ask("GET", "/")
except NotPermitted as error:
    print(error, error.hint, error.exit_code)
"""


def test_a_socket_that_is_closed_to_us(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLOSED, str(tmp_path / "closed.sock")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is not open to you" in said.stdout, said.stderr
    assert "adduser NAME oqto-admin 5" in said.stdout


def test_little_is_imported_to_begin_with() -> None:
    script = "import sys, oqtod.admin.oqtoctl; print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in said.stdout.split()}
    assert loaded & {"rich", "httpx", "starlette", "trio", "bcrypt", "jeepney", "cryptography"} == set()
