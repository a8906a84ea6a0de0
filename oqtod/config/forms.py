"""The forms that a pattern alone explains badly: origins and URLs."""

import ipaddress
import re
from typing import Final

# Host names as browsers send them: lower case, international names in their ASCII form.
_HOST: Final = r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)"
_ORIGIN: Final = re.compile(rf"(https?)://{_HOST}(?::([0-9]{{1,5}}))?\Z")
_URL: Final = re.compile(rf"https?://{_HOST}(?::([0-9]{{1,5}}))?(?:/[^\s?#]*)?\Z", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def origin_fault(text: str) -> str | None:
    """Say why `text` is no web origin that a browser would send (RFC 6454, 6.2), or return None."""
    if text == "*":
        return "name each origin: * would let every page in the world act for your users"
    if text == "null":
        return "null is what any sandboxed page sends"
    match = _ORIGIN.match(text)
    if match is None:
        if _ORIGIN.match(text.lower()):
            return "browsers send origins in lower case"
        if _ORIGIN.match(text.rstrip("/").lower()):
            return "leave the slash at the end out"
        if _URL.match(text):
            return "leave the path out"
        return "write scheme://host or scheme://host:port"
    if match[2] == _DEFAULT_PORTS[match[1]]:
        return f"leave :{match[2]} out, as browsers do"
    return None if _is_port(match[2]) else "the port must be from 1 to 65535"


def url_fault(text: str) -> str | None:
    """Say why `text` is no http or https URL of a service, or return None."""
    if re.match(r"[^/]*//[^/]*@", text):
        return "a user name or password doesn't belong in a URL"
    match = _URL.match(text)
    if match is None:
        return "write http://host:port or https://host, with a path if need be, without ? and #"
    return None if _is_port(match[1]) else "the port must be from 1 to 65535"


def network_fault(text: str) -> str | None:
    """Say why `text` is no IP address or network, or return None."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return str(error)
    return None


def is_loopback(host: str) -> bool:
    """Whether listening on `host` is reachable from this machine only."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


def _is_port(text: str | None) -> bool:
    # Not zero-padded: browsers don't write 0443.
    return text is None or (not text.startswith("0") and int(text) <= 65535)
