"""What `oqto-sandbox` and `oqtoctl sandbox` print: the policy, reasons for a path, what the host can do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.sandbox import explain, probe
from runner.sandbox.layout import Plan
from runner.sandbox.workspace import WorkspaceSandbox

DONE, FAILED = 0, 1


def show(sandbox: WorkspaceSandbox, *, as_json: bool) -> int:
    """Print the effective policy with the line that each part comes from. Raises SandboxRefused."""
    policy = sandbox.policy()
    if policy.enabled:
        sandbox.plan(policy)  # what can't be carried out is refused, here as in a session
    told = explain.lines(policy)
    if as_json:
        return _json(
            {
                "workspace": str(sandbox.workspace),
                "policy": [{"key": key, "value": value, "origin": why} for key, value, why in told],
            }
        )
    _say(f"# {sandbox.workspace}, as {sandbox.account.pw_name}")
    for key, value, why in told:
        _say(f"{key:<16} {value:<40} # {why}")
    return DONE


def explain_paths(sandbox: WorkspaceSandbox, paths: Sequence[str], *, as_json: bool) -> int:
    """Print for each path whether a session could read and write it, and what decided. Raises
    SandboxRefused.
    """
    policy = sandbox.policy()
    shown = sandbox.plan(policy) if policy.enabled else Plan((), ())
    verdicts = [explain.explain(policy, shown, _absolute(path, sandbox.home)) for path in paths]
    if as_json:
        return _json([msgspec.structs.asdict(verdict) for verdict in verdicts])
    for verdict in verdicts:
        _say(verdict.path)
        _say(f"  read   {'yes' if verdict.read else 'no':<4} {verdict.read_why}")
        _say(f"  write  {'yes' if verdict.write else 'no':<4} {verdict.write_why}")
    return DONE


def check(sandbox: WorkspaceSandbox, *, as_json: bool) -> int:
    """Say whether the files are in order and what this host can enforce; 1 when no session could start.

    Raises SandboxRefused.
    """
    policy = sandbox.policy()
    if policy.enabled:
        sandbox.plan(policy)
    found = probe.findings() if policy.enabled else []
    broken = [finding for finding in found if finding.needed and not finding.works]
    if as_json:
        _json(
            {
                "enabled": policy.enabled,
                "files": {str(file): file.exists() for file in policy.sources},
                "host": [msgspec.structs.asdict(finding) for finding in found],
            }
        )
        return FAILED if broken else DONE
    for file in policy.sources:
        _say(f"ok    {file}{'' if file.exists() else ' (not there: it says nothing)'}")
    if not policy.enabled:
        _say(f"off   the sandbox is switched off: {policy.origin('enabled')}")
    for finding in found:
        word = "ok" if finding.works else "fail" if finding.needed else "weak"
        _say(f"{word:<5} {finding.part}: {finding.detail}")
    return FAILED if broken else DONE


def _absolute(path: str, home: Path) -> Path:
    if path == "~" or path.startswith("~/"):
        return Path(str(home) + path[1:])
    return Path(os.path.abspath(path))  # noqa: PTH100  no link is to be followed yet


def _json(document: Any) -> int:
    _say(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    return DONE


def _say(text: str) -> None:
    """Print text that may hold file names of any bytes."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
