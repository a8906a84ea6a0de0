"""The parts of accounts, put together for one configuration and database."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from oqtod.accounts.authenticator import Authenticator
from oqtod.accounts.connections import Connections
from oqtod.accounts.identities import Identities
from oqtod.accounts.invites import Invites
from oqtod.accounts.keys import Keys
from oqtod.accounts.login import Login
from oqtod.accounts.oidc import Provider
from oqtod.accounts.oidc_login import OidcLogin
from oqtod.accounts.origins import Origins
from oqtod.accounts.principal import Principal
from oqtod.accounts.throttle import Throttle
from oqtod.accounts.tickets import Tickets
from oqtod.accounts.tokens import Tokens
from oqtod.accounts.users import Users
from oqtod.config import Config
from oqtod.store.database import Database


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everything that says who people are and what they may do. `oidc` is None without a provider."""

    users: Users
    tokens: Tokens
    authenticator: Authenticator
    login: Login
    keys: Keys
    invites: Invites
    identities: Identities
    oidc: OidcLogin | None
    tickets: Tickets[Principal]
    connections: Connections
    origins: Origins


def assemble(config: Config, database: Database) -> Accounts:
    """Return the parts. Without a secret (in dev mode), tokens last until the next start."""
    auth = config.auth
    secret = auth.jwt_secret or secrets.token_urlsafe(48)
    users, tokens, keys = Users(database), Tokens(secret, database), Keys(database)
    identities, provider, oidc = Identities(database), None, None
    if auth.oidc_issuer is not None and auth.oidc_audience is not None:
        provider = Provider(auth.oidc_issuer, auth.oidc_audience, identities=identities, tokens=tokens)
        oidc = OidcLogin(provider, client_secret=auth.oidc_client_secret, secret=secret)
    origins = Origins(auth.allowed_origins or [], dev_mode=auth.dev_mode)
    tickets: Tickets[Principal] = Tickets(time.monotonic)
    return Accounts(
        users=users,
        tokens=tokens,
        authenticator=Authenticator(
            users, tokens, origins, keys=keys, tickets=tickets, provider=provider, database=database
        ),
        login=Login(users, Throttle(time.monotonic)),
        keys=keys,
        invites=Invites(database),
        identities=identities,
        oidc=oidc,
        tickets=tickets,
        connections=Connections(),
        origins=origins,
    )
