"""The configuration files: accepted, in force, and what in them is legal and still unwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oqtod.admin.doctor import units
from oqtod.admin.doctor.finding import Finding, not_looked_at, note, problem, warning
from oqtod.admin.doctor.host import Host
from oqtod.config import Config
from runner.sandbox.policy import HOST_FILE, SandboxRefused, load_policy

_GUESSABLE = ("secret", "changeme", "change-me", "password", "example")
_LEAST_DIFFERENT = 10
_LOOPBACK = ("127.", "::1", "localhost")


def accepted(host: Host) -> Iterator[Finding]:
    """Load the configuration the way the gateway does."""
    if host.refused is None:
        return
    if isinstance(host.refused.__cause__, PermissionError) and host.uid != 0:
        yield not_looked_at(str(host.config_file), host.refused.__cause__)
        return
    for trouble in host.refused.problems:
        heading, *details = str(trouble).splitlines()
        file = f" --config {host.config_file}" if host.config_file else ""
        yield problem(
            trouble.key or trouble.source,
            "; ".join([heading, *(" ".join(line.split()) for line in details)]),
            "the daemons refuse to start, or would at the next start",
            f"edit {trouble.source}, then: oqtod config check{file} && systemctl restart oqtod",
        )


def sandbox(host: Host) -> Iterator[Finding]:
    """Load the sandbox's file the way a runner does."""
    if host.personal or not host.is_real:
        return
    if not host.exists(HOST_FILE):
        yield warning(
            str(HOST_FILE),
            "missing",
            "sessions run under the built-in profile instead of what an administrator decided",
            "put it back: apt-get install --reinstall -o Dpkg::Options::=--force-confmiss oqtod",
        )
        return
    try:
        policy = load_policy(host=HOST_FILE, user=None, workspace=None, home=Path("/nonexistent"))
    except SandboxRefused as refused:
        yield problem(
            str(HOST_FILE),
            refused.message,
            "no session starts while the sandbox is uncertain",
            f"edit {HOST_FILE}, then: oqto-sandbox check",
        )
        return
    if not policy.enabled:
        yield warning(
            str(HOST_FILE),
            "the sandbox is switched off",
            "what runs in a session can see and change everything that its account can",
            f"set enabled = true in {HOST_FILE}",
        )


def in_force(host: Host) -> Iterator[Finding]:
    """Compare the file's age with the gateway's."""
    if host.personal or host.config_file is None:
        return
    if not host.exists(host.config_file):
        return  # told by `accepted`
    changed = host.look(host.config_file).modified
    for unit in units.show(host, [units.GATEWAY]):
        if unit.active == "active" and 0 < unit.since < changed:
            yield note(
                str(host.config_file),
                "changed since the gateway started",
                "most of what was changed is not in force yet",
                "systemctl restart oqtod",
            )


def wise(host: Host) -> Iterator[Finding]:
    """Look for settings that are legal and unsafe, or don't go together with a proxy."""
    if host.refused is not None:
        return
    yield from _secret(host.config)
    yield from _reach(host.config)
    people = host.config.auth
    if not host.personal and people.dev_mode and not people.dev_users:
        yield note(
            "auth.dev_users",
            "nobody is listed",
            "unless users were made with oqtoctl, nobody can log in",
            "oqtoctl user create NAME, or add a [[auth.dev_users]] block to the configuration",
        )


def _secret(config: Config) -> Iterator[Finding]:
    secret = config.auth.jwt_secret
    if secret is None:
        return
    if len(set(secret)) < _LEAST_DIFFERENT or any(word in secret.lower() for word in _GUESSABLE):
        yield problem(
            "auth.jwt_secret",
            f"weak: {len(set(secret))} different characters, or a word that is guessed first",
            "who guesses it logs in as anybody",
            "openssl rand -hex 32, put it into auth.jwt_secret, and: systemctl restart oqtod",
        )


def _reach(config: Config) -> Iterator[Finding]:
    server, auth = config.server, config.auth
    local = server.host.startswith(_LOOPBACK)
    if auth.dev_mode and (server.trusted_proxies or auth.allowed_origins):
        yield warning(
            "auth.dev_mode",
            "true, while server.trusted_proxies or auth.allowed_origins point to a reverse proxy",
            "dev mode answers to names of loopback only, and its cookie is not restricted to HTTPS",
            "set auth.dev_mode = false and auth.jwt_secret",
        )
    if not local:
        yield warning(
            "server.host",
            f"{server.host}: the gateway is reachable from elsewhere, without TLS",
            "passwords and terminals cross the network readable, and browsers don't send the Secure cookie",
            'set server.host = "127.0.0.1", and put a reverse proxy with TLS in front',
        )
    elif not auth.dev_mode and not server.trusted_proxies:
        yield note(
            "server.trusted_proxies",
            "empty, with the gateway on loopback",
            "behind a reverse proxy, everybody counts as 127.0.0.1: one who guesses passwords slows all down",
            'if there is a proxy on this host: set server.trusted_proxies = ["127.0.0.1"]',
        )
    if server.port and server.port < 1024:
        yield problem(
            "server.port",
            f"{server.port}: below 1024",
            "the gateway has no capability to listen there",
            "use a port above 1023, and let a reverse proxy listen on this one",
        )
