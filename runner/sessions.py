"""One session of a runner: its sandbox, its services, what is kept of it.

What a later runner must know to take over stands in `session.json` in the session's folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from runner import browsers, previews, programs, terminals, usage
from runner.cgroups import Cgroup
from runner.doorbell import Doorbell
from runner.processes import Process
from runner.protocol.messages import ServiceName, ServiceStatus, SessionSpec, SessionStatus, Usage
from runner.protocol.rpc import CallFailed
from runner.sandbox import loopback, seccomp
from runner.sandbox.bubblewrap import Command
from runner.sandbox.layout import Kind
from runner.sandbox.policy import SandboxRefused
from runner.sandbox.workspace import WorkspaceSandbox
from runner.services import Service

log = logging.getLogger(__name__)

_SOCKET_PATH_MAX = 107  # sun_path in unix(7), less its NUL


class ServiceRecord(msgspec.Struct, frozen=True):
    """The first process of a service."""

    pid: int
    started: int


class Record(msgspec.Struct, frozen=True):
    """What `session.json` holds."""

    spec: SessionSpec
    services: dict[str, ServiceRecord]


class Session:
    """A session: its workspace, its sandbox, its services."""

    def __init__(
        self, spec: SessionSpec, folder: Path, cgroup: Cgroup | None, *, personal: bool, nursery: trio.Nursery
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.cgroup = cgroup
        self._personal = personal
        self._account = pwd.getpwuid(os.getuid())
        self._nursery = nursery
        self.workspace = Path(spec.workspace)
        launches: dict[ServiceName, Callable[[], Command]] = {
            "terminal": self._terminal,
            "files": self._files,
        }
        if spec.browser is not None:
            launches["browser"] = self._browser
        self.services: dict[str, Service] = {
            name: Service(
                name, folder / name, self._group_of(name), launch, nursery, ends_in_order=name == "browser"
            )
            for name, launch in launches.items()
        }
        home = Path(self._account.pw_dir)
        # An account may have no home; its browser then forgets everything when the session stops.
        self._profile = (
            browsers.profile_of(spec.id, home) if home.is_dir() else folder / "browser" / "profile"
        )
        self._doorbell = Doorbell(folder / "start", self._start_browser)

    @property
    def status(self) -> SessionStatus:
        """The session as callers see it."""
        services: dict[str, ServiceStatus] = {name: x.status for name, x in self.services.items()}
        return SessionStatus(self.spec.id, str(self.workspace), services, self.usage)

    @property
    def usage(self) -> Usage:
        """What the session takes now."""
        if self.cgroup is not None:
            return usage.of_cgroup(self.cgroup)
        return usage.of_trees(x.process.pid for x in self.services.values() if x.process is not None)

    def prepare(self) -> None:
        """Make workspace and folder, and check that the sandbox can be built. Raises CallFailed."""
        self.workspace = _workspace(self.spec)
        sandbox = self._sandbox()
        with _refusing():
            policy = sandbox.policy()
            if policy.enabled:
                programs.bubblewrap()
                seccomp.program()
                sandbox.plan(policy)
        longest = max(len(os.fsencode(service.socket)) for service in self.services.values())
        if longest > _SOCKET_PATH_MAX:
            raise CallFailed("bad_request", f"{self.folder} is too long a path for a Unix socket in it")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.cgroup is not None:
            self.cgroup.make()
        self.save()
        self._serve()

    def _serve(self) -> None:
        """Answer the session's own programs, which ask for its browser."""
        if "browser" not in self.services:
            return
        # Before any sandbox is made: the terminal's shows the one, and hides what the other is in.
        self.services["browser"].folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(OSError):  # the browser's own start will say why
            self._profile.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._nursery.start_soon(self._doorbell.serve)

    async def open(
        self, name: ServiceName, *, start: bool = True
    ) -> tuple[ServiceStatus, socket.socket | None]:
        """Start a service if need be; return its state, and a socket connected to it. Raises CallFailed.

        Without `start`, one that isn't running stays so, and there is no socket.
        """
        service = self._service(name)
        before = service.process
        connected = await service.open(start=start)
        if service.process is not before:
            self.save()
        return service.status, connected

    async def stop_service(self, name: ServiceName) -> None:
        """End a service; the next use starts it again. Raises CallFailed."""
        await self._service(name).stop()
        self.save()

    def _service(self, name: ServiceName) -> Service:
        if name not in self.services:
            raise CallFailed(
                "no_service",
                f"this session was started without a {name}",
                "stop and resume it; see agent_browser.enabled in the configuration",
            )
        return self.services[name]

    async def _start_browser(self) -> None:
        _, connected = await self.open("browser")
        if connected is not None:
            connected.close()

    async def open_port(self, port: int) -> socket.socket:
        """Return a socket connected to a program of the session's person that listens on a loopback port.

        Where the sandbox has a network of its own, that is the only one that is tried. Raises CallFailed.
        """
        running = [service.process.pid for service in self.services.values() if service.process is not None]
        namespaces = [found for found in map(loopback.namespace_of, running) if found is not None]
        try:
            if namespaces:
                return await previews.connect_inside(namespaces, port)
        finally:
            for namespace in namespaces:
                os.close(namespace)
        # Even with a service that runs: one that just ends shows no network, and the host's is not ours then.
        with _refusing():
            policy = self._sandbox().policy()
        if policy.enabled and policy.isolate_network:
            raise previews.nothing_listens(port)
        return await previews.connect(port)

    async def end(self) -> None:
        """End all services, and all that ever ran in the session's control group."""
        with trio.CancelScope(shield=True):
            self._doorbell.close()
            async with trio.open_nursery() as nursery:
                for service in self.services.values():
                    nursery.start_soon(service.end)
            if self.cgroup is not None:
                self.cgroup.kill()
                await self.cgroup.empty(timeout=2)
                self.cgroup.remove()
            shutil.rmtree(self.folder, ignore_errors=False)

    def save(self) -> None:
        """Write `session.json`, whole or not at all."""
        running = {
            name: ServiceRecord(service.process.pid, service.process.started)
            for name, service in self.services.items()
            if service.process is not None
        }
        text = msgspec.json.encode(Record(self.spec, running))
        fresh = self.folder / "session.json.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(text)
        fresh.rename(self.folder / "session.json")

    def adopt(self, services: dict[str, ServiceRecord]) -> None:
        """Take over the services that still run."""
        self.workspace = _workspace(self.spec)
        for name, record in services.items():
            service = self.services.get(name)
            if service is None or self.cgroup is None:
                continue
            process = Process.adopt(record.pid, record.started, self.cgroup.child(name))
            if process is not None:
                service.adopt(process)
        self._serve()

    def _group_of(self, service: str) -> Cgroup | None:
        if self.cgroup is None:
            return None
        spec = self.spec.browser if service == "browser" else None
        return self.cgroup.child(service, memory_max=spec.memory_max if spec is not None else None)

    def _sandbox(self) -> WorkspaceSandbox:
        """The sandbox as its files are now. Raises CallFailed where the workspace isn't what it was."""
        if Path(os.path.realpath(self.workspace)) != self.workspace:
            raise CallFailed(
                "bad_workspace",
                f"the workspace {self.workspace} was moved, or a symbolic link put in its place",
                "put the real folder there",
            )
        return WorkspaceSandbox(self._account, self.workspace, personal=self._personal)

    def _sandboxed(
        self,
        name: str,
        argv: list[str],
        programs_shown: Sequence[Path],
        *,
        environment: Mapping[str, str] | None = None,
        kept: Sequence[tuple[Path, Kind]] = (),
        nested_user_namespaces: bool = False,
    ) -> Command:
        sandbox = self._sandbox()
        with _refusing():
            return sandbox.command(
                argv,
                bwrap=programs.bubblewrap() if sandbox.policy().enabled else "bwrap",
                extra={**self.spec.environment, "OQTO_SESSION_ID": self.spec.id, **(environment or {})},
                service_directory=self.folder / name,
                programs=programs_shown,
                kept=kept,
                die_with_parent=self.cgroup is None,
                nested_user_namespaces=nested_user_namespaces,
            )

    def _terminal(self) -> Command:
        shell = self._account.pw_shell or "/bin/sh"
        terminal = programs.ttyd(self.spec.ttyd_binary)
        argv = terminals.command(
            terminal, socket=self.services["terminal"].socket, workspace=self.workspace, shell=shell
        )
        if "browser" not in self.services:
            return self._sandboxed("terminal", argv, [Path(terminal)])
        browser = self.services["browser"].socket
        client = programs.sibling("oqto-browser") or "/usr/bin/oqto-browser"
        return self._sandboxed(
            "terminal",
            argv,
            [Path(terminal), Path(client)],
            environment={
                "OQTO_BROWSER": client,  # where we run from a checkout, it isn't on PATH
                "OQTO_BROWSER_SOCKET": str(browser),
                "OQTO_BROWSER_START": str(self._doorbell.socket),
            },
            kept=[(browser.parent, "read-only"), (self._doorbell.socket.parent, "read-only")],
        )

    def _files(self) -> Command:
        argv = [programs.fileserver(self.spec.fileserver_binary)]
        argv += ["--root", str(self.workspace), "--socket", str(self.services["files"].socket)]
        argv += ["--max-upload-mb", str(self.spec.max_upload_size_mb)]
        return self._sandboxed("files", argv, [Path(argv[0])])

    def _browser(self) -> Command:
        assert self.spec.browser is not None
        launch = browsers.launch(
            self.spec.browser,
            socket=self.services["browser"].socket,
            profile=self._profile,
            workspace=self.workspace,
        )
        with _refusing():
            if browsers.prepare_profile(self._profile):
                log.warning("the profile %s had grown too large: it begins anew", self._profile)
        return self._sandboxed(
            "browser",
            launch.argv,
            launch.programs,
            environment=launch.environment,
            kept=[(self._profile, "read-write"), *((path, "read-only") for path in launch.readable)],
            nested_user_namespaces=True,
        )


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what a sandbox refuses, or can't do, into the answer of a call."""
    try:
        yield
    except SandboxRefused as refused:
        raise CallFailed("sandbox_refused", str(refused), "correct the file, then try again") from refused
    except seccomp.SeccompUnavailable as error:
        raise CallFailed("missing_program", f"the sandbox can't be built: {error}") from error
    except OSError as error:
        raise CallFailed("service_failed", f"the sandbox can't be built: {error}") from error


def _workspace(spec: SessionSpec) -> Path:
    """Make the workspace and return it with all links resolved. Raises CallFailed where it lies elsewhere."""
    asked, root = Path(spec.workspace), Path(spec.workspace_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Resolved before it is made: nothing comes into being outside the root.
        workspace, root = asked.resolve(), root.resolve()
        if not workspace.is_relative_to(root):
            raise CallFailed("bad_workspace", f"the workspace {asked} is not in {spec.workspace_root}")
        workspace.mkdir(parents=True, exist_ok=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # links in a circle, and NUL in a name, are the latter
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"the workspace {asked} can't be made: {reason}"
        raise CallFailed("bad_workspace", message) from error
    return workspace
