"""Who a request really comes from: what a trusted proxy says of it, and what nobody else may say. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The proxies of `server.trusted_proxies`: addresses, and networks in CIDR notation."""

    def __init__(self, listed: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in listed]
        self.any = bool(self._networks)
        """Whether there is any."""

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address that a request comes from.

        Each proxy appends the address it was asked from to X-Forwarded-For. Read from the end, those that
        trusted proxies wrote count; the first that isn't a trusted proxy's is the client's.
        """
        if not self.is_trusted(peer):
            return peer
        listed = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        found = peer
        for part in reversed(listed.decode("latin-1").split(",")):
            address = _address(part)
            if address is None:
                break
            found = address
            if not self.is_trusted(address):
                break
        return found

    def scheme(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return what a trusted proxy says that the client spoke: http or https; None when none says so."""
        if not self.is_trusted(peer):
            return None
        said = [value for name, value in headers if name == b"x-forwarded-proto"]
        last = said[-1].rpartition(b",")[2].strip().lower() if said else b""
        return last.decode() if last in (b"http", b"https") else None

    def is_trusted(self, address: str) -> bool:
        """Say whether this is the address of one of them."""
        if not self._networks:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _address(text: str) -> str | None:
    """Return the address in an element of X-Forwarded-For, which some proxies write with a port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return str(parsed) if (parsed := _parsed(text)) is not None else None


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
