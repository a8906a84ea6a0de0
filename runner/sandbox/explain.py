"""Why a session may, or may not, read or write a path: the plan of its sandbox, asked about one place."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from runner.sandbox.layout import Mount, Plan, nearest
from runner.sandbox.policy import BUILT_IN, Policy


class Verdict(Struct, frozen=True):
    """What holds for one path."""

    path: str
    read: bool
    read_why: str
    write: bool
    write_why: str


def explain(policy: Policy, shown: Plan, path: Path) -> Verdict:
    """Say what a session may do with `path`, an absolute path on this host, and which line decided.

    What the account's own permissions forbid is forbidden too; they are looked up as who asks.
    """
    real = Path(os.path.realpath(path))
    if not policy.enabled:
        why = f"the sandbox is off: {policy.origin('enabled')}"
        verdict = Verdict(str(path), True, why, True, why)
    else:
        verdict = _in_plan(policy, shown, path, real)
    return _with_permissions(verdict, real)


def _in_plan(policy: Policy, shown: Plan, path: Path, real: Path) -> Verdict:
    mounts = {mount.path: mount for mount in shown.mounts}
    mount = nearest(mounts, real)

    def both(allowed: bool, why: str) -> Verdict:
        return Verdict(str(path), allowed, why, allowed, why)

    for rule in shown.denied:
        if real.is_relative_to(rule.path) and (mount is None or not _brought_back(mount, rule.path)):
            return both(False, f"deny_read: {rule.origin}")
    if mount is None:
        if any(inner.is_relative_to(real) for inner in mounts):
            return Verdict(
                str(path),
                True,
                "a folder on the way to what is shown",
                False,
                f"{BUILT_IN}: it isn't the host's",
            )
        return both(False, f"{BUILT_IN}: no profile shows it; allow_write can")
    match mount.kind:
        case "read-write":
            return both(True, _allowed(mount))
        case "read-only":
            return Verdict(str(path), True, mount.why, False, _why_not_written(policy, mount, real))
        case "scratch":
            return both(True, f"{BUILT_IN}: the sandbox's own and empty at first, not the host's")
        case "proc" | "dev":
            return both(True, f"{BUILT_IN}: the sandbox's own")
        case "sieve" if real == mount.path:
            return Verdict(str(path), True, mount.why, False, _why_not_written(policy, mount, real))
        case "sieve":
            return both(False, f"it isn't there, or is neither file nor folder; its folder: {mount.why}")
        case "link" | "hollow" | "denied-folder" | "denied-file":
            return both(False, f"an empty place: {mount.why}")
    raise AssertionError(mount.kind)


def _brought_back(mount: Mount, denied: Path) -> bool:
    """Whether something stands below what is denied after all: our own programs, the service's socket."""
    return mount.shows_host and mount.path.is_relative_to(denied)


def _allowed(mount: Mount) -> str:
    return mount.why if mount.why == "the workspace" else f"allow_write: {mount.why}"


def _why_not_written(policy: Policy, mount: Mount, real: Path) -> str:
    for rule in policy.deny_write:
        if real.is_relative_to(rule.path) or real.is_relative_to(os.path.realpath(rule.path)):
            return f"deny_write: {rule.origin}"
    for rule in policy.withdrawn:
        if real.is_relative_to(rule.path):
            return f"allow_write, which leaves it out: {rule.origin}"
    return f"no allow_write covers it: {policy.origin('allow_write')}; read-only: {mount.why}"


def _with_permissions(verdict: Verdict, real: Path) -> Verdict:
    """Add what the files' own permissions forbid."""
    target = real
    while not os.path.lexists(target) and target != target.parent:
        target = target.parent
    read, write, read_why, write_why = verdict.read, verdict.write, verdict.read_why, verdict.write_why
    if read and not os.access(target, os.R_OK):
        read, read_why = False, "the file's own permissions"
    if write and not os.access(target, os.W_OK):
        write, write_why = False, "the file's own permissions"
    return Verdict(verdict.path, read, read_why, write, write_why)


def lines(policy: Policy) -> list[tuple[str, str, str]]:
    """Return the effective policy for people: key, value, and what decided it."""
    told = [("enabled", _flag(policy.enabled), policy.origin("enabled"))]
    extended = "" if policy.level == policy.profile else f" (extends {policy.level})"
    told.append(("profile", policy.profile + extended, policy.origins.get("profile", BUILT_IN)))
    for key in ("deny_read", "deny_write", "allow_write"):
        told += [(key, str(rule.path), rule.origin) for rule in getattr(policy, key)]
        if not getattr(policy, key):
            told.append((key, "nothing", policy.origin(key)))
    for key in ("isolate_network", "isolate_pid"):
        told.append((key, _flag(getattr(policy, key)), policy.origin(key)))
    return told


def _flag(value: bool) -> str:
    return "true" if value else "false"
