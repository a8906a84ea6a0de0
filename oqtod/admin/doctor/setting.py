"""Which installation is looked at: host or personal mode, and the configuration that its gateway has."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from oqtod.admin.doctor.host import Execute, Host, execute
from oqtod.config import ConfigRefused, load

CONFIG_FILE = Path("/etc/oqto/config.toml")
GATEWAY = "oqtod-gateway.service"
_PACKAGED = (CONFIG_FILE, Path("/var/lib/dpkg/info/oqtod.list"), Path("/var/lib/oqtod-supervisor"))
"""Traces of the package: one of them is enough, since any may be what is missing."""
_AS_PACKAGED: dict[str, object] = {
    "server.admin_socket_path": "/run/oqto/oqtoctl.sock",
    "paths.data_dir": "/var/lib/oqtod",
    "paths.state_dir": "/var/lib/oqtod",
    "local.enabled": True,
    "local.linux_users.enabled": True,
}
_PERSONAL: dict[str, object] = {"local.enabled": True, "local.single_user": True}


def host_of(config_file: Path | None, *, personal: bool, run: Execute = execute) -> Host:
    """Return the host to look at. A configuration that is refused is a finding, and no end."""
    personal = personal or not (config_file or any(os.path.lexists(path) for path in _PACKAGED))
    environ = dict(os.environ) if personal else unit_environment(run)
    file = config_file if personal else config_file or CONFIG_FILE
    overrides = _PERSONAL if personal else {}
    refused = None
    try:
        loaded = load(file, environ=environ, overrides=overrides)
    except ConfigRefused as error:
        refused = error
        # An empty file: what is looked at then are the places that the package uses.
        fallback = _PERSONAL if personal else _AS_PACKAGED
        home = {"HOME": os.environ.get("HOME", "/root")} if personal else {}
        loaded = load(Path("/dev/null"), environ=home, overrides=fallback)
    return Host(
        config=loaded.config,
        database=loaded.database_path,
        refused=refused,
        personal=personal or loaded.config.local.single_user,
        config_file=file,
        execute=run,
        environ=environ,
    )


def unit_environment(run: Execute) -> dict[str, str]:
    """Return the variables that systemd gives to the gateway; none where systemd can't be asked."""
    try:
        asked = ["systemctl", "show", GATEWAY, "--property=Environment", "--property=EnvironmentFiles"]
        shown = run(asked, 5.0, None).out
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in shown.splitlines():
        key, _, value = line.partition("=")
        if key == "Environment":
            found |= _assignments(value)
        elif key == "EnvironmentFiles":
            try:
                found |= _assignments(Path(value.partition(" (")[0]).read_text(), comments=True)
            except (OSError, UnicodeDecodeError):
                continue  # the unit's state tells what systemd makes of it
    return found


def _assignments(text: str, *, comments: bool = False) -> dict[str, str]:
    try:
        words = shlex.split(text, comments=comments)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
