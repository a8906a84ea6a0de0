"""``oqtod config``, as somebody at a terminal and as a program see it."""

import json
import os
import re
import stat
import tomllib
from inspect import signature
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oqtod.commands.config import config_group
from oqtod.config import load
from oqtod.config.keys import keys
from oqtod.config.problems import ConfigRefused
from oqtod.config.template import default_file

SECRET = "correct-horse-battery-staple-0123456789"
SECRETS = ("AUTH_JWT_SECRET", "EAVS_MASTER_KEY", "OIDC_CLIENT_SECRET")
HASH = "$2b$12$" + "a" * 53
FILE = f"""
[server]
port = 9000
[auth]
jwt_secret = "{SECRET}"
[[auth.dev_users]]
id = "dev"
name = "Dev \\"D\\" \\u001b[31m"
email = "dev@localhost"
password_hash = "{HASH}"
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if re.match(r"OQTO|XDG_|RUST_LOG|EAVS_|AUTH_|NO_COLOR", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return path


def run(*arguments: str | Path, color: bool = False) -> Result:
    # click before 8.2 mixes the two outputs unless told not to; later ones never do and lack the argument.
    separate = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
    return CliRunner(**separate).invoke(config_group, [str(each) for each in arguments], color=color)


def test_check_of_a_good_file(file: Path) -> None:
    result = run("check", "--config", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"OK: {file}\n", "")


def test_check_without_a_file() -> None:
    result = run("check")
    assert result.exit_code == 0
    assert result.stdout.startswith("OK: no configuration file")


def test_check_of_the_sandbox_file(tmp_path: Path) -> None:
    sandbox = tmp_path / ".config/oqto/sandbox.toml"
    sandbox.parent.mkdir(parents=True)
    sandbox.write_text('profile = "development"\n')
    assert run("check").stdout.endswith(f"OK: {sandbox}\n")
    sandbox.write_text('profile = "strikt"\n')
    result = run("check")
    assert result.exit_code == 3
    assert f"{sandbox}: profile: found 'strikt'; did you mean 'strict'?" in result.stderr


@pytest.mark.parametrize("command", ["check", "show"])
def test_refused(file: Path, command: str) -> None:
    file.write_text("[server]\nprot = 1\nport = 70000\n")
    result = run(command, "--config", file)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "server.prot: unknown key" in result.stderr
    assert "did you mean server.port?" in result.stderr
    assert result.stderr.endswith("The configuration is refused: 2 problems.\n")


def test_colours_only_on_a_terminal(file: Path, monkeypatch) -> None:
    file.write_text("prot = 1")
    assert "\x1b" not in run("check", "--config", file).stderr
    assert "\x1b" in run("check", "--config", file, color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("check", "--config", file, color=True).stderr


def test_show_is_toml_with_every_key_that_has_a_value(file: Path) -> None:
    result = run("show", "--config", file)
    assert result.exit_code == 0
    shown = tomllib.loads(result.stdout)
    assert shown["server"]["port"] == 9000
    assert shown["auth"]["jwt_secret"] == "(set)"
    (user,) = shown["auth"]["dev_users"]
    assert (user["id"], user["name"], user["password_hash"]) == ("dev", 'Dev "D" \x1b[31m', "(set)")
    assert "\x1b" not in result.stdout
    assert SECRET not in result.stdout
    assert HASH not in result.stdout
    for path, key in keys().items():
        if path != "auth.dev_users":
            assert re.search(rf'^(# )?"?{re.escape(key.name)}"? = ', result.stdout, re.MULTILINE), path


def test_show_of_the_defaults_loads_again(tmp_path: Path) -> None:
    again = tmp_path / "again.toml"
    shown = run("show").stdout
    # What is worked out at start belongs to features that aren't built, which take nothing but their default.
    again.write_text(re.sub(r"^(audit_file|parallelism) = .*$", "", shown, flags=re.MULTILINE))
    assert load(again).config == load().config


def test_show_sources(file: Path, monkeypatch) -> None:
    monkeypatch.setenv("OQTO__RUNTIME__TIMEOUT", "5")
    lines = run("show", "--sources", "--config", file).stdout.splitlines()
    assert f"port = 9000  # {file}" in lines
    assert f"[[auth.dev_users]]  # {file}" in lines
    assert "timeout = 5  # environment variable OQTO__RUNTIME__TIMEOUT" in lines
    assert 'host = "127.0.0.1"  # default' in lines


def test_show_json(file: Path, tmp_path: Path) -> None:
    document = json.loads(run("show", "--json", "--sources", "--config", file).stdout)
    assert document["file"] == str(file)
    assert document["database_path"] == str(tmp_path / ".local/share/oqto/oqto.db")
    assert document["values"]["server"]["port"] == 9000
    assert document["values"]["auth"]["jwt_secret"] == "(set)"
    assert document["values"]["logging"]["file"] is None
    assert document["sources"]["server.port"] == str(file)
    assert "sources" not in json.loads(run("show", "--json").stdout)


def test_schema() -> None:
    schema = json.loads(run("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def properties(struct: str) -> dict[str, dict[str, object]]:
        assert schema["$defs"][struct]["additionalProperties"] is False
        return schema["$defs"][struct]["properties"]

    for path, key in keys().items():
        struct = "Config"
        for section in filter(None, key.section.split(".")):
            struct = str(properties(struct)[section]["$ref"]).rpartition("/")[2]
        node = properties(struct)[key.name]
        assert node["description"] == key.description, path
        if key.default is not None:
            assert node["default"] == key.default, path
        assert {"type": "null"} not in node.get("anyOf", [])
    port = properties("Server")["port"]
    assert (port["type"], port["minimum"], port["maximum"]) == ("integer", 0, 65535)
    assert properties("Logging")["level"]["enum"] == ["debug", "error", "info", "trace", "warn"]
    secret = properties("Auth")["jwt_secret"]
    assert secret["writeOnly"] is True
    assert [choice.get("minLength") for choice in secret["anyOf"]] == [32, None]
    assert properties("Server")["max_upload_size_mb"]["x-unit"] == "MB"
    assert "x-not-built" in properties("Container")["runtime"]


def test_init_prints_a_file_that_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text(run("init").stdout)
    loaded = load(file)
    assert loaded.config == load().config
    assert set(loaded.sources.values()) == {"default"}


def test_every_line_of_init_can_be_uncommented(tmp_path: Path) -> None:
    """Only what isn't built, and modes and examples that exclude each other, may be refused then."""
    file = tmp_path / "new.toml"
    text = re.sub(r"^#(?=[\w\"\[])", "", default_file(), flags=re.MULTILINE).replace("$2b$12$...", HASH)
    file.write_text(text)
    document = tomllib.loads(text)
    for path in keys():
        value: object = document
        for name in path.split("."):
            assert isinstance(value, dict)
            assert name in value, path
            value = value[name]
    with pytest.raises(ConfigRefused) as caught:
        load(file, environ={"HOME": "/h"} | dict.fromkeys(SECRETS, SECRET))
    assert all(problem.message.startswith("not built yet") for problem in caught.value.problems)


def test_init_writes_a_file_once(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    assert run("init", "--output", file).exit_code == 0
    assert file.read_text() == default_file()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("init", "--output", file)
    assert again.exit_code == 1
    assert str(file) in again.stderr
    assert "exists" in again.stderr
    assert run("init", "--output", tmp_path / "missing" / "new.toml").exit_code == 1


@pytest.mark.parametrize("command", ["check", "show", "schema", "init"])
def test_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 3
