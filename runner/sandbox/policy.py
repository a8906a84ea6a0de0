"""What a session may see and do: the rules of all sandbox files together, which only ever tighten.

There are up to three files. The *base* is the administrator's (``/etc/oqto/sandbox.toml``) or, in personal
mode, the person's own (``~/.config/oqto/sandbox.toml``); its keys adjust the profile that it chooses. Every
further file is an *overlay*: whatever it says, the result permits nothing that the base doesn't. `tighten` is
that rule, and touches nothing outside its arguments.

A file that can't be read or understood refuses the session (`SandboxRefused`): never a weaker profile, never
none. Every rule knows which line of which file it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.sandbox.files import (
    PRIVATE_TEMPORARY,
    PROFILES,
    Keys,
    Profile,
    Rule,
    SandboxFile,
    SandboxRefused,
    guess,
    is_private,
    read_file,
    resolve_writable,
)

HOST_FILE = Path("/etc/oqto/sandbox.toml")
USER_FILE = Path(".config/oqto/sandbox.toml")  # below the home
WORKSPACE_FILE = Path(".oqto/sandbox.toml")  # below the workspace

SECRETS = (".ssh", ".aws", ".gnupg")
"""What no profile lets a session read, below the home, unless the base says otherwise."""

OWN_STATE = (".local/share/oqto", ".local/state/oqto")
"""oqtod's own database in personal mode, below the home: never shown, whatever the files say."""

CACHES = (".cache",)
"""What tools rebuild when it is missing, below the home: writable in the development profile."""

NEVER_WRITABLE = ("/proc", "/sys", "/dev", "/run")
"""What no allow_write opens: the kernel's interfaces, and the sockets of everything else on the host."""

BUILT_IN = "built in"


class Policy(Struct, frozen=True, kw_only=True):
    """The effective rules of one session. Paths are absolute; those of `allow_write` have their links
    resolved.
    """

    enabled: bool = True
    profile: str = "development"
    level: Profile = "development"
    """The built-in profile that `profile` is, or extends: it decides what of the home is shown."""
    deny_read: tuple[Rule, ...] = ()
    deny_write: tuple[Rule, ...] = ()
    allow_write: tuple[Rule, ...] = ()
    isolate_network: bool = False
    isolate_pid: bool = True
    withdrawn: tuple[Rule, ...] = ()
    """Writable by the base, and taken away by an overlay; each with the line that did it."""
    origins: Mapping[str, str] = {}
    """For every key that holds one value: which line of which file decided."""
    sources: tuple[Path, ...] = ()
    """The files that were looked for, existing or not: a session may change none of them."""

    def origin(self, key: str) -> str:
        """Return what decided the value of `key`, for people."""
        return self.origins.get(key, f"{BUILT_IN}, profile {self.profile}")


def profile_defaults(profile: Profile, *, home: Path) -> Policy:
    """Return what a built-in profile means before a file adjusts it."""
    origin = f"{BUILT_IN}, profile {profile}"
    secrets = tuple(Rule(home / name, origin) for name in SECRETS)
    if profile != "development":
        isolated = profile == "strict"
        return Policy(profile=profile, level=profile, deny_read=secrets, isolate_network=isolated)
    writable = (*(home / name for name in (".cargo", ".npm", *CACHES)), Path("/tmp"))  # noqa: S108  its own
    found = (resolve_writable(entry, home=home) for entry in writable)
    return Policy(
        profile=profile, deny_read=secrets, allow_write=tuple(Rule(path, origin) for path in found if path)
    )


def load_policy(*, host: Path | None, user: Path | None, workspace: Path | None, home: Path) -> Policy:
    """Read and merge the sandbox files. A file that doesn't exist says nothing; so does a path that is None.

    `host` is the administrator's file and rules when given; without it (personal mode) `user` rules.
    `workspace` is the workspace's *file* (`WORKSPACE_FILE` below the workspace). `home` is what ``~`` stands
    for.

    Raises `SandboxRefused`.
    """
    base_file, overlays = (host, (user, workspace)) if host is not None else (user, (workspace,))
    chosen = None if base_file is None else read_file(base_file, home=home, trusted=host is not None)
    profiles: dict[str, list[Keys]] = {}
    policy = _base(chosen or SandboxFile(path=base_file or HOST_FILE), home=home)
    _remember(profiles, chosen)
    for path in overlays:
        if path is not None and (overlay := read_file(path, home=home)) is not None:
            policy = tighten(policy, overlay, home=home, earlier=profiles)
            _remember(profiles, overlay)
    return replace(policy, sources=tuple(path for path in (host, user, workspace) if path is not None))


def _remember(profiles: dict[str, list[Keys]], file: SandboxFile | None) -> None:
    for name, table in file.profiles.items() if file is not None else ():
        profiles.setdefault(name, []).append(table)


def _base(file: SandboxFile, *, home: Path) -> Policy:
    """The profile that the file chooses, with the keys of the profile's table and then its own in place."""
    name = file.keys.profile or "development"
    tables = [file.profiles[name]] if name in file.profiles else []
    level = _level(name, tables, file)
    policy = replace(profile_defaults(level, home=home), profile=name)
    origins: dict[str, str] = {}
    for keys in (*tables, file.keys):
        for key in ("enabled", "deny_read", "deny_write", "allow_write", "isolate_network", "isolate_pid"):
            if (value := getattr(keys, key)) is not None:
                policy = replace(policy, **{key: value})
                origins[key] = keys.origins[key]
        origins |= {"profile": keys.origins["profile"]} if "profile" in keys.origins else {}
    if "allow_write" in origins and level == "development":
        # The caches are the profile's, not the list's: whoever writes the list down keeps them.
        known = {rule.path for rule in policy.allow_write}
        caches = [rule for rule in profile_defaults(level, home=home).allow_write if _is_cache(rule, home)]
        policy = replace(
            policy, allow_write=policy.allow_write + tuple(rule for rule in caches if rule.path not in known)
        )
    for rule in policy.allow_write:
        if rule.path == Path("/") or any(rule.path.is_relative_to(top) for top in NEVER_WRITABLE):
            raise SandboxRefused(
                f"allow_write: {str(rule.path)!r} can't be opened to a session; name a folder", file.path
            )
    return replace(policy, origins=origins)


def _is_cache(rule: Rule, home: Path) -> bool:
    return rule.path in {resolve_writable(home / name, home=home) for name in CACHES}


def tighten(
    base: Policy, file: SandboxFile, *, home: Path, earlier: Mapping[str, list[Keys]] | None = None
) -> Policy:
    """Return `base` with the restrictions of `file` added; nothing that `base` forbids becomes possible.

    A stricter profile brings its own rules along. ``enabled = false`` has no effect in an overlay, and
    ``enabled = true`` brings the sandbox back that the base had switched off. `earlier` are the profile
    tables of the files before. Raises `SandboxRefused` for a profile that nobody knows.
    """
    own = file.keys
    tables = [file.profiles[name] for name in [own.profile or base.profile] if name in file.profiles]
    level, profile, origins = base.level, base.profile, dict(base.origins)
    if own.profile is not None:
        tables = [*(earlier or {}).get(own.profile, ()), *tables]
        asked = _level(own.profile, tables, file)
        if PROFILES.index(asked) > PROFILES.index(level):
            level, profile = asked, own.profile
            origins["profile"] = own.origins["profile"]
            defaults = profile_defaults(level, home=home)
            tables = [_as_keys(defaults, own.origins["profile"]), *tables]
    deny_read, deny_write = base.deny_read, base.deny_write
    network, pids, enabled = base.isolate_network, base.isolate_pid, base.enabled
    allow_write: tuple[Rule, ...] | None = None
    for keys in (*tables, own):
        deny_read = _united(deny_read, keys.deny_read)
        deny_write = _united(deny_write, keys.deny_write)
        allow_write = allow_write if keys.allow_write is None else keys.allow_write
        if keys.isolate_network and not network:
            network, origins["isolate_network"] = True, keys.origins["isolate_network"]
        if keys.isolate_pid and not pids:
            pids, origins["isolate_pid"] = True, keys.origins["isolate_pid"]
        if keys.enabled and not enabled:
            enabled, origins["enabled"] = True, keys.origins["enabled"]
        if keys.allow_write is not None:
            origins["allow_write"] = keys.origins["allow_write"]
    kept, withdrawn = base.allow_write, base.withdrawn
    if allow_write is not None:
        kept = _narrow(base.allow_write, allow_write, home)
        withdrawn += tuple(
            Rule(rule.path, origins["allow_write"])
            for rule in base.allow_write
            if rule.path not in {other.path for other in kept}
        )
    return replace(
        base,
        enabled=enabled,
        profile=profile,
        level=level,
        deny_read=deny_read,
        deny_write=deny_write,
        allow_write=kept,
        isolate_network=network,
        isolate_pid=pids,
        withdrawn=withdrawn,
        origins=origins,
    )


def _level(name: str, tables: list[Keys], file: SandboxFile) -> Profile:
    """The built-in profile that `name` is or extends; the strictest where several tables say so."""
    extended = [table.extends for table in tables if table.extends is not None]
    extended += [profile for profile in PROFILES if profile == name]
    if not extended and not tables:
        known = (*PROFILES, *file.profiles)
        raise SandboxRefused(
            f"profile: found {name!r};{guess(name, known)} allowed are {', '.join(known)}, and what a table "
            "[profiles.NAME] makes",
            file.path,
        )
    return max(extended, key=PROFILES.index, default="development")


def _as_keys(defaults: Policy, origin: str) -> Keys:
    """A built-in profile's rules as an overlay brings them along, because of the line `origin`."""
    why = f"{origin}, profile {defaults.profile}"
    return Keys(
        deny_read=tuple(Rule(rule.path, why) for rule in defaults.deny_read),
        allow_write=defaults.allow_write,
        isolate_network=defaults.isolate_network,
        isolate_pid=defaults.isolate_pid,
        origins=dict.fromkeys(("allow_write", "isolate_network", "isolate_pid"), why),
    )


def _united(some: tuple[Rule, ...], others: tuple[Rule, ...] | None) -> tuple[Rule, ...]:
    known = {rule.path for rule in some}
    return some + tuple(rule for rule in others or () if rule.path not in known)


def _narrow(some: tuple[Rule, ...], others: tuple[Rule, ...], home: Path) -> tuple[Rule, ...]:
    # Apart, so that a base's /tmp, which isn't the host's, never permits a home that is in the host's.
    private, rest = _split(some, home)
    other_private, other_rest = _split(others, home)
    return intersection(rest, other_rest) + intersection(private, other_private)


def _split(rules: tuple[Rule, ...], home: Path) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    private = tuple(rule for rule in rules if is_private(rule.path, home=home))
    return private, tuple(rule for rule in rules if rule not in private)


def intersection(some: tuple[Rule, ...], others: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return what lies in one of `some` and in one of `others`: of two that contain each other, the inner."""
    inner = [
        a if a.path.is_relative_to(b.path) else b
        for a in some
        for b in others
        if a.path.is_relative_to(b.path) or b.path.is_relative_to(a.path)
    ]
    return tuple({rule.path: rule for rule in reversed(inner)}.values())[::-1]


def writable_paths(policy: Policy, *, home: Path) -> list[Rule]:
    """Return what of the host a policy lets a session write beside the workspace.

    None of it lies in another: what is inside a writable folder could have been made a link by a session.
    """
    real_home = Path(os.path.realpath(home))
    rules = [rule for rule in policy.allow_write if not is_private(rule.path, home=real_home)]
    return [
        rule
        for rule in rules
        if not any(rule.path != other.path and rule.path.is_relative_to(other.path) for other in rules)
    ]


__all__ = [
    "HOST_FILE",
    "PRIVATE_TEMPORARY",
    "PROFILES",
    "USER_FILE",
    "WORKSPACE_FILE",
    "Keys",
    "Policy",
    "Profile",
    "Rule",
    "SandboxFile",
    "SandboxRefused",
    "intersection",
    "load_policy",
    "profile_defaults",
    "read_file",
    "tighten",
    "writable_paths",
]
