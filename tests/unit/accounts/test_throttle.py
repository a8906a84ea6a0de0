"""Delays for guessers, by a clock that the test turns."""

from __future__ import annotations

from oqtod.accounts import throttle
from oqtod.accounts.throttle import ACCOUNT, ADDRESS, PAIR, Throttle, network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_doubles_the_wait() -> None:
    clock = Clock()
    guesser = Throttle(clock)
    waits = []
    for _ in range(PAIR.free + 12):
        waits.append(guesser.wait("ann", "10.0.0.1"))
        clock.now += waits[-1]
        guesser.failed("ann", "10.0.0.1")
    assert waits[: PAIR.free + 6] == [0.0] * PAIR.free + [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert max(waits) == PAIR.longest


def test_the_owner_is_elsewhere() -> None:
    guesser = Throttle(Clock())
    for _ in range(PAIR.free + 3):
        guesser.failed("ann", "10.0.0.1")
    assert guesser.wait("ann", "10.0.0.1") > 0
    assert guesser.wait("ann", "10.0.0.2") == 0
    assert guesser.wait("bob", "10.0.0.1") == 0


def test_one_address_and_many_accounts() -> None:
    guesser = Throttle(Clock())
    for number in range(ADDRESS.free):
        assert guesser.wait(f"user{number}", "10.0.0.1") == 0
        guesser.failed(f"user{number}", "10.0.0.1")
    assert guesser.wait("another", "10.0.0.1") > 0
    guesser.succeeded("own", "10.0.0.1")  # a login of one's own doesn't help
    assert guesser.wait("another", "10.0.0.1") > 0


def test_many_addresses_and_one_account() -> None:
    guesser = Throttle(Clock())
    for number in range(ACCOUNT.free):
        guesser.failed("ann", f"10.0.0.{number}")
    assert 0 < guesser.wait("ann", "10.9.9.9") <= ACCOUNT.longest


def test_success_and_time_forget() -> None:
    clock = Clock()
    guesser = Throttle(clock)
    for _ in range(PAIR.free):
        guesser.failed("ann", "10.0.0.1")
    assert guesser.wait("ann", "10.0.0.1") > 0
    guesser.succeeded("ann", "10.0.0.1")
    assert guesser.wait("ann", "10.0.0.1") == 0
    for _ in range(PAIR.free):
        guesser.failed("ann", "10.0.0.1")
    clock.now += PAIR.memory + 1
    assert guesser.wait("ann", "10.0.0.1") == 0


def test_what_is_kept_is_bounded() -> None:
    guesser = Throttle(Clock())
    for number in range(throttle.MAX_COUNTERS):
        guesser.failed(f"user{number}", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(guesser._counters) <= throttle.MAX_COUNTERS


def test_what_counts_as_one_address() -> None:
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2::9") != network("2001:db8:1:3::9")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1") != network("10.0.0.2")
    assert network("local") == "local"
