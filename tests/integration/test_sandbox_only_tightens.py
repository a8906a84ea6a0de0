"""Whatever else sandbox files say, a session can do no more than the base permits: told, explained, real."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from runner.sandbox.explain import explain
from runner.sandbox.files import SandboxRefused
from runner.sandbox.layout import Plan, create_writable, plan
from runner.sandbox.policy import Policy, load_policy
from tests.integration.confined import Place, accounts, place_for
from tests.sandbox_model import FILES, LINK, Document, Model, Refused, documents, toml

SYSTEM_FILES = (Path("/etc/hostname"), Path("/usr/bin/env"))

Can = dict[Path, tuple[bool, bool]]
"""For each file whether it can be read and written."""


class Home:
    """A home with sandbox files."""

    def __init__(self, place: Place, base: Document, user: Document, workspace: Document) -> None:
        self.place = place
        self.overlays = (user, workspace)
        self.base = base
        for name in FILES:
            place.write(name)
        (place.home / LINK[0]).symlink_to(LINK[1])
        self.host = place.write("../host/sandbox.toml", toml(base))
        self.user = place.write(".config/oqto/sandbox.toml", toml(user))
        self.workspace = place.write("work/.oqto/sandbox.toml", toml(workspace))
        self.sources = (self.host, self.user, self.workspace)
        outside = place.home.parent / "outside"
        outside.touch()
        self.files = [place.home / name for name in FILES]
        self.files += [self.user, self.workspace, self.host.resolve(), outside, *SYSTEM_FILES]

    def model(self, overlays: int) -> Model:
        return Model(self.place.home, self.place.workspace, self.sources, self.base, self.overlays[:overlays])

    def policy(self, overlays: int) -> Policy:
        """The policy of the base and the first few overlays; the others are empty."""
        for number, file in enumerate((self.user, self.workspace)):
            file.write_text(toml(self.overlays[number] if number < overlays else {}))
        return load_policy(host=self.host, user=self.user, workspace=self.workspace, home=self.place.home)


@contextmanager
def home(account: str, base: Document, user: Document, workspace: Document) -> Iterator[Home]:
    with place_for(account) as place:
        yield Home(place, base, user, workspace)


def told(found: Home, overlays: int) -> tuple[Can, bool] | None:
    """What the reference model says, and whether the network can be reached; None for a refusal."""
    try:
        model = found.model(overlays)
    except Refused as refusal:
        event(f"refused: {refusal}")
        return None
    own = [path for path in found.files if path.stat().st_uid == found.place.uid]
    return {
        path: (model.can_read(path), model.can_write(path) and (found.place.uid == 0 or path in own))
        for path in found.files
    }, model.network


def in_force(found: Home, overlays: int) -> tuple[Policy, Plan] | None:
    """The policy and what it shows; None for a refusal."""
    try:
        policy = found.policy(overlays)
        create_writable(policy, home=found.place.home)
        place = found.place
        shown = Plan((), ())
        if policy.enabled:
            shown = plan(policy, workspace=place.workspace, home=place.home)
    except SandboxRefused:
        return None
    return policy, shown


def probed(found: Home, overlays: int, port: int) -> tuple[Can, bool] | None:
    """What a program in the sandbox can do; None for a refusal."""
    script = "\n".join(
        f"cat {path} && read=1 || read=0; [ -e {path} ] && : >>{path} && write=1 || write=0; "
        f'echo "$read$write {path}" >&3'
        for path in map(str, found.files)
    )
    script += f"\n(: >/dev/tcp/127.0.0.1/{port}) && echo reached >&3 || echo cut >&3"
    if (settled := in_force(found, overlays)) is None:
        return None
    lines = found.place.ask(settled[0], f"exec 3>&1 >/dev/null 2>&1; {script}", shell="/bin/bash")
    can = {Path(line[3:]): (line[0] == "1", line[1] == "1") for line in lines[:-1]}
    return can, lines[-1] == "reached"


def explained(found: Home, overlays: int) -> tuple[Can, bool] | None:
    """What `oqto-sandbox explain` says, for an account that may do everything."""
    if (settled := in_force(found, overlays)) is None:
        return None
    policy, shown = settled
    verdicts = {path: explain(policy, shown, path) for path in found.files}
    reached = not (policy.enabled and policy.isolate_network)
    return {path: (verdict.read, verdict.write) for path, verdict in verdicts.items()}, reached


def differences(
    answer: tuple[Can, bool] | None, model: tuple[Can, bool] | None, *, below: Path | None = None
) -> dict[str, object]:
    """What differs. `explain` tells of a /tmp that isn't the host's, so there only the home is compared."""
    if answer is None or model is None:
        return {} if answer is model else {"refused": (answer is None, model is None)}
    paths = [path for path in answer[0] if below is None or path.is_relative_to(below)]
    found: dict[str, object] = {
        str(x): (answer[0][x], model[0][x]) for x in paths if answer[0][x] != model[0][x]
    }
    return found | ({"network": (answer[1], model[1])} if answer[1] != model[1] else {})


def assert_within(more: tuple[Can, bool] | None, base: tuple[Can, bool] | None) -> None:
    """Whoever can do `more` can do no more than `base`."""
    if more is None or base is None:
        return
    for path, (read, write) in more[0].items():
        assert (read, write) <= base[0][path] and (not read or base[0][path][0]), path
    assert not more[1] or base[1], "network"


chains = st.tuples(documents(relative=False), documents(relative=False), documents(relative=True))


@given(chains)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_as_it_is_explained(chain: tuple[Document, Document, Document]) -> None:
    with home("self", *chain) as found:
        steps = [(told(found, overlays), explained(found, overlays)) for overlays in range(3)]
    for number, (model, answer) in enumerate(steps):
        if os.getuid() == 0:  # explain asks for the files' own permissions too
            assert differences(answer, model, below=found.place.home) == {}, f"with {number} overlays"
        assert_within(answer, steps[0][1])
        assert_within(model, steps[0][0])


@pytest.mark.parametrize("account", accounts())
@given(chains)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_as_it_is(account: str, chain: tuple[Document, Document, Document]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, home(account, *chain) as found:
        port = listener.getsockname()[1]
        base, tightened = (probed(found, overlays, port) for overlays in (0, 2))
        assert differences(base, told(found, 0)) == {}
        assert differences(tightened, told(found, 2)) == {}
    assert_within(tightened, base)
