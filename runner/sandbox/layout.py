"""Which paths a sandbox shows, and how: the plan that bubblewrap carries out and `explain` reads.

A plan is a list of mounts, parents before children, so that of two rules for nested paths the inner one
holds, except below a denied folder, where nothing comes back but what oqto itself brings along. Only links
and what exists are looked up here; nothing is changed.

What is denied is hidden in one of two ways. In a folder that a session only reads, the folder's other entries
are shown one by one, and the denied one isn't, whether it exists or not, and whatever is put in its place
later (`sieve`). In a folder that a session can write, something is mounted over it; where there is nothing
yet, `placeholder` says what must be made there first.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from runner.sandbox.files import PRIVATE_TEMPORARY, Rule, SandboxRefused
from runner.sandbox.policy import BUILT_IN, OWN_STATE, WORKSPACE_FILE, Policy, writable_paths

Kind = Literal[
    "read-only",
    "read-write",
    "scratch",
    "hollow",
    "sieve",
    "denied-folder",
    "denied-file",
    "link",
    "proc",
    "dev",
]

SYSTEM = ("/usr", "/etc", "/opt", "/nix", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Read-only wherever they exist; on a merged-usr host some are links, and stay links."""

SYSTEM_DETAILS = (
    "/sys/devices/system",  # how many processors there are
    "/var/cache/fontconfig",
    "/var/cache/man",
    "/var/lib/dpkg",
)

SIEVE_LIMIT = 256
"""Entries of a folder that are shown one by one at most: bwrap's time grows with the square of them."""


class Mount(Struct, frozen=True):
    """What stands at `path` in the sandbox.

    ``read-only`` and ``read-write`` show the host's `source`; ``scratch`` is an empty folder that may be
    written and is gone with the sandbox; ``hollow`` is an empty folder that may not; ``sieve`` is one that
    holds the mounts of what it shows; ``link`` is a symbolic link to `source`.
    """

    kind: Kind
    path: Path
    source: Path | None = None
    why: str = BUILT_IN
    """What decided, for people: a line of a file, or a profile."""
    placeholder: bool = False
    """Whether nothing is there yet, and an empty folder or file must be made on the host to mount over."""
    may_vanish: bool = False

    @property
    def shows_host(self) -> bool:
        """Whether what lies below is the host's."""
        return self.kind in ("read-only", "read-write")


class Plan(Struct, frozen=True):
    """All that a sandbox shows."""

    mounts: tuple[Mount, ...]
    denied: tuple[Rule, ...]
    """What isn't shown although what is around it may be; links resolved."""


def plan(
    policy: Policy,
    *,
    workspace: Path,
    home: Path,
    service_directory: Path | None = None,
    programs: Sequence[Path] = (),
    kept: Sequence[tuple[Path, Kind]] = (),
) -> Plan:
    """Return the mounts of a sandbox under `policy`, in the order in which they must be made.

    `kept` is what oqtod itself keeps for the program, and shows (read-only or read-write) in any case.

    Raises `SandboxRefused` when the policy denies the workspace itself, when the workspace's ``.oqto`` isn't
    a folder, and when something can't be hidden for certain.
    """
    return _Planner(policy, workspace=workspace, home=home).plan(service_directory, programs, kept)


class _Planner:
    def __init__(self, policy: Policy, *, workspace: Path, home: Path) -> None:
        self._policy = policy
        self._named = [workspace, home]
        self._workspace = Path(os.path.realpath(workspace))
        self._home = Path(os.path.realpath(home))
        self._mounts: dict[Path, Mount] = {}
        self._denied: list[Rule] = []
        if self._workspace == Path("/"):
            raise SandboxRefused("the whole file system can't be a workspace", workspace)

    def plan(
        self,
        service_directory: Path | None,
        programs: Sequence[Path],
        kept: Sequence[tuple[Path, Kind]],
    ) -> Plan:
        policy = self._policy
        self._system()
        if self._home != Path("/"):
            shown = policy.level == "development" and self._home.is_dir()
            source = self._home if shown else None
            self._put("read-only" if shown else "hollow", self._home, source, policy.origin("profile"))
        for rule in writable_paths(policy, home=self._home):
            if _there(rule.path):
                self._put("read-write", rule.path, rule.path, rule.origin)
        self._put("read-write", self._workspace, self._workspace, "the workspace")
        for rule in policy.deny_write:
            self._forbid_writing(rule)
        self._deny()
        self._protect(self._workspace / WORKSPACE_FILE.parent)
        for file in policy.sources:
            self._protect(file.parent)
        for program in programs:
            self._bring(Path(os.path.realpath(program)))
        if service_directory is not None:
            real = Path(os.path.realpath(service_directory))
            self._put("read-write", real, real, "the service's own socket")
        for path, kind in kept:
            self._show(kind, Path(os.path.realpath(path)))
        own = [path for path, _ in kept] + ([] if service_directory is None else [service_directory])
        self._links([*self._named, *programs, *own])
        ordered = sorted(self._mounts.values(), key=lambda mount: len(mount.path.parts))
        return Plan(tuple(ordered), tuple(self._denied))

    def _put(self, kind: Kind, path: Path, source: Path | None = None, why: str = BUILT_IN) -> None:
        self._mounts[path] = Mount(kind, path, source, why)

    def _nearest(self, path: Path) -> Mount | None:
        return nearest(self._mounts, path)

    def _system(self) -> None:
        for path in map(Path, SYSTEM):
            if path.is_symlink():
                self._put("link", path, path.readlink())
            elif _there(path):
                self._put("read-only", path, path)
        for path in map(Path, SYSTEM_DETAILS):
            if _there(path):
                self._put("read-only", path, path)
        for path in PRIVATE_TEMPORARY:
            self._put("scratch", path)
        self._put("hollow", Path("/run"))
        self._put("link", Path("/var/run"), Path("/run"))
        self._put("dev", Path("/dev"))
        self._put("scratch", Path("/dev/shm"))  # noqa: S108 - the sandbox's own
        self._put("proc", Path("/proc"))
        # systemd-resolved and others keep the real file below /run, of which nothing else is shown.
        names = Path(os.path.realpath("/etc/resolv.conf"))
        if names.is_file() and names.is_relative_to("/run"):
            self._put("read-only", names, names)

    def _deny(self) -> None:
        """Hide what the policy denies, by the name it was given and by where that leads."""
        for rule in self._policy.deny_read:
            named = Path(os.path.realpath(rule.path.parent)) / rule.path.name
            for path in dict.fromkeys((Path(os.path.realpath(rule.path)), named)):
                if self._workspace.is_relative_to(path):
                    raise SandboxRefused(
                        f"deny_read: {str(rule.path)!r} hides the workspace {self._workspace} "
                        f"({rule.origin}); remove that entry or use another workspace",
                        self._policy.sources[-1] if self._policy.sources else rule.path,
                    )
                self._hide(path, rule.origin)
        for path in (self._home / name for name in OWN_STATE):
            if not self._workspace.is_relative_to(path) and _there(path):
                self._hide(path, f"{BUILT_IN}: oqtod's own data", sieve=False)

    def _hide(self, path: Path, why: str, *, sieve: bool = True) -> None:
        if any(path.is_relative_to(rule.path) for rule in self._denied):
            return  # hidden already; to show what is around it would bring that back
        self._denied.append(Rule(path, why))
        inside = [inner for inner in self._mounts if inner.is_relative_to(path)]
        for inner in inside:
            del self._mounts[inner]
        above = self._nearest(path)
        if sieve and above is not None and above.kind in ("read-only", "sieve") and self._sieve(path, above):
            return
        if above is None or not (above.shows_host or above.kind == "sieve"):
            if inside:  # it came from us: /tmp, /proc, a folder with its own rule
                self._put("denied-folder", path, why=why)
            return
        try:
            kind: Kind = "denied-folder" if stat.S_ISDIR(path.lstat().st_mode) else "denied-file"
            if path.is_symlink():
                return  # where it leads is hidden, and nothing can be mounted over a link
            there = True
        except FileNotFoundError:
            kind, there = _placeholder(path), False
        except OSError:
            return  # out of the account's reach, and so of the session's
        if not there and above.kind != "read-write" and not os.access(path.parent, os.W_OK):
            raise SandboxRefused(
                f"deny_read: {str(path)!r} isn't there yet, in a folder of more than {SIEVE_LIMIT} entries, "
                f"so it can't be kept hidden ({why}); make it, empty, or deny the folder",
                self._policy.sources[-1] if self._policy.sources else path,
            )
        self._pin(path, above)
        self._mounts[path] = Mount(kind, path, why=why, placeholder=not there)

    def _sieve(self, path: Path, above: Mount) -> bool:
        """Show the entries of all folders from `above` to `path` one by one, without `path`.

        Says whether that was possible.
        """
        between = [*reversed(path.parents[: len(path.parts) - len(above.path.parts)])]
        found: list[tuple[Path, list[Mount]]] = []
        for folder in between:
            if folder in self._mounts and self._mounts[folder].kind == "sieve":
                continue
            try:
                shown = [_shown(entry, above.why) for entry in os.scandir(folder)]
            except FileNotFoundError:
                break
            except PermissionError:
                shown = []  # not to be listed, but perhaps to be guessed in: nothing of it is shown
            except OSError:
                return False
            if len(shown) > SIEVE_LIMIT:
                return False
            found.append((folder, [mount for mount in shown if mount is not None]))
        for folder, entries in found:
            self._mounts[folder] = Mount("sieve", folder, why=above.why)
            for entry in entries:
                if entry.path != path:
                    self._mounts.setdefault(entry.path, entry)
        return True

    def _forbid_writing(self, rule: Rule) -> None:
        """Make what lies at and below a path read-only, now and for as long as the sandbox lives."""
        named = Path(os.path.realpath(rule.path.parent)) / rule.path.name
        for path in dict.fromkeys((Path(os.path.realpath(rule.path)), named)):
            for inner, mount in list(self._mounts.items()):
                if not inner.is_relative_to(path):
                    continue
                if mount.kind == "read-write":
                    self._mounts[inner] = replace(mount, kind="read-only", why=rule.origin)
                elif mount.kind == "scratch":
                    self._mounts[inner] = replace(mount, kind="hollow", why=rule.origin)
            above = self._nearest(path)
            if above is None or above.path == path or above.kind != "read-write" or path.is_symlink():
                continue
            self._pin(path, above)
            if _there(path):
                self._put("read-only", path, path, rule.origin)
            else:
                kind: Kind = "hollow" if _placeholder(path) == "denied-folder" else "denied-file"
                self._mounts[path] = Mount(kind, path, why=rule.origin, placeholder=True)

    def _protect(self, folder: Path) -> None:
        """Keep a sandbox file's folder as it is where a session may write."""
        if folder.is_symlink() and (above := self._nearest(folder)) and above.kind == "read-write":
            raise SandboxRefused("it is a symbolic link; put the real folder there", folder)
        folder = Path(os.path.realpath(folder))
        if any(folder.is_relative_to(rule.path) for rule in self._denied):
            return
        above = self._nearest(folder)
        if above is None or above.kind != "read-write":
            return
        self._pin(folder, above)
        why = f"{BUILT_IN}: no session changes its own rules"
        if _there(folder):
            self._put("read-only", folder, folder, why)
        else:
            self._mounts[folder] = Mount("hollow", folder, why=why, placeholder=True)

    def _bring(self, program: Path) -> None:
        """Show a program of ours read-only, whatever the policy hides around it."""
        above = self._nearest(program)
        if above is None or above.kind != "read-only":
            # Also where it could be seen already but be written: the runner itself runs from there.
            self._pin(program, above)
            self._put("read-only", program, program, f"{BUILT_IN}: oqtod's own programs")

    def _show(self, kind: Kind, path: Path) -> None:
        """Show what oqtod keeps for the program; of a hidden folder on the way only the way."""
        for folder in path.parents:
            hidden = self._mounts.get(folder)
            if hidden is not None and hidden.kind == "denied-folder":
                self._mounts[folder] = replace(hidden, kind="hollow")
        self._put(kind, path, path, f"{BUILT_IN}: what oqtod keeps for the session")

    def _pin(self, path: Path, above: Mount | None) -> None:
        """Make the folders between `above` and `path` mounts.

        A mount can't be renamed, so a session can't move `path` out from under its rule before the next one
        starts.
        """
        if above is not None and above.kind == "read-write":
            for folder in path.parents:
                if folder == above.path or not folder.is_relative_to(above.path):
                    break
                self._put("read-write", folder, folder, above.why)

    def _links(self, paths: Sequence[Path]) -> None:
        """Show the links that lead to where the session, its home and its programs are."""
        for named in paths:
            for link, target in _links_on_the_way(named):
                above = self._nearest(link)
                if above is None or not (above.shows_host or above.kind == "sieve"):
                    self._put("link", link, target)


def own_code() -> list[Path]:
    """Return the folders that our commands are run from, for a sandbox that would hide them."""
    package = Path(__file__).resolve().parents[2]
    folders = [Path(sys.prefix), Path(sys.base_prefix), package / "runner", package / "oqtod"]
    return [
        folder for folder in dict.fromkeys(folders) if not folder.is_relative_to("/usr") and _there(folder)
    ]


def nearest(mounts: dict[Path, Mount], path: Path) -> Mount | None:
    """Return the mount that `path` lies in."""
    return next((mounts[folder] for folder in (path, *path.parents) if folder in mounts), None)


def create_writable(policy: Policy, *, home: Path) -> None:
    """Make the writable folders of the home that don't exist yet, mode 0700, so that tools find them.

    An entry whose name has an ending (``~/.tool.json``) is taken for a file and left to its tool: it becomes
    writable with the first session after it exists. Does nothing where the policy's sandbox is off. Raises
    OSError.
    """
    real_home = Path(os.path.realpath(home))
    for rule in writable_paths(policy, home=home) if policy.enabled else ():
        if rule.path.is_relative_to(real_home) and not rule.path.suffix and not _there(rule.path):
            rule.path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _shown(entry: os.DirEntry[str], why: str) -> Mount | None:
    """The mount that shows one entry of a folder; None for what isn't shown: sockets, pipes, devices."""
    path = Path(entry.path)
    try:
        if entry.is_symlink():
            return Mount("link", path, path.readlink(), why)
        if entry.is_dir() or entry.is_file():
            return Mount("read-only", path, path, why, may_vanish=True)
    except OSError:
        pass  # it vanished, or its file system doesn't answer: then there is nothing to show
    return None


def _placeholder(path: Path) -> Kind:
    """What a path that isn't there yet will probably be."""
    name = path.name
    like_a_file = bool(path.suffix) or name.startswith(".env") or name.endswith("rc")
    return "denied-file" if like_a_file else "denied-folder"


def _there(path: Path) -> bool:
    """Whether the account can see that `path` exists, links followed."""
    return os.access(path, os.F_OK)


def _links_on_the_way(path: Path) -> Iterable[tuple[Path, Path]]:
    """The symbolic links that lead to `path`, as (where it is, what it says), for paths that exist."""
    real, links = Path("/"), 0
    rest = list(path.parts[1:])
    while rest:
        step = real / rest.pop(0)
        if step.is_symlink() and links < 40:  # path_resolution(7): more is ELOOP
            links += 1
            target = step.readlink()
            yield step, target
            if target.is_absolute():
                real = Path("/")
            rest = [part for part in target.parts if part != "/"] + rest
        elif step.name == "..":
            real = real.parent
        else:
            real = step
