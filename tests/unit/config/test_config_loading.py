"""Loading: which file, which source wins, what the environment says, what becomes of secrets and paths."""

import subprocess
import sys
from pathlib import Path

import pytest

from oqtod.config import Config, ConfigRefused, load
from oqtod.config.environment import log_level

HOME = {"HOME": "/home/alice"}
SECRET = "correct-horse-battery-staple-0123456789"
HASH = "$2b$12$" + "a" * 53


def dev_user(**changes: str) -> str:
    user = {"id": "dev", "name": "Developer", "email": "dev@localhost", "password_hash": HASH} | changes
    return "[[auth.dev_users]]\n" + "".join(f'{name} = "{value}"\n' for name, value in user.items())


def test_without_a_file_the_defaults_apply(tmp_path: Path) -> None:
    loaded = load(environ={"HOME": str(tmp_path)})
    assert loaded.path is None
    assert loaded.config.server == Config().server
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.database_path == tmp_path / ".local/share/oqto/oqto.db"


def test_the_order_of_files(tmp_path: Path) -> None:
    def write(folder: str, port: int) -> Path:
        file = tmp_path / folder / "oqto" / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(f"[server]\nport = {port}")
        return file

    home, xdg = write("home/.config", 1), write("xdg", 2)
    by_variable, by_option = write("variable", 3), write("option", 4)
    environ = {"HOME": str(tmp_path / "home")}
    assert load(environ=environ).path == home
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert load(environ=environ).path == xdg
    environ["OQTO_CONFIG"] = str(by_variable)
    assert load(environ=environ).config.server.port == 3
    loaded = load(by_option, environ=environ)
    assert (loaded.path, loaded.config.server.port) == (by_option, 4)
    assert loaded.sources["server.port"] == str(by_option)


@pytest.mark.parametrize("named_by", ["option", "variable"])
def test_a_named_file_must_be_there(tmp_path: Path, named_by: str) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigRefused, match="no such file"):
        if named_by == "option":
            load(missing, environ=HOME)
        else:
            load(environ=HOME | {"OQTO_CONFIG": str(missing)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = ", "not valid TOML"),
        (b"a = '\xff'", "not UTF-8"),
        (b"a = " + b"[" * 50_000, "not valid TOML"),
        (b"a = " + b"9" * 10_000, "not valid TOML"),
        (b"#" * (1024 * 1024 + 1), "too large"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigRefused) as caught:
        load(file, environ=HOME)
    (problem,) = caught.value.problems
    assert (problem.source, problem.key) == (str(file), "")
    assert message in problem.message


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "oqto" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigRefused, match="can't be read: Is a directory"):
        load(environ=HOME | {"XDG_CONFIG_HOME": str(tmp_path)})


def test_later_sources_win(load_text) -> None:
    text = "[server]\nport = 1\nmax_upload_size_mb = 1\n[runtime]\ntimeout = 1"
    environ = HOME | {"OQTO__SERVER__PORT": "2", "OQTO__server__Max_Upload_Size_MB": "2"}
    loaded = load_text(text, environ, {"server.port": 3, "server.host": None})
    server, sources = loaded.config.server, loaded.sources
    assert (server.port, sources["server.port"]) == (3, "command line")
    assert server.max_upload_size_mb == 2
    assert sources["server.max_upload_size_mb"] == "environment variable OQTO__server__Max_Upload_Size_MB"
    assert (loaded.config.runtime.timeout, sources["runtime.timeout"]) == (1, str(loaded.path))
    assert (server.host, sources["server.host"]) == ("127.0.0.1", "default")


def test_environment_values_are_toml(load_text) -> None:
    config = load_text(
        "",
        HOME
        | {
            "OQTO__LOCAL__ENABLED": "true",
            "OQTO__LOCAL__LINUX_USERS__ENABLED": "true",
            "OQTO__LOCAL__LINUX_USERS__PREFIX": "lab_",
            "OQTO__LOCAL__LINUX_USERS__GROUP": '"lab"',
            "OQTO__RUNNER__RUNNER_ID": "007",
            "OQTO__AUTH__ALLOWED_ORIGINS": '["https://a.example", "https://b.example"]',
        },
    ).config
    assert config.local.linux_users.enabled
    assert config.local.linux_users.prefix == "lab_"
    assert config.local.linux_users.group == "lab"
    assert config.runner.runner_id == "007"
    assert config.auth.allowed_origins == ["https://a.example", "https://b.example"]


def test_environment_problems(refuse_text) -> None:
    problems = refuse_text(
        "",
        HOME
        | {
            "OQTO__SERVER__PROT": "1",
            "OQTO__LOGGING": "1",
            "OQTO__SERVER__PORT": "eighty",
            "OQTO__RUNTIME__TIMEOUT": "1\nother = 2",
            "OQTO__SESSIONS__AUTO_ATTACH": "on",
            "OQTO__SESSIONS__auto_attach": "off",
            "OQTO__SERVER__HOST": "\udcff",
            "OQTO_LOG": "loud",
        },
    )
    assert problems["server.prot"].hint == "did you mean OQTO__SERVER__PORT?"
    assert problems["logging"].message == "a section, not a key"
    assert problems["server.port"].found == 'string "eighty"'
    assert problems["server.port"].source == "environment variable OQTO__SERVER__PORT"
    assert problems["runtime.timeout"].message == "wrong type"
    assert problems["sessions.auto_attach"].message == (
        "also set by the environment variable OQTO__SESSIONS__AUTO_ATTACH"
    )
    assert problems["server.host"].message == "not UTF-8"
    assert problems["logging.level"].source == "environment variable OQTO_LOG"
    assert len(problems) == 7


def test_unknown_override(refuse_text) -> None:
    problems = refuse_text("", overrides={"server.prot": 1, "server.port": "1"})
    assert problems["server.prot"].source == problems["server.port"].source == "command line"


@pytest.mark.parametrize(
    ("directives", "level"),
    [
        ("info", "info"),
        ("DEBUG", "debug"),
        ("warning", "warn"),
        ("off", "error"),
        ("oqto=debug,info", "debug"),
        ("info,oqtod=trace", "trace"),
        ("hyper=trace,warn", "warn"),
        ("oqto", "trace"),
        ("debug/some.*regex,info", "debug"),
        ("hyper=trace", None),
        ("oqto=loud", None),
        ("nonsense", None),
        (",,=,", None),
        ("", None),
    ],
)
def test_log_level_directives(directives: str, level: str | None) -> None:
    assert log_level(directives) == level


def test_log_level_precedence(load_text) -> None:
    environ = dict(HOME)
    for name, value in [("RUST_LOG", "warn"), ("OQTO_LOG", "debug"), ("OQTO__LOGGING__LEVEL", "trace")]:
        environ[name] = value
        loaded = load_text('[logging]\nlevel = "error"', environ)
        assert loaded.config.logging.level == value
        assert loaded.sources["logging.level"] == f"environment variable {name}"
    assert load_text("", HOME | {"RUST_LOG": "hyper=trace"}).config.logging.level == "info"


def test_variables_with_a_name_of_their_own(load_text, tmp_path: Path) -> None:
    loaded = load_text(
        '[runner]\nrunner_id = "file"\n[server]\nfrontend_dir = "/file"',
        HOME
        | {
            "OQTO_RUNNER_ID": "variable",
            "OQTO_FRONTEND_DIR": "~/web",
            "OQTO_DATABASE_PATH": f"{tmp_path}/x/../db.sqlite",
        },
    )
    assert loaded.config.runner.runner_id == "variable"
    assert loaded.config.server.frontend_dir == "/home/alice/web"
    assert loaded.database_path == tmp_path / "db.sqlite"
    assert load_text("", HOME | {"OQTO_RUNNER_ID": ""}).config.runner.runner_id


def test_bad_database_path(refuse_text) -> None:
    problem = refuse_text("", HOME | {"OQTO_DATABASE_PATH": "$NOWHERE/db"})[""]
    assert problem.source == "environment variable OQTO_DATABASE_PATH"
    assert "NOWHERE" in problem.message


def test_eavs_master_key_of_the_environment(refuse_text, load_text) -> None:
    environ = HOME | {"EAVS_MASTER_KEY": SECRET}
    problem = refuse_text("", environ)["eavs.master_key"]  # EAVS isn't built yet
    assert problem.source == "environment variable EAVS_MASTER_KEY"
    assert load_text("[eavs]\nenabled = false", environ).config.eavs.master_key is None
    assert refuse_text('[eavs]\nmaster_key = "other"', environ)["eavs.master_key"].source.endswith(".toml")


def test_secret_from_the_environment(load_text, refuse_text) -> None:
    text = '[auth]\ndev_mode = false\njwt_secret = "env:AUTH_JWT_SECRET"'
    loaded = load_text(text, HOME | {"AUTH_JWT_SECRET": SECRET})
    assert loaded.config.auth.jwt_secret == SECRET
    assert loaded.sources["auth.jwt_secret"] == f"{loaded.path} (env:AUTH_JWT_SECRET)"
    # Only by name: the variable alone does nothing.
    bare = "[auth]\ndev_mode = false"
    assert "required" in refuse_text(bare, HOME | {"AUTH_JWT_SECRET": SECRET})["auth.jwt_secret"].message
    missing = refuse_text(text)["auth.jwt_secret"]
    assert missing.message == "the environment variable AUTH_JWT_SECRET is not set"
    assert "env:NAME" in refuse_text('[auth]\njwt_secret = "env:a b"')["auth.jwt_secret"].hint


def test_password_hash_from_the_environment(load_text) -> None:
    config = load_text(dev_user(password_hash="env:DEV_HASH"), HOME | {"DEV_HASH": HASH}).config
    assert config.auth.dev_users[0].password_hash == HASH
    assert config.auth.dev_users[0].role == "user"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('[auth]\njwt_secret = "geheim"', {}),
        ('[auth]\njwt_secret = ["geheim"]', {}),
        ('[auth]\njwt_secrt = "geheim"', {}),
        ('[auth]\njwt_secret = "env:S"', {"S": "geheim"}),
        ("", {"OQTO__AUTH__JWT_SECRET": "geheim"}),
        ('[eavs]\nmaster_key = "geheim"', {}),
        ('[eavs]\nbase_url = "http://root:geheim@host"', {}),
        ('auth = "geheim"', {}),
        ('[auth]\ndev_users = "geheim"', {}),
        ('[auth]\ndev_users = ["geheim"]', {}),
        ('[auth]\ndev_users = [{ password = "geheim", password_hash = "geheim" }]', {}),
        ('[auth.jwt_secret]\nvalue = "geheim"', {}),
        ('[auth]\njwt_secret = "geheim"\njwt_secret = "geheim"', {}),
    ],
)
def test_no_message_tells_a_secret(load_text, text: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigRefused) as caught:
        load_text(text, HOME | environ)
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(caught.value.problems)


def test_the_configuration_does_not_tell_its_secrets(load_text) -> None:
    loaded = load_text(f'[auth]\njwt_secret = "{SECRET}"\n' + dev_user())
    assert SECRET not in repr(loaded)
    assert HASH not in repr(loaded)
    assert "jwt_secret=(set)" in repr(loaded)


def test_problems_of_all_sources_at_once_in_paragraphs(load_text) -> None:
    with pytest.raises(ConfigRefused) as caught:
        load_text("prot = 1\n[server]\nport = 70000", HOME | {"OQTO__X__Y": "1"}, {"a.b": 1})
    assert len(caught.value.problems) == 4
    paragraphs = str(caught.value).split("\n\n")
    assert len(paragraphs) == 4
    assert paragraphs[-1] == (
        f"{caught.value.problems[-1].source}: server.port: not allowed\n"
        "  found:   integer 70000\n  allowed: a whole number from 0 to 65535"
    )


def test_loading_starts_quickly() -> None:
    """The command line and the supervisor load it at every start: nothing heavy may come along."""
    program = "import sys, oqtod.config; oqtod.config.load(environ={'HOME': '/'}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    heavy = {"asyncio", "trio", "click", "rich", "difflib", "dataclasses"}
    assert not heavy & set(done.stdout.split())
