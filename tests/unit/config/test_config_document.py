"""``docs/configuration.md`` tells the truth: its tables and examples are those of the code."""

import re
from pathlib import Path

import pytest

from oqtod.config import load
from oqtod.config.document import default_text, renewed
from oqtod.config.environment import VARIABLES
from oqtod.config.keys import dev_user_keys, keys
from oqtod.config.unbuilt import feature_missing

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_current() -> None:
    assert renewed(TEXT) == TEXT, f"run: python -m oqtod.config.document {PAGE}"


@pytest.mark.parametrize("key", [*keys().values(), *dev_user_keys().values()], ids=lambda key: key.path)
def test_every_key_is_there_with_its_default(key) -> None:
    section = TEXT.partition(f"### [{key.section}]" if key.section else "### Top of the file")[2]
    if key.name == key.path and key.name in dev_user_keys():
        section = TEXT.partition("Each of `[[auth.dev_users]]` has:")[2]
    row = re.search(rf"^\| `{re.escape(key.name)}` \|.*$", section.partition("\n### ")[0], re.MULTILINE)
    assert row is not None
    assert f"| {default_text(key)} |" in row[0]
    assert ("*Not built yet" in row[0]) == (feature_missing(key.path) is not None)


def test_every_variable_is_there() -> None:
    for variable in VARIABLES:
        assert f"| `{variable.name}` |" in TEXT


def test_the_page_needs_its_markers() -> None:
    with pytest.raises(ValueError, match="begin keys"):
        renewed(TEXT.replace("<!-- begin keys -->", ""))


def test_the_example_of_a_secret(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    file = tmp_path / "config.toml"
    file.write_text(example[1])
    assert load(file, environ={"HOME": "/h", "AUTH_JWT_SECRET": "x" * 32}).config.auth.jwt_secret == "x" * 32
