"""Logging in through an OpenID provider: a real one, oidc-provider, started by the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.accounts import CONFIG, PASSWORD, Host, delete, running
from tests.integration.clients import Client

HERE = Path(__file__).parent / "openid"
CACHE = Path(os.environ.get("OQTOD_CACHE", "/var/cache/oqtod-tests")) / "openid"


def installed() -> Path:
    """The folder with the provider and what it needs, from npm the first time."""
    if not (CACHE / "node_modules/oidc-provider/package.json").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", CACHE)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(command, cwd=CACHE, check=True, capture_output=True, timeout=300)
    shutil.copy(HERE / "provider.mjs", CACHE)
    return CACHE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Provider:
    """The provider; every start has new keys."""

    def __init__(self, *redirect_uris: str) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._redirect_uris = redirect_uris
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = ["node", "provider.mjs", str(self.port), *self._redirect_uris]
        self._process = subprocess.Popen(
            command, cwd=installed(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if line == "ready\n":
                return
        raise AssertionError(said)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=10)
            self._process = None

    def token(self, client: str = "builder", algorithm: str = "rs256") -> str:
        """A token that a machine gets."""
        basic = b64encode(f"{client}:secret+of+{client}".encode()).decode()
        answer = httpx.post(
            f"{self.issuer}/token",
            data={"grant_type": "client_credentials", "resource": f"urn:oqto:{algorithm}", "scope": "use"},
            headers={"Authorization": f"Basic {basic}"},
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


@contextmanager
def with_provider(folder: Path) -> Iterator[tuple[Host, Provider]]:
    """A gateway and the provider whose logins it takes."""
    port = free_port()
    provider = Provider(f"http://127.0.0.1:{port}/api/auth/oidc/callback")
    provider.start()
    try:
        config = CONFIG.replace("port = 0", f"port = {port}").replace(
            "[auth]", f'[auth]\noidc_issuer = "{provider.issuer}"\noidc_audience = "oqto"'
        )
        with running(folder, config) as host:
            yield host, provider
    finally:
        provider.stop()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Provider]]:
    with with_provider(tmp_path_factory.mktemp("oidc")) as both:
        yield both


class Browser:
    """Follows redirects and fills in forms, as a person would."""

    def __init__(self, host: Host) -> None:
        self.base = f"http://127.0.0.1:{host.port}"
        self.http = httpx.Client(timeout=20)

    def log_in(self, name: str, path: str = "/api/auth/oidc/login") -> httpx.Response:
        """Go through the login; return the answer to the callback."""
        answer = self.http.get(self.base + path)
        while True:
            if answer.is_redirect:
                target = answer.headers["location"]
                target = str(answer.url.join(target))
                answer = self.http.get(target)
                if "/api/auth/oidc/callback" in target:
                    return answer
            else:
                form = re.search(r'action="([^"]+)"', answer.text)
                assert answer.status_code == 200 and form is not None, answer.text
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
                assert prompt is not None
                fields = {"prompt": prompt[1], "login": name, "password": "anything"}
                answer = self.http.post(str(answer.url.join(form[1])), data=fields)

    def me(self) -> httpx.Response:
        return self.http.get(f"{self.base}/api/me")


@pytest.fixture
def browser(here: tuple[Host, Provider]) -> Iterator[Browser]:
    browser = Browser(here[0])
    with browser.http:
        yield browser


def me(host: Host, token: str) -> int:
    return Client(host.port, token=token).send("GET", "/api/me").status


def test_how_to_log_in_here(here: tuple[Host, Provider]) -> None:
    host, provider = here
    methods = host.client().send("GET", "/api/auth/methods").json
    assert methods["oidc"] == {"issuer": provider.issuer, "login_url": "/api/auth/oidc/login"}


def test_logging_in_with_a_browser(here: tuple[Host, Provider], browser: Browser) -> None:
    host, provider = here
    begun = browser.http.get(f"{browser.base}/api/auth/oidc/login?return_to=/work")
    query = parse_qs(urlsplit(begun.headers["location"]).query)
    assert (query["response_type"], query["code_challenge_method"]) == (["code"], ["S256"])
    assert {"state", "nonce", "code_challenge"} <= set(query)
    answer = browser.log_in("ada", "/api/auth/oidc/login?return_to=/work")
    assert (answer.status_code, answer.headers["location"]) == (302, "/work")
    cookie = next(x for x in answer.headers.get_list("set-cookie") if x.startswith("auth_token=")).lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    shown = browser.me().json()
    assert (shown["username"], shown["display_name"], shown["role"]) == ("ada", "Person ada", "user")
    user = host.admin.send("GET", f"/api/admin/users/{shown['id']}").json
    assert user["identities"] == [{"issuer": provider.issuer, "subject": "ada"}]
    assert (user["origin"], user["has_password"]) == ("oidc", False)
    assert browser.log_in("ada").status_code == 302
    assert browser.me().json()["id"] == shown["id"]


def test_nobody_is_joined_by_name_or_address(here: tuple[Host, Provider], browser: Browser) -> None:
    host, _ = here
    browser.log_in("dev")  # a dev user of this name, with this address, exists
    shown = browser.me().json()
    assert shown["id"] != "dev" and shown["username"].startswith("dev-")
    assert shown["email"] == "dev@example.com"
    assert host.logged_in().send("GET", "/api/me").json["id"] == "dev"
    assert host.client().log_in("dev@example.com", PASSWORD).json["user"]["id"] == "dev"


def test_who_is_disabled_stays_out(here: tuple[Host, Provider], browser: Browser) -> None:
    host, _ = here
    browser.log_in("bob")
    user_id = browser.me().json()["id"]
    assert host.admin.post(f"/api/admin/users/{user_id}/disable").status == 200
    assert browser.me().status_code == 401
    assert browser.log_in("bob").status_code == 403
    assert host.admin.post(f"/api/admin/users/{user_id}/enable").status == 200
    assert browser.log_in("bob").status_code == 302
    assert delete(host.admin, f"/api/admin/users/{user_id}").status == 204
    assert browser.log_in("bob").status_code == 302  # somebody new
    assert browser.me().status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/%09/evil.example", "x", "/\t/evil"],
)
def test_the_way_back_stays_here(browser: Browser, elsewhere: str) -> None:
    target = httpx.URL(f"{browser.base}/api/auth/oidc/login").copy_set_param("return_to", elsewhere)
    answer = browser.log_in("ada", str(target).removeprefix(browser.base))
    assert answer.headers["location"] in ("/", "/%09/evil.example")


def test_logins_that_were_not_begun_here(here: tuple[Host, Provider], browser: Browser) -> None:
    callback = f"{browser.base}/api/auth/oidc/callback"
    assert browser.http.get(f"{callback}?code=x&state=y").status_code == 400
    state = parse_qs(
        urlsplit(browser.http.get(f"{browser.base}/api/auth/oidc/login").headers["location"]).query
    )["state"][0]
    assert browser.http.get(f"{callback}?code=x&state={state}x").status_code == 400
    assert browser.http.get(f"{callback}?code=made+up&state={state}").status_code == 401
    refused = browser.http.get(
        f"{callback}?error=access_denied&state={state}", headers={"Accept": "text/html"}
    )
    assert (refused.status_code, "access_denied" in refused.text) == (401, True)
    # Somebody else's answer, in a browser that began nothing.
    with httpx.Client() as victim:
        assert victim.get(f"{callback}?code=x&state={state}").status_code == 400
        victim.cookies.set("oqto_oidc", "x.y")
        assert victim.get(f"{callback}?code=x&state={state}").status_code == 400


@pytest.mark.parametrize("algorithm", ["rs256", "es256"])
def test_machines_bring_a_token(here: tuple[Host, Provider], algorithm: str) -> None:
    host, provider = here
    client = Client(host.port, token=provider.token(algorithm=algorithm))
    shown = client.send("GET", "/api/me")
    assert (shown.status, shown.json["username"]) == (200, "builder")
    assert client.send("GET", "/api/sessions").status == 200
    assert client.send("GET", "/api/admin/users").status == 403
    assert client.post("/api/auth/logout").status == 204
    assert client.send("GET", "/api/me").status == 401
    for other in written_otherwise(client.token or "", algorithm):
        assert me(host, other) == 401


def written_otherwise(token: str, algorithm: str) -> Iterator[str]:
    """The same token in other characters: base64url has spare bits, and so has the signature on a curve."""
    signed, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]
    assert urlsafe_b64decode(spare + "==") == raw
    yield f"{signed}.{spare}"
    yield f"{signed}.{signature}=="
    yield f"{signed}.{signature[:9]}!{signature[9:]}"
    if algorithm == "es256":
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
        mirrored = (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
        yield f"{signed}.{urlsafe_b64encode(raw[:32] + mirrored).rstrip(b'=').decode()}"


def test_tokens_for_others_and_tampered_ones(here: tuple[Host, Provider]) -> None:
    host, provider = here
    good = provider.token()
    assert me(host, good) == 200
    assert me(host, provider.token("elsewhere")) == 401
    head, payload, signature = good.split(".")
    claims = json.loads(urlsafe_b64decode(payload + "=="))
    changed = urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).rstrip(b"=").decode()
    assert me(host, f"{head}.{changed}.{signature}") == 401
    published = httpx.get(f"{provider.issuer}/jwks").json()["keys"]
    public = next(key for key in published if key["alg"] == "RS256")
    kid = {"kid": public["kid"]}
    pem = jwt.PyJWK(public).key.public_bytes(*_pem())
    # The public key as a secret, which every library used to fall for.
    unsigned = jwt.encode(claims, None, algorithm="none", headers=kid)
    confused = _hmac(pem, claims, kid)
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    for forged in (
        unsigned,
        confused,
        jwt.encode(claims, own, algorithm="RS256", headers=kid),
        jwt.encode(claims, own, algorithm="RS256", headers={"jwk": own_jwk}),
        jwt.encode(claims, own, algorithm="RS256", headers={"jku": "http://127.0.0.1:1/jwks"}),
        jwt.encode(claims, own, algorithm="RS512", headers=kid),
    ):
        assert me(host, forged) == 401


def _pem() -> tuple[object, object]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


def _hmac(secret: bytes, claims: dict[str, object], header: dict[str, str]) -> str:
    """A token signed with HS256, by hand: PyJWT refuses to misuse a key like this."""
    import hashlib
    import hmac

    parts = [json.dumps(x).encode() for x in ({"alg": "HS256", "typ": "JWT", **header}, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


def test_who_is_deleted_does_not_come_back_with_an_old_token(here: tuple[Host, Provider]) -> None:
    host, provider = here
    token = provider.token(algorithm="es256")
    client = Client(host.port, token=token)
    user_id = client.send("GET", "/api/me").json["id"]
    assert delete(host.admin, f"/api/admin/users/{user_id}").status == 204
    assert client.send("GET", "/api/me").status == 401
    deadline = time.monotonic() + 10
    while me(host, provider.token()) != 200:  # one of a later second is somebody new
        assert time.monotonic() < deadline


def test_keys_are_rotated_and_the_provider_is_down(tmp_path: Path) -> None:
    with with_provider(tmp_path) as (host, provider):
        old = provider.token()
        assert me(host, old) == 200
        browser = Browser(host)
        provider.stop()
        assert me(host, old) == 200  # what was fetched goes on being good
        assert browser.http.get(f"{browser.base}/api/auth/oidc/login").status_code == 302
        provider.start()
        rotated = provider.token()
        deadline = time.monotonic() + 20
        while (status := me(host, rotated)) != 200:
            assert status in (401, 503) and time.monotonic() < deadline
        assert me(host, old) == 401  # its key is gone
        assert browser.log_in("ada").status_code == 302
        browser.http.close()


def test_a_provider_that_was_never_there(tmp_path: Path) -> None:
    port = free_port()
    lines = f'[auth]\noidc_issuer = "http://127.0.0.1:{port}"\noidc_audience = "oqto"'
    with running(tmp_path, CONFIG.replace("[auth]", lines)) as host:
        assert host.logged_in().send("GET", "/api/me").status == 200  # passwords don't need it
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        claims = {"iss": f"http://127.0.0.1:{port}", "aud": "oqto", "sub": "x", "iat": 1, "exp": 2}
        answer = Client(host.port, token=jwt.encode(claims, key, algorithm="RS256")).send("GET", "/api/me")
        assert (answer.status, answer.json["error_code"]) == (503, "unavailable")
        assert "can't be asked" in answer.json["error"]
        assert host.client().send("GET", "/api/auth/oidc/login").status == 503
