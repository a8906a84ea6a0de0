"""Paths: what is expanded at start, and what each account fills in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oqtod.config import Config, runner_socket, workspace_root

HOME = {"HOME": "/home/alice"}


def with_local(**changes: object) -> Config:
    config = Config()
    return replace(config, local=replace(config.local, **changes))


def host_mode(**changes: object) -> Config:
    return with_local(enabled=True, linux_users=replace(Config().local.linux_users, enabled=True), **changes)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("~/x.log", "/home/alice/x.log"),
        ("~", "/home/alice"),
        ("$HOME/x", "/home/alice/x"),
        ("${HOME}x", "/home/alicex"),
        ("/a/$NAME/b${NAME}", "/a/value/bvalue"),
        ("/a/~/b", "/a/~/b"),
        ("/a/{braces}/$5/$", "/a/{braces}/$5/$"),
        ("$XDG_CONFIG_HOME/x", "/home/alice/.config/x"),
        ("$XDG_CACHE_HOME/x", "/home/alice/.cache/x"),
        ("/a/../b//c/", "/b/c"),
        ("relative/x", str(Path.cwd() / "relative/x")),
    ],
)
def test_expansion(load_text, written: str, path: str) -> None:
    assert load_text(f"[logging]\nfile = '{written}'", HOME | {"NAME": "value"}).config.logging.file == path


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("$NOWHERE/x", "the environment variable NOWHERE is not set"),
        ("/x/${EMPTY}", "the environment variable EMPTY is not set"),
        ("/x/${}", "${} names no environment variable"),
        ("/x/${a b}", "${a b} names no environment variable"),
        ("/x/${HOME", "${ has no meaning in this key"),
        ("~bob/x", "only ~ and ~/… are expanded, not ~somebody"),
        ("/x/{user_id}", "{user_id} has no meaning in this key"),
        ("$XDG_RUNTIME_DIR/x", "the environment variable XDG_RUNTIME_DIR is not set"),
    ],
)
def test_what_can_not_be_expanded(refuse_text, written: str, message: str) -> None:
    problem = refuse_text(f"[logging]\nfile = '{written}'", HOME | {"EMPTY": ""})["logging.file"]
    assert problem.message == message


def test_expansion_brings_in_nothing_bad(refuse_text) -> None:
    problem = refuse_text("[logging]\nfile = '$BAD/x'", HOME | {"BAD": "/a\nb"})["logging.file"]
    assert problem.message == "not allowed once it is expanded"


def test_only_paths_expand(load_text) -> None:
    assert load_text('[runner]\nrunner_id = "$HOME"').config.runner.runner_id == "$HOME"


def test_programs(load_text) -> None:
    text = "[local]\nttyd_binary = '~/bin/ttyd'\nfileserver_binary = 'oqto-files'"
    local = load_text(text).config.local
    assert (local.ttyd_binary, local.fileserver_binary) == ("/home/alice/bin/ttyd", "oqto-files")


def test_xdg_folders(load_text) -> None:
    environ = HOME | {"XDG_DATA_HOME": "/data", "XDG_STATE_HOME": "/state"}
    loaded = load_text("", environ)
    assert (loaded.config.paths.data_dir, loaded.config.paths.state_dir) == ("/data/oqto", "/state/oqto")
    assert loaded.config.logging.audit_file == "/state/oqto/audit.log.jsonl"
    assert loaded.database_path == Path("/data/oqto/oqto.db")
    # Relative ones don't count, says the specification.
    assert (
        load_text("", HOME | {"XDG_DATA_HOME": "data"}).config.paths.data_dir
        == "/home/alice/.local/share/oqto"
    )


def test_a_service_without_a_home(load_text, refuse_text) -> None:
    problems = refuse_text("", {})
    assert set(problems) == {"paths.data_dir", "paths.state_dir"}
    assert problems["paths.data_dir"].source == "default"
    assert "HOME" in problems["paths.data_dir"].message
    assert "set paths.data_dir" in problems["paths.data_dir"].hint
    loaded = load_text("[paths]\ndata_dir = '/var/lib/oqtod'\nstate_dir = '/var/lib/oqtod'", {})
    assert loaded.database_path == Path("/var/lib/oqtod/oqto.db")
    assert loaded.config.logging.audit_file == "/var/lib/oqtod/audit.log.jsonl"


def test_a_relative_path_without_a_current_folder(refuse_text, tmp_path: Path, monkeypatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    problems = refuse_text("[logging]\nfile = 'x.log'")
    monkeypatch.chdir(tmp_path)
    assert "current folder is gone" in problems["logging.file"].message


@pytest.mark.parametrize("pattern", ["~/w/{user_id}", "$HOME/w/{user_id}", "${HOME}/w/{user_id}"])
def test_workspace_of_an_account(load_text, pattern: str) -> None:
    config = load_text(f"[local]\nworkspace_dir = '{pattern}'").config
    assert config.local.workspace_dir == pattern
    assert workspace_root(config, user_id="u-1", home="/home/oqto_u") == "/home/oqto_u/w/u-1"


def test_workspace_with_a_variable_of_the_daemon(load_text) -> None:
    config = load_text("[local]\nworkspace_dir = '$BASE/{user_id}/..'", HOME | {"BASE": "//srv/./w"}).config
    assert workspace_root(config, user_id="u", home="/h") == "/srv/w"


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    config = with_local(workspace_dir="$HOME/{user_id}")
    assert workspace_root(config, user_id="$HOME", home="/h/{user_id}") == "/h/{user_id}/$HOME"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{user_id}/w", "the path must be absolute"),
        ("w", "the path must be absolute"),
        ("~bob/{user_id}", "only ~ and ~/… are expanded, not ~somebody"),
        ("/w/{user}", "{user} is no placeholder"),
        ("/w/{}", "{} is no placeholder"),
        ("/w/{user_id", "{ is no placeholder"),
        ("/w/user_id}", "} is no placeholder"),
        ("/w/$USER", "$USER is the daemon's own here, not the account's"),
        ("$XDG_DATA_HOME/{user_id}", "$XDG_DATA_HOME is the daemon's own here, not the account's"),
        ("$NOWHERE/{user_id}", "the environment variable NOWHERE is not set"),
    ],
)
def test_workspaces_that_are_none(refuse_text, pattern: str, message: str) -> None:
    environ = HOME | {"USER": "oqtod"}
    assert (
        refuse_text(f"[local]\nworkspace_dir = '{pattern}'", environ)["local.workspace_dir"].message
        == message
    )


def test_workspace_wants_an_absolute_home() -> None:
    with pytest.raises(ValueError, match="absolute"):
        workspace_root(Config(), user_id="u", home="")


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True), st.sampled_from("/\\"))
def test_no_user_id_leaves_or_shares_the_folder(parts: list[str], separator: str) -> None:
    config = with_local(workspace_dir="/w/{user_id}")
    names = [parts[0], parts[1], separator.join(parts), f"..{separator}{parts[0]}"]
    roots = {name: Path(workspace_root(config, user_id=name, home="/h")) for name in names}
    assert all(root.parent == Path("/w") and root.name not in ("", ".", "..") for root in roots.values())
    assert len(set(roots.values())) == len(roots)


@pytest.mark.parametrize("user_id", ["", ".", "..", "../..", "a/b", "a\\b", "a\0b", "x" * 300])
def test_user_ids_that_are_no_folder_names(user_id: str) -> None:
    root = Path(workspace_root(with_local(workspace_dir="/w/{user_id}/x"), user_id=user_id, home="/h"))
    assert root.parts[:2] == ("/", "w")
    assert root.parts[3:] == ("x",)
    assert len(root.parts[2]) <= 255


def test_runner_sockets() -> None:
    socket = runner_socket(host_mode(), user="oqto_a", uid=2000)
    assert socket == "/run/oqto/runner-sockets/oqto_a/oqto-runner.sock"
    pattern = host_mode(runner_socket_pattern="/run/x/{uid}/{user}.sock")
    assert runner_socket(pattern, user="oqto_{uid}", uid=2000) == "/run/x/2000/oqto_{uid}.sock"
    personal = with_local(enabled=True, single_user=True)
    environ = {"XDG_RUNTIME_DIR": "/run/user/1"}
    assert runner_socket(personal, user="a", uid=1, environ=environ) == "/run/user/1/oqto/oqto-runner.sock"


def test_runner_socket_without_a_runtime_folder(load_text) -> None:
    config = load_text("local = { enabled = true, single_user = true }").config
    expected = "/home/alice/.local/state/oqto/run/oqto-runner.sock"
    assert runner_socket(config, user="a", uid=1, environ={}) == expected
    assert runner_socket(config, user="a", uid=1, environ={"XDG_RUNTIME_DIR": "relative"}) == expected


@pytest.mark.parametrize("user", ["", "a/b", "a\0"])
def test_runner_socket_wants_an_account(user: str) -> None:
    with pytest.raises(ValueError, match="account"):
        runner_socket(host_mode(), user=user, uid=1)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("run/{user}.sock", "the path must be absolute"),
        ("/run/{user_id}.sock", "{user_id} is no placeholder"),
        ("/run/{name}.sock", "{name} is no placeholder"),
        ("$NOWHERE/{user}.sock", "the environment variable NOWHERE is not set"),
    ],
)
def test_socket_patterns_that_are_none(refuse_text, pattern: str, message: str) -> None:
    text = f"[local]\nrunner_socket_pattern = '{pattern}'"
    assert refuse_text(text)["local.runner_socket_pattern"].message == message


def test_socket_pattern_with_a_variable(load_text) -> None:
    text = "[local]\nrunner_socket_pattern = '$XDG_RUNTIME_DIR/{user}.sock'"
    config = load_text(text, HOME | {"XDG_RUNTIME_DIR": "/run/user/1"}).config
    assert config.local.runner_socket_pattern == "/run/user/1/{user}.sock"
