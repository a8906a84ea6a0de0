"""The metrics: every one is documented, and dashboard and alerts use only such as there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from oqtod.api.metrics import biggest
from oqtod.sessions.usage import UserUse
from oqtod.telemetry.durations import Durations
from oqtod.telemetry.metrics import METRICS, Page

CHECKOUT = Path(__file__).parents[2]
PROMETHEUS = {"up"}
"""What Prometheus itself says of a target."""


def samples() -> set[str]:
    """The names of the series that there are: a histogram has three."""
    names = set(METRICS)
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            names |= {f"{name}_{end}" for end in ("bucket", "sum", "count")}
    return names


def used(expression: str) -> set[str]:
    """The names of metrics in an expression of PromQL."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on)\s*\([^)]*\)', " ", expression)
    names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()", bare))
    return names - {"or", "and", "unless"}


def test_the_document_lists_every_metric() -> None:
    text = (CHECKOUT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) ?\| (.*) \|$", text, re.MULTILINE)
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows
    }
    assert told == {name: (x.kind, x.labels, x.help) for name, x in METRICS.items()}


@pytest.mark.parametrize("name", METRICS)
def test_names_follow_prometheus_rules(name: str) -> None:
    assert re.fullmatch(r"(oqtod|process)_[a-z_]+", name)
    assert name.endswith("_total") == (METRICS[name].kind == "counter")
    assert not METRICS[name].help.endswith(".")


def test_the_dashboard_uses_what_there_is() -> None:
    dashboard = json.loads((CHECKOUT / "contrib/grafana/oqtod.json").read_text())
    expressions = [x["expr"] for panel in dashboard["panels"] for x in panel.get("targets", [])]
    shown = set().union(*map(used, expressions))
    assert shown <= samples()
    assert {x for x in METRICS if x.startswith("oqtod_")} <= {x.removesuffix("_bucket") for x in shown}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(x["gridPos"]["x"], x["gridPos"]["y"]) for x in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alerts_use_what_there_is() -> None:
    text = (CHECKOUT / "contrib/prometheus/oqtod.rules.yml").read_text()
    expressions = re.findall(r"^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)$)", text, re.MULTILINE)
    assert len(expressions) == text.count("- alert:") > 5
    for expression in map("".join, expressions):
        names = used(expression)
        assert names, expression
        assert names <= samples() | PROMETHEUS, expression


def test_a_page_can_be_read() -> None:
    page = Page()
    page.put("oqtod_sessions", 3, state="running")
    page.put("oqtod_sessions", 0, state="failed")
    page.put("oqtod_user_sessions", 1, user='a "b"\n\\c')
    page.put("oqtod_audit_lines_lost_total", 7)
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 3.0):
        durations.add(seconds)
    page.put_durations("oqtod_session_start_seconds", durations)
    read = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.text().decode())
        for sample in family.samples
    }
    assert read["oqtod_sessions", "running"] == 3
    assert read["oqtod_user_sessions", 'a "b"\n\\c'] == 1
    assert read["oqtod_audit_lines_lost_total",] == 7
    buckets = [value for (name, *_), value in read.items() if name.endswith("_bucket")]
    assert buckets == [2, 3, 4]
    assert read["oqtod_session_start_seconds_count",] == 4
    assert read["oqtod_session_start_seconds_sum",] == pytest.approx(3.65)
    assert read["process_open_fds",] > 0


def test_pages_are_each_for_themselves() -> None:
    Page().put("oqtod_audit_lines_lost_total", 7)
    assert b"oqtod" not in Page().text()


def test_labels_that_are_not_the_metrics_are_refused() -> None:
    with pytest.raises(AssertionError):
        Page().put("oqtod_sessions", 1)
    with pytest.raises(KeyError):
        Page().put("oqtod_nonsense", 1)


def test_only_the_biggest_users_have_series_of_their_own() -> None:
    users = {f"user{n:03}": UserUse(1, n, n, 0.5) for n in range(100)}
    users["other"] = UserUse(2, 10_000, 1, None)  # somebody's name; it must not be taken for the others
    shown = biggest(users, 20)
    assert list(shown) == [*(f"user{n:03}" for n in range(99, 79, -1)), "other"]
    assert shown["other"] == UserUse(82, 10_000 + sum(range(80)), 1 + sum(range(80)), 40.0)
    assert biggest({}, 20) == {"other": UserUse()}
