"""The programs in /usr/bin: one launcher for each entry of [project.scripts] in pyproject.toml.

The modules live in a private directory, because a top-level module called `runner` belongs to nobody else's
import path. `-I` keeps the caller's environment and working directory out of that path too.

usage: launchers.py PYPROJECT MODULE_DIR OUTPUT_DIR
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

LAUNCHER = """\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, {module_dir!r})

from {module} import {function}

sys.exit({function}())
"""


def main(pyproject: str, module_dir: str, output_dir: str) -> None:
    """Write the launchers into `output_dir`, executable for everybody."""
    scripts = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]["scripts"]
    out = Path(output_dir)
    out.mkdir(parents=True, exist_ok=True)
    for name, entry in scripts.items():
        module, _, function = entry.partition(":")
        path = out / name
        path.write_text(
            LAUNCHER.format(module_dir=module_dir, module=module, function=function), encoding="utf-8"
        )
        path.chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
