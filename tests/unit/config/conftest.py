"""Loading configurations from text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from oqtod.config import ConfigRefused, Loaded, Problem, load

HOME = {"HOME": "/home/alice"}


class LoadText(Protocol):
    def __call__(
        self, text: str, environ: Mapping[str, str] = ..., overrides: Mapping[str, object] = ...
    ) -> Loaded: ...


class RefuseText(Protocol):
    def __call__(
        self, text: str, environ: Mapping[str, str] = ..., overrides: Mapping[str, object] = ...
    ) -> dict[str, Problem]: ...


@pytest.fixture
def load_text(tmp_path: Path) -> LoadText:
    """Load a file with this text, in an environment with nothing but HOME unless told."""

    def loaded(
        text: str, environ: Mapping[str, str] = HOME, overrides: Mapping[str, object] | None = None
    ) -> Loaded:
        file = tmp_path / "config.toml"
        file.write_text(text, encoding="utf-8")
        return load(file, environ=environ, overrides=overrides or {})

    return loaded


@pytest.fixture
def refuse_text(load_text: LoadText) -> RefuseText:
    """Load a text that must be refused; return the problems by key."""

    def refused(
        text: str, environ: Mapping[str, str] = HOME, overrides: Mapping[str, object] | None = None
    ) -> dict[str, Problem]:
        with pytest.raises(ConfigRefused) as caught:
            load_text(text, environ, overrides or {})
        return {problem.key: problem for problem in caught.value.problems}

    return refused
