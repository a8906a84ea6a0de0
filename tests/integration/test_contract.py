"""What a running gateway answers is what /api/openapi.json says: schemathesis tries, as whoever may come.

`make fuzz` tries harder: `$OQTOD_FUZZ` is the number of requests for each operation, with another seed each
time.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.accounts import CONFIG, Host, running
from tests.integration.clients import Client

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
EXAMPLES = int(os.environ.get("OQTOD_FUZZ", "0"))
SEED = str(random.randrange(2**32)) if EXAMPLES else "1"

STREAMS = r"/events$|/admin/metrics$"
"""They don't end: they are looked at on their own."""

PROGRAMS = r"/ports/"
"""A user's program answers there, whatever it likes."""

SERVICES = r"/(files|terminal)/"
GONE_AFTERWARDS = r"/auth/logout$|/auth/change-password$"

SETTINGS = """
[checks.positive_data_acceptance]
# 422 is for what the types say; what they can't say, like what a good password is, gets another status.
expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "415", "426", "429", "503"]

[[operations]]
include-path-regex = "/keys$"
# Not every text is a date.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]

[parameters]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    config = f"{CONFIG}\n[sessions]\nmax_concurrent_sessions = 100\n"
    with running(tmp_path_factory.mktemp("contract"), config) as running_host:
        yield running_host


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where schemathesis runs: what it finds out about Unicode, which takes long, is kept there."""
    return tmp_path_factory.mktemp("schemathesis")


def attempt(
    host: Host,
    folder: Path,
    *,
    headers: dict[str, str],
    only: str = "",
    never: str,
    examples: int,
    phases: str = "coverage,fuzzing",
    **parameters: str,
) -> str:
    """Run schemathesis; return what it says. Fails when it finds something."""
    settings = folder / "schemathesis.toml"
    lines = [f'"path.{name}" = "{value}"\n' for name, value in parameters.items()]
    settings.write_text(SETTINGS + "".join(lines))
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(settings), "run"),
        f"http://127.0.0.1:{host.port}/api/openapi.json",
        *(x for name, value in headers.items() for x in ("--header", f"{name}: {value}")),
        *("--exclude-path-regex", never),
        *(("--include-path-regex", only) if only else ()),
        *("--checks", "all", "--phases", phases, "--max-examples", str(EXAMPLES or examples)),
        *("--seed", SEED, "--request-timeout", "20", "--no-color"),
        *("--suppress-health-check", "all", "--continue-on-failure"),
    ]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}"
    found = re.search(r"Tested: (\d+)", done.stdout)
    assert found and int(found[1]) > 0, done.stdout
    return done.stdout


def bearer(client: Client) -> dict[str, str]:
    assert client.token is not None
    # Whoever guesses passwords is slowed down by address.
    return {"Authorization": f"Bearer {client.token}", **client.headers}


def test_as_an_administrator(host: Host, folder: Path) -> None:
    host.user("ada")
    session = host.admin.post("/api/sessions").json
    attempt(
        host,
        folder,
        headers=bearer(host.admin),
        never=f"{STREAMS}|{PROGRAMS}|{SERVICES}|{GONE_AFTERWARDS}",
        examples=5,
        key=session["id"],
        name="ada",
        invite_id=host.admin.post("/api/admin/invite-codes").json["id"],
    )


def test_what_a_sessions_services_answer(host: Host, folder: Path) -> None:
    client = host.user("bob")
    session = client.post("/api/sessions").json
    base = f"/api/sessions/{session['id']}"
    assert client.send("PUT", f"{base}/files/file?path=a.txt", b"text").status == 200
    attempt(
        host,
        folder,
        headers=bearer(client),
        only=SERVICES,
        never=STREAMS,
        examples=5,
        key=session["id"],
        asset="xterm.js",
    )
    assert client.send("GET", f"{base}/files/health").status == 200


def test_streams_are_what_they_are_said_to_be(host: Host) -> None:
    client = host.user("eve")
    session = client.post("/api/sessions").json
    paths = host.client().send("GET", "/api/openapi.json").json["paths"]
    streams = [path for path in paths if re.search(STREAMS, path)]
    assert len(streams) == 2
    for path in streams:
        assert "text/event-stream" in paths[path]["get"]["responses"]["200"]["content"]
        token = (host.admin if "admin" in path else client).token
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET", path.replace("{key}", session["id"]), headers=headers)
            response = connection.getresponse()
            assert response.getheader("content-type", "").startswith("text/event-stream")
            assert re.match(rb"(event|data): ", response.readline())
        finally:
            connection.close()


def test_as_a_user(host: Host, folder: Path) -> None:
    attempt(
        host,
        folder,
        headers=bearer(host.user("cat")),
        never=f"{STREAMS}|{PROGRAMS}|{GONE_AFTERWARDS}",
        phases="fuzzing",
        examples=2,
    )


def test_as_an_api_key(host: Host, folder: Path) -> None:
    key = host.user("dan").post("/api/keys", {"name": "k", "scopes": ["sessions:read"]}).json["api_key"]
    attempt(
        host,
        folder,
        headers={"X-API-Key": key},
        never=f"{STREAMS}|{PROGRAMS}",
        phases="fuzzing",
        examples=2,
    )


def test_as_nobody(host: Host, folder: Path) -> None:
    attempt(host, folder, headers=host.client().headers, never=PROGRAMS, phases="fuzzing", examples=2)
