"""The tables of ``docs/configuration.md``; ``python -m oqtod.config.document FILE`` renews them in FILE."""

import re
import sys
from pathlib import Path

from .environment import VARIABLES
from .keys import Key, dev_user_keys, keys, sections
from .toml import value_text
from .unbuilt import feature_missing

_NOT_BUILT = " *Not built yet: {feature}.*"


def key_tables() -> str:
    """Return a heading, a sentence and a table for each section."""
    parts = []
    for section in sections().values():
        own = [key for key in keys().values() if key.section == section.path]
        heading = f"### [{section.path}]" if section.path else "### Top of the file"
        parts.append(f"{heading}\n\n{section.description}\n\n{_table(own)}")
        if section.path == "auth":
            users = "Each of `[[auth.dev_users]]` has:"
            parts.append(f"{users}\n\n{_table(list(dev_user_keys().values()))}")
    return "\n\n".join(parts)


def environment_table() -> str:
    """Return the table of environment variables."""
    rows = [
        f"| `{each.name}` | {f'`{each.sets}`' if each.sets else ''} | {each.description} |"
        for each in VARIABLES
    ]
    return "\n".join(["| Variable | Sets | Meaning |", "|---|---|---|", *rows])


def renewed(text: str) -> str:
    """Return the page with the tables between its markers made anew."""
    for name, table in (("keys", key_tables()), ("environment", environment_table())):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"the page needs one {begin} … {end}")
        block = f"{begin}\n{table}\n{end}"
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]  # mypy can't type the default
    return text


def _table(rows: list[Key]) -> str:
    head = ["| Key | Type | Default | Allowed | Description |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(_row, rows)])


def _row(key: Key) -> str:
    feature = feature_missing(key.path)
    description = f"{key.description}." + (_NOT_BUILT.format(feature=feature) if feature else "")
    cells = [f"`{key.name}`", key.type_name, default_text(key), key.allowed, description]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def default_text(key: Key) -> str:
    """Write a key's default as the tables do: a value in code, or words in parentheses."""
    if key.required:
        return "(required)"
    if key.default is None:
        return key.shown
    if isinstance(key.default, float) and not isinstance(key.default, bool):
        return f"`{key.default}`"
    return f"`{value_text(key.default)}`"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text()))
