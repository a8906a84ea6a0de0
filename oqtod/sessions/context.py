"""The parts of one running gateway: what the API and the byte path share."""

from __future__ import annotations

from dataclasses import dataclass, field

from oqtod.accounts.assembly import Accounts
from oqtod.config import Config
from oqtod.sessions.browsers import Browsers
from oqtod.sessions.departure import Departures
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.reaper import Reaper
from oqtod.store.database import Database
from oqtod.telemetry.audit import Audit
from oqtod.telemetry.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that answering a request can need."""

    config: Config
    database: Database
    accounts: Accounts
    sessions: Lifecycle
    reaper: Reaper
    browsers: Browsers
    departures: Departures
    audit: Audit
    traffic: Traffic = field(default_factory=Traffic)
