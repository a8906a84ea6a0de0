"""The account files, passwd(5) and group(5), read as text: what a look-up would hide is there to be seen."""

from __future__ import annotations

from msgspec import Struct

from oqtod.admin.doctor.host import Host


class User(Struct, frozen=True):
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class Group(Struct, frozen=True):
    """A line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


def users(host: Host) -> list[User]:
    """Return the lines that are whole. Raises OSError."""
    found = []
    for fields in _lines(host, "/etc/passwd", 7):
        if fields[2].isdecimal() and fields[3].isdecimal():
            found.append(User(fields[0], int(fields[2]), int(fields[3]), fields[5], fields[6]))
    return found


def groups(host: Host) -> list[Group]:
    """Return the lines that are whole. Raises OSError."""
    found = []
    for fields in _lines(host, "/etc/group", 4):
        if fields[2].isdecimal():
            found.append(Group(fields[0], int(fields[2]), tuple(filter(None, fields[3].split(",")))))
    return found


def broken_lines(host: Host, path: str, fields: int) -> list[int]:
    """Return the numbers of lines that are not what they should be. Raises OSError."""
    wrong = []
    for number, line in enumerate(host.read(path).splitlines(), start=1):
        parts = line.split(":")
        if line and not line.startswith(("#", "+", "-")) and (len(parts) != fields or not parts[0]):
            wrong.append(number)
    return wrong


def user(host: Host, name: str) -> User | None:
    """Return the user of a name."""
    return next((entry for entry in users(host) if entry.name == name), None)


def group(host: Host, name: str) -> Group | None:
    """Return the group of a name."""
    return next((entry for entry in groups(host) if entry.name == name), None)


def user_name(host: Host, uid: int) -> str:
    """Return a name for a uid, for people."""
    return next((entry.name for entry in users(host) if entry.uid == uid), str(uid))


def group_name(host: Host, gid: int) -> str:
    """Return a name for a gid, for people."""
    return next((entry.name for entry in groups(host) if entry.gid == gid), str(gid))


def _lines(host: Host, path: str, fields: int) -> list[list[str]]:
    split = [line.split(":") for line in host.read(path).splitlines()]
    return [parts for parts in split if len(parts) == fields]
