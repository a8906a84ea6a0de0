"""Completion for bash, zsh and fish, where Debian's shells look for it.

usage: completions.py ROOT      write below ROOT/usr/share
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oqtod.admin.completion import script

PROGRAMS = ("oqtod", "oqtoctl")
PLACES = {
    "bash": "bash-completion/completions/{program}",
    "zsh": "zsh/vendor-completions/_{program}",
    "fish": "fish/vendor_completions.d/{program}.fish",
}


def main(root: str) -> None:
    """Write a file for each program and shell."""
    for shell, place in PLACES.items():
        for program in PROGRAMS:
            path = Path(root, "usr/share", place.format(program=program))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script(shell, program).lstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
