"""The sandbox for real: what a program under bwrap can and can't do, as root and as an ordinary account."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runner.sandbox.policy import Policy, Rule, load_policy, profile_defaults
from tests.integration.confined import PATIENCE, Place, accounts, place_for, tries


@pytest.fixture(params=accounts())
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place_for(request.param) as found:
        yield found


def rules(*paths: Path) -> tuple[Rule, ...]:
    return tuple(Rule(path, "test") for path in paths)


def test_what_may_be_written_in_the_development_profile(place: Place) -> None:
    place.write(".bashrc")
    policy = profile_defaults("development", home=place.home)
    possible = [
        "touch file new",
        "touch ~/.cache/x",
        "touch ~/.cargo/x",
        "touch /tmp/x /var/tmp/x /dev/shm/x",
        "cat ~/.bashrc",
        "mkdir -p a/b && mv new a/b/ && ln a/b/new a/c && rm -r a",
    ]
    impossible = [
        "touch ~/.bashrc",
        "sh -c 'echo x >> ~/.bashrc'",
        "mkdir -p ~/.config/systemd",
        "touch ~/new",
        "touch /x",
        "touch /usr/x",
        "touch /run/x",
        "touch /dev/x",
        "touch /etc/x",
        "mv ~/.cargo ~/.other",
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /usr",
        "chroot / true",
    ]
    assert place.ask(policy, tries(*possible, *impossible)) == ["yes"] * len(possible) + ["no"] * len(
        impossible
    )
    assert (place.workspace / "file").exists()
    assert (place.home / ".cargo/x").exists()
    assert not Path("/tmp/x").exists()


def test_what_is_denied_can_not_be_read(place: Place) -> None:
    place.write(".ssh/id", "key")
    place.write("token", "key")
    place.write("linked/token", "key")
    place.write(".config/gh/hosts", "key")
    place.write("work/deep/er/secret", "key")
    (place.home / "link").symlink_to("linked")
    policy = Policy(
        deny_read=rules(
            place.home / ".ssh",
            place.home / "token",
            place.home / "link",
            place.home / ".config/gh",
            place.workspace / "deep/er/secret",
            place.home / "absent",
        )
    )
    attempts = [
        "cat ~/.ssh/id",
        "ls ~/.ssh/id",
        "cat ~/token",
        "cat ~/link/token",
        "cat ~/linked/token",
        "cat ~/.config/gh/hosts",
        "cat deep/er/secret",
        "mv deep/er other",
        "mv deep other",
        "rm deep/er/secret",
        "chmod 700 ~/.ssh",
        "umount ~/.ssh",
    ]
    assert place.ask(policy, tries(*attempts)) == ["no"] * len(attempts)
    assert place.ask(policy, "cat /proc/self/mountinfo >/dev/null; cat file") == ["mine"]


@contextlib.contextmanager
def killed_if_it_fails(process: subprocess.Popen[str]) -> Iterator[None]:
    """Nobody waits for a program that waits for us."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


@pytest.mark.parametrize(
    "name", ["absent", ".config/absent", "none/of/this", "replaced", "work/.env", "work/d/.env"]
)
def test_what_is_denied_stays_so_when_it_appears(place: Place, name: str) -> None:
    """It is put there from outside while the session runs, or is replaced as editors do."""
    place.write(".config/other", "x")
    place.write("replaced", "old")
    place.write("replacement", "SECRET")
    policy = Policy(deny_read=rules(place.home / name))
    script = (
        f"cat ../{name} 2>/dev/null; echo ready; read go; cat ../{name} ~/{name}; ls ~ >/dev/null && echo end"
    )
    channel, theirs = socket.socketpair()
    with channel, theirs:
        os.set_inheritable(theirs.fileno(), True)
        fifo = place.workspace / "go"
        os.mkfifo(fifo)
        os.chown(fifo, place.uid, place.uid)
        started = place.start(policy, "/bin/sh", "-c", script.replace("read go", "read go <go"))
        with started, killed_if_it_fails(started):
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            target = place.home / name
            if name == "replaced":
                (place.home / "replacement").rename(target)
            else:
                place.write(name, "SECRET")
            fifo.write_text("go\n")
            out, _ = started.communicate(timeout=PATIENCE)
    assert out == "end\n"


def test_nobody_else_is_there(place: Place) -> None:
    policy = profile_defaults("development", home=place.home)
    lines = place.ask(
        policy, "echo /proc/[0-9]* | wc -w; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    assert int(lines[0]) <= 4
    assert [line.split()[1] for line in lines[1:]] == ["0" * 16, "0" * 16, "1", "2"]


def test_other_processes_stay_closed_even_where_they_can_be_seen(place: Place) -> None:
    policy = Policy(isolate_pid=False)
    attempts = [
        f"test -d /proc/{os.getpid()}",
        f"cat /proc/{os.getpid()}/environ",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        f"kill -0 {os.getpid()}",
    ]
    assert place.ask(policy, tries(*attempts)) == ["yes", "no", "no", "no", "no"]


@pytest.mark.parametrize("nested", [False, True])
def test_further_user_namespaces_only_where_chromium_needs_them(place: Place, nested: bool) -> None:
    answer = place.ask(Policy(), tries("unshare -U true"), nested_user_namespaces=nested)
    assert answer == ["yes" if nested else "no"]


def test_nothing_of_the_runner_comes_along(place: Place) -> None:
    lines = place.ask(Policy(), "ls /proc/self/fd; env | sort", LD_PRELOAD="", TOKEN="t")
    assert lines[:4] == ["0", "1", "2", "3"]  # the last is ls's own
    assert sorted(line.partition("=")[0] for line in lines[4:]) == [
        "HOME",
        "LD_PRELOAD",
        "PATH",
        "PWD",
        "TOKEN",
    ]


def test_the_environment_and_the_mounts_are_on_no_command_line(place: Place) -> None:
    with place.start(Policy(), "/bin/sh", "-c", "echo up; exec sleep 30", TOKEN="not-to-be-seen") as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        line = Path(f"/proc/{started.pid}/cmdline").read_bytes()
        outside = Path(f"/proc/{started.pid}/environ").read_bytes()
        started.kill()
    assert b"bwrap" in line
    assert b"not-to-be-seen" not in line
    assert outside == b""


def test_a_library_that_the_session_names_is_not_loaded_outside(place: Place) -> None:
    """bwrap itself still runs outside: it must not see the session's LD_PRELOAD."""
    done = place.run(Policy(), "/bin/sh", "-c", "true", LD_PRELOAD="/nonexistent/evil.so")
    # The loader complains once, for the shell inside, and not for bwrap or for what starts the shell.
    assert done.stderr.count("evil.so") == 1, done.stderr


def test_limits_hold(place: Place) -> None:
    strict = profile_defaults("strict", home=place.home)
    shell = ("/bin/bash", "-c", "ulimit -c; ulimit -u; ulimit -Hn")
    core, processes, files = place.run(strict, *shell).stdout.split()
    assert (core, int(processes)) == ("0", 512)
    assert int(files) <= 65536


def test_the_sandbox_files_can_not_be_changed(place: Place) -> None:
    place.write("work/.oqto/sandbox.toml", 'deny_read = ["file"]')
    policy = load_policy(
        host=None,
        user=place.home / ".config/oqto/sandbox.toml",
        workspace=place.workspace / ".oqto/sandbox.toml",
        home=place.home,
    )
    attempts = tries(
        "cat file",
        "rm .oqto/sandbox.toml",
        "touch .oqto/sandbox.toml",
        "mv .oqto x",
        "touch .oqto/y",
        "rm -r .oqto",
    )
    assert place.ask(policy, attempts) == ["no"] * 6


def test_a_workspace_without_rules_gets_none_from_inside(place: Place) -> None:
    attempts = tries("touch .oqto/sandbox.toml", "rmdir .oqto", "mv .oqto x")
    assert place.ask(Policy(), attempts) == ["no"] * 3


@pytest.mark.parametrize("before", ["nothing", "a folder", "a file"])
def test_a_workspace_that_is_the_home_protects_the_persons_rules(place: Place, before: str) -> None:
    own = Path(".config/oqto/sandbox.toml")
    match before:
        case "a folder":
            place.write(".config/other")
        case "a file":
            place.write(str(own), "isolate_pid = true")
    policy = load_policy(host=None, user=place.home / own, workspace=None, home=place.home)
    script = (
        "touch written; mkdir -p .config/oqto; mv .config/oqto .config/x; mv .config y;"
        " mkdir -p .config/oqto;"
        f"echo 'enabled = false' > {own}"
    )
    place.ask(policy, script, workspace=place.home)
    assert (place.home / "written").exists()
    assert load_policy(host=None, user=place.home / own, workspace=None, home=place.home).enabled


def test_what_must_not_be_written_is_read_only_in_the_workspace(place: Place) -> None:
    place.write("work/vendor/x", "x")
    policy = Policy(
        deny_write=rules(place.workspace / "vendor", place.workspace / "later", place.home / ".cargo"),
        allow_write=rules(place.home / ".cargo"),
    )
    attempts = ["cat vendor/x", "touch new", "touch vendor/y", "rm vendor/x", "mv vendor other"]
    attempts += ["touch later/x", "rmdir later", "touch ~/.cargo/x"]
    assert place.ask(policy, tries(*attempts)) == ["yes", "yes"] + ["no"] * 6


def test_the_minimal_profile_has_an_empty_home(place: Place) -> None:
    place.write("notes", "x")
    place.write("tool/x", "x")
    policy = Policy(profile="minimal", level="minimal", allow_write=rules(place.home / "tool"))
    script = "ls -A ~ | sort | tr '\\n' ' '; echo; " + tries("touch ~/x", "touch ~/tool/y", "touch new")
    assert place.ask(policy, script) == ["tool work ", "no", "yes", "yes"]


def test_the_strict_profile_has_no_network_but_its_socket_is_reached(place: Place) -> None:
    policy = profile_defaults("strict", home=place.home)
    assert place.ask(policy, "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '") == ["lo"]
    services = place.home.parent / "service"
    services.mkdir()
    os.chown(services, place.uid, place.uid)
    # What a service leaves there is found from outside, and the other way round.
    script = f"echo up > {services}/state; cat {services}/state"
    assert place.ask(policy, script, service_directory=services) == ["up"]
    assert (services / "state").read_text() == "up\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = tries(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'")
        assert place.ask(policy, reach) == ["no"]
        assert place.ask(Policy(), reach) == ["yes"]


def test_a_link_put_where_the_workspace_was_is_not_followed(place: Place) -> None:
    place.write("private/file", "theirs")
    moved = place.home / "moved"
    place.workspace.rename(moved)
    place.workspace.symlink_to("private")
    # The path still leads somewhere; the sandbox takes it for what it leads to, and a session checks before.
    assert place.ask(Policy(), "cat file", workspace=moved) == ["mine"]


def _command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line: Sequence[str] = [
        sys.executable,
        "-c",
        "import sys; from runner.sandbox.main import main; sys.exit(main())",
    ]
    return subprocess.run(
        [*line, "--personal", *arguments],
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env={"PATH": os.environ["PATH"], **variables},
    )


def test_the_command_runs_a_program_and_keeps_its_status(tmp_path: Path) -> None:
    done = _command(
        "--workspace", str(tmp_path), "--", "sh", "-c", "pwd; echo $SECRET; exit 7", SECRET="leaked"
    )
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}\n\n")


def test_the_command_refuses_what_it_can_not_understand(tmp_path: Path) -> None:
    (tmp_path / ".oqto").mkdir()
    (tmp_path / ".oqto/sandbox.toml").write_text("isolate_newtork = true")
    done = _command("--workspace", str(tmp_path), "touch", str(tmp_path / "ran"))
    assert done.returncode == 3
    assert "did you mean 'isolate_network'?" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    assert _command("--workspace", str(tmp_path)).returncode == 2
    missing = _command("--workspace", str(tmp_path / "no"), "true")
    assert (missing.returncode, "isn't a folder" in missing.stderr) == (1, True)
    bare = _command("--workspace", str(tmp_path), "true", PATH=str(tmp_path))
    assert (bare.returncode, "apt install bubblewrap" in bare.stderr) == (1, True)
    unknown = _command("--workspace", str(tmp_path), "no-such-program")
    assert (unknown.returncode, "no-such-program" in unknown.stderr) == (127, True)


def test_the_command_explains(tmp_path: Path) -> None:
    (tmp_path / ".oqto").mkdir()
    file = tmp_path / ".oqto/sandbox.toml"
    file.write_text('isolate_network = true\ndeny_read = [\n  "private",\n]\n')
    asked = [str(tmp_path / "private/x"), str(tmp_path / "open"), str(file), "/etc/passwd"]
    done = _command("explain", "--workspace", str(tmp_path), "--json", *asked)
    assert done.returncode == 0, done.stderr
    private, open_, own, system = json.loads(done.stdout)
    assert (private["read"], private["write"], private["read_why"]) == (False, False, f"deny_read: {file}:3")
    assert (open_["read"], open_["write"]) == (True, True)
    assert (own["read"], own["write"]) == (True, False)
    assert (system["read"], system["write"]) == (True, False)
    shown = _command("show", "--workspace", str(tmp_path))
    assert any(
        line.split()[:2] == ["isolate_network", "true"] and line.endswith(f"# {file}:1")
        for line in shown.stdout.splitlines()
    )
    checked = _command("check", "--workspace", str(tmp_path))
    assert (checked.returncode, "Landlock" in checked.stdout) == (0, True)
    assert not (tmp_path / "private").exists()  # asking changes nothing
