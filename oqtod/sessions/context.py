"""The parts of one running gateway: what the API and the byte path share."""

from __future__ import annotations

from dataclasses import dataclass

from oqtod.accounts.authenticator import Authenticator
from oqtod.accounts.tokens import Tokens
from oqtod.accounts.users import Users
from oqtod.config import Config
from oqtod.sessions.departure import Departures
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.reaper import Reaper


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that answering a request can need."""

    config: Config
    users: Users
    tokens: Tokens
    authenticator: Authenticator
    sessions: Lifecycle
    reaper: Reaper
    departures: Departures
