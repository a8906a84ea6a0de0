"""Owns the cached Debian 13 root that system tests boot: systemd, what a small server has, nothing of ours.

The packages that ours depends on or recommends are in its apt cache, not installed: installing ours with apt
proves that its Depends are enough, and needs no network. dtach and Chromium are there for the tests that use
them. The root is never written to after it was made; machines put a tmpfs on top.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("OQTOD_CACHE", "/var/cache/oqtod-tests"))
CONTROL = Path(__file__).parents[2] / "packaging/debian/control"

SUITE = "trixie"
INSTALLED = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "iproute2",
    "procps",
    "passwd",
    "curl",
    "logrotate",
)

# ttyd is not in Debian 13. Its package starts a root login of its own, which no test wants.
RECIPE = """
set -eu
root=$1
cd "$root/etc/apt"
sed -n 's/ trixie / forky /p' sources.list >sources.list.d/forky.list
cd /
printf '%s\\n' 'Package: *' 'Pin: release n=forky' 'Pin-Priority: 100' >"$root/etc/apt/preferences.d/forky"
chroot "$root" apt-get -q -o Acquire::Check-Valid-Until=false update
chroot "$root" apt-get -q -y --no-install-recommends install -t forky ttyd
chroot "$root" systemctl disable ttyd.service
rm "$root/etc/apt/sources.list.d/forky.list" "$root/etc/apt/preferences.d/forky"
rm -f "$root"/var/lib/apt/lists/*forky*
chroot "$root" apt-get -q -y -o APT::Install-Recommends=true --download-only install $DEPENDS dtach
chroot "$root" apt-get -q -y --no-install-recommends --download-only install chromium
echo oqtod-test >"$root/etc/hostname"
"""


def our_dependencies(control: str) -> tuple[str, ...]:
    """The package names in the Depends and Recommends of debian/control, without versions and variables."""
    names: set[str] = set()
    for field in ("Depends", "Recommends"):
        found = re.search(rf"^{field}:\n((?: .*\n)+)", control, re.MULTILINE)
        if found is None:
            raise AssertionError(f"no {field} in {CONTROL}")
        names.update(re.findall(r"^ ([a-z0-9][a-z0-9.+-]*)", found[1], re.MULTILINE))
    return tuple(sorted(names))


def pristine_root() -> Path:
    """The root's path; makes it first (half a minute, needs the network) when there is none like it yet.

    Two test runs at once make it once. A half-made one is never taken for a whole one.
    """
    depends = our_dependencies(CONTROL.read_text(encoding="utf-8"))
    key = hashlib.sha256(repr((SUITE, INSTALLED, RECIPE, depends)).encode()).hexdigest()[:12]
    root = CACHE / f"system-{SUITE}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            unfinished = root.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(unfinished, depends)
            unfinished.rename(root)
    return root


def _make(root: Path, depends: tuple[str, ...]) -> None:
    made = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(INSTALLED)}",
            "--skip=cleanup/apt/lists,cleanup/apt/cache",
            '--aptopt=Acquire::Languages "none"',
            f"--customize-hook={RECIPE}",
            SUITE,
            str(root),
        ],
        env={**os.environ, "DEPENDS": " ".join(depends), "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    if made.returncode != 0:
        raise RuntimeError(f"can't make the container root {root}:\n{made.stdout[-4000:]}")
