"""The command line of a session's terminal, made so that its shell outlives lost connections.

oqto-ttyd keeps the shell itself. ttyd starts its command for each client and hangs it up with the connection;
so the command is tmux, or else dtach, where the host has one of them. With neither, a lost connection ends
the shell.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "terminal"
_SCRIPT: Final = str(_FOLDER / "tmux.sh")
_CONFIGURATION: Final = str(_FOLDER / "tmux.conf")

_PING_SECONDS: Final = 30


def command(terminal: str, *, socket: Path, workspace: Path, shell: str) -> list[str]:
    """Return what serves the login shell on the socket; terminal is the path of ttyd or oqto-ttyd.

    The multiplexer's own socket stands beside that one, in the folder that only this service sees.
    """
    ttyd = [terminal, "-i", str(socket), "-W", "-P", str(_PING_SECONDS), "-w", str(workspace)]
    login = [shell, "-l"]
    if Path(terminal).name == "oqto-ttyd":
        return [*ttyd, *login]
    kept = str(socket.with_name("t.sock"))
    if (tmux := shutil.which("tmux")) is not None:
        start, attach = (
            ["/bin/sh", _SCRIPT, role, tmux, kept, _CONFIGURATION] for role in ("serve", "attach")
        )
        return [*start, *ttyd, *attach, shell]
    if (dtach := shutil.which("dtach")) is not None:
        return [*ttyd, dtach, "-A", kept, "-E", "-z", "-r", "winch", *login]
    return [*ttyd, *login]
