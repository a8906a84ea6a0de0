"""How often somebody may try to log in: delays that double with every failure. No I/O.

Failures are counted for an account from one address, for an address, and for an account from everywhere. The
first keeps a guesser slow without locking out the owner, who is elsewhere; the second is for those who go
through the accounts, the third for those who have many addresses.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_COUNTERS = 20_000
"""Counters that are kept; the one that was used longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`free` failures cost nothing; then the delay is 1, 2, 4 … seconds, up to `longest`.

    A counter is forgotten when nothing has failed for `memory` seconds.
    """

    free: int
    longest: float
    memory: float


PAIR = Limit(free=5, longest=900.0, memory=3600.0)
ADDRESS = Limit(free=30, longest=900.0, memory=3600.0)
ACCOUNT = Limit(free=30, longest=300.0, memory=3600.0)


@dataclass(slots=True)
class _Counter:
    failures: int
    last: float


class Throttle:
    """The failures of one gateway. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counters: OrderedDict[tuple[str, ...], _Counter] = OrderedDict()

    def wait(self, account: str, address: str) -> float:
        """Return the seconds until this may be tried (again); 0 when it may be now."""
        return max(self._wait(key, limit) for key, limit in _keys(account, address))

    def failed(self, account: str, address: str) -> None:
        """Count a failure."""
        for key, limit in _keys(account, address):
            counter = self._known(key, limit)
            if counter is None:
                counter = self._counters[key] = _Counter(0, 0.0)
            counter.failures += 1
            counter.last = self._clock()
            self._counters.move_to_end(key)
        while len(self._counters) > MAX_COUNTERS:
            self._counters.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of the account there. Those of the address stay: it can have an account too."""
        self._counters.pop(("pair", account, network(address)), None)

    def _wait(self, key: tuple[str, ...], limit: Limit) -> float:
        counter = self._known(key, limit)
        if counter is None or counter.failures < limit.free:
            return 0.0
        delay = min(limit.longest, 2.0 ** min(counter.failures - limit.free, 32))
        return max(0.0, counter.last + delay - self._clock())

    def _known(self, key: tuple[str, ...], limit: Limit) -> _Counter | None:
        counter = self._counters.get(key)
        if counter is not None and self._clock() - counter.last > limit.memory:
            del self._counters[key]
            return None
        return counter


def _keys(account: str, address: str) -> list[tuple[tuple[str, ...], Limit]]:
    near = network(address)
    return [(("pair", account, near), PAIR), (("address", near), ADDRESS), (("account", account), ACCOUNT)]


def network(address: str) -> str:
    """Return what one client has to itself: an IPv4 address, or the first 64 bits of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
