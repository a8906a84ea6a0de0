"""The rules about several keys at once: which settings can't work together.

Each rule names the keys it reads and is left out when one of them is already reported: no follow-up errors.
Rules yield problems without a source; the loader knows where each value came from.
"""

from collections.abc import Callable, Iterator
from typing import Final

from .expansion import LONGEST_SOCKET_PATH
from .forms import is_loopback
from .model import Config
from .problems import Problem, describe

Rule = Callable[[Config], Iterator[Problem]]

RULES: Final[list[tuple[frozenset[str], Rule]]] = []
"""Every rule with the keys it reads, in the order in which the problems are told."""

_LONGEST_ACCOUNT_NAME: Final = 32  # useradd(8)
_LONGEST_UID: Final = 10


def _reads(*paths: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.append((frozenset(paths), rule))
        return rule

    return register


def _problem(key: str, message: str, *, found: str = "", allowed: str = "", hint: str = "") -> Problem:
    return Problem(source="", key=key, message=message, found=found, allowed=allowed, hint=hint)


@_reads("auth.dev_mode", "auth.jwt_secret")
def _production_has_a_secret(config: Config) -> Iterator[Problem]:
    if not config.auth.dev_mode and config.auth.jwt_secret is None:
        yield _problem(
            "auth.jwt_secret",
            "required when auth.dev_mode is false",
            found="nothing",
            allowed="32 characters or more, or env:NAME",
            hint='make one with `openssl rand -hex 32`, and write jwt_secret = "env:AUTH_JWT_SECRET"',
        )


@_reads("auth.dev_mode", "server.host")
def _dev_mode_stays_here(config: Config) -> Iterator[Problem]:
    if config.auth.dev_mode and not is_loopback(config.server.host):
        yield _problem(
            "server.host",
            "with auth.dev_mode the server may only listen on this machine",
            found=describe(config.server.host),
            allowed="127.0.0.1, ::1 or localhost",
            hint="set auth.dev_mode = false and auth.jwt_secret to be reachable from elsewhere",
        )


@_reads("auth.dev_mode", "auth.dev_users")
def _dev_users_can_log_in(config: Config) -> Iterator[Problem]:
    if config.auth.dev_users and not config.auth.dev_mode:
        yield _problem(
            "auth.dev_users",
            "can't log in when auth.dev_mode is false",
            found=describe(config.auth.dev_users),
            allowed="none, or auth.dev_mode = true",
        )


@_reads("auth.dev_users")
def _dev_users_are_distinct(config: Config) -> Iterator[Problem]:
    for name in ("id", "email"):
        seen: dict[str, int] = {}
        for index, user in enumerate(config.auth.dev_users):
            value: str = getattr(user, name)
            folded = value.casefold()
            if folded in seen:
                yield _problem(
                    f"auth.dev_users[{index}].{name}",
                    f"the same as that of auth.dev_users[{seen[folded]}]",
                    found=describe(value),
                    allowed="a different one for each user, whatever the case of the letters",
                )
            else:
                seen[folded] = index


@_reads("auth.oidc_issuer", "auth.oidc_audience")
def _oidc_is_whole(config: Config) -> Iterator[Problem]:
    auth = config.auth
    if (auth.oidc_issuer is None) != (auth.oidc_audience is None):
        missing, given = (
            ("oidc_audience", "oidc_issuer") if auth.oidc_issuer else ("oidc_issuer", "oidc_audience")
        )
        yield _problem(
            f"auth.{missing}",
            f"required when auth.{given} is set",
            found="nothing",
            hint="without both, tokens made for other programs would be accepted",
        )


@_reads("local.enabled", "local.single_user", "local.linux_users.enabled")
def _one_mode(config: Config) -> Iterator[Problem]:
    local = config.local
    if local.single_user and local.linux_users.enabled:
        yield _problem(
            "local.single_user",
            "can't be true together with local.linux_users.enabled",
            found="both are true",
            allowed="single_user runs every session as yourself, linux_users as accounts: one of them",
        )
    elif local.enabled and not (local.single_user or local.linux_users.enabled):
        yield _problem(
            "local.enabled",
            "doesn't say as whom sessions run",
            found="neither local.single_user nor local.linux_users.enabled is true",
            allowed="exactly one of the two is true",
        )
    for path, given in (
        ("local.single_user", local.single_user),
        ("local.linux_users.enabled", local.linux_users.enabled),
    ):
        if given and not local.enabled:
            yield _problem(
                path,
                "needs local.enabled",
                found="true, while local.enabled is false",
                hint="set local.enabled = true",
            )


@_reads("local.linux_users.enabled", "local.workspace_dir")
def _accounts_have_their_own_workspace(config: Config) -> Iterator[Problem]:
    directory = config.local.workspace_dir
    own = directory.startswith("~") or any(part in directory for part in ("{user_id}", "$HOME", "${HOME}"))
    if config.local.linux_users.enabled and not own:
        yield _problem(
            "local.workspace_dir",
            "would be the same for every account",
            found=describe(directory),
            allowed="a path with {user_id}, ~ or $HOME",
        )


@_reads("local.linux_users.enabled", "local.runner_socket_pattern")
def _accounts_have_their_own_socket(config: Config) -> Iterator[Problem]:
    pattern = config.local.runner_socket_pattern
    if pattern is None:
        return
    if config.local.linux_users.enabled and "{user}" not in pattern and "{uid}" not in pattern:
        yield _problem(
            "local.runner_socket_pattern",
            "would be the same for every account",
            found=describe(pattern),
            allowed="a path with {user} or {uid}",
        )
    longest = pattern.replace("{user}", "x" * _LONGEST_ACCOUNT_NAME).replace("{uid}", "9" * _LONGEST_UID)
    yield from _socket_fits("local.runner_socket_pattern", pattern, longest)


@_reads("server.admin_socket_path")
def _admin_socket_fits(config: Config) -> Iterator[Problem]:
    path = config.server.admin_socket_path
    yield from _socket_fits("server.admin_socket_path", path, path)


def _socket_fits(key: str, text: str, longest: str) -> Iterator[Problem]:
    if (length := len(longest.encode("utf-8", "surrogateescape"))) > LONGEST_SOCKET_PATH:
        yield _problem(
            key,
            "too long for a Unix socket",
            found=f"{describe(text)}, up to {length} bytes with the names filled in",
            allowed=f"at most {LONGEST_SOCKET_PATH} bytes",
        )


@_reads("agent_browser.stream_port_base", "agent_browser.stream_port_range")
def _stream_ports_exist(config: Config) -> Iterator[Problem]:
    browser = config.agent_browser
    end = browser.stream_port_base + browser.stream_port_range
    if end > 65_536:
        yield _problem(
            "agent_browser.stream_port_range",
            "reaches beyond the last port",
            found=f"{browser.stream_port_base} + {browser.stream_port_range} = {end}",
            allowed="stream_port_base + stream_port_range at most 65536",
        )


@_reads("templates.type", "templates.repo_path")
def _local_templates_are_somewhere(config: Config) -> Iterator[Problem]:
    if config.templates.type == "local" and config.templates.repo_path is None:
        yield _problem(
            "templates.repo_path",
            'required when templates.type is "local"',
            found="nothing",
            allowed="a path",
        )
