"""The sandbox of one account in one workspace: its files found and read anew for each program."""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.sandbox import bubblewrap, layout
from runner.sandbox.policy import HOST_FILE, USER_FILE, WORKSPACE_FILE, Policy, load_policy


class WorkspaceSandbox:
    """What an account's programs in a workspace may do; the workspace is a path without links.

    In personal mode the person's own file rules; else the administrator's does, whether it exists or not.
    """

    def __init__(self, account: pwd.struct_passwd, workspace: Path, *, personal: bool) -> None:
        self.account = account
        self.workspace = workspace
        self.home = Path(account.pw_dir)
        self.host_file = None if personal else HOST_FILE

    def policy(self) -> Policy:
        """Return the rules that hold now. Raises SandboxRefused."""
        return load_policy(
            host=self.host_file,
            user=self.home / USER_FILE,
            workspace=self.workspace / WORKSPACE_FILE,
            home=self.home,
        )

    def plan(self, policy: Policy, service_directory: Path | None = None) -> layout.Plan:
        """Return what a program is shown. Raises SandboxRefused."""
        return layout.plan(
            policy,
            workspace=self.workspace,
            home=self.home,
            service_directory=service_directory,
            programs=layout.own_code(),
        )

    def command(
        self,
        argv: Sequence[str],
        *,
        bwrap: str,
        extra: Mapping[str, str],
        service_directory: Path | None = None,
        programs: Sequence[Path] = (),
        kept: Sequence[tuple[Path, layout.Kind]] = (),
        die_with_parent: bool = False,
        nested_user_namespaces: bool = False,
    ) -> bubblewrap.Command:
        """Return what runs `argv`, with the clean environment and `extra`; see `bubblewrap.command`.

        Raises SandboxRefused, SeccompUnavailable and OSError.
        """
        policy = self.policy()
        layout.create_writable(policy, home=self.home)
        return bubblewrap.command(
            policy,
            argv,
            workspace=self.workspace,
            home=self.home,
            variables=bubblewrap.environment(self.account, extra),
            service_directory=service_directory,
            programs=programs,
            kept=kept,
            die_with_parent=die_with_parent,
            nested_user_namespaces=nested_user_namespaces,
            bwrap=bwrap,
        )
