"""Files of users: which are taken, and that nothing is begun with one that isn't."""

from __future__ import annotations

import io

import click
import pytest

from oqtod.admin.users_file import read

GOOD = """\
Username, email,password,display_name,role
alice,alice@example.org, with blanks ,"Alice, the first",admin

bob,,,,
"""


def test_rows_with_their_lines() -> None:
    alice, bob = read(io.StringIO(GOOD, newline=""))
    assert alice.line == 2
    assert alice.fields == {
        "username": "alice",
        "email": "alice@example.org",
        "password": " with blanks ",
        "display_name": "Alice, the first",
        "role": "admin",
    }
    assert (bob.line, bob.fields) == (4, {"username": "bob"})


def test_a_row_over_several_lines_counts_them() -> None:
    rows = read(io.StringIO('username,display_name\na,"two\nlines"\nb,\n', newline=""))
    assert [row.line for row in rows] == [3, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line must name the columns"),
        ("alice,alice@example.org\n", "'alice@example.org'"),
        ("email\n", "username"),
        ("username,shell\nalice,/bin/sh\n", "'shell' is none of them"),
        ("username,username\na,b\n", "the first line must name the columns"),
        ("username\nalice,extra\n", "line 2 has more cells"),
        ('username\n"unclosed\n', "no CSV"),
    ],
)
def test_no_file_of_users(text: str, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        read(io.StringIO(text, newline=""))
