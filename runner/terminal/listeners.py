"""Where oqto-ttyd listens: a Unix socket of its own account, or TCP."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

_BACKLOG: Final = 128
_MAX_PATH: Final = 107  # unix(7): sun_path has 108 bytes, the last a NUL


class ListenError(Exception):
    """The address can't be listened on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket file, made with mode 0600."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A numeric address; port 0 lets the kernel choose."""

    host: str
    port: int


def address_of(interface: str | None, port: int) -> UnixAddress | TcpAddress:
    """Read `--interface` and `--port` as ttyd does: what ends in .sock or has a slash is a socket file.

    Without an interface it is loopback, not every address as with ttyd: a shell is nothing to offer to a
    network by leaving out an option. Raises ListenError for a name that isn't an address.
    """
    if interface is None:
        return TcpAddress("127.0.0.1", port)
    if "/" in interface or interface.endswith(".sock"):
        return UnixAddress(interface)
    if interface == "localhost":
        return TcpAddress("127.0.0.1", port)
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, interface)
        except OSError:
            continue
        return TcpAddress(interface, port)
    raise ListenError(f"--interface {interface}: give an IP address, or a path for a Unix socket")


class Listener:
    """A listening socket, and the removal of its file. Use as a context manager.

    `name` is the address in words, with the port that was chosen.
    """

    def __init__(self, address: UnixAddress | TcpAddress) -> None:
        self._file: tuple[Path, tuple[int, int]] | None = None
        try:
            if isinstance(address, UnixAddress):
                self._socket = self._listen_unix(address)
                self.name = address.path
            else:
                self._socket = _listen_tcp(address)
                host, port = self._socket.getsockname()[:2]
                self.name = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        except OSError as error:
            raise ListenError(f"can't listen on {_words(address)}: {_reason(error)}") from error

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if self._file is not None:
            path, identity = self._file
            try:
                if _identity(path) == identity:
                    path.unlink()
            except OSError:
                pass  # gone with its directory, or not ours to remove any more

    def for_trio(self) -> trio.SocketListener:
        """The listener for `trio.serve_listeners`; call inside trio, once."""
        return trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))

    def _listen_unix(self, address: UnixAddress) -> socket.socket:
        path = Path(address.path)
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ListenError(f"can't listen on {path}: a socket's path has at most {_MAX_PATH} bytes")
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The mode must be right from the start: between bind and chmod anybody could connect.
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            self._file = path, _identity(path)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener


def _listen_tcp(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Make room for a new socket file: remove one on which nobody listens, and nothing else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"can't listen on {path}: there is something that isn't a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(str(path))
    if result in (0, errno.EAGAIN):  # EAGAIN: somebody listens, with a full backlog
        raise ListenError(f"can't listen on {path}: another server is listening there; stop it first")
    if result == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _words(address: UnixAddress | TcpAddress) -> str:
    return address.path if isinstance(address, UnixAddress) else f"{address.host} port {address.port}"


def _reason(error: OSError) -> str:
    hint = {
        errno.EADDRINUSE: "; stop what listens there, or choose another",
        errno.EADDRNOTAVAIL: "; this machine has no such address",
        errno.EACCES: "; choose one that this account may use",
        errno.ENOENT: "; make the directory first",
    }.get(error.errno or 0, "")
    return f"{error.strerror}{hint}"
