"""The reference itself, walked: no key, type, default or environment variable of it may be missing."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from oqtod.config.environment import VARIABLES
from oqtod.config.keys import dev_user_keys, keys, sections
from oqtod.config.unbuilt import UNBUILT

REFERENCE = Path(__file__).with_name("oqto-config-reference.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"### Full Example\n\n```toml\n(.*?)```", REFERENCE, re.DOTALL)[1]
BACKEND = REFERENCE.partition("## Sandbox Configuration")[0]

OURS = {
    "server.host",
    "server.port",
    "server.frontend_dir",
    "server.trusted_proxies",
    "server.metrics",
    "auth.oidc_client_secret",
    "limits.memory_max",
    "limits.tasks_max",
    "limits.cpu_quota",
    "sessions.busy_cpu_percent",
}
ONLY_IN_EXAMPLE = {"$schema", "profile", "auth.dev_users"}  # and all of two sections
EXAMPLE_DIFFERS = {
    "$schema": "https://raw.githubusercontent.com/byteowlz/schemas/refs/heads/main/oqto/"
    "oqto.backend.config.schema.json",
    "local.runner_socket_pattern": "/run/oqto/runner-sockets/{user}/oqto-runner.sock",
    "eavs.container_url": "http://host.containers.internal:41800",
}


def table_rows() -> Iterator[tuple[str, str, str, str]]:
    section = ""
    for line in BACKEND.splitlines():
        if heading := re.fullmatch(r"#### \[(.+)\]", line):
            section = heading[1]
        elif (
            section
            and (row := re.fullmatch(r"\| (\w+) \| (\S+) \| (.+?) \| (.+) \|", line))
            and row[1] != "Key"
        ):
            yield f"{section}.{row[1]}", row[2], row[3], row[4]


def flat(table: dict[str, object], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        below = f"{path}.{name}" if path else name
        found |= flat(value, below) if isinstance(value, dict) else {below: value}
    return found


def test_the_walk_sees_the_whole_reference() -> None:
    assert len(list(table_rows())) == 68
    assert len(flat(tomllib.loads(EXAMPLE))) == 58


@pytest.mark.parametrize(("path", "type_name", "default", "description"), list(table_rows()))
def test_every_row_of_the_tables(path: str, type_name: str, default: str, description: str) -> None:
    key = keys()[path]
    # The two idle times take fractions, so their whole numbers became numbers.
    fractions = {"sessions.idle_timeout_minutes", "sessions.idle_check_interval_seconds"}
    assert key.type_name == ("float" if path in fractions else type_name)
    assert key.description.startswith(description)
    if default.startswith("("):
        assert key.default is None
        assert key.shown == default
    elif default.startswith("`"):
        assert key.default == default.strip("`")
    else:
        written = tomllib.loads(f"v = {default}")["v"]
        assert key.default == written
        assert type(key.default) is type(written)


def test_every_key_of_the_example_has_its_default() -> None:
    for path, value in flat(tomllib.loads(EXAMPLE)).items():
        assert EXAMPLE_DIFFERS.get(path, keys()[path].default) == value, path


def test_every_commented_key_of_the_example_exists() -> None:
    section = ""
    for line in EXAMPLE.splitlines():
        if heading := re.match(r"(?:# )?\[+([\w.]+)\]+", line):
            section = heading[1]
            assert section in sections() or section == "auth.dev_users"
        elif commented := re.match(r"# (\w+) = ", line):
            if section == "auth.dev_users":
                assert commented[1] in dev_user_keys()
            else:
                assert f"{section}.{commented[1]}" in keys()


def test_the_example_loads_and_is_the_defaults(load_text) -> None:
    example, nothing = load_text(EXAMPLE), load_text("")
    expected = flat(msgspec.to_builtins(nothing.config)) | EXAMPLE_DIFFERS
    assert flat(msgspec.to_builtins(example.config)) == expected


def test_there_is_no_key_beyond_reference_and_ours() -> None:
    known = {row[0] for row in table_rows()} | set(flat(tomllib.loads(EXAMPLE))) | OURS | ONLY_IN_EXAMPLE
    assert set(keys()) == known
    assert set(dev_user_keys()) == {"id", "name", "email", "password_hash", "role"}


def test_every_environment_variable_is_known() -> None:
    table = REFERENCE.partition("## Environment Variables")[2]
    rows = dict(re.findall(r"^\| ([A-Z_]+) \| (.+) \|$", table, re.MULTILINE))
    known = {variable.name: variable.description for variable in VARIABLES}
    assert len(rows) == 10
    for name, description in rows.items():
        assert known[name].startswith(description)


def test_what_is_not_built_names_keys_that_exist() -> None:
    for name in UNBUILT:
        section, _, last = name.rpartition(".")
        assert name in keys() or (last == "*" and section in sections())
