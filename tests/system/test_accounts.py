"""Linux accounts as the supervisor makes them, asked for over its own socket on an installed host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from oqtod.supervisor import messages
from oqtod.supervisor.messages import Account, DeleteAccount, EnsureAccount, ListAccounts, StartRunner
from runner.protocol import rpc
from tests.integration.test_runner_socket import BAD
from tests.system.conftest import Host

CRASHES = Path(__file__).with_name("account_crashes.py")
TIMEOUT = 30.0


CLEAN_UP = """
ours='^(oqto_)?t_'
for name in $(getent passwd | cut -d: -f1 | grep -E $ours); do userdel --force --remove $name 2>&1; done
for name in $(getent group | cut -d: -f1 | grep -E $ours); do groupdel $name; done
rm -rf /home/t_* /home/oqto_t_*
"""


@pytest.fixture(autouse=True)
def no_account_is_left(host: Host) -> Iterator[None]:
    """Tests make accounts `t_…` and `oqto_t_…`."""
    yield
    host.machine.sh(CLEAN_UP)


@pytest.fixture
def configure(host: Host) -> Iterator[Callable[..., None]]:
    """Sets keys of `local.linux_users`; afterwards the host is as it was."""
    yield lambda **keys: host.configure(**{f"OQTO__LOCAL__LINUX_USERS__{k}": v for k, v in keys.items()})
    host.configure()


def broker(host: Host) -> AbstractAsyncContextManager[rpc.Client]:
    """The supervisor, from outside: its socket is a file, and the kernel says that we are root."""
    path = f"/proc/{host.machine.leader}/root{messages.SOCKET}"
    return rpc.connect(path, messages.BROKER, program="test", uid=0, timeout=TIMEOUT)


async def ensure(host: Host, user_id: str) -> Account:
    async with broker(host) as client:
        return await client.call(EnsureAccount(user_id), timeout=TIMEOUT)


async def delete(host: Host, account: Account, *, remove_home: bool) -> None:
    async with broker(host) as client:
        await client.call(DeleteAccount(account.name, remove_home=remove_home), timeout=TIMEOUT)


def entry(host: Host, name: str) -> list[str]:
    return host.machine.run("getent", "passwd", name).stdout.strip().split(":")


def groups(host: Host, name: str) -> set[str]:
    return set(host.machine.run("id", "-Gn", name).stdout.split())


def owner(host: Host, path: str) -> str:
    return host.machine.run("stat", "--format=%U:%G %a", path).stdout.strip()


async def test_the_settings_take_effect(host: Host, configure: Callable[..., None]) -> None:
    configure(PREFIX="t_", UID_START="31000", GROUP="t_mates", SHELL="/bin/dash")
    one, two = await ensure(host, "carol"), await ensure(host, "dave")
    assert (one.name, two.name) == ("t_carol", "t_dave")
    assert (one.uid, two.uid) == (31000, 31001)
    assert entry(host, "t_carol")[2:] == ["31000", "31000", "oqtod", "/home/t_carol", "/bin/dash"]
    assert groups(host, "t_carol") == {"t_carol", "t_mates"}
    assert owner(host, "/home/t_carol") == "t_carol:t_carol 700"
    assert host.machine.run("cat", "/home/t_carol/.bashrc", user="t_dave", check=False).returncode == 1
    for account in (one, two):
        await delete(host, account, remove_home=True)


async def test_no_home_where_none_is_wanted(host: Host, configure: Callable[..., None]) -> None:
    configure(CREATE_HOME="false")
    for _ in range(2):
        account = await ensure(host, "t_homeless")
        assert host.machine.run("test", "-e", account.home, check=False).returncode == 1
    await delete(host, account, remove_home=True)


async def test_asking_again_changes_nothing(host: Host) -> None:
    first = await ensure(host, "t_again")
    host.machine.run("touch", f"{first.home}/kept")
    assert await ensure(host, "t_again") == first
    host.machine.run("systemctl", "restart", "oqtod")
    assert await ensure(host, "t_again") == first
    async with broker(host) as client:
        listed = (await client.call(ListAccounts(), timeout=TIMEOUT)).accounts
    assert [x for x in listed if x.user_id == "t_again"] == [first]
    host.machine.run("test", "-e", f"{first.home}/kept")
    await delete(host, first, remove_home=True)


async def test_an_account_removed_by_hand_is_made_again_with_its_home(host: Host) -> None:
    account = await ensure(host, "t_byhand")
    host.machine.run("touch", f"{account.home}/kept")
    host.machine.run("userdel", account.name)
    assert await ensure(host, "t_byhand") == account
    assert owner(host, account.home) == f"{account.name}:{account.name} 700"
    host.machine.run("test", "-e", f"{account.home}/kept")
    await delete(host, account, remove_home=True)


async def test_foreign_accounts_groups_and_homes_are_never_taken(host: Host) -> None:
    host.machine.sh(
        "useradd --create-home oqto_t_taken; useradd --create-home t_plain; groupadd oqto_t_group;"
        " mkdir -m 755 /home/oqto_t_home; touch /home/oqto_t_home/old; ln -s /etc /home/oqto_t_link"
    )
    before = entry(host, "oqto_t_taken"), entry(host, "t_plain")
    made = {name: await ensure(host, name) for name in ("t_taken", "t_plain", "t_group", "t_home", "t_link")}
    assert made["t_plain"].name == "oqto_t_plain"
    for name in ("t_taken", "t_group", "t_home", "t_link"):
        assert made[name].name.startswith(f"oqto_{name}_")
        assert owner(host, made[name].home) == f"{made[name].name}:{made[name].name} 700"
    assert (entry(host, "oqto_t_taken"), entry(host, "t_plain")) == before
    assert owner(host, "/home/oqto_t_home") == "root:root 755"
    assert owner(host, "/etc/.") == "root:root 755"
    uids = [int(before[0][2]), int(before[1][2]), *(account.uid for account in made.values())]
    assert len(set(uids)) == len(uids)
    for account in made.values():
        await delete(host, account, remove_home=True)
    assert (entry(host, "oqto_t_taken"), entry(host, "t_plain")) == before
    host.machine.run("test", "-e", "/home/oqto_t_home/old")


async def test_uids_that_others_have_are_passed_over(host: Host, configure: Callable[..., None]) -> None:
    configure(UID_START="32000")
    host.machine.sh("useradd --uid 32000 t_one; groupadd --gid 32001 t_two")
    account = await ensure(host, "t_third")
    assert account.uid >= 32002
    await delete(host, account, remove_home=True)
    again = await ensure(host, "t_third")
    assert again.uid > account.uid
    await delete(host, again, remove_home=True)


async def test_names_that_clash_once_cleaned_and_cut(host: Host) -> None:
    people = ["t_a.b", "t_a-b", "T_A_B", f"t_{'x' * 40}1", f"t_{'x' * 40}2", "t_ünal", "t_$(id)"]
    made = [await ensure(host, person) for person in people]
    assert len({account.name for account in made}) == len({account.uid for account in made}) == len(people)
    assert all(len(account.name) <= 32 for account in made)
    assert [await ensure(host, person) for person in people] == made
    for account in made:
        await delete(host, account, remove_home=True)


async def test_many_at_once(host: Host) -> None:
    found: dict[tuple[str, int], Account] = {}

    async def one(person: str, number: int) -> None:
        found[person, number] = await ensure(host, person)

    people = [f"t_many{number}" for number in range(5)]
    async with trio.open_nursery() as nursery:
        for person in people:
            for number in range(3):
                nursery.start_soon(one, person, number)
    for person in people:
        assert found[person, 0] == found[person, 1] == found[person, 2]
    assert len({account.uid for account in found.values()}) == len(people)
    async with trio.open_nursery() as nursery:
        for person in people:

            async def remove(account: Account = found[person, 0]) -> None:
                await delete(host, account, remove_home=True)

            nursery.start_soon(remove)
    for account in found.values():
        assert host.machine.run("id", account.name, check=False).returncode == 1


async def test_a_home_that_is_kept_is_never_given_to_another_account(host: Host) -> None:
    first = await ensure(host, "t_back")
    host.machine.run("sh", "-c", "echo private >~/thesis", user=first.name)
    await delete(host, first, remove_home=False)
    assert host.machine.run("id", first.name, check=False).returncode == 1
    assert host.machine.run("stat", "--format=%u %a", first.home).stdout.split() == [str(first.uid), "700"]

    second = await ensure(host, "t_back")
    assert second.uid > first.uid
    assert second.home != first.home
    assert host.machine.run("cat", f"{first.home}/thesis", user=second.name, check=False).returncode == 1
    await delete(host, second, remove_home=True)
    assert host.machine.run("test", "-e", second.home, check=False).returncode == 1
    assert host.machine.run("cat", f"{first.home}/thesis").stdout == "private\n"


async def test_deleting_ends_what_runs_and_leaves_nothing(host: Host) -> None:
    account = await ensure(host, "t_gone")
    async with broker(host) as client:
        await client.call(StartRunner(account.name), timeout=TIMEOUT)
    host.machine.run(
        "runuser", "-u", account.name, "--", "sh", "-c", "setsid sleep 4711 </dev/null >&0 2>&0 &"
    )
    assert host.machine.run("pgrep", "-u", str(account.uid)).stdout
    await delete(host, account, remove_home=True)
    assert host.machine.run("pgrep", "-u", str(account.uid), check=False).stdout == ""
    for path in (account.home, f"/run/oqto/runner-sockets/{account.name}/oqto-runner.sock"):
        assert host.machine.run("test", "-e", path, check=False).returncode == 1, path
    assert host.machine.run("getent", "group", account.name, check=False).returncode == 2
    for file in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"):
        assert account.name not in host.machine.run("cat", f"/etc/{file}").stdout, file
    units = host.machine.run("systemctl", "list-units", "--all", "--no-legend", "oqto*").stdout
    assert f"@{account.name}." not in units


NAMES = ["root", "oqtod", "daemon", "nobody", "-rf", "../root", "oqto_t_never", "", "oqto_x\n", "a" * 10_000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:12])
async def test_nothing_but_our_own_accounts_can_be_named(host: Host, name: str) -> None:
    calls = (DeleteAccount(name, remove_home=True), StartRunner(name), messages.StopRunner(name))
    async with broker(host) as client:
        for call in (*calls, messages.StatusOfRunner(name)):
            with pytest.raises(rpc.CallFailed) as failed:
                await client.call(call, timeout=TIMEOUT)
            assert failed.value.code == "no_account"
    host.machine.run("id", "root")
    host.machine.run("id", "oqtod")


@pytest.mark.parametrize("user_id", ["", "a\nb", "a\0b", " a", "x" * 257, "\x1b[2J"], ids=repr)
async def test_what_is_no_user_is_given_no_account(host: Host, user_id: str) -> None:
    async with broker(host) as client:
        with pytest.raises(rpc.CallFailed) as failed:
            await client.call(EnsureAccount(user_id), timeout=TIMEOUT)
        assert failed.value.code == "bad_request"


async def test_garbage_ends_its_own_connection_only(host: Host) -> None:
    host.machine.expect_in_journal("closed a connection")
    before = host.machine.run("systemctl", "show", "-p", "MainPID,NRestarts", "oqtod").stdout
    path = f"/proc/{host.machine.leader}/root{messages.SOCKET}"
    async with broker(host) as other:
        for what, said in BAD.items():
            said = said.replace(b'"oqto-runner"', b'"oqto-broker"') if b"oqto-runner" in said else said
            client = trio.socket.socket(trio.socket.AF_UNIX)
            with client, trio.fail_after(TIMEOUT):
                await client.connect(path)
                try:
                    await client.send(said)
                    client.shutdown(trio.socket.SHUT_WR)
                    while await client.recv(65536):
                        pass
                except OSError:
                    pass  # closed before it was read
            assert (await other.call(ListAccounts(), timeout=TIMEOUT)).accounts is not None, what
    assert host.machine.run("systemctl", "show", "-p", "MainPID,NRestarts", "oqtod").stdout == before
    log = host.machine.run("journalctl", "-u", "oqtod", "-n200", "-o", "cat").stdout
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 600


def test_a_crash_at_any_step_is_repaired_by_the_next_call(host: Host) -> None:
    done = host.machine.run("python3", "-I", "-", stdin=CRASHES.read_text(), timeout=120)
    assert done.stdout.startswith("done: "), done.stdout
    host.machine.run("groupdel", "crashers")
