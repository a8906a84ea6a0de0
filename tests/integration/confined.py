"""Running things in a sandbox for tests: as ourselves and, where we are root, as an ordinary account."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner.sandbox.policy import Policy

PATIENCE = 30
NOBODY = 65534

REPOSITORY = Path(__file__).resolve().parents[2]

# Becomes the sandboxed program: what a runner does, in a process that may be another account's.
_DRIVER = """
import os, pickle, sys
from pathlib import Path
from runner.sandbox.bubblewrap import command
from runner.sandbox.layout import create_writable
work = pickle.load(open(int(sys.argv[1]), "rb"))
create_writable(work["policy"], home=work["home"])
made = command(**work)
for descriptor in made.descriptors:
    os.set_inheritable(descriptor, True)
os.execvpe(made.argv[0], made.argv, dict(made.environment))
"""


@dataclass
class Place:
    """A home with a workspace in it, and the account that uses them."""

    home: Path
    uid: int

    @property
    def workspace(self) -> Path:
        return self.home / "work"

    def write(self, name: str, text: str = "") -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for made in (path, *path.parents):
            if made == self.home:
                break
            os.chown(made, self.uid, self.uid)
        return path

    def start(
        self,
        policy: Policy,
        *argv: str,
        workspace: Path | None = None,
        service_directory: Path | None = None,
        nested_user_namespaces: bool = False,
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start a program in the sandbox; its pid is bwrap's."""
        work = {
            "policy": policy,
            "argv": argv,
            "workspace": workspace or self.workspace,
            "home": self.home,
            "service_directory": service_directory,
            "nested_user_namespaces": nested_user_namespaces,
            "die_with_parent": True,
            "variables": {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(self.home), **variables},
        }
        with tempfile.TemporaryFile() as file:
            pickle.dump(work, file)
            file.seek(0)
            return subprocess.Popen(
                [*self.python(), "-c", _DRIVER, str(file.fileno())],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": _modules()},
                pass_fds=[file.fileno()],
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def python(self) -> list[str]:
        """A Python as the account, which can't run one in root's home."""
        if os.getuid() == self.uid:
            return [sys.executable]
        account = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return [*account, "/usr/bin/python3"]

    def run(self, policy: Policy, *argv: str, **more: object) -> subprocess.CompletedProcess[str]:
        with self.start(policy, *argv, **more) as started:  # type: ignore[arg-type]  handed on
            try:
                out, errors = started.communicate(timeout=PATIENCE)
            except BaseException:
                started.kill()
                raise
        return subprocess.CompletedProcess(argv, started.returncode, out, errors)

    def ask(self, policy: Policy, script: str, *, shell: str = "/bin/sh", **more: object) -> list[str]:
        """Run a shell script; its lines, after making sure that it could be run at all."""
        done = self.run(policy, shell, "-c", script, **more)
        assert not done.stderr.startswith(("bwrap:", "Traceback")), done.stderr
        return done.stdout.splitlines()


def tries(*attempts: str) -> str:
    """A script that says for each command, one a line, whether it worked."""
    return "\n".join(f"if {attempt} >/dev/null 2>&1; then echo yes; else echo no; fi" for attempt in attempts)


def accounts() -> list[str]:
    """Whom a place can be for: ourselves, and where we are root also an ordinary account."""
    return ["self", "ordinary"] if os.getuid() == 0 and Path("/usr/bin/python3").exists() else ["self"]


@contextmanager
def place_for(account: str) -> Iterator[Place]:
    """A home in a new folder of its own."""
    uid = os.getuid() if account == "self" else NOBODY
    # Not tmp_path: another account couldn't get there.
    folder = Path(tempfile.mkdtemp(prefix="oqto-sandbox-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        (folder / "home/work").mkdir(parents=True)
        found = Place(folder / "home", uid)
        found.write("work/file", "mine\n")
        os.chown(found.home, uid, uid)
        yield found
    finally:
        shutil.rmtree(folder)


def _modules() -> str:
    return os.pathsep.join([str(REPOSITORY), str(Path(msgspec.__file__).parent.parent)])
