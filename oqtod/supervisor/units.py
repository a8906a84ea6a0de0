"""systemd units of the runners, over D-Bus: org.freedesktop.systemd1(5). The only module that talks to it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from jeepney import DBusAddress, DBusErrorResponse, MatchRule, new_method_call
from jeepney.bus_messages import message_bus
from jeepney.io.common import RouterClosed
from jeepney.io.trio import DBusRouter, Proxy, open_dbus_router
from jeepney.wrappers import unwrap_msg

from oqtod.config import Limits
from runner.protocol.rpc import CallFailed

T = TypeVar("T")

_MANAGER = DBusAddress(
    "/org/freedesktop/systemd1",
    bus_name="org.freedesktop.systemd1",
    interface="org.freedesktop.systemd1.Manager",
)
_NOTHING_TO_KILL = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.NoSuchProcess")
_NO_LIMIT = 2**64 - 1
_SCALE = 2**32
_UNITS_OF_MEMORY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DROP_INS = Path("/run/systemd/system")
_UNITS = "oqto-runner@*"


class _JobFailed(Exception):
    """A job of systemd did not end well; str() is its result, such as "failed" or "timeout"."""


def socket_unit(account: str) -> str:
    """Name the socket unit of an account's runner."""
    return f"oqto-runner@{account}.socket"


def service_unit(account: str) -> str:
    """Name the service unit of an account's runner."""
    return f"oqto-runner@{account}.service"


def slice_unit(account: str) -> str:
    """Name the slice that everything of an account is in."""
    return f"oqto-{account}.slice"


async def start(unit: str, *, timeout: float) -> None:
    """Start a unit, and wait until that is done; nothing to do where it is active. Raises CallFailed."""
    await _talk(partial(_job, "StartUnit", unit), f"starting {unit}", timeout)


async def stop(unit: str, *, timeout: float) -> None:
    """Stop a unit, and wait until that is done. Raises CallFailed."""
    await _talk(partial(_job, "StopUnit", unit), f"stopping {unit}", timeout)


async def active_state(unit: str, *, timeout: float) -> str:
    """Return the unit's ActiveState ("active", "inactive", "failed", …). Raises CallFailed."""
    return await _talk(partial(_active_state, unit), f"the state of {unit}", timeout)


async def service_properties(unit: str, *, timeout: float) -> dict[str, Any]:
    """Return the properties of a service: those of org.freedesktop.systemd1.Service. Raises CallFailed."""
    return await _talk(partial(_service_properties, unit), f"the state of {unit}", timeout)


async def listen_at(account: str, path: str, *, timeout: float) -> None:
    """Have the account's socket unit listen at another place than it was written with. Raises CallFailed."""
    folder = _DROP_INS / f"{socket_unit(account)}.d"
    text = f"[Socket]\nListenStream=\nListenStream={path.replace('%', '%%')}\n"
    drop_in = folder / "50-oqtod.conf"
    if drop_in.is_file() and drop_in.read_text() == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(text)
    folder.chmod(0o755)
    drop_in.chmod(0o644)
    await _talk(_reload, "reloading systemd", timeout)


async def limit(account: str, limits: Limits, *, timeout: float) -> None:
    """Set what the account's slice may take, until the next boot; None is no limit. Raises CallFailed."""
    properties = slice_properties(limits)
    await _talk(partial(_set_properties, slice_unit(account), properties), "setting limits", timeout)


def slice_properties(limits: Limits) -> list[tuple[str, tuple[str, int]]]:
    """Return `[limits]` as properties of systemd.resource-control(5), in D-Bus types."""
    memory, cpu = limits.memory_max, limits.cpu_quota
    amount: tuple[str, tuple[str, int]]
    if memory is not None and memory.endswith("%"):
        amount = "MemoryMaxScale", ("u", round(int(memory[:-1]) / 100 * _SCALE))
    elif memory is None or memory == "infinity":
        amount = "MemoryMax", ("t", _NO_LIMIT)
    else:
        unit = _UNITS_OF_MEMORY.get(memory[-1], 1)
        amount = "MemoryMax", ("t", int(memory.rstrip("KMGT")) * unit)
    return [
        amount,
        ("TasksMax", ("t", limits.tasks_max if limits.tasks_max is not None else _NO_LIMIT)),
        ("CPUQuotaPerSecUSec", ("t", int(cpu[:-1]) * 10_000 if cpu is not None else _NO_LIMIT)),
    ]


async def stop_runner(account: str, *, timeout: float) -> None:
    """Stop the account's runner, and listening for it; its sessions go on. Raises CallFailed."""
    await stop(socket_unit(account), timeout=timeout)
    await stop(service_unit(account), timeout=timeout)


async def end_all(account: str, *, timeout: float) -> None:
    """End the account's runner, its sessions, and whatever else is in its slice. Raises CallFailed."""
    await stop_runner(account, timeout=timeout)
    # KillMode=process leaves the sessions alone when the service stops: here they are meant.
    await _talk(partial(_kill, service_unit(account)), f"ending what {account} runs", timeout)
    await stop(slice_unit(account), timeout=timeout)


async def _talk(conversation: Callable[[DBusRouter], Awaitable[T]], what: str, timeout: float) -> T:
    """Hold one conversation on a connection of its own; whatever goes wrong becomes CallFailed."""
    answer: list[T] = []
    failure: Exception | None = None
    with trio.move_on_after(timeout) as patience:
        try:
            async with open_dbus_router(bus="SYSTEM") as router:
                try:
                    answer.append(await conversation(router))
                except (DBusErrorResponse, _JobFailed) as error:
                    failure = error
        except (OSError, trio.BrokenResourceError, trio.EndOfChannel, RouterClosed) as error:
            failure = error
    if answer:
        return answer[0]
    reason = f"no answer within {timeout:g} seconds" if patience.cancelled_caught else str(failure)
    raise CallFailed("systemd_failed", f"{what} failed: {reason}", f"see: systemctl status '{_UNITS}'")


async def _call(router: DBusRouter, method: str, signature: str = "", body: tuple[Any, ...] = ()) -> Any:
    reply = await router.send_and_get_reply(new_method_call(_MANAGER, method, signature or None, body))
    return unwrap_msg(reply)


async def _job(method: str, unit: str, router: DBusRouter) -> None:
    done = MatchRule(
        type="signal", interface=_MANAGER.interface, member="JobRemoved", path=_MANAGER.object_path
    )
    # Subscribed before the job is made: its end can't be missed.
    await Proxy(message_bus, router).AddMatch(done)
    await _call(router, "Subscribe")
    async with router.filter(done, bufsize=1000) as removed:
        try:
            (job,) = await _call(router, method, "ss", (unit, "replace"))
        except DBusErrorResponse as error:
            if method == "StopUnit" and error.name == "org.freedesktop.systemd1.NoSuchUnit":
                return  # it isn't loaded: nothing runs
            raise
        async for message in removed:
            _, path, _, result = message.body
            if path == job:
                if result not in ("done", "skipped"):
                    raise _JobFailed(result)
                return


async def _active_state(unit: str, router: DBusRouter) -> str:
    asked = ("org.freedesktop.systemd1.Unit", "ActiveState")
    reply = await router.send_and_get_reply(
        new_method_call(await _properties(unit, router), "Get", "ss", asked)
    )
    return str(unwrap_msg(reply)[0][1])


async def _service_properties(unit: str, router: DBusRouter) -> dict[str, Any]:
    asked = ("org.freedesktop.systemd1.Service",)
    reply = await router.send_and_get_reply(
        new_method_call(await _properties(unit, router), "GetAll", "s", asked)
    )
    return {name: value for name, (_, value) in unwrap_msg(reply)[0].items()}


async def _properties(unit: str, router: DBusRouter) -> DBusAddress:
    (path,) = await _call(router, "LoadUnit", "s", (unit,))
    return DBusAddress(path, _MANAGER.bus_name, "org.freedesktop.DBus.Properties")


async def _set_properties(
    unit: str, properties: list[tuple[str, tuple[str, int]]], router: DBusRouter
) -> None:
    await _call(router, "SetUnitProperties", "sba(sv)", (unit, True, properties))


async def _kill(unit: str, router: DBusRouter) -> None:
    try:
        await _call(router, "KillUnit", "ssi", (unit, "all", signal.SIGKILL))
    except DBusErrorResponse as error:
        if error.name not in _NOTHING_TO_KILL:
            raise


async def _reload(router: DBusRouter) -> None:
    await _call(router, "Reload")
