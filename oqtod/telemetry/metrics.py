"""The metrics: their names, labels and meaning as one table, and the text that Prometheus reads.

The parts of the gateway count for themselves, in plain numbers. Whoever asks for the metrics makes a page and
puts what was counted on it: nothing is global, two gateways in one process don't mix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from oqtod.telemetry.durations import Durations

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format, which every version of Prometheus reads."""

OTHER = "other"
"""The `user` of those who are not among the biggest."""

MAX_USERS = 20
"""Users with series of their own: those that use most memory. Who keeps it low keeps the database small."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric says. `labels` are its labels' names."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = {
    "oqtod_build_info": Metric(
        "gauge", "Always 1; the version of oqtod and of Python", ("version", "python")
    ),
    "oqtod_sessions": Metric("gauge", "Sessions on record, by state", ("state",)),
    "oqtod_session_starts_total": Metric(
        "counter",
        "Starts of sessions: started, refused by the runner, or unanswered in time",
        ("outcome",),
    ),
    "oqtod_session_start_seconds": Metric(
        "histogram", "Time that sessions took to start, the wait for their turn included"
    ),
    "oqtod_session_stops_total": Metric(
        "counter",
        "Ends of sessions: asked for, idle for too long, to make room for another of the same user, found "
        "ended, or finished at a later try",
        ("reason",),
    ),
    "oqtod_runner_reconnections_total": Metric(
        "counter", "Runners connected to anew: they ended idle, were upgraded, or crashed"
    ),
    "oqtod_runners_silent": Metric("gauge", "Runners with sessions that did not answer just now"),
    "oqtod_port_blocks_used": Metric("gauge", "Blocks of ports that sessions hold"),
    "oqtod_port_blocks": Metric("gauge", "Blocks of ports that there are: container.base_port"),
    "oqtod_stream_ports_used": Metric("gauge", "Ports for browser streams that sessions hold"),
    "oqtod_stream_ports": Metric("gauge", "Ports for browser streams that there are"),
    "oqtod_user_sessions": Metric("gauge", "Running sessions of a user", ("user",)),
    "oqtod_user_memory_bytes": Metric("gauge", "Memory of a user's sessions", ("user",)),
    "oqtod_user_cpus": Metric(
        "gauge", "CPUs that a user's sessions used, on average since the metrics were last read", ("user",)
    ),
    "oqtod_connections_open": Metric("gauge", "Open client connections, WebSockets included"),
    "oqtod_connections_total": Metric("counter", "Client connections accepted"),
    "oqtod_websockets_open": Metric("gauge", "Open WebSockets"),
    "oqtod_websockets_total": Metric("counter", "WebSockets opened"),
    "oqtod_proxy_bytes_total": Metric(
        "counter", "Bytes passed on between clients and sessions: from_clients or to_clients", ("direction",)
    ),
    "oqtod_http_requests_total": Metric(
        "counter", "Requests answered, by what they are for and the class of their status", ("kind", "status")
    ),
    "oqtod_logins_total": Metric(
        "counter",
        "Logins by password or OpenID: success, failure, or denied for wrong credentials or too many tries",
        ("method", "outcome"),
    ),
    "oqtod_audit_events_total": Metric(
        "counter", "Events of the audit log, written down or not", ("event", "outcome")
    ),
    "oqtod_audit_lines_waiting": Metric("gauge", "Lines of the audit log that are not written yet"),
    "oqtod_audit_lines_lost_total": Metric(
        "counter", "Lines of the audit log that were lost because the disk failed for too long"
    ),
    "oqtod_audit_healthy": Metric("gauge", "1 while the audit log is being written, or is switched off"),
    "oqtod_database_bytes": Metric("gauge", "Size of the database, its write-ahead log included"),
    "process_cpu_seconds_total": Metric("counter", "CPU time of the gateway itself"),
    "process_resident_memory_bytes": Metric("gauge", "Memory of the gateway itself"),
    "process_virtual_memory_bytes": Metric("gauge", "Address space of the gateway"),
    "process_start_time_seconds": Metric("gauge", "When the gateway started, in seconds since 1970"),
    "process_open_fds": Metric("gauge", "Descriptors that the gateway has open"),
    "process_max_fds": Metric("gauge", "Descriptors that the gateway may have open"),
}
"""Every metric there is. Those of the process are counted by the kernel, and read by prometheus-client."""


class Page:
    """The metrics at one moment. Only what is in `METRICS`, with all of its labels, can be put on it."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def put(self, name: str, value: float, **labels: str) -> None:
        """Put a counter's or a gauge's value on the page."""
        metric = METRICS[name]
        assert tuple(labels) == metric.labels, f"{name} has the labels {metric.labels}"
        family = self._families.get(name)
        if family is None:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = self._families[name] = kind(name, metric.help, labels=metric.labels)
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(list(labels.values()), value)

    def put_durations(self, name: str, durations: Durations) -> None:
        """Put a histogram on the page."""
        family = HistogramMetricFamily(name, METRICS[name].help)
        family.add_metric([], buckets=durations.buckets(), sum_value=durations.sum)
        self._families[name] = family

    def text(self) -> bytes:
        """Return the page in Prometheus' text format, with the figures of this process."""
        registry = CollectorRegistry()
        registry.register(_Collected(self._families))
        ProcessCollector(registry=registry)
        return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: dict[str, Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        """Return what is on the page."""
        yield from self._families.values()
