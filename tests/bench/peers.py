"""The peers: one proxy each in front of the same two backends, configured as their manuals say."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import Address
from tests.bench.processes import free_port, running

BIN = Path(sys.executable).parent
CHP = Path(sys.prefix) / "bench/node_modules/.bin/configurable-http-proxy"
BULK = 256 * 1024 * 1024
"""Bytes of the file that bulk transfers read."""


@dataclass(frozen=True)
class Backends:
    """Where the services listen: nginx with small answers and a big file, and the WebSocket echo.

    The headers are those that oqtod needs; all peers get them, so that requests are of one size.
    """

    http: int
    echo: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Peer:
    """A proxy that runs. The paths are those that lead to the backends; `terminal` is oqtod's own."""

    name: str
    pid: int | None
    address: Address
    websockets: Address
    small: str = "/small"
    bulk: str = "/bulk"
    echo: str = "/ws"
    files: str | None = None
    terminal: str | None = None
    terminal_alone: str | None = None


def _peer(name: str, pid: int, port: int, behind: Backends) -> Peer:
    address = Address(port, behind.headers)
    return Peer(name, pid, address, address)


_NGINX = """
{user}daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; worker_rlimit_nofile 16384;
events {{ worker_connections 16384; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
}}
"""
_BACKEND = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {folder};
        default_type text/plain;
        location = /small {{ return 200 "forty bytes, of which the last is a dot."; }}
    }}
"""
_PROXY = """
    upstream http {{ server 127.0.0.1:{http}; keepalive 256; keepalive_requests 1000000000; }}
    upstream echo {{ server 127.0.0.1:{echo}; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_max_temp_file_size 0;
        proxy_set_header Host $http_host;
        location / {{ proxy_set_header Connection ""; proxy_pass http://http; }}
        location /ws {{
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_pass http://echo;
        }}
    }}
"""


@contextmanager
def _nginx(folder: Path, name: str, port: int, http: str) -> Iterator[int]:
    place = folder / name
    place.mkdir()
    configuration = place / "nginx.conf"
    user = "user root; " if os.getuid() == 0 else ""  # its workers read what is ours
    configuration.write_text(_NGINX.format(user=user, folder=place, http=http))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with running([program, "-c", str(configuration), "-p", str(place)], port=port, log=place / "log") as pid:
        yield pid


@contextmanager
def _backends(folder: Path, behind: Backends) -> Iterator[None]:
    """Run the backends on these ports; the file that bulk transfers read is in `folder`/bulk."""
    server = _BACKEND.format(port=behind.http, folder=folder)
    with _nginx(folder, "backend", behind.http, server):
        command = [sys.executable, "-m", "tests.bench.echo", str(behind.echo)]
        with running(command, port=behind.echo, log=folder / "echo.log"):
            yield


@contextmanager
def nginx(folder: Path, behind: Backends) -> Iterator[Peer]:
    """One worker, kept connections to the backend."""
    port = free_port()
    with _nginx(folder, "nginx", port, _PROXY.format(port=port, http=behind.http, echo=behind.echo)) as pid:
        yield _peer("nginx", pid, port, behind)


@contextmanager
def haproxy(folder: Path, behind: Backends) -> Iterator[Peer]:
    """One thread."""
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        f"""
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend web
    bind 127.0.0.1:{port} backlog 4096
    use_backend echo if {{ path_beg /ws }}
    default_backend http
backend http
    server http 127.0.0.1:{behind.http}
backend echo
    server echo 127.0.0.1:{behind.echo}
"""
    )
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    log = folder / "haproxy.log"
    with running([program, "-db", "-f", str(configuration)], port=port, log=log) as pid:
        yield _peer("haproxy", pid, port, behind)


@contextmanager
def traefik(folder: Path, behind: Backends) -> Iterator[Peer]:
    """As it comes, with routes from a file."""
    port = free_port()
    routes, configuration = folder / "routes.yml", folder / "traefik.yml"  # JSON is YAML
    services = {
        name: {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{where}"}]}}
        for name, where in (("http", behind.http), ("echo", behind.echo))
    }
    routers = {
        "http": {"rule": "PathPrefix(`/`)", "service": "http", "entryPoints": ["web"]},
        "echo": {"rule": "PathPrefix(`/ws`)", "service": "echo", "entryPoints": ["web"]},
    }
    routes.write_text(json.dumps({"http": {"routers": routers, "services": services}}))
    settings = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
        "providers": {"file": {"filename": str(routes)}},
    }
    configuration.write_text(json.dumps(settings))
    command = [str(BIN / "traefik"), f"--configfile={configuration}"]
    with running(command, port=port, log=folder / "traefik.log") as pid:
        peer = _peer("traefik", pid, port, behind)
        _until_routed(peer)
        yield peer


@contextmanager
def configurable_http_proxy(folder: Path, behind: Backends) -> Iterator[Peer]:
    """As JupyterHub runs it: routes come over its API."""
    port, api = free_port(), free_port()
    command = [str(CHP), "--ip=127.0.0.1", f"--port={port}", f"--api-port={api}", "--log-level=error"]
    command.append(f"--default-target=http://127.0.0.1:{behind.http}")
    secret = {"CONFIGPROXY_AUTH_TOKEN": "bench"}
    with running(command, port=port, log=folder / "chp.log", environment=secret) as pid:
        target = {"target": f"http://127.0.0.1:{behind.echo}"}
        _call(api, "/api/routes/ws", target, {"Authorization": "token bench"})
        yield _peer("configurable-http-proxy", pid, port, behind)


@contextmanager
def direct(folder: Path, behind: Backends) -> Iterator[Peer]:
    """No proxy."""
    addresses = [Address(port, behind.headers) for port in (behind.http, behind.echo)]
    yield Peer("direct", None, addresses[0], addresses[1])


PEERS: dict[str, Callable[[Path, Backends], AbstractContextManager[Peer]]] = {
    "direct": direct,
    "nginx": nginx,
    "haproxy": haproxy,
    "traefik": traefik,
    "configurable-http-proxy": configurable_http_proxy,
}


@contextmanager
def oqtod(folder: Path) -> Iterator[tuple[Peer, Backends]]:
    """Personal mode, one session with a terminal; the backends listen on ports of the session's block."""
    port = free_port()
    work, runtime = folder / "work", folder / "r"
    work.mkdir()
    runtime.mkdir(mode=0o700)
    environment = {
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_RUNTIME_DIR": str(runtime),
        "OQTO__LOCAL__WORKSPACE_DIR": str(work),
    }
    command = [str(BIN / "oqtod"), "serve", "--personal", "--port", str(port)]
    log = folder / "oqtod.log"
    with ExitStack() as stack:
        pid = stack.enter_context(running(command, port=port, log=log, environment=environment))
        user, password = _credentials(log)
        token = _call(port, "/api/auth/login", {"username": user, "password": password})["token"]
        headers = {"Authorization": f"Bearer {token}"}
        session = _call(port, "/api/sessions", {}, headers)
        base = f"/api/sessions/{session['id']}"
        _call(port, f"{base}/terminal/token", None, headers)
        http, echo = session["preview_ports"][:2]
        big = work / "bulk"
        with big.open("wb") as out:
            for _ in range(BULK // (1024 * 1024)):
                out.write(bytes(1024 * 1024))
        (folder / "bulk").hardlink_to(big)
        behind = Backends(http, echo, headers)
        stack.enter_context(_backends(folder, behind))
        (alone,) = runtime.glob("**/terminal/s.sock")
        yield (
            Peer(
                "oqtod",
                pid,
                Address(port, headers),
                Address(port, headers),
                small=f"{base}/ports/{http}/small",
                bulk=f"{base}/ports/{http}/bulk",
                echo=f"{base}/ports/{echo}/ws",
                files=f"{base}/files/file?path=bulk",
                terminal=f"{base}/terminal/ws",
                terminal_alone=str(alone),
            ),
            behind,
        )


def _credentials(log: Path) -> tuple[str, str]:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = re.search(r"log in as\s+(\S+)\s+password\s+(\S+)", log.read_text())
        if found is not None:
            return found[1], found[2]
        time.sleep(0.05)
    raise RuntimeError(f"no login: {log.read_text()}")


def _call(port: int, path: str, document: object | None, headers: dict[str, str] | None = None) -> Any:
    body = json.dumps(document).encode() if document is not None else None
    named = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, named)
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    return json.loads(text) if text.startswith((b"{", b"[")) else None


def _until_routed(peer: Peer) -> None:
    """Wait until a proxy that listens has read its routes too."""
    until = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{peer.address.place}{peer.small}", timeout=5).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
