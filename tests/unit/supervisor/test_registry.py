"""The account registry: on the disk before anything is done, tombstones included, or nothing is done."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oqtod.supervisor.registry import Registry, RegistryError, Row, State


def row(name: str, uid: int, state: State = "active") -> Row:
    return Row(user_id=name, name=f"oqto_{name}", uid=uid, state=state)


def changed(old: Row, state: State) -> Row:
    return msgspec.structs.replace(old, state=state)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "accounts.json"


def test_what_is_put_is_read_again(path: Path) -> None:
    registry = Registry(path)
    alice = registry.put(row("alice", 2000, "creating"))
    registry.put(row("bob", 2001))
    registry.put(changed(alice, "active"))
    assert Registry(path).rows == registry.rows == (row("alice", 2000), row("bob", 2001))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_the_deleted_are_found_by_nobody_but_keep_their_uid(path: Path) -> None:
    registry = Registry(path)
    registry.put(changed(registry.put(row("alice", 2000)), "deleted"))
    assert registry.of_user("alice") is None
    assert registry.of_account("oqto_alice") is None
    assert Registry(path).next_uid(2000) == 2001
    registry.put(row("alice", 2001))
    assert registry.of_user("alice") == row("alice", 2001)
    assert [x.uid for x in Registry(path).rows] == [2000, 2001]


@given(states=st.lists(st.sampled_from(["active", "deleted", "deleting", "creating"]), max_size=10))
def test_no_uid_is_ever_given_twice(tmp_path_factory: pytest.TempPathFactory, states: list[State]) -> None:
    path = tmp_path_factory.mktemp("r") / "accounts.json"
    given_out = []
    for number, state in enumerate(states):
        registry = Registry(path)  # as after a restart
        uid = registry.next_uid(2000)
        given_out.append(uid)
        registry.put(changed(registry.put(row(f"u{number}", uid, "creating")), state))
    assert len(set(given_out)) == len(given_out)


def test_a_row_that_could_not_be_written_does_not_exist(path: Path) -> None:
    registry = Registry(path)
    registry.put(row("alice", 2000))
    blocked = path.with_name(path.name + ".new")
    blocked.mkdir()  # stands for whatever makes the write fail
    for attempt in (row("bob", 2001), changed(row("alice", 2000), "deleted")):
        with pytest.raises(RegistryError, match="can't be written"):
            registry.put(attempt)
        assert registry.rows == Registry(path).rows == (row("alice", 2000),)
    blocked.rmdir()
    registry.put(row("bob", 2001))
    assert [x.name for x in Registry(path).rows] == ["oqto_alice", "oqto_bob"]


def test_half_a_file_of_a_crash_is_no_harm(path: Path) -> None:
    Registry(path).put(row("alice", 2000))
    path.with_name(path.name + ".new").write_text('{"version":1,"acc')
    registry = Registry(path)
    assert registry.rows == (row("alice", 2000),)
    registry.put(row("bob", 2001))
    assert len(Registry(path).rows) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b'{"version":2,"accounts":[]}',
        b'{"version":1}',
        b'{"version":1,"accounts":[{"user_id":"\xff","name":"x","uid":1,"state":"active"}]}',
        b'{"version":1,"accounts":[{"user_id":"x","name":"x","uid":1,"state":"alive"}]}',
        b'{"version":1,"accounts":' + b"[" * 100_000,
    ],
    ids=lambda content: content[:30],
)
def test_a_registry_that_can_not_be_read_stops_everything(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RegistryError, match="can't be read"):
        Registry(path)
    assert path.read_bytes() == content
