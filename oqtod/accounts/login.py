"""Logging in with a password: slow for guessers, and telling nobody which users there are."""

from __future__ import annotations

import math
import os

import trio

from oqtod.accounts import passwords
from oqtod.accounts.throttle import Throttle
from oqtod.accounts.users import User, Users
from oqtod.errors import Refusal

MAX_WAITING = 64
"""Logins that may wait for a processor; more are told to come again."""

_WRONG = "the username or the password is wrong"


class Login:
    """Checks passwords, as many at a time as there are processors."""

    def __init__(self, users: Users, throttle: Throttle) -> None:
        self._users = users
        self._throttle = throttle
        self._checking = trio.CapacityLimiter(os.cpu_count() or 1)

    async def log_in(self, login: str, password: str, *, address: str) -> User:
        """Return the active user with this user name or e-mail address whose password this is.

        Raises Refusal: unauthorized, or too_many_requests with the seconds to wait. Who is unknown,
        disabled or without a password takes the same time as a wrong password, and gets the same answer.
        """
        user = self._users.with_login(login)
        account = user.id if user is not None else login.casefold()[:256]
        if not await self.check(user, password, account=account, address=address):
            raise Refusal("unauthorized", _WRONG)
        assert user is not None
        if user.password_hash is not None and passwords.cost_of(user.password_hash) < passwords.COST:
            renewed = await trio.to_thread.run_sync(passwords.hashed, password, limiter=self._checking)
            await self._users.renew_hash(user, renewed)
        return await self._users.note_login(user)

    async def check(self, user: User | None, password: str, *, account: str, address: str) -> bool:
        """Say whether this is an active user's password. Raises Refusal (too_many_requests).

        The throttle is asked before the wait for a processor, so that a flood costs nothing, and after it,
        so that guesses made side by side count.
        """
        self._throttled(account, address)
        if self._checking.statistics().tasks_waiting >= MAX_WAITING:
            raise Refusal("too_many_requests", "too many people are logging in", "try again", retry_after=2)
        cost = self._users.highest_cost()
        async with self._checking:
            self._throttled(account, address)
            expected = user.password_hash if user is not None else None
            right = await trio.to_thread.run_sync(
                _check, password, expected, cost, limiter=trio.CapacityLimiter(1)
            )
            if right and user is not None and user.is_active:
                self._throttle.succeeded(account, address)
                return True
            self._throttle.failed(account, address)
            return False

    def throttle_guess(self, what: str, address: str) -> None:
        """Raise Refusal (too_many_requests) while an address must wait before it guesses again."""
        self._throttled(what, address)

    def count_guess(self, what: str, address: str) -> None:
        """Count a wrong guess of something other than a password, like an invite code."""
        self._throttle.failed(what, address)

    async def hashed(self, password: str) -> str:
        """Return the hash of a new password."""
        return await trio.to_thread.run_sync(passwords.hashed, password, limiter=self._checking)

    def _throttled(self, account: str, address: str) -> None:
        wait = math.ceil(self._throttle.wait(account, address))
        if wait > 0:
            raise Refusal(
                "too_many_requests",
                "too many logins have failed",
                f"try again in {wait} seconds",
                retry_after=wait,
            )


def _check(password: str, expected: str | None, cost: int) -> bool:
    if len(password) > passwords.MAX_LENGTH:
        password = password[: passwords.MAX_LENGTH]
        expected = None  # nobody has one as long as this; it still takes its time
    return passwords.check(password, expected, cost=cost)
