"""nginx and Caddy in front of a gateway, with the very files of contrib/: only names and ports are put in."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.clients import Http

CONTRIB = Path(__file__).parents[2] / "contrib"
NAME = "oqto.example.com"
PATIENCE = 20.0

_NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
}}
"""
_CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


@dataclass(frozen=True)
class ReverseProxy:
    """One that runs. `log` is what it has said."""

    port: int
    certificate: Path
    log: Path
    plain_port: int | None = None

    def connect(self) -> socket.socket:
        context = ssl.create_default_context(cafile=self.certificate)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        return context.wrap_socket(plain, server_hostname=NAME)

    def client(self) -> Http:
        return Http(self.connect, host=f"{NAME}:{self.port}")

    @property
    def origin(self) -> str:
        return f"https://{NAME}:{self.port}"


@contextmanager
def nginx(folder: Path, gateway: int, *, handover: bool) -> Iterator[ReverseProxy]:
    port, plain = free_port(), free_port()
    certificate, key = _certificate(folder)
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{gateway}",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen [::]:80;": "",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": "",
        "/etc/ssl/certs/oqto.example.com.pem": str(certificate),
        "/etc/ssl/private/oqto.example.com.key": str(key),
    }
    if handover:
        changes["#include /etc/nginx/snippets"] = f"include {folder}"
    _install("nginx/oqtod.conf", folder, changes)
    _install("nginx/oqtod-previews.conf", folder, {})
    with nginx_with(f"include {folder}/oqtod.conf;", folder, port) as log:
        yield ReverseProxy(port, certificate, log, plain)


@contextmanager
def nginx_with(http: str, folder: Path, port: int) -> Iterator[Path]:
    """Run nginx with this in its configuration, which has it listen at a port; yield its log."""
    user = "user root;" if os.getuid() == 0 else ""  # its workers reach our folder
    (folder / "nginx.conf").write_text(_NGINX.format(user=user, folder=folder, http=http))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with _running(command, folder, port, {}) as log:
        yield log


@contextmanager
def caddy(folder: Path, gateway: int, *, handover: bool) -> Iterator[ReverseProxy]:
    port = free_port()
    certificate, key = _certificate(folder)
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{gateway}",
        f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}",
    }
    if handover:
        changes["#import /etc/caddy"] = f"import {folder}"
    file = _install("caddy/Caddyfile", folder, changes)
    file.write_text(_CADDY + file.read_text())
    _install("caddy/oqtod-previews.caddy", folder, {"127.0.0.1:8080": f"127.0.0.1:{gateway}"})
    own = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with _running(
        ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"], folder, port, own
    ) as log:
        yield ReverseProxy(port, certificate, log)


KINDS: dict[str, Callable[[Path, int], AbstractContextManager[ReverseProxy]]] = {
    "nginx": partial(nginx, handover=False),
    "nginx that is handed previews": partial(nginx, handover=True),
    "caddy": partial(caddy, handover=False),
    "caddy that is handed previews": partial(caddy, handover=True),
}


def _install(name: str, folder: Path, changes: Mapping[str, str]) -> Path:
    text = (CONTRIB / name).read_text()
    for before, after in changes.items():
        assert before in text, f"{name} has no {before!r} any more"
        text = text.replace(before, after)
    path = folder / Path(name).name
    path.write_text(text)
    return path


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return certificate, key


@contextmanager
def _running(command: list[str], folder: Path, port: int, environment: Mapping[str, str]) -> Iterator[Path]:
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment}
        )
    try:
        until = time.monotonic() + PATIENCE
        while not listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{command[0]} does not listen: {log.read_text()}")
            time.sleep(0.02)
        yield log
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
