"""The command `oqto-sandbox`: run anything under the sandbox of a workspace."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from pathlib import Path

from runner.sandbox import bubblewrap
from runner.sandbox.policy import SandboxRefused, load_policy


def main() -> int:
    """Run the command; it becomes the program it runs. Returns 3 where a sandbox file is refused."""
    parser = argparse.ArgumentParser(prog="oqto-sandbox", description="Run a command as a session would.")
    parser.add_argument("--workspace", type=Path, default=Path.cwd(), help="default: the current folder")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")
    options = parser.parse_args()
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not argv:
        parser.error("which command?")
    account = pwd.getpwuid(os.getuid())
    home, workspace = Path(account.pw_dir), options.workspace.resolve()
    host = Path("/etc/oqto/sandbox.toml")
    try:
        policy = load_policy(
            host=host if host.exists() else None,
            user=home / ".config/oqto/sandbox.toml",
            workspace=workspace / ".oqto/sandbox.toml",
            home=home,
        )
    except SandboxRefused as refused:
        print(f"oqto-sandbox: {refused}", file=sys.stderr)
        return 3
    line = bubblewrap.command(policy, argv, workspace=workspace, home=home, service_directory=None)
    try:
        os.execvpe(line[0], line, bubblewrap.environment(account, {}))  # noqa: S606  its whole purpose
    except OSError as error:
        print(f"oqto-sandbox: {line[0]} can't be run: {error.strerror}", file=sys.stderr)
        return 1
