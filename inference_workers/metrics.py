"""``/metrics`` of a worker, in Prometheus' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from inference_workers.queue import WorkerInfo

_GAUGES = {
    "running": ("requests_running", "Requests in the batch"),
    "waiting": ("requests_waiting", "Requests that the engine has taken and not begun"),
    "slots": ("slots", "Requests that can run together"),
    "blocks_used": ("cache_blocks_used", "K/V cache blocks in use"),
    "blocks_total": ("cache_blocks", "K/V cache blocks"),
    "memory_bytes": ("resident_memory_bytes", "Resident memory"),
    "tokens_per_second": ("tokens_per_second", "Generated tokens a second, over the last beat"),
}
_COUNTERS = {
    "generated_tokens": ("generated_tokens", "Tokens generated"),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens computed"),
    "prefix_hits": ("prefix_hit_tokens", "Prompt tokens found in the prefix cache"),
    "prefix_lookups": ("prefix_lookup_tokens", "Prompt tokens looked up in the prefix cache"),
    "steps": ("steps", "Engine steps"),
}


class WorkerCollector:
    """Reads a worker's last information and its sink when asked."""

    def __init__(self, info: Callable[[], WorkerInfo], pending: Callable[[], int]) -> None:
        self._info, self._pending = info, pending

    def collect(self) -> Iterator[Any]:
        info = self._info()
        labels, values = ["model", "worker"], [info.model, info.name]
        ready = GaugeMetricFamily("llmasos_worker_ready", "1 when it takes jobs", labels=labels)
        ready.add_metric(values, float(info.state == "ready"))
        yield ready
        pending = GaugeMetricFamily(
            "llmasos_worker_entries_pending",
            "Log entries that Redis has not confirmed",
            labels=labels,
        )
        pending.add_metric(values, self._pending())
        yield pending
        for field, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"llmasos_worker_{name}", text, labels=labels)
            gauge.add_metric(values, getattr(info, field))
            yield gauge
        for field, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"llmasos_worker_{name}", text, labels=labels)
            counter.add_metric(values, getattr(info, field))
            yield counter


def serve_metrics(port: int, info: Callable[[], WorkerInfo], pending: Callable[[], int]) -> None:
    """Answer ``GET /metrics`` on every interface from a thread of its own."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(info, pending))
    start_http_server(port, registry=registry)
