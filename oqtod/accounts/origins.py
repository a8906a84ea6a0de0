"""Which web pages may act for a person: `Origin` and `Host` of a request, judged. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """The rules of one configuration."""

    def __init__(self, allowed: Iterable[str], *, dev_mode: bool) -> None:
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}
        self._dev_mode = dev_mode
        # The same few names come with every request.
        self.may_act = lru_cache(256)(self._may_act)
        self.is_our_host = lru_cache(256)(self._is_our_host)

    def _may_act(self, origin: str, host: str | None) -> bool:
        """Say whether a page of `origin` may act: it is ours (the request's own Host), or allowed."""
        if origin.lower() in self._allowed:
            return True
        if host is None or "@" in host or "/" in host:
            return False
        try:
            parts = urlsplit(origin)
            if (
                "@" in origin
                or parts.scheme not in _DEFAULT_PORTS
                or parts.path
                or parts.query
                or parts.fragment
            ):
                return False
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
            ours = urlsplit(f"{parts.scheme}://{host}")
            own_port = ours.port or _DEFAULT_PORTS[parts.scheme]
        except ValueError:
            return False
        return bool(parts.hostname) and (parts.hostname, port) == (ours.hostname, own_port)

    def is_allowed(self, origin: str) -> bool:
        """Say whether `auth.allowed_origins` names this origin, so that its pages may read our answers."""
        return origin.lower() in self._allowed

    def _is_our_host(self, host: str | None) -> bool:
        """Say whether a request's Host names us.

        In dev mode only loopback names and the hosts of `auth.allowed_origins` do: a page whose name was
        rebound to 127.0.0.1 gets nowhere. Elsewhere the names in front of us are not ours to know.
        """
        if not self._dev_mode:
            return True
        if host is None or "@" in host or "/" in host:
            return False
        try:
            name = urlsplit(f"http://{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost"):
            return True
        if any(urlsplit(origin).hostname == name for origin in self._allowed):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
