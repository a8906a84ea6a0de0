"""Completion of oqtoctl's command lines: in a real bash, with the names that a running gateway knows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration import accounts
from tests.integration.oqtoctl import OQTOCTL, Oqtoctl

COMPLETE = """
source <(oqtoctl completion bash)
complete -p oqtoctl >/dev/null
COMP_WORDS=({words}) COMP_CWORD={last}
_oqtoctl_completion oqtoctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(oqtoctl: Oqtoctl, *words: str) -> list[str]:
    """What bash suggests for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in ("oqtoctl", *words))
    script = COMPLETE.format(words=quoted, last=len(words))
    environment = oqtoctl.environment(PATH=f"{Path(OQTOCTL).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "--norc", "-euc", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes(tmp_path: Path) -> None:
    with accounts.running(tmp_path) as host:
        oqtoctl = Oqtoctl(host.folder)
        session = host.logged_in().post("/api/sessions").json["readable_id"]
        assert completed(oqtoctl, "us") == ["user"]
        assert {"list", "logs", "top"} <= set(completed(oqtoctl, "session", ""))
        assert completed(oqtoctl, "user", "create", "--pass") == ["--password-stdin"]
        assert completed(oqtoctl, "user", "show", "de") == ["dev"]
        assert completed(oqtoctl, "session", "stop", session[:4]) == [session]
        assert completed(oqtoctl, "user", "set-role", "dev", "a") == ["admin"]


def test_without_a_gateway_bash_completes_what_it_can(tmp_path: Path) -> None:
    oqtoctl = Oqtoctl(tmp_path)
    assert completed(oqtoctl, "us") == ["user"]
    assert completed(oqtoctl, "user", "show", "de") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script(tmp_path: Path, shell: str) -> None:
    assert f"_OQTOCTL_COMPLETE={shell}_complete" in Oqtoctl(tmp_path)("completion", shell).out
