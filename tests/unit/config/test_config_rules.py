"""Every rule: keys, types, bounds, forms, and settings that can't work together."""

import pytest

from oqtod.config.keys import dev_user_keys, keys
from oqtod.config.toml import value_text
from oqtod.config.unbuilt import feature_missing

HOME = {"HOME": "/home/alice"}
HASH = "$2b$12$" + "a" * 53
SECRET = "x" * 32


def setting(path: str, value: object) -> str:
    section, _, name = path.rpartition(".")
    heading = f"[{section}]\n" if section else ""
    return f'{heading}"{name}" = {value if isinstance(value, str) else value_text(value)}'


@pytest.mark.parametrize(
    ("text", "key", "message", "hint"),
    [
        ("prot = 8080", "prot", "unknown key", "did you mean server.port?"),
        ("port = 8080", "port", "unknown key", "did you mean server.port?"),
        ("[server]\nprot = 1", "server.prot", "unknown key", "did you mean server.port?"),
        ("[sever]\nport = 1", "sever", "unknown section", "did you mean [server]?"),
        ("[linux_users]\n", "linux_users", "unknown section", "did you mean [local.linux_users]?"),
        ('"server.port" = 1', '"server.port"', "unknown key", "did you mean server.port?"),
        ('"a\\nb\\u0007" = 1', '"a\\nb\\u0007"', "unknown key", ""),
        ("[paths]\nzzzzzz = 1", "paths.zzzzzz", "unknown key", "[paths] has data_dir, state_dir"),
        ("server = 5", "server", "a section, not a key", ""),
        ("[[server]]\nport = 1", "server", "a section, not a key", ""),
        ("[server.port]\nx = 1", "server.port", "wrong type", ""),
    ],
)
def test_keys_that_are_none(refuse_text, text: str, key: str, message: str, hint: str) -> None:
    problems = refuse_text(text)
    assert list(problems) == [key]
    assert problems[key].message == message
    assert problems[key].hint == hint


WRONG = {"string": "5", "bool": '"true"', "int": "1.5", "float": '"1"', "string[]": '"one"', "table[]": "{}"}


@pytest.mark.parametrize("path", list(keys()))
def test_every_key_refuses_a_wrong_type(refuse_text, path: str) -> None:
    problem = refuse_text(setting(path, WRONG[keys()[path].type_name]))[path]
    assert problem.message == "wrong type"
    assert problem.found
    assert problem.allowed
    assert problem.source.endswith("config.toml")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("server.port", [-1, 65536, 2**70]),
        ("server.max_upload_size_mb", [0]),
        ("server.host", ["''", "'a b'", "'http://x'", "'[::1]'", "'a\\n'"]),
        ("runtime.timeout", [0, -5]),
        ("runtime.parallelism", [0]),
        ("container.base_port", [80, 65530]),
        ("container.runtime", ["'lxc'"]),
        ("agent_browser.stream_port_base", [0, 70000]),
        ("agent_browser.stream_port_range", [0]),
        (
            "local.linux_users.prefix",
            ["''", "'Oqto'", "'9a'", "'a-b'", "'-rf'", '"oqto_\\n"', f"'{'a' * 17}'"],
        ),
        ("local.linux_users.group", ["''", "'a b'", "'-g'", '"oqto\\n"', f"'{'a' * 33}'"]),
        ("local.linux_users.shell", ["'bash'", "'/bin/ba:sh'", '"/bin/bash\\n"']),
        ("local.linux_users.uid_start", [0, 999, 60001]),
        ("logging.level", ["'loud'", "'INFO'"]),
        ("logging.file", ["''", '"a\\u0000b"', '"a\\nb"']),
        ("eavs.default_session_budget_usd", [-1, "nan", "inf"]),
        (
            "eavs.base_url",
            ["'localhost:41800'", "'ftp://x'", "'http://a@b'", "'http://a:0'", "'http://a/?q'"],
        ),
        ("sessions.auto_attach", ["'maybe'"]),
        ("sessions.max_concurrent_sessions", [0]),
        ("sessions.idle_timeout_minutes", [-0.5, "nan", "inf"]),
        ("sessions.idle_check_interval_seconds", [-1, "nan"]),
        ("sessions.busy_cpu_percent", [0, 101]),
        ("limits.tasks_max", [1]),
        ("auth.jwt_secret", [f"'{'x' * 31}'", "''"]),
        ("templates.type", ["'other'"]),
    ],
)
def test_bounds(refuse_text, path: str, values: list[object]) -> None:
    for value in values:
        problem = refuse_text(setting(path, value))[path]
        assert problem.message == "not allowed", value
        assert problem.allowed, value


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("*", "name each origin"),
        ("null", "null"),
        ("https://a.example/", "slash"),
        ("https://a.example/path", "path"),
        ("https://A.example", "lower case"),
        ("https://a.example:443", "leave :443 out"),
        ("http://a.example:80", "leave :80 out"),
        ("https://a.example:0", "port"),
        ("https://a.example:65536", "port"),
        ("ftp://a.example", "scheme"),
        ("a.example", "scheme"),
        ("https://user@a.example", "scheme"),
        ("https://*.example", "scheme"),
        ("https://", "scheme"),
    ],
)
def test_origins_that_are_none(refuse_text, origin: str, hint: str) -> None:
    problem = refuse_text(f'[auth]\nallowed_origins = ["https://ok.example", "{origin}"]')[
        "auth.allowed_origins"
    ]
    assert hint in problem.hint


def test_origins(load_text) -> None:
    origins = [
        "https://a.example",
        "http://localhost:3000",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example",
    ]
    text = f"[auth]\nallowed_origins = {value_text(origins)}"
    assert load_text(text).config.auth.allowed_origins == origins


def test_fractions_of_the_idle_times_and_never_are_sound(load_text) -> None:
    text = "[sessions]\nidle_timeout_minutes = {}\nidle_check_interval_seconds = {}"
    assert load_text(text.format(0.05, 0.5)).config.sessions.idle_timeout_minutes == 0.05
    assert load_text(text.format(0, 0)).config.sessions.idle_check_interval_seconds == 0


def user(**changes: object) -> dict[str, object]:
    return {"id": "dev", "name": "Dev", "email": "dev@localhost", "password_hash": HASH} | changes


def users(*each: dict[str, object]) -> str:
    return f"[auth]\ndev_users = {value_text(list(each))}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "root"}, "not allowed"),
        ({"password_hash": "geheim"}, "not allowed"),
        ({"password_hash": "$2b$32$" + "a" * 53}, "not allowed"),
        ({"password_hash": "$2b$12$" + "a" * 54}, "not allowed"),
        ({"email": "nobody"}, "not allowed"),
        ({"id": "a/b"}, "not allowed"),
        ({"id": ""}, "not allowed"),
        ({"id": 5}, "wrong type"),
        ({"pasword_hash": "x"}, "unknown key"),
    ],
)
def test_dev_users(refuse_text, change: dict[str, object], message: str) -> None:
    problems = refuse_text(users(user(), user(id="two", email="two@x") | change))
    (name,) = change
    assert list(problems) == [f"auth.dev_users[1].{name}"]
    assert problems[f"auth.dev_users[1].{name}"].message == message


def test_dev_user_without_anything(refuse_text) -> None:
    required = [name for name, key in dev_user_keys().items() if key.required]
    assert list(refuse_text(users({}))) == [f"auth.dev_users[0].{name}" for name in required]


def test_dev_user_key_misspelt(refuse_text) -> None:
    assert refuse_text(users(user(rôle="admin")))['auth.dev_users[0]."rôle"'].hint == "did you mean role?"


def test_dev_users_twice(refuse_text) -> None:
    problems = refuse_text(users(user(), user(id="DEV", email="Dev@LocalHost")))
    assert set(problems) == {"auth.dev_users[1].id", "auth.dev_users[1].email"}


def test_dev_users_as_one_table(refuse_text) -> None:
    assert "[[auth.dev_users]]" in refuse_text('[auth.dev_users]\nid = "dev"')["auth.dev_users"].allowed


@pytest.mark.parametrize("hash_kind", ["2a", "2b", "2y"])
def test_hashes(load_text, hash_kind: str) -> None:
    load_text(users(user(password_hash=f"${hash_kind}$04${'a' * 53}", role="service")))


COMBINATIONS = {
    "production without a secret": (
        "auth.dev_mode = false",
        "auth.jwt_secret",
        f"auth.jwt_secret = '{SECRET}'",
    ),
    "dev mode for everybody": (
        "server.host = '0.0.0.0'",
        "server.host",
        f"auth.dev_mode = false\nauth.jwt_secret = '{SECRET}'",
    ),
    "dev mode by name": ("server.host = '127.0.0.1.example'", "server.host", None),
    "dev users in production": (
        f"auth.dev_mode = false\nauth.jwt_secret = '{SECRET}'\nauth.dev_users = [{value_text(user())}]",
        "auth.dev_users",
        None,
    ),
    "both modes": (
        "local.enabled = true\nlocal.single_user = true\nlocal.linux_users.enabled = true",
        "local.single_user",
        None,
    ),
    "no mode": ("local.enabled = true", "local.enabled", "local.single_user = true"),
    "personal without local": ("local.single_user = true", "local.single_user", "local.enabled = true"),
    "host without local": (
        "local.linux_users.enabled = true",
        "local.linux_users.enabled",
        "local.enabled = true",
    ),
    "one workspace for all": (
        "local.enabled = true\nlocal.linux_users.enabled = true\nlocal.workspace_dir = '/srv/work'",
        "local.workspace_dir",
        None,
    ),
    "one socket for all": (
        "local.enabled = true\nlocal.linux_users.enabled = true\nlocal.runner_socket_pattern = '/run/x.sock'",
        "local.runner_socket_pattern",
        None,
    ),
    "long socket": (
        f"local.runner_socket_pattern = '/{'x' * 70}/{{user}}/s.sock'",
        "local.runner_socket_pattern",
        None,
    ),
    "long admin socket": (
        f"server.admin_socket_path = '/{'x' * 107}'",
        "server.admin_socket_path",
        None,
    ),
    "ports beyond the last": (
        "agent_browser.stream_port_base = 60000\nagent_browser.stream_port_range = 5537",
        "agent_browser.stream_port_range",
        None,
    ),
    "half of OIDC": ("auth.oidc_issuer = 'https://id.example'", "auth.oidc_audience", None),
    "other half of OIDC": ("auth.oidc_audience = 'app'", "auth.oidc_issuer", None),
    "local templates nowhere": ("templates.type = 'local'", "templates.repo_path", None),
}


@pytest.mark.parametrize(("text", "key", "remedy"), list(COMBINATIONS.values()), ids=list(COMBINATIONS))
def test_combinations(load_text, refuse_text, text: str, key: str, remedy: str | None) -> None:
    problems = {key: each for key, each in refuse_text(text).items() if "not built" not in each.message}
    assert list(problems) == [key]
    assert problems[key].found
    if remedy is not None:
        load_text(f"{text}\n{remedy}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_dev_mode_on_loopback(load_text, host: str) -> None:
    assert load_text(f"server.host = '{host}'").config.server.host == host


def test_all_stream_ports_up_to_the_last(load_text) -> None:
    text = "agent_browser.stream_port_base = 60000\nagent_browser.stream_port_range = 5536"
    assert load_text(text).config.agent_browser.stream_port_range == 5536


def test_no_follow_up_errors(refuse_text) -> None:
    """A secret of the wrong type is one problem, not also a missing one."""
    problems = refuse_text("[auth]\ndev_mode = false\njwt_secret = 5")
    assert [problem.message for problem in problems.values()] == ["wrong type"]


DIFFERENT: dict[str, object] = {"bool": None, "int": 2000, "float": 2.5, "string": "'/x'", "string[]": ["/x"]}
CHOICES = {
    "container.runtime": "'podman'",
    "templates.type": "'local'",
    "eavs.base_url": "'http://x'",
    "eavs.container_url": "'http://x'",
    "auth.oidc_issuer": "'https://x'",
}


@pytest.mark.parametrize("path", [path for path in keys() if feature_missing(path)])
def test_what_is_not_built_is_refused_unless_at_its_default(load_text, refuse_text, path: str) -> None:
    key = keys()[path]
    different = CHOICES.get(path, DIFFERENT[key.type_name])
    if key.type_name == "bool":
        different = not key.default
    if path == "eavs.enabled":
        assert not load_text(setting(path, False)).config.eavs.enabled
    else:
        problem = refuse_text(setting(path, different))[path]
        assert problem.message == f"not built yet: {feature_missing(path)}"
    if key.default is not None:
        default = value_text(key.default)
        assert load_text(setting(path, default)).sources[path].endswith("config.toml")


def test_the_documented_default_of_the_audit_file(load_text) -> None:
    load_text('[logging]\naudit_file = "$XDG_STATE_HOME/oqto/audit.log.jsonl"')
